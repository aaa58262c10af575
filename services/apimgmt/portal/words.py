"""What products, limits and states mean, in words."""

from collections.abc import Callable
from typing import Any

from services.apimgmt.domain import Limit, LimitKind, Prices, RatePlan, Scope
from services.apimgmt.portal.formats import compact, money, number

OPERATIONS = {
    "/v1/chat/completions": "Chat",
    "/v1/completions": "Completions",
    "/v1/responses": "Responses",
    "/v1/embeddings": "Embeddings",
    "/v1/rerank": "Rerank",
    "/v1/score": "Score",
    "/v1/models": "Models",
}
"""Paths that have a name of their own; others are shown as they are."""

STATES = {"active": "Active", "inGrace": "Grace period", "expired": "Expired", "revoked": "Revoked"}
APPROVALS = {"approved": "Approved", "pending": "Waiting for approval", "revoked": "Revoked"}
OUTCOMES = {
    "ok": "Answered",
    "refused": "Refused by a policy",
    "denied": "Denied",
    "error": "Failed",
    "aborted": "Broken off",
    "cached": "From the cache",
    "lost": "Lost",
}
_TONES = {"active": "good", "approved": "good", "inGrace": "warn", "pending": "warn"}
_WHOSE = {
    Scope.ORGANIZATION: "shared by the organization",
    Scope.GROUP: "shared by a group",
    Scope.TEAM: "shared by the team",
    Scope.USER: "for each person",
    Scope.KEY: "for each key",
    Scope.MODEL: "for each model",
}


def amount(value: int, kind: LimitKind) -> str:
    """Write an amount of what a limit counts, without the unit where it is money."""
    return money(value) if kind is LimitKind.COST else compact(value)


def limit(value: Limit) -> str:
    """Write a limit: `100 requests per minute, for each key`."""
    if value.counts is LimitKind.CONCURRENT:
        text = f"{number(value.amount)} request{'' if value.amount == 1 else 's'} at the same time"
    elif value.counts is LimitKind.COST:
        text = f"{money(value.amount)} {per(value)}"
    else:
        noun = value.counts.value if value.amount != 1 else value.counts.value.removesuffix("s")
        text = f"{number(value.amount)} {noun} {per(value)}"
    which = f", only {listed(value.models)}" if value.models and "*" not in value.models else ""
    return f"{text}, {_WHOSE[value.scope]}{which}"


def per(value: Limit) -> str:
    """Write a limit's window."""
    if value.window is None:
        return "at the same time"
    if value.rolling:
        return "in any 30 days" if value.window == "month" else f"in any {value.window}"
    return f"per {value.window}"


def listed(names: list[str]) -> str:
    """Write names one after the other."""
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1] if names else ""


def operation(path: str) -> str:
    """Name an operation."""
    return OPERATIONS.get(path, path)


def prices(plan: RatePlan | None) -> list[str]:
    """Write what use costs, one line per price."""
    if plan is None:
        return ["Free of charge"]
    lines = _tokens(plan.prices, "")
    for model, own in plan.models.items():
        lines += _tokens(own, f"{model}: ")
    if plan.per_request:
        lines.append(f"{money(plan.per_request)} per answered request")
    if plan.monthly_fee:
        lines.append(f"{money(plan.monthly_fee)} per app and month")
    if plan.free_tokens and lines:
        lines.append(f"The organization's first {compact(plan.free_tokens)} tokens each month are free")
    return lines or ["Free of charge"]


def _tokens(own: Prices, before: str) -> list[str]:
    cached = own.prompt if own.cached is None else own.cached
    reasoning = own.completion if own.reasoning is None else own.reasoning
    parts = [("prompt", own.prompt), ("completion", own.completion)]
    parts += [("cached prompt", cached)] if cached != own.prompt else []
    parts += [("reasoning", reasoning)] if reasoning != own.completion else []
    if not any(price for _, price in parts):
        return [f"{before}no charge for tokens"] if before else []
    return [f"{before}{money(price)} per million {name} tokens" for name, price in parts]


def tone(state: str) -> str:
    """Return the badge's class for a state."""
    return _TONES.get(state, "off")


def state(value: str) -> str:
    """Name a key's state."""
    return STATES.get(value, value)


def approval(value: str) -> str:
    """Name a subscription's state."""
    return APPROVALS.get(value, value)


def outcome(value: str) -> str:
    """Name what became of requests."""
    return OUTCOMES.get(value, value)


FILTERS: dict[str, Callable[..., Any]] = {
    "amount": amount,
    "limit_words": limit,
    "window": per,
    "listed": listed,
    "operation": operation,
    "price_lines": prices,
    "tone": tone,
    "key_state": state,
    "approval": approval,
}
"""For templates."""
