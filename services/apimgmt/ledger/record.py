"""The ledger record: what is kept of a request. No text of prompts or answers, no secret."""

import enum
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from services.apimgmt.call import Call
from services.apimgmt.usage.tokens import Tokens

SERVED_NAMESPACE, SERVED = "envoy.lb", "x-gateway-destination-endpoint-served"
"""Where the picker's protocol tells which replica answered (endpoint picker protocol v1.0): response metadata, key."""

MAX_REMEMBERED = 4096
"""Callers, with what they ask for, whose part of a record is remembered (about 1 KB each)."""

MAX_CHARACTERS = 512
"""Longest path and model together that are remembered: clients choose them."""


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


def make(
    call: Call,
    outcome: RequestOutcome,
    *,
    status: int = 0,
    tokens: Tokens | None = None,
    cost: int = 0,
    latency_ms: int = 0,
    ttft_ms: int | None = None,
    overhead_ms: float = 0.0,
    part: "Part | None" = None,
) -> dict[str, Any]:
    """Return the record of a call. The caller must be known. `part` is `part_of(call)`, if it was asked for before.

    `time` is when the request began, Unix milliseconds; `model` the base model, and `adapter` the adapter's name if the
    request was for one; `status` is 0 where none was sent; `ttftMs` null where nothing was streamed; `estimated` tells
    whether tokens are; `verdicts` is what policies found other than a pass.
    """
    tokens = tokens or _NONE
    return {
        "id": call.id,
        "time": int(call.now * 1000),
        **(part or part_of(call)).fields,
        "replica": _replica(call),
        "status": status,
        "outcome": str(outcome),
        "promptTokens": tokens.prompt,
        "cachedTokens": tokens.cached,
        "completionTokens": tokens.completion,
        "reasoningTokens": tokens.reasoning,
        "estimated": tokens.estimated,
        "costMicros": cost,
        "latencyMs": latency_ms,
        "ttftMs": ttft_ms,
        "overheadMs": overhead_ms,
        "verdicts": _verdicts(call) if call.findings else [],
    }


def lost(call: Call, part: "Part", prompt: Tokens, cost: int) -> bytes:
    """Return the record of a call whose process dies, as `dump(make(call, RequestOutcome.LOST, ...))` would.

    One is made of each request and almost none is read, so it is put together from text that is encoded already.
    """
    verdicts = orjson.dumps(_verdicts(call)).decode() if call.findings else "[]"
    estimated = "true" if prompt.estimated else "false"
    return (
        f'{{"id":"{call.id}","time":{int(call.now * 1000)},{part.text},"replica":"","status":0,'
        f'"outcome":"lost","promptTokens":{prompt.prompt},"cachedTokens":{prompt.cached},'
        f'"completionTokens":{prompt.completion},"reasoningTokens":{prompt.reasoning},"estimated":{estimated},'
        f'"costMicros":{cost},"latencyMs":0,"ttftMs":null,"overheadMs":0.0,"verdicts":{verdicts}}}'
    ).encode()


class Part(NamedTuple):
    """What the records of a caller have in common, as long as it asks for the same."""

    fields: Mapping[str, Any]
    text: str
    """The same as JSON, without braces."""


def part_of(call: Call) -> Part:
    """Return what the record of a call has in common with others."""
    caller, product = call.caller, call.product
    assert caller is not None  # noqa: S101 - the pipeline's rule
    base, model = call.base_model, call.model
    short = len(call.operation) + len(model) <= MAX_CHARACTERS
    return (_remembered if short else _remembered.__wrapped__)(
        caller.organization,
        caller.team,
        caller.user,
        caller.app,
        caller.key,
        product.name if product is not None else "",
        call.agent,
        caller.credential,
        call.operation,
        base or model,
        model if base and base != model else "",
        call.stream,
    )


@lru_cache(MAX_REMEMBERED)
def _remembered(*values: object) -> Part:
    """Return the part that is of `_FIELDS`."""
    fields = dict(zip(_FIELDS, map(_sound, values), strict=True))
    return Part(fields, orjson.dumps(fields)[1:-1].decode())


_FIELDS = (
    *("organization", "team", "user", "app", "key", "product", "agent", "credential"),
    *("operation", "model", "adapter", "stream"),
)


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


def _sound(value: object) -> object:
    """Return what JSON can hold: headers may have bytes that are no UTF-8; a request without a record must not be."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _verdicts(call: Call) -> list[dict[str, Any]]:
    return [{"policy": f.policy, "verdict": f.verdict.value, "code": f.code, "shadow": f.shadow} for f in call.findings]


def _replica(call: Call) -> str:
    values = call.exchange.metadata.get(SERVED_NAMESPACE)
    served = values.get(SERVED) if values else None
    return served if isinstance(served, str) else ""


_NONE = Tokens()
