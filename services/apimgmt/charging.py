"""What a request may use at most, charged against every limit that binds its caller (policy `limits`)."""

from collections.abc import Mapping

from services.apimgmt import ratelimit, windows
from services.apimgmt.call import BoundLimit, Call
from services.apimgmt.domain import LimitKind
from services.apimgmt.store.api import Charge
from services.apimgmt.windows import Spans
from services.extproc.api import Reply

REQUESTS, TOKENS, CONCURRENT, COST = LimitKind.REQUESTS, LimitKind.TOKENS, LimitKind.CONCURRENT, LimitKind.COST
"""By themselves: a member of an enumeration takes ten times as long to look up as what is a name of its own."""


def add(call: Call) -> Reply | None:
    """Add a charge for each limit; refuse what no limit could ever grant."""
    product = call.product
    if product is None:
        return None
    spans, amounts = windows.spans(call.now), amounts_of(call)
    charges, limits, model, shadow = call.charges, call.limits, call.model, call.shadow
    for bound in product.limits:
        if bound.models is not None and model not in bound.models:
            continue
        amount, enforced = amounts[bound.counts], bound.enforced and not shadow
        if enforced and amount > bound.amount:
            return ratelimit.too_large(bound, amount)
        charges.append(charge(bound, model, amount, spans, enforced=enforced))
        limits.append(bound)
    return None


def amounts_of(call: Call) -> Mapping[LimitKind, int]:
    """Return what a request may use at most, by what limits count."""
    tariff = call.product.tariff if call.product else None
    prompt, output = call.prompt_tokens, call.max_output
    cost = tariff.ceiling(call.model, prompt, output, base=call.base_model) if tariff is not None else 0
    return {REQUESTS: 1, TOKENS: prompt + output, CONCURRENT: 1, COST: cost}


def charge(bound: BoundLimit, model: str, amount: int, spans: Spans, *, enforced: bool = True) -> Charge:
    """Return the charge of `amount` against a limit, in the window that `spans` has for it."""
    slot, slots, expires, _ = spans[bound.window]
    counter = f"{bound.prefix}|{model}" if bound.by_model else bound.prefix
    return Charge(counter, slot, slots, expires, amount, bound.amount, enforced)
