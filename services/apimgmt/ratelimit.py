"""What clients are told of limits: 429 with the limit, its window and when to come again, and `x-ratelimit-*`.

Sources: OpenAI API reference, "Rate limits" (header names; durations such as `6m0s` or `20ms`; error types `requests`,
`tokens`, `insufficient_quota`, codes `rate_limit_exceeded`, `insufficient_quota`); RFC 9110, section 10.2.3
(`Retry-After` in whole seconds).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from services.apimgmt.call import BoundLimit, Call, Finding, Verdict
from services.apimgmt.domain import MICROS, Limit, LimitKind, Scope
from services.apimgmt.store.api import Charge, Grant, Pace, Store, StoreError
from services.apimgmt.windows import span
from services.extproc.api import Reply, deny

RATE, QUOTA, SPIKE = "rate_limit_exceeded", "insufficient_quota", "spike_arrest"

LIMITS, SPIKE_ARREST = "limits", "spike-arrest"
"""Policies in findings; of limits, the limit's name follows after a slash."""

CONCURRENT_WAIT_S = 1.0
"""What a client is told to wait for one of its own requests to end: when that is nobody knows."""

_HEADERS = {
    kind: tuple(f"x-ratelimit-{part}-{kind.value}" for part in ("limit", "remaining", "reset"))
    for kind in (LimitKind.REQUESTS, LimitKind.TOKENS)
}


def code(limit: Limit) -> str:
    """Return OpenAI's error code: a quota where waiting means days, or where it is about money."""
    return QUOTA if limit.window in ("day", "month") or limit.counts is LimitKind.COST else RATE


def duration(seconds: float) -> str:
    """Write a duration as OpenAI does: `6m0s`, `1s`, `20ms`; rounded up."""
    if seconds < 1:
        return f"{max(0, math.ceil(seconds * 1000))}ms"
    return _whole_seconds(math.ceil(seconds))


@lru_cache(4096)
def _whole_seconds(seconds: int) -> str:
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if seconds >= 60 else "") + f"{rest}s"


def headers(call: Call, grant: Grant) -> None:
    """Set `x-ratelimit-*` of the tightest limit of requests and the tightest of tokens: the one with the least left."""
    tightest: dict[LimitKind, tuple[int, int, int]] = {}
    for bound, charge, total in zip(call.limits, call.charges, grant.totals):  # noqa: B905 - of equal length
        kind = bound.counts
        if kind not in _HEADERS or not charge.enforced:
            continue
        ceiling = charge.ceiling
        left = ceiling - total if ceiling > total else 0
        best = tightest.get(kind)
        if best is None or left < best[0] or (left == best[0] and charge.expires > best[1]):
            tightest[kind] = left, charge.expires, ceiling
    headers, now = call.headers, call.now
    for kind, (left, expires, ceiling) in tightest.items():
        limit, remaining, reset = _HEADERS[kind]
        headers[limit], headers[remaining], headers[reset] = str(ceiling), str(left), duration(expires - now)


def findings(call: Call, grant: Grant) -> list[Finding]:
    """Return what the store found: what refused the request, or what would have, but for its shadow mode."""
    charges, paces = call.charges, call.paces
    if grant.granted:
        found = [
            _finding(bound.limit, shadow=True)
            for bound, charge, total in zip(call.limits, charges, grant.totals, strict=True)
            if total > charge.ceiling and not charge.enforced
        ]
        if paces:
            waits = zip(paces, grant.waits_us, strict=True)
            late = [pace for pace, wait in waits if wait > 0 and not pace.enforced]
            found += [Finding(SPIKE_ARREST, Verdict.DENY, SPIKE, shadow=True)] * len(late)
        return found
    limits, count = call.limits, len(charges)
    spike = Finding(SPIKE_ARREST, Verdict.DENY, SPIKE)
    return [_finding(limits[i].limit) if i < count else spike for i in grant.refused]


async def refuse(call: Call, grant: Grant, store: Store) -> Reply:
    """Return the answer to a refused reservation: the limit with the longest wait is named, the others are listed."""
    count = len(call.charges)
    limits = [i for i in grant.refused if i < count]
    paces = [i - count for i in grant.refused if i >= count]
    waits = await _waits(call, grant, limits, store)
    if not limits:
        slowest = max(paces, key=lambda i: grant.waits_us[i])
        return too_fast(call.paces[slowest], grant.waits_us[slowest])
    named = max(limits, key=lambda i: waits[i])
    others = [call.limits[i].limit.name for i in limits if i != named]
    others += ["the spike arrest"] if paces else []
    also = f" Also exceeded: {', '.join(others)}." if others else ""
    wait = max(waits[named], max((grant.waits_us[i] / 1e6 for i in paces), default=0))
    bound, charge = call.limits[named], call.charges[named]
    limit = bound.limit
    used = max(0, grant.totals[named])
    text = (
        f"{_reached(bound, call.model)}: limit {_amount(limit, limit.amount)}, used {_amount(limit, used)}, "
        f"requested {_amount(limit, charge.amount)}. Please try again in {duration(wait)}.{also}"
    )
    retry = str(max(1, math.ceil(wait)))
    return deny(429, text, type=_type(limit), code=code(limit), headers={"retry-after": retry})


