"""Limits: what the request may use at most is charged against every limit that binds its caller.

This policy only says what to charge; the pipeline reserves it after all policies have passed, in one atomic step, and
`ratelimit.py` turns a refusal into an answer.
"""

from collections.abc import Mapping
from typing import ClassVar

from services.apimgmt import pricing, ratelimit, windows
from services.apimgmt.call import BoundLimit, Call
from services.apimgmt.domain import LimitKind, Scope
from services.apimgmt.policies.api import Policy
from services.apimgmt.store.api import Charge
from services.apimgmt.windows import Spans
from services.extproc.api import Answer
from services.extproc.config import ConfigModel


class LimitsSettings(ConfigModel):
    """Nothing to set: limits belong to products, organizations, groups, teams and developers."""


class LimitsPolicy(Policy[LimitsSettings]):
    """See the module's text."""

    name: ClassVar[str] = "limits"
    settings_model = LimitsSettings

    def check(self, call: Call) -> Answer:
        """Add a charge for each limit; refuse what no limit could ever grant."""
        product = call.product
        if product is None:
            return None
        spans, amounts = windows.spans(call.now), amounts_of(call)
        charges, limits, model, shadow = call.charges, call.limits, call.model, call.shadow
        for bound in product.limits:
            if bound.models is not None and model not in bound.models:
                continue
            limit = bound.limit
            amount, enforced = amounts[limit.counts], not shadow and limit.mode == "enforce"
            if enforced and amount > limit.amount:
                return ratelimit.too_large(bound, amount)
            charges.append(charge(bound, model, amount, spans, enforced=enforced))
            limits.append(bound)
        return None


def amounts_of(call: Call) -> Mapping[LimitKind, int]:
    """Return what a request may use at most, by what limits count."""
    plan = call.product.plan if call.product else None
    cost = 0
    if plan is not None:
        cost = pricing.ceiling(plan, call.model, call.prompt_tokens, call.max_output, base=call.base_model)
    tokens = call.prompt_tokens + call.max_output
    return {LimitKind.REQUESTS: 1, LimitKind.TOKENS: tokens, LimitKind.CONCURRENT: 1, LimitKind.COST: cost}


def charge(bound: BoundLimit, model: str, amount: int, spans: Spans, *, enforced: bool = True) -> Charge:
    """Return the charge of `amount` against a limit, in the window that `spans` has for it."""
    limit = bound.limit
    slot, slots, expires, _ = spans[limit.window, limit.rolling]
    counter = f"{bound.prefix}|{model}" if limit.scope is Scope.MODEL else bound.prefix
    return Charge(counter, slot, slots, expires, amount, limit.amount, enforced)
