"""All documents of the store at one revision, read into entities and held against each other.

Made anew when a document changes; entities whose document did not change are taken over from the one before.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from services.apimgmt.domain import (
    ENTITIES,
    App,
    Developer,
    Entity,
    Group,
    KeyValueMap,
    Kind,
    Limit,
    Organization,
    Product,
    RatePlan,
    Team,
    TemplateRule,
)
from services.apimgmt.references import SINGULAR, label, references
from services.apimgmt.store.api import Document

E = TypeVar("E", bound=Entity)
Scoped = tuple[str, str]
"""Organization and name."""

MAX_PROBLEMS = 1000
"""Most problems that are listed."""


class Snapshot:
    """The documents. Read only; nothing here waits."""

    def __init__(self, revision: int = 0, documents: Sequence[Document] = (), before: "Snapshot | None" = None) -> None:
        """Read `documents`; `before` lends the entities that did not change. Never raises for what they say."""
        self.revision = revision
        self.problems: tuple[str, ...] = ()
        """What is wrong in the documents, for people: each names the document, what it refers to, and the effect."""
        self._known = before._read if before else {}
        self._read: dict[tuple[Kind, str, str], tuple[Mapping[str, Any], Entity]] = {}
        problems: list[str] = []
        for document in documents:
            self._take(document, problems)
        self._known = {}
        self.organizations: Mapping[str, Organization] = self._global(Kind.ORGANIZATION, Organization)
        self.products: Mapping[str, Product] = self._global(Kind.PRODUCT, Product)
        self.limits: Mapping[str, Limit] = self._global(Kind.LIMIT, Limit)
        self.plans: Mapping[str, RatePlan] = self._global(Kind.RATE_PLAN, RatePlan)
        self.template_rules: Mapping[str, TemplateRule] = self._global(Kind.TEMPLATE_RULE, TemplateRule)
        self.key_value_maps: Mapping[str, KeyValueMap] = self._global(Kind.KEY_VALUE_MAP, KeyValueMap)
        self.teams: Mapping[Scoped, Team] = self._scoped(Kind.TEAM, Team)
        self.developers: Mapping[Scoped, Developer] = self._scoped(Kind.DEVELOPER, Developer)
        self.groups: Mapping[Scoped, Group] = self._scoped(Kind.GROUP, Group)
        self.apps: Mapping[Scoped, App] = self._scoped(Kind.APP, App)
        self._groups_of: dict[Scoped, list[Group]] = {}
        for group in self.groups.values():
            for member in {*(f"team:{t}" for t in group.teams), *(f"user:{u}" for u in group.users)}:
                self._groups_of.setdefault((group.organization, member), []).append(group)
        self.clients = self._clients(problems)
        """App by its `oauthClientId`; one that two apps claim is of neither."""
        problems += _dangling(documents)
        self.problems = tuple(problems[:MAX_PROBLEMS])

    def groups_of(self, organization: str, team: str, user: str) -> list[Group]:
        """Return the groups that the team or the user is a member of, each once, by name."""
        found = self._groups_of.get((organization, f"team:{team}"), []) + self._groups_of.get(
            (organization, f"user:{user}"), []
        )
        return sorted({group.name: group for group in found}.values(), key=lambda group: group.name)

    def _take(self, document: Document, problems: list[str]) -> None:
        place = (document.kind, document.organization, document.name)
        known = self._known.get(place)
        if known and known[0] == document.body:
            self._read[place] = known
            return
        try:
            entity = ENTITIES[document.kind].model_validate(document.body)
        except (ValidationError, KeyError) as error:
            path = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else "kind"
            problems.append(f"{label(place)}: cannot be read ({path}), and is left out; write it again")
            return
        self._read[place] = (document.body, entity)

    def _global(self, kind: Kind, cls: type[E]) -> dict[str, E]:
        return {name: cast("E", e) for (k, _, name), (_, e) in self._read.items() if k is kind}

    def _scoped(self, kind: Kind, cls: type[E]) -> dict[Scoped, E]:
        return {(org, name): cast("E", e) for (k, org, name), (_, e) in self._read.items() if k is kind}

    def _clients(self, problems: list[str]) -> dict[str, App]:
        found: dict[str, App] = {}
        twice: set[str] = set()
        for app in self.apps.values():
            client = app.oauth_client_id
            if not client:
                continue
            if client in found:
                other = found[client]
                problems.append(
                    f"apps {other.organization}/{other.name} and {app.organization}/{app.name} both have the "
                    f"oauthClientId {client}; its tokens are refused until only one has it"
                )
                twice.add(client)
            found[client] = app
        return {client: app for client, app in found.items() if client not in twice}


_EFFECTS = {
    Kind.LIMIT: "it does not bind",
    Kind.RATE_PLAN: "use costs nothing",
    Kind.PRODUCT: "the subscription opens nothing",
    Kind.ORGANIZATION: "its credentials are refused",
    Kind.TEAM: "credentials of its apps are refused",
    Kind.DEVELOPER: "its credentials are refused",
}


def _dangling(documents: Sequence[Document]) -> Iterator[str]:
    """Look for references to what does not exist."""
    known = {(d.kind, d.organization, d.name) for d in documents}
    for document in documents:
        place = (document.kind, document.organization, document.name)
        for reference in references(place, document.body):
            if reference.target in known:
                continue
            kind, _, name = reference.target
            yield (
                f"{label(place)}: {reference.path}: there is no {SINGULAR[kind]} {name}, so {_EFFECTS[kind]}; "
                "create it, or take the reference out"
            )
