"""What a request may use, and what it used: tokens of prompts and answers, estimated and counted."""
