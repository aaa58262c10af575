"""What a person has: apps, keys, and the products and limits behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.apimgmt import keys
from services.apimgmt.admin.access import Reach
from services.apimgmt.admin.entities import listed
from services.apimgmt.admin.holders import Holder
from services.apimgmt.admin.problems import not_found
from services.apimgmt.binding import EVERY
from services.apimgmt.domain import App, Approval, KeyPurpose, KeyRecord, Kind, Limit, Product, RatePlan
from services.apimgmt.portal.page import Visitor
from services.apimgmt.snapshot import Snapshot

MAX_APPS = 200
"""Apps that pages list."""
MAX_KEYS = 200
"""Keys that pages list."""

_SCOPE = "/organizations/{organization}"
APPS = f"GET {_SCOPE}/apps"
SAVE_APP = f"PUT {_SCOPE}/apps/{{name}}"
SUBSCRIBE = f"PUT {_SCOPE}/apps/{{app}}/subscriptions/{{product}}"
APP_KEYS = f"{_SCOPE}/apps/{{app}}/keys"
PERSON_KEYS = f"{_SCOPE}/developers/{{developer}}/keys"


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key as pages show it."""

    record: KeyRecord
    state: str
    label: str
    begins: str
    """What of the key is no secret."""
    usable: bool
    rotatable: bool


def view(record: KeyRecord, now: int) -> KeyView:
    """Return a key for pages."""
    state = keys.state(record, now)
    usable = state in (keys.KeyState.ACTIVE, keys.KeyState.IN_GRACE)
    prefix = "psk" if record.purpose is KeyPurpose.API else "psp"
    begins = f"{prefix}_{record.id}_…"
    return KeyView(
        record, state.value, record.display_name or begins, begins, usable, usable and not record.replaced_by
    )


async def apps(signed: Visitor) -> list[App]:
    """Return the apps of the person's organization that the person sees, own ones first."""
    who = signed.principal
    documents, _ = await listed(signed.access(APPS), Kind.APP, who.organization, "", MAX_APPS)
    found = [App.model_validate(dict(document.body)) for document in documents]
    return sorted(found, key=lambda app: (app.developer != who.developer, app.name))


async def app(signed: Visitor, name: str) -> App:
    """Return one app of the person's organization. Raises ProblemError (404)."""
    document = await signed.access(APPS).document(Kind.APP, signed.principal.organization, name[:63])
    return App.model_validate(dict(document.body))


async def own_keys(signed: Visitor, seen: Sequence[App]) -> list[KeyRecord]:
    """Return the person's keys: those of own apps, and personal ones."""
    who = signed.principal
    own = {one.name for one in seen if one.developer == who.developer}
    found = await signed.context.store.keys(who.organization, developer=who.developer, limit=MAX_KEYS)
    mine = [record for record in found if record.purpose is KeyPurpose.PERSONAL or record.app in own]
    return newest(mine, signed.context.now)


async def app_keys(signed: Visitor, one: App) -> list[KeyRecord]:
    """Return the keys of an app that the person sees."""
    holder = await holder_of(signed, f"GET {APP_KEYS}", one.name)
    records, _ = await holder.page("", MAX_KEYS)
    return newest(records, signed.context.now)


def newest(records: Sequence[KeyRecord], now: int) -> list[KeyRecord]:
    """Sort keys: those that work first, then by age."""
    return sorted(records, key=lambda record: (not view(record, now).usable, -record.created, record.id))


async def holder_of(signed: Visitor, route: str, name: str) -> Holder:
    """Return what keys belong to: an app by its name, or the person for an empty one. Raises ProblemError (404)."""
    who = signed.principal
    if name:
        document = await signed.access(route).document(Kind.APP, who.organization, name[:63])
    else:
        route = route.replace(APP_KEYS, PERSON_KEYS)
        document = await signed.access(route).document(Kind.DEVELOPER, who.organization, who.developer)
    return Holder(signed.access(route), document)


async def key_of(signed: Visitor, key_id: str, action: str) -> tuple[Holder, KeyRecord]:
    """Return a key that the person may `rotate` or `revoke`, with its holder. Raises ProblemError (404)."""
    record = await signed.context.store.key(key_id[:64])
    who = signed.principal
    if record is None or record.organization != who.organization:
        raise not_found(f"keys/{key_id[:40]}")
    holder = await holder_of(signed, f"POST {APP_KEYS}/{{key}}/{action}", record.app)
    return holder, await holder.record(record.id)


async def snapshot(signed: Visitor) -> Snapshot:
    """Return all documents: the data path's, brought up to date, or read for this page."""
    directory = signed.context.directory
    if directory is not None:
        await directory.refresh()
        found: Snapshot = directory.snapshot
        return found
    return Snapshot(*await signed.context.store.snapshot())


@dataclass(frozen=True, slots=True)
class ProductView:
    """A product as pages show it."""

    product: Product
    limits: Sequence[Limit]
    plan: RatePlan | None
    subscribed: Mapping[str, str]
    """App -> state, of the person's own apps."""
    open: Sequence[App]
    """Own apps that could be subscribed."""


def products(signed: Visitor, snapshot: Snapshot, seen: Sequence[App]) -> list[ProductView]:
    """Return the public products and those that own apps have, by their names."""
    who, found = signed.principal, []
    own = [one for one in seen if one.developer == who.developer]
    organization = snapshot.organizations.get(who.organization)
    default = organization.rate_plan if organization else None
    everything = signed.access("GET /products").reach is Reach.ALL
    for product in sorted(snapshot.products.values(), key=lambda one: one.display_name or one.name):
        subscribed = {a.name: s.status.value for a in own for s in a.products if s.product == product.name}
        if not (product.public or subscribed or everything):
            continue
        limits = [snapshot.limits[name] for name in product.limits if name in snapshot.limits]
        plan = snapshot.plans.get(product.rate_plan or default or "")
        free = [one for one in own if one.name not in subscribed] if product.public or everything else []
        found.append(ProductView(product, limits, plan, subscribed, free))
    return found


async def models(signed: Visitor, one: App) -> tuple[list[str], bool]:
    """Return the models that an app's products name, and whether it may use any other, too."""
    found: list[str] = []
    known = await snapshot(signed)
    for subscription in one.products:
        product = known.products.get(subscription.product)
        if product is not None and subscription.status is Approval.APPROVED:
            found += product.models
    names = [name for name in dict.fromkeys(found) if name != EVERY]
    return names, EVERY in found


def labels(records: Sequence[KeyRecord], now: int) -> Mapping[str, str]:
    """Return what people call keys, by id."""
    return {record.id: view(record, now).label for record in records}


def shown(entity: Any) -> str:
    """Return what people see of a document: its display name, or its name."""
    return str(entity.display_name or entity.name)
