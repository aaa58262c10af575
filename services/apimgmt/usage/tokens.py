"""Tokens of one request, by kind, and how they are read from an answer's `usage`."""

from dataclasses import dataclass
from typing import Any

MAX_TOKENS = 2**40
"""What no request can use: larger numbers in `usage` are no counts (a damaged answer), and are not believed."""


@dataclass(slots=True, unsafe_hash=True)
class Tokens:
    """Tokens used. `cached` is a part of `prompt`, `reasoning` a part of `completion`.

    Not to be changed; not frozen, since that would make it four times as slow to make.
    """

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0
    estimated: bool = False
    """No usage came with the answer: the numbers are worked out from what passed."""

    @property
    def total(self) -> int:
        """Prompt and completion together: what limits of kind `tokens` count."""
        return self.prompt + self.completion


def from_usage(usage: object) -> Tokens | None:
    """Read the `usage` object of an answer; None if it holds no counts.

    Names of chat completions, completions and embeddings (`prompt_tokens`, `completion_tokens`), of the Responses API
    (`input_tokens`, `output_tokens`), and a `total_tokens` that stands alone (rerank). Source: OpenAI API reference,
    vLLM 0.32. Details that are no numbers count as 0; a part is never larger than its whole.
    """
    if not isinstance(usage, dict):
        return None
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    completion = _count(usage, "completion_tokens", "output_tokens") or 0
    if prompt is None:
        total = _count(usage, "total_tokens")
        if total is None:
            return None
        prompt = max(total - completion, 0)
    cached = _detail(usage, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens")
    reasoning = _detail(usage, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens")
    return Tokens(prompt, min(cached, prompt), completion, min(reasoning, completion))


def _count(values: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = values.get(name)
        if type(value) is int and 0 <= value <= MAX_TOKENS:
            return value
    return None


def _detail(usage: dict[str, Any], groups: tuple[str, ...], name: str) -> int:
    for group in groups:
        details = usage.get(group)
        if isinstance(details, dict):
            return _count(details, name) or 0
    return 0
