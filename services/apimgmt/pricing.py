"""What a request costs by a rate plan: whole millionths of a US dollar, rounded once per request.

Free tokens and monthly fees belong to the month, not to the request: see `billing.py`.
"""

from typing import NamedTuple

from services.apimgmt.domain import Prices, RatePlan
from services.apimgmt.usage.tokens import Tokens

PER = 1_000_000
"""Prices are per so many tokens."""


class Price(NamedTuple):
    """Prices of one model, none left out; micro-dollars per `PER` tokens."""

    prompt: int
    cached: int
    completion: int
    reasoning: int

    @classmethod
    def of(cls, prices: Prices) -> "Price":
        """Fill in what is left out."""
        cached = prices.prompt if prices.cached is None else prices.cached
        reasoning = prices.completion if prices.reasoning is None else prices.reasoning
        return cls(prices.prompt, cached, prices.completion, reasoning)


class Tariff:
    """A rate plan as the hot path asks for it: reading a field of a model of pydantic takes ten times as long."""

    __slots__ = ("_models", "_others", "_per_request")

    def __init__(self, plan: RatePlan) -> None:
        self._others, self._per_request = Price.of(plan.prices), plan.per_request
        self._models = {name: Price.of(prices) for name, prices in plan.models.items()}

    def price(self, model: str, base: str = "") -> Price:
        """Return the prices of a model: its own in the plan, those of its base model (adapters), or the plan's."""
        models = self._models
        return (models.get(model) or models.get(base) or self._others) if models else self._others

    def cost(self, model: str, tokens: Tokens, requests: int = 1, *, base: str = "") -> int:
        """Return the price of what was used, in micro-dollars, rounded half up.

        `model` is the name that the client used, `base` the base model's name where that is an adapter. `requests` is 0
        for what is not charged by the request.
        """
        prompt, cached, completion, reasoning = self.price(model, base)
        amount = (
            (tokens.prompt - tokens.cached) * prompt
            + tokens.cached * cached
            + (tokens.completion - tokens.reasoning) * completion
            + tokens.reasoning * reasoning
        )
        return (amount + PER // 2) // PER + self._per_request * requests

    def ceiling(self, model: str, prompt: int, output: int, *, base: str = "") -> int:
        """Return the most that a request of at most so many tokens can cost, in micro-dollars: what is reserved.

        Never less than `cost` of any tokens within the two bounds.
        """
        price = self.price(model, base)
        amount = prompt * max(price.prompt, price.cached) + output * max(price.completion, price.reasoning)
        return -(-amount // PER) + self._per_request


def cost(plan: RatePlan | None, model: str, tokens: Tokens, requests: int = 1, *, base: str = "") -> int:
    """Return `Tariff.cost`; 0 without a plan."""
    return 0 if plan is None else Tariff(plan).cost(model, tokens, requests, base=base)


def ceiling(plan: RatePlan | None, model: str, prompt: int, output: int, *, base: str = "") -> int:
    """Return `Tariff.ceiling`; 0 without a plan."""
    return 0 if plan is None else Tariff(plan).ceiling(model, prompt, output, base=base)
