"""Requests as OpenAPI documents describe them: our own of the OpenAI operations, and documents of products."""