def too_large(bound: BoundLimit, amount: int) -> Reply:
    """Return the answer to a request that is larger than all that a limit allows: no waiting helps."""
    limit = bound.limit
    text = (
        f"Request too large for {_described(bound)}: limit {_amount(limit, limit.amount)}, "
        f"requested {_amount(limit, amount)}. Ask for less: a shorter prompt or a smaller max_tokens."
    )
    return deny(429, text, type=_type(limit), code=code(limit))


def too_fast(pace: Pace, wait_us: float) -> Reply:
    """Return the answer to a request that a smoothed rate refuses."""
    _, rate, subject = pace.counter.split("|", 2)
    seconds = wait_us / 1e6
    text = f"Requests come too fast: spike arrest smooths {subject or 'the organization'} to {rate}."
    text += f" Please try again in {duration(seconds)}."
    kind = "tokens" if " tokens " in rate else "requests"
    return deny(429, text, type=kind, code=SPIKE, headers={"retry-after": str(max(1, math.ceil(seconds)))})


def too_large_at_once(rate: str, amount: int, burst: int) -> Reply:
    """Return the answer to a request that is larger than the burst of a smoothed rate: no waiting helps."""
    text = f"Request too large for spike arrest at {rate}: at most {burst} at once, requested {amount}."
    return deny(429, f"{text} Ask for less: a shorter prompt or a smaller max_tokens.", type="tokens", code=SPIKE)


def _finding(limit: Limit, *, shadow: bool = False) -> Finding:
    return Finding(f"{LIMITS}/{limit.name}", Verdict.DENY, code(limit), shadow)


async def _waits(call: Call, grant: Grant, refused: Sequence[int], store: Store) -> Mapping[int, float]:
    """Return in how many seconds each refused charge would fit, if nothing else is used meanwhile."""
    found: dict[int, float] = {}
    for i in refused:
        charge, limit = call.charges[i], call.limits[i].limit
        if limit.window is None:
            found[i] = CONCURRENT_WAIT_S
        elif charge.slots == 1:
            found[i] = charge.expires - call.now
        else:
            found[i] = await _rolling_wait(charge, span(limit, call.now).step, call.now, store)
    return found


async def _rolling_wait(charge: Charge, step: int, now: float, store: Store) -> float:
    """Return when enough slots have left a rolling window: in j slots, it has the last `slots - j` of today's."""
    parts = [replace(charge, slots=charge.slots - j) for j in range(1, charge.slots)]
    try:
        sums = await store.totals(parts)
    except StoreError:  # refused it is, whether or not the store can still tell for how long
        sums = ()
    fits = (j for j, total in enumerate(sums, 1) if total + charge.amount <= charge.ceiling)
    return (charge.slot + next(fits, charge.slots)) * step - now


def _reached(bound: BoundLimit, model: str) -> str:
    return f"Rate limit reached for `{model}` by {_described(bound)}"


def _described(bound: BoundLimit) -> str:
    """Name a limit, whose it is, and its window."""
    limit = bound.limit
    organization, _, subject = bound.prefix.split("|", 2)
    kind, _, name = subject.partition(":")
    if limit.scope is Scope.MODEL:
        whose = f"each model of organization {organization}"
    else:
        whose = f"{kind} {name}" if name else f"organization {organization}"
    if limit.window is None:
        return f"limit `{limit.name}` of {whose} (concurrent requests)"
    unit = {LimitKind.COST: "USD"}.get(limit.counts, limit.counts.value)
    window = {"month": "30 days"}.get(limit.window, limit.window) if limit.rolling else limit.window
    return f"limit `{limit.name}` of {whose} ({unit} per {'rolling ' if limit.rolling else ''}{window})"


def _amount(limit: Limit, amount: int) -> str:
    return f"{amount / MICROS:.6f} USD" if limit.counts is LimitKind.COST else str(amount)


def _type(limit: Limit) -> str:
    if code(limit) == QUOTA:
        return QUOTA
    return "tokens" if limit.counts is LimitKind.TOKENS else "requests"
