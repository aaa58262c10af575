"""Recorded requests as the pipeline meets them: what came, and what was answered."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from services.apimgmt.recording import Recorded
from services.extproc.api import Exchange, Headers


def exchange_of(recorded: Recorded) -> Exchange:
    """Return the exchange of a request, with its body if that was recorded."""
    exchange = Exchange()
    fields = {
        **(recorded.headers or {}),
        ":method": recorded.method,
        ":path": recorded.operation,
        "x-gateway-model-name": recorded.model,
        **({"x-gateway-base-model-name": recorded.base} if recorded.base else {}),
    }
    exchange.request_headers = Headers((name, value.encode()) for name, value in fields.items())
    if recorded.body is not None:
        exchange.request_body = json.dumps(recorded.body).encode()
    return exchange


def mean_answers(requests: Sequence[Recorded]) -> dict[str, int]:
    """Return the mean completion tokens of answered requests, by model."""
    answers: dict[str, list[int]] = defaultdict(list)
    for recorded in requests:
        if recorded.outcome == "ok":
            answers[recorded.model].append(recorded.completion_tokens)
    return {model: sum(tokens) // len(tokens) for model, tokens in answers.items()}


def answer_of(recorded: Recorded, means: Mapping[str, int]) -> bytes:
    """Return an answer with the recorded usage, in the operation's shape (OpenAI API reference)."""
    if recorded.outcome == "refused":
        prompt, cached, reasoning = recorded.expected_prompt_tokens, 0, 0
        completion = means.get(recorded.model, 0)
    else:
        prompt, cached = recorded.prompt_tokens, recorded.cached_tokens
        completion, reasoning = recorded.completion_tokens, recorded.reasoning_tokens
    if not prompt and not completion:
        return b"{}"
    names = ("input", "output") if recorded.operation.startswith("/v1/responses") else ("prompt", "completion")
    usage: dict[str, Any] = {
        f"{names[0]}_tokens": prompt,
        f"{names[1]}_tokens": completion,
        "total_tokens": prompt + completion,
        f"{names[0]}_tokens_details": {"cached_tokens": cached},
        f"{names[1]}_tokens_details": {"reasoning_tokens": reasoning},
    }
    return json.dumps({"usage": usage}).encode()
