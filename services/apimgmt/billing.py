"""The statement of a month: what organizations, teams, apps, keys, models and agents cost. See docs/usage.md.

The ledger holds what each request cost by the plan's prices of that moment. Free tokens and monthly fees belong to the
month, so they are worked out here, from sums: no request has to know what others used.
"""

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.apimgmt.domain import ENTITIES, App, Approval, Entity, Organization, Product, RatePlan
from services.apimgmt.store.api import DIMENSIONS, Document, UsageQuery, UsageRow

_NEEDED = ("organization", "app", "product", "outcome")
"""Dimensions that the rows must have: plan and fees depend on them, and the price per request on the outcome."""

_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True)
class Terms:
    """Who pays by which plan."""

    plans: Mapping[str, RatePlan]
    products: Mapping[str, Product]
    organizations: Mapping[str, Organization]
    apps: Sequence[App]

    @classmethod
    def of(cls, entities: Iterable[Entity]) -> "Terms":
        """Pick what matters from all entities."""
        found = list(entities)
        return cls(
            {plan.name: plan for plan in found if isinstance(plan, RatePlan)},
            {product.name: product for product in found if isinstance(product, Product)},
            {one.name: one for one in found if isinstance(one, Organization)},
            [app for app in found if isinstance(app, App)],
        )

    @classmethod
    def of_documents(cls, documents: Iterable[Document]) -> "Terms":
        """Read them from the store's snapshot."""
        return cls.of(ENTITIES[document.kind].model_validate(document.body) for document in documents)

    def plan(self, organization: str, product: str) -> RatePlan | None:
        """Return the plan of a product's requests: its own, or the organization's."""
        found = self.products.get(product)
        name = found.rate_plan if found is not None else None
        if name is None and organization in self.organizations:
            name = self.organizations[organization].rate_plan
        return self.plans.get(name) if name is not None else None


@dataclass(slots=True)
class Line:
    """Use of one group. Money in micro-dollars."""

    group: Mapping[str, str]
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost: int = 0
    """By the ledger, before free tokens."""
    credit: int = 0
    """What free tokens take off."""

    @property
    def amount(self) -> int:
        """What is left to pay."""
        return self.cost - self.credit


@dataclass(frozen=True, slots=True)
class Fee:
    """Monthly fee of one app for one plan, however many products of the plan it is subscribed to."""

    organization: str
    app: str
    plan: str
    amount: int


@dataclass(slots=True)
class Statement:
    """What a month cost."""

    month: str
    lines: list[Line] = field(default_factory=list)
    """In the order of their groups."""
    fees: list[Fee] = field(default_factory=list)

    @property
    def amount(self) -> int:
        """Everything together, micro-dollars."""
        return sum(line.amount for line in self.lines) + sum(fee.amount for fee in self.fees)

    def as_json(self) -> dict[str, Any]:
        """Return it with the names of the admin API."""
        return {
            "month": self.month,
            "lines": [
                {
                    **line.group,
                    "requests": line.requests,
                    "promptTokens": line.prompt_tokens,
                    "cachedTokens": line.cached_tokens,
                    "completionTokens": line.completion_tokens,
                    "reasoningTokens": line.reasoning_tokens,
                    "costMicros": line.cost,
                    "creditMicros": line.credit,
                    "amountMicros": line.amount,
                }
                for line in self.lines
            ],
            "fees": [
                {"organization": fee.organization, "app": fee.app, "plan": fee.plan, "amountMicros": fee.amount}
                for fee in self.fees
            ],
            "amountMicros": self.amount,
        }


