"""Callers: which products a credential opens, and which limits bind it, worked out of a snapshot."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from services.apimgmt import errors
from services.apimgmt.call import BoundLimit, BoundProduct, Caller, Credential
from services.apimgmt.domain import App, Approval, Group, Limit, Product, Scope
from services.apimgmt.errors import Refusal
from services.apimgmt.snapshot import Snapshot

EVERY = "*"
"""Among models: all of them."""

MAX_REMEMBERED = 10_000
"""Most combinations of app, user and key whose products are remembered."""

_WIDTH = {scope: place for place, scope in enumerate(Scope)}
"""Order from wide to narrow: that of `Scope`."""


class Binder:
    """Makes callers of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._products: OrderedDict[tuple[str, str, str, str], tuple[BoundProduct, ...]] = OrderedDict()

    def caller(
        self,
        app: App,
        credential: Credential,
        *,
        key: str = "",
        user: str = "",
        expires: float | None = None,
    ) -> Caller | Refusal:
        """Return the caller, or why there is none.

        Args:
            app: whose credential it is.
            credential: its kind.
            key: id of the API key. Limits per key count all tokens of an app together.
            user: whose use it is. Default the app's developer.
            expires: when the credential ends, Unix seconds.
        """
        refusal = self._refuse(app, user)
        if refusal is not None:
            return refusal
        user = user or app.developer
        return Caller(
            organization=app.organization,
            team=app.team,
            user=user,
            app=app.name,
            key=key,
            credential=credential,
            products=self._bound_products(app, user, key),
            trusted_agent=app.trusted_agent,
            expires=expires,
        )

    def _refuse(self, app: App, user: str) -> Refusal | None:
        """Refuse who may not, and whom nobody would pay for."""
        snapshot, organization = self.snapshot, app.organization
        if organization not in snapshot.organizations:
            return errors.broken_account("organization", organization)
        if (organization, app.team) not in snapshot.teams:
            return errors.broken_account("team", app.team)
        developer = snapshot.developers.get((organization, app.developer))
        if developer is None:
            return errors.broken_account("developer", app.developer)
        if not app.active:
            return errors.inactive("app", app.name)
        if not developer.active:
            return errors.inactive("developer", developer.name)
        person = snapshot.developers.get((organization, user)) if user else None
        if person is not None and not person.active:
            return errors.inactive("developer", person.name)
        return None

    def _bound_products(self, app: App, user: str, key: str) -> tuple[BoundProduct, ...]:
        """Return the app's approved products. Its keys share them, unless a limit is per key; all its tokens do."""
        if key:
            return _for_key(self._remembered((app.organization, app.name, user, ""), app, user), key)
        subject = f"client/{app.name}"
        return self._remembered((app.organization, app.name, user, subject), app, user)

    def _remembered(self, place: tuple[str, str, str, str], app: App, user: str) -> tuple[BoundProduct, ...]:
        """Return products by organization, app, user and subject of limits per key (empty: to be filled in)."""
        found = self._products.get(place)
        if found is None:
            found = tuple(self._bind(app, user, product) for product in self._approved(app))
            if place[-1]:
                found = _for_key(found, place[-1])
            self._products[place] = found
            if len(self._products) > MAX_REMEMBERED:
                self._products.popitem(last=False)
        return found

    def _approved(self, app: App) -> Iterator[Product]:
        for subscription in app.products:
            product = self.snapshot.products.get(subscription.product)
            if product is not None and subscription.status is Approval.APPROVED:
                yield product

    def _bind(self, app: App, user: str, product: Product) -> BoundProduct:
        snapshot = self.snapshot
        organization = snapshot.organizations[app.organization]
        plan = product.rate_plan or organization.rate_plan
        return BoundProduct(
            product=product,
            models=_set(product.models),
            operations=frozenset(product.operations) or None,
            limits=self._limits(app, user, product),
            plan=snapshot.plans.get(plan) if plan else None,
        )

    def _limits(self, app: App, user: str, product: Product) -> tuple[BoundLimit, ...]:
        """Collect all limits that bind, each counter once, from wide to narrow."""
        snapshot, organization = self.snapshot, app.organization
        groups = snapshot.groups_of(organization, app.team, user)
        everyones = [*product.limits, *snapshot.organizations[organization].limits]
        own = list(snapshot.teams[organization, app.team].limits)
        person = snapshot.developers.get((organization, user))
        own += person.limits if person else []
        found: dict[str, BoundLimit] = {}
        for limit in self._known([*everyones, *own]):
            for bound in _subjects(limit, app, user, groups):
                found.setdefault(bound.prefix, bound)
        for group in groups:
            for limit in self._known(group.limits):
                for bound in _subjects(limit, app, user, [group]):
                    found.setdefault(bound.prefix, bound)
        return tuple(sorted(found.values(), key=lambda bound: _WIDTH[bound.limit.scope]))

    def _known(self, names: Iterable[str]) -> Iterator[Limit]:
        for name in names:
            limit = self.snapshot.limits.get(name)
            if limit is not None:
                yield limit


def _subjects(limit: Limit, app: App, user: str, groups: Iterable[Group]) -> Iterator[BoundLimit]:
    """Bind a limit to what its own scope counts together: for `group` each of `groups`, else one subject."""
    beginning = f"{app.organization}|{limit.name}|"
    models = _set(limit.models) if limit.models else None
    if limit.scope is Scope.GROUP:
        for group in groups:
            yield BoundLimit(limit, f"{beginning}group:{group.name}", models)
        return
    subject = {
        Scope.ORGANIZATION: "",
        Scope.TEAM: f"team:{app.team}",
        Scope.USER: f"user:{user}",
        Scope.KEY: "key:",
        Scope.MODEL: "model:",
    }[limit.scope]
    yield BoundLimit(limit, beginning + subject, models)


def _for_key(products: tuple[BoundProduct, ...], subject: str) -> tuple[BoundProduct, ...]:
    """Fill the subject into limits per key."""
    if not any(bound.limit.scope is Scope.KEY for product in products for bound in product.limits):
        return products
    return tuple(
        replace(product, limits=tuple(_filled(bound, subject) for bound in product.limits)) for product in products
    )


def _filled(bound: BoundLimit, subject: str) -> BoundLimit:
    return replace(bound, prefix=bound.prefix + subject) if bound.limit.scope is Scope.KEY else bound


def _set(names: list[str]) -> frozenset[str] | None:
    return None if EVERY in names else frozenset(names)
