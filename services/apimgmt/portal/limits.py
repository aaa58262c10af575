"""Limits: what binds each key, how much of it is used, and when it begins anew."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response

from services.apimgmt import windows
from services.apimgmt.binding import EVERY, Binder
from services.apimgmt.call import BoundLimit, Caller, Credential
from services.apimgmt.charging import charge
from services.apimgmt.domain import App, Limit, Scope
from services.apimgmt.portal import charts, formats, holdings, usage
from services.apimgmt.portal.page import BASE, PortalRoute, Signed, Visitor, render
from services.apimgmt.snapshot import Snapshot
from services.apimgmt.store.api import Charge

MAX_SHOWN_APPS = 20
"""Apps on the page; one can be chosen."""
MAX_MODELS = 20
"""Models of a limit that counts each model by itself."""
AT_ONCE = 100
"""Counters that are asked for at once."""

router = APIRouter(prefix=BASE, route_class=PortalRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Gauge:
    """One counter of one limit."""

    limit: Limit
    whose: str
    """Whose use is counted together."""
    products: Sequence[str]
    used: int
    """Used and held by requests under way."""
    resets: str

    @property
    def tone(self) -> str:
        """Class of the bar's fill."""
        part = self.used / self.limit.amount
        return "tone-full" if part >= 1 else "tone-near" if part >= 0.8 else "tone-1"

    @property
    def percent(self) -> int:
        """Whole percents, rounded down."""
        return self.used * 100 // self.limit.amount


@dataclass(frozen=True, slots=True)
class Board:
    """What binds an app."""

    app: App
    gauges: Sequence[Gauge]
    refused: str
    """Why none of its keys works, if so."""
    keys: int


@router.get("/limits")
async def page(signed: Signed) -> Response:
    """Show the limits of each app."""
    apps = await holdings.apps(signed)
    wanted = signed.request.query_params.get("app", "")
    if wanted:
        shown = [await holdings.app(signed, wanted)]
    else:
        shown = [app for app in apps if app.developer == signed.principal.developer][:MAX_SHOWN_APPS]
    snapshot = await holdings.snapshot(signed)
    models = await _used_models(signed)
    boards = [await _board(signed, snapshot, app, models) for app in shown]
    values: dict[str, Any] = {"boards": boards, "apps": apps, "wanted": wanted, "bar": charts.bar}
    return render(signed.request, signed, "limits.html", **values)


async def _board(signed: Visitor, snapshot: Snapshot, app: App, used: Sequence[str]) -> Board:
    now, binder = signed.context.now, Binder(snapshot)
    views = [holdings.view(record, now) for record in await holdings.app_keys(signed, app)]
    labels = {key.record.id: key.label for key in views if key.usable}
    bound: dict[str, tuple[BoundLimit, list[str]]] = {}
    for key in [*labels] or [""]:
        caller = binder.caller(app, Credential.API_KEY, key=key)
        if not isinstance(caller, Caller):
            return Board(app, [], caller.message, len(labels))
        _collect(caller, bound)
    counters = [
        (limit, products, model)
        for limit, products in bound.values()
        if labels or limit.limit.scope is not Scope.KEY
        for model in _models(limit, snapshot, products, used)
    ]
    spans = windows.spans(now)
    charges = [charge(limit, model, 0, spans) for limit, _, model in counters]
    totals: list[int] = []
    for i in range(0, len(charges), AT_ONCE):
        totals += await signed.context.store.totals(charges[i : i + AT_ONCE])
    gauges = [
        Gauge(limit.limit, _whose(limit, labels, model), products, max(0, total), resets(limit.limit, made, now))
        for (limit, products, model), made, total in zip(counters, charges, totals, strict=True)
    ]
    gauges.sort(key=lambda gauge: (list(Scope).index(gauge.limit.scope), gauge.limit.name, gauge.whose))
    return Board(app, gauges, "", len(labels))


def _collect(caller: Caller, bound: dict[str, tuple[BoundLimit, list[str]]]) -> None:
    """Note every limit of a caller once, with the products that it binds in."""
    for product in caller.products:
        for limit in product.limits:
            _, products = bound.setdefault(limit.prefix, (limit, []))
            if product.product.name not in products:
                products.append(product.product.name)


def _models(limit: BoundLimit, snapshot: Snapshot, products: Sequence[str], used: Sequence[str]) -> Sequence[str]:
    """Return the models whose counters a limit has; one empty name where it counts all together."""
    if limit.limit.scope is not Scope.MODEL:
        return [""]
    named = [model for name in products for model in snapshot.products[name].models]
    every = EVERY in named
    found = [*(m for m in named if m != EVERY), *(limit.models or ()), *(used if every else ())]
    return [m for m in dict.fromkeys(found) if limit.models is None or m in limit.models][:MAX_MODELS]


async def _used_models(signed: Visitor) -> Sequence[str]:
    """Return the models that the person used this month."""
    rows = await usage.sums(signed, usage.window("month", signed.context.now), "mine", "all", ["model"])
    return [row["model"] for row in rows if row["model"]]


def _whose(limit: BoundLimit, labels: Mapping[str, str], model: str) -> str:
    organization, _, subject = limit.prefix.split("|", 2)
    kind, _, name = subject.partition(":")
    if limit.limit.scope is Scope.MODEL:
        return f"Model {model}, everybody in {organization}"
    if limit.limit.scope is Scope.KEY:
        return f"Key {labels.get(name, name)}"
    if limit.limit.scope is Scope.USER:
        return f"{name}, all apps"
    return f"{kind.capitalize()} {name}" if name else f"Organization {organization}"


def resets(limit: Limit, made: Charge, now: int) -> str:
    """Tell when a limit has room again."""
    if limit.window is None:
        return "Falls when a request ends"
    if limit.rolling:
        return f"Rolls: use counts for {'30 days' if limit.window == 'month' else f'one {limit.window}'}"
    return f"Begins anew in {formats.span(made.expires - now)}"
