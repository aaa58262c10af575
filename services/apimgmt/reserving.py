"""The reservation of a request: what is asked of the store, and what a client hears if it says no."""

import asyncio
from dataclasses import replace

from services.apimgmt import errors, ratelimit
from services.apimgmt.account import Account
from services.apimgmt.call import Call
from services.apimgmt.chain import Compiled
from services.apimgmt.domain import LimitKind
from services.apimgmt.metrics import Metrics
from services.apimgmt.store.api import Store, StoreError
from services.apimgmt.usage import request as usage
from services.apimgmt.usage.estimator import Estimator
from services.extproc.api import Reply


async def reserve(account: Account, estimator: Estimator, store: Store, metrics: Metrics) -> Reply | None:
    """Reserve all charges of the call in one step. Return the refusal, if it is one."""
    call = account.call
    future = account.open(usage.unanswered(call, estimator))
    try:
        # A request that is given up must not leave a grant that nobody knows of: what is under way goes on. A plain
        # future is a place in the store's queue, which may be cancelled.
        grant = await (asyncio.shield(future) if isinstance(future, asyncio.Task) else future)
    except StoreError:
        return errors.ledger_away().reply()
    ratelimit.headers(call, grant)
    for finding in ratelimit.findings(call, grant):
        call.findings.append(finding)
        metrics.tally(finding.policy.partition("/")[0]).count(finding.verdict.value, finding.code, finding.shadow)
    return None if grant.granted else await ratelimit.refuse(call, grant, store)


def without_model(call: Call) -> None:
    """Leave the charges that a policy's own answer makes: the request itself, and its price where the plan has one."""
    plan = call.product.plan if call.product else None
    amounts = {LimitKind.REQUESTS: 1, LimitKind.COST: plan.per_request if plan else 0}
    pairs = zip(call.limits, call.charges, strict=True)
    counted = [(bound, charge, amounts.get(bound.limit.counts, 0)) for bound, charge in pairs]
    call.limits = [bound for bound, _, amount in counted if amount]
    call.charges = [replace(charge, amount=amount) for _, charge, amount in counted if amount]


def again(call: Call, chain: Compiled, estimator: Estimator) -> Reply | None:
    """Work out anew what a request may use whose body a policy changed. Return the refusal, if it is one."""
    refusal = usage.prepare(call, estimator)
    if refusal is not None:
        return refusal
    call.charges.clear()
    call.limits.clear()
    call.paces.clear()
    for step in chain.counting:
        answer = step.run(call)
        if isinstance(answer, Reply):
            return answer
    return None
