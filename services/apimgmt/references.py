"""Which documents name which others: checked before saving, and before removing."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.apimgmt.domain import ENTITIES, Entity, Kind
from services.apimgmt.store.api import Document
from services.extproc.config import Problem

Key = tuple[Kind, str, str]
"""Kind, organization (empty where it has none), name."""

MAX_LISTED = 20
"""Names listed in a message at most."""

STRUCTURE = frozenset({Kind.ORGANIZATION, Kind.TEAM, Kind.DEVELOPER})
"""What a document belongs to, and is nothing without."""

SINGULAR = {
    Kind.ORGANIZATION: "organization",
    Kind.TEAM: "team",
    Kind.DEVELOPER: "developer",
    Kind.GROUP: "group",
    Kind.APP: "app",
    Kind.PRODUCT: "product",
    Kind.LIMIT: "limit",
    Kind.RATE_PLAN: "rate plan",
    Kind.TEMPLATE_RULE: "template rule",
    Kind.KEY_VALUE_MAP: "key-value map",
}
"""What people call one of a kind."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One name in a document."""

    path: str
    """Where, for example `limits[0]`."""
    target: Key


_INSTALLATION = {"limits": Kind.LIMIT}
_SCOPED = {"teams": Kind.TEAM, "users": Kind.DEVELOPER}


def key_of(entity: Entity) -> Key:
    """Return where an entity is stored."""
    organization = getattr(entity, "organization", "") if entity.scoped else ""
    return entity.kind, organization, entity.name


def body_of(entity: Entity) -> dict[str, Any]:
    """Return an entity as it is stored."""
    return entity.model_dump(mode="json", by_alias=True)


def label(key: Key) -> str:
    """Return a key for people, for example `apps/acme/chat`."""
    return "/".join(part for part in (key[0].value, key[1], key[2]) if part)


def references(key: Key, body: Mapping[str, Any]) -> Iterator[Reference]:
    """Return every name of another document in `body`, in the order of its fields."""
    kind, organization, _ = key
    if ENTITIES[kind].scoped:
        yield Reference("organization", (Kind.ORGANIZATION, "", organization))
    if body.get("team"):
        yield Reference("team", (Kind.TEAM, organization, body["team"]))
    if body.get("developer"):
        yield Reference("developer", (Kind.DEVELOPER, organization, body["developer"]))
    for field, target in _SCOPED.items():
        for index, name in enumerate(body.get(field) or ()):
            yield Reference(f"{field}[{index}]", (target, organization, name))
    for field, target in _INSTALLATION.items():
        for index, name in enumerate(body.get(field) or ()):
            yield Reference(f"{field}[{index}]", (target, "", name))
    if body.get("ratePlan"):
        yield Reference("ratePlan", (Kind.RATE_PLAN, "", body["ratePlan"]))
    for index, subscription in enumerate((body.get("products") or ()) if kind is Kind.APP else ()):
        yield Reference(f"products[{index}].product", (Kind.PRODUCT, "", subscription["product"]))


def missing(key: Key, body: Mapping[str, Any], known: Collection[Key], path: str = "") -> list[Problem]:
    """Return a problem for each name in `body` that is not among `known`; `path` leads to the body."""
    problems = []
    for reference in references(key, body):
        if reference.target in known:
            continue
        kind, organization, name = reference.target
        names = sorted(k[2] for k in known if k[:2] == (kind, organization))
        near = difflib.get_close_matches(name, names, 1)
        where = f" of {organization}" if organization else ""
        listed = ", ".join(names[:MAX_LISTED]) or "none"
        fix = f"did you mean {near[0]!r}?" if near else f"add it, or name one of: {listed}"
        place = f"{path}.{reference.path}" if path else reference.path
        problems.append(Problem(place, repr(name), f"expected a {SINGULAR[kind]}{where} that exists", fix))
    return problems


def referrers(documents: Iterable[Document], target: Key) -> Sequence[str]:
    """Return the labels of the documents that name `target`."""
    return [
        label((document.kind, document.organization, document.name))
        for document in documents
        if any(
            reference.target == target
            for reference in references((document.kind, document.organization, document.name), document.body)
        )
    ]


def pruned(key: Key, body: Mapping[str, Any], gone: Collection[Key]) -> dict[str, Any]:
    """Return `body` without the names of `gone`, apart from what it belongs to."""
    lost = {r.path for r in references(key, body) if r.target in gone and r.target[0] not in STRUCTURE}
    kept = dict(body)
    if "ratePlan" in lost:
        kept["ratePlan"] = None
    for field in ("limits", "products"):
        if isinstance(kept.get(field), list):
            kept[field] = [
                item
                for index, item in enumerate(kept[field])
                if not lost & {f"{field}[{index}]", f"{field}[{index}].product"}
            ]
    return kept
