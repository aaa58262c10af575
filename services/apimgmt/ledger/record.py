"""The ledger record: what is kept of a request. No text of prompts or answers, no secret."""

import enum
import time
from collections.abc import Mapping
from typing import Any

import orjson

from services.apimgmt.call import Call
from services.apimgmt.usage.tokens import Tokens
from services.bodyrouter.headers import BASE_MODEL_HEADER

SERVED_NAMESPACE, SERVED = "envoy.lb", "x-gateway-destination-endpoint-served"
"""Where the picker's protocol tells which replica answered (endpoint picker protocol v1.0): response metadata, key."""


class RequestOutcome(enum.StrEnum):
    """What became of a request."""

    OK = "ok"
    REFUSED = "refused"
    """By a policy of API management: 4xx."""
    DENIED = "denied"
    """By a later filter, or by the upstream with 4xx."""
    ERROR = "error"
    """5xx, of whomever."""
    ABORTED = "aborted"
    """The client or the upstream went away before the answer was complete."""
    CACHED = "cached"
    """Answered by a policy in place of the model."""
    LOST = "lost"
    """The process died; the prompt's estimate is charged."""


def begin(call: Call) -> dict[str, Any]:
    """Return what is known of a call when it goes on: the beginning of its record. The caller must be known.

    `time` is when the request began, Unix milliseconds; `model` the base model, and `adapter` the adapter's name if the
    request was for one.
    """
    caller, product = call.caller, call.product
    assert caller is not None  # noqa: S101 - the pipeline's rule
    base = call.exchange.request_headers.get(BASE_MODEL_HEADER)
    return {
        "id": call.id,
        "time": int(call.now * 1000),
        "organization": caller.organization,
        "team": caller.team,
        "user": caller.user,
        "app": caller.app,
        "key": caller.key,
        "product": product.product.name if product is not None else "",
        "agent": call.agent,
        "credential": caller.credential.value,
        "operation": call.operation,
        "model": base or call.model,
        "adapter": call.model if base and base != call.model else "",
        "stream": call.stream,
    }


def finish(
    begun: Mapping[str, Any],
    call: Call,
    outcome: RequestOutcome,
    *,
    status: int = 0,
    tokens: Tokens | None = None,
    cost: int = 0,
    latency_ms: int = 0,
    ttft_ms: int | None = None,
    overhead_ms: float = 0.0,
) -> dict[str, Any]:
    """Return the record that `begin` began.

    `status` is 0 where none was sent; `ttftMs` null where nothing was streamed; `estimated` tells whether tokens are;
    `verdicts` is what policies found other than a pass.
    """
    tokens = tokens or _NONE
    return {
        **begun,
        "replica": _replica(call),
        "status": status,
        "outcome": outcome.value,
        "promptTokens": tokens.prompt,
        "cachedTokens": tokens.cached,
        "completionTokens": tokens.completion,
        "reasoningTokens": tokens.reasoning,
        "estimated": tokens.estimated,
        "costMicros": cost,
        "latencyMs": latency_ms,
        "ttftMs": ttft_ms,
        "overheadMs": overhead_ms,
        "verdicts": [
            {"policy": f.policy, "verdict": f.verdict.value, "code": f.code, "shadow": f.shadow} for f in call.findings
        ],
    }


def make(call: Call, outcome: RequestOutcome, **values: Any) -> dict[str, Any]:
    """Return a record in one step; `values` as of `finish`."""
    return finish(begin(call), call, outcome, **values)


def dump(record: Mapping[str, Any]) -> bytes:
    """Return the record as it is stored: JSON."""
    return orjson.dumps(record)


class Ids:
    """Ids of requests: 32 hexadecimal digits that sort by time (milliseconds), and are unique for ever."""

    def __init__(self, process: str) -> None:
        """`process`: 12 hexadecimal digits, random for each process."""
        self._process, self._count = process, 0

    def next(self, now: float) -> str:
        """Return a new id; `now` in Unix seconds."""
        self._count = (self._count + 1) & 0xFFFFFFFF
        return f"{int(now * 1000):012x}{self._process}{self._count:08x}"


def elapsed_ms(started: float) -> int:
    """Return the milliseconds since `started` (`time.perf_counter()`)."""
    return int((time.perf_counter() - started) * 1000)


def _replica(call: Call) -> str:
    values = call.exchange.metadata.get(SERVED_NAMESPACE)
    served = values.get(SERVED) if values else None
    return served if isinstance(served, str) else ""


_NONE = Tokens()