def bounds(month: str) -> tuple[int, int]:
    """Return begin and end of a month (`2026-11`, UTC) in Unix seconds. Raises ValueError."""
    found = _MONTH.fullmatch(month)
    if found is None or found[1] == "0000" or month == "9999-12":
        raise ValueError(f"month: {month!r} is no month; expected year and month, for example 2026-11")
    year, number = int(found[1]), int(found[2])
    begin = datetime.datetime(year, number, 1, tzinfo=datetime.UTC)
    end = datetime.datetime(year + number // 12, number % 12 + 1, 1, tzinfo=datetime.UTC)
    return int(begin.timestamp()), int(end.timestamp())


def query(month: str, by: Sequence[str], organization: str | None = None) -> UsageQuery:
    """Return what to ask the store for a statement of all organizations, or of one. Raises ValueError."""
    unknown = [name for name in by if name not in DIMENSIONS]
    if unknown:
        raise ValueError(f"by: {', '.join(unknown)}: unknown; expected some of {', '.join(DIMENSIONS)}")
    since, until = bounds(month)
    return UsageQuery(organization, since, until, "all", tuple(dict.fromkeys((*_NEEDED, *by))))


def statement(
    rows: Sequence[UsageRow], terms: Terms, month: str, by: Sequence[str], organization: str | None = None
) -> Statement:
    """Make the statement of a month from the rows of `query`, with one line for each group of `by`."""
    result = Statement(month, fees=_fees(rows, terms, organization))
    lines: dict[tuple[str, ...], Line] = {}
    for row, credit in zip(rows, _credits(rows, terms), strict=True):
        key = tuple(row.group.get(name, "") for name in by)
        line = lines.setdefault(key, Line(dict(zip(by, key, strict=True))))
        sums = row.sums
        line.requests += sums.get("requests", 0)
        line.prompt_tokens += sums.get("promptTokens", 0)
        line.cached_tokens += sums.get("cachedTokens", 0)
        line.completion_tokens += sums.get("completionTokens", 0)
        line.reasoning_tokens += sums.get("reasoningTokens", 0)
        line.cost += sums.get("costMicros", 0)
        line.credit += credit
    result.lines = [lines[key] for key in sorted(lines)]
    return result


def _credits(rows: Sequence[UsageRow], terms: Terms) -> list[int]:
    """Return what free tokens take off each row.

    An organization's free tokens of a plan are taken from all of its use by that plan alike: their share of the tokens
    is their share of the price. The parts of the rows add up to the whole, to the micro-dollar.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for index, row in enumerate(rows):
        plan = terms.plan(row.group["organization"], row.group["product"])
        if plan is not None and plan.free_tokens:
            groups.setdefault((row.group["organization"], plan.name), []).append(index)
    result = [0] * len(rows)
    for (_, name), indexes in groups.items():
        plan = terms.plans[name]
        priced = [_token_cost(rows[index], plan) for index in indexes]
        tokens, total = sum(_tokens(rows[index]) for index in indexes), sum(priced)
        if not tokens or not total:
            continue
        free = min(plan.free_tokens, tokens)
        credit = (2 * total * free + tokens) // (2 * tokens)
        before = 0
        for index, cost in zip(indexes, priced, strict=True):
            result[index] = credit * (before + cost) // total - credit * before // total
            before += cost
    return result


def _tokens(row: UsageRow) -> int:
    return row.sums.get("promptTokens", 0) + row.sums.get("completionTokens", 0)


def _token_cost(row: UsageRow, plan: RatePlan) -> int:
    """The part of a row's cost that is no price per request."""
    return max(row.sums.get("costMicros", 0) - plan.per_request * row.sums.get("requests", 0), 0)


def _fees(rows: Sequence[UsageRow], terms: Terms, organization: str | None) -> list[Fee]:
    """One fee per app and plan: of apps that are subscribed now, and of those that used a product in the month."""
    uses = {(row.group["organization"], row.group["app"], row.group["product"]) for row in rows if _tokens(row)}
    for app in terms.apps:
        for subscription in app.products:
            if subscription.status is Approval.APPROVED:
                uses.add((app.organization, app.name, subscription.product))
    owed = {}
    for owner, app_name, product in uses:
        plan = terms.plan(owner, product)
        if plan is not None and plan.monthly_fee and app_name and organization in (None, owner):
            owed[owner, app_name, plan.name] = plan.monthly_fee
    return [Fee(*key, amount) for key, amount in sorted(owed.items())]
