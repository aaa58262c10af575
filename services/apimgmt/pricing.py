"""What a request costs by a rate plan: whole millionths of a US dollar, rounded once per request.

Free tokens and monthly fees belong to the month, not to the request: see `billing.py`.
"""

from services.apimgmt.domain import Prices, RatePlan
from services.apimgmt.usage.tokens import Tokens

PER = 1_000_000
"""Prices are per so many tokens."""


def prices(plan: RatePlan, model: str, base: str = "") -> Prices:
    """Return the prices of a model: its own in the plan, those of its base model (adapters), or the plan's."""
    return plan.models.get(model) or plan.models.get(base) or plan.prices


def cost(plan: RatePlan | None, model: str, tokens: Tokens, requests: int = 1, *, base: str = "") -> int:
    """Return the price of what was used, in micro-dollars, rounded half up; 0 without a plan.

    `model` is the name that the client used, `base` the base model's name where that is an adapter. `requests` is 0 for
    what is not charged by the request.
    """
    if plan is None:
        return 0
    price = prices(plan, model, base)
    cached_price = price.prompt if price.cached is None else price.cached
    reasoning_price = price.completion if price.reasoning is None else price.reasoning
    amount = (
        (tokens.prompt - tokens.cached) * price.prompt
        + tokens.cached * cached_price
        + (tokens.completion - tokens.reasoning) * price.completion
        + tokens.reasoning * reasoning_price
    )
    return (amount + PER // 2) // PER + plan.per_request * requests


def ceiling(plan: RatePlan | None, model: str, prompt: int, output: int, *, base: str = "") -> int:
    """Return the most that a request of at most so many tokens can cost, in micro-dollars: what is reserved.

    Never less than `cost` of any tokens within the two bounds.
    """
    if plan is None:
        return 0
    price = prices(plan, model, base)
    amount = prompt * max(price.prompt, price.cached or 0) + output * max(price.completion, price.reasoning or 0)
    return -(-amount // PER) + plan.per_request
