"""The text of a prompt, wherever the operation keeps it."""

from collections.abc import Iterator, Mapping
from typing import Any

PROMPT_FIELDS = ("instructions", "messages", "prompt", "input", "query", "documents", "text_1", "text_2")
"""Fields with prompts: of chat completions, completions, embeddings and responses (OpenAI API reference), of rerank and
score (vLLM, OpenAI-compatible server)."""

_TEXT_FIELDS = ("content", "text", "input_text", "refusal", "arguments", "output")
"""Fields of messages and their parts with text (same sources)."""


def text_of(body: Mapping[str, Any]) -> str:
    """Return all text of a prompt, pieces joined by line ends. Token ids, images and sounds are left out."""
    return "\n".join(piece for field in PROMPT_FIELDS if field in body for piece in _pieces(body[field]))


def _pieces(value: Any) -> Iterator[str]:
    """Yield texts in order. A stack, since bodies nest deeper than calls should."""
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            stack.extend(reversed(value))
        elif isinstance(value, dict):
            stack.extend(value[name] for name in reversed(_TEXT_FIELDS) if name in value)
