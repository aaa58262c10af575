"""Changing documents: checked against all others, with an audit entry, in one transaction.

The store checks a document's own revision, not what it refers to. A change is therefore checked against a snapshot
under a lock of this process, and looked at again if another process changed something in between.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from services.apimgmt import references
from services.apimgmt.admin import checks
from services.apimgmt.admin.access import Access
from services.apimgmt.admin.context import AdminContext
from services.apimgmt.admin.problems import ProblemError, invalid
from services.apimgmt.declared import holds_keys
from services.apimgmt.differences import public
from services.apimgmt.domain import ENTITIES, Entity, Kind
from services.apimgmt.references import Key, label
from services.apimgmt.store.api import AuditEntry, Change, Conflict, Document, Store

_locks: WeakKeyDictionary[Store, asyncio.Lock] = WeakKeyDictionary()


def lock(store: Store) -> asyncio.Lock:
    """Return the lock of this process's management changes to a store."""
    return _locks.setdefault(store, asyncio.Lock())


def refuse_declared(document: Document) -> None:
    """Raise ProblemError (409) for a document that the config file owns."""
    if document.declared:
        name = label((document.kind, document.organization, document.name))
        raise ProblemError(
            409, "declared", f"{name} is declared by the stack; change it there, the admin API can only read it"
        )


async def save(access: Access, before: Document | None, entity: Entity, *, declared: bool = False) -> Document:
    """Write `entity` in the place of `before` (None: it must be new). Return the document.

    Raises:
        ProblemError: 422 with what is wrong with it.
        Conflict: it is not in the state of `before` any more.
    """
    key, body = references.key_of(entity), references.body_of(entity)
    if before and before.body == body and before.declared == declared:
        return before
    change = Change(*key, body, declared, before.revision if before else 0)
    action = "update" if before else "create"
    async with lock(access.context.store):
        await _commit(
            access, change, _audit(access, action, key, before, body), lambda d: _refuse(access.context, entity, d)
        )
    document = await access.context.store.get(*key)
    if document is None:
        raise Conflict(f"{label(key)} was deleted meanwhile")
    return document


async def remove(access: Access, document: Document) -> None:
    """Delete `document`. Raises ProblemError (409) while others refer to it, or keys depend on it."""
    key = (document.kind, document.organization, document.name)
    change = Change(*key, None, expected=document.revision)
    entry = _audit(access, "delete", key, document, None)
    async with lock(access.context.store):
        if await holds_keys(access.context.store, key, access.context.now):
            raise ProblemError(
                409, "referred", f"{label(key)} has keys that still hold; revoke them first", referrers=["keys"]
            )
        await _commit(access, change, entry, lambda documents: _refuse_removal(access.context, key, documents))


async def _commit(
    access: Access, change: Change, entry: AuditEntry, refuse: Callable[[Sequence[Document]], None]
) -> None:
    """Make a change that `refuse` lets pass, and take it back if it turns out not to fit what came in between."""
    store = access.context.store
    seen, documents = await store.snapshot()
    refuse(documents)
    revision = await store.change([change], [entry])
    if revision == seen + 1:
        return
    before = next(
        (d for d in documents if (d.kind, d.organization, d.name) == (change.kind, change.organization, change.name)),
        None,
    )
    _, documents = await store.snapshot()
    try:
        refuse(documents)
    except ProblemError:
        undo = Change(
            change.kind,
            change.organization,
            change.name,
            before.body if before else None,
            before.declared if before else False,
            0 if change.body is None else revision,
        )
        back = AuditEntry(
            entry.time,
            entry.actor,
            "create" if change.body is None else "update" if before else "delete",
            entry.kind,
            entry.organization,
            entry.name,
            entry.after,
            entry.before,
        )
        await store.change([undo], [back])
        raise


def _refuse(context: AdminContext, entity: Entity, documents: Sequence[Document]) -> None:
    key, body = references.key_of(entity), references.body_of(entity)
    known: Collection[Key] = {(d.kind, d.organization, d.name) for d in documents} | {key}
    problems = references.missing(key, body, known)
    problems += checks.problems(context, entity, documents)
    if problems:
        raise invalid(f"the {references.SINGULAR[entity.kind]} {entity.name}", problems)


def _refuse_removal(context: AdminContext, key: Key, documents: Sequence[Document]) -> None:
    users = list(references.referrers(documents, key))
    if key[0] is Kind.KEY_VALUE_MAP:
        users += checks.map_users(context, documents, key[2])
    if users:
        listed = ", ".join(users[: references.MAX_LISTED])
        raise ProblemError(
            409,
            "referred",
            f"{label(key)} is still named by {len(users)} others: {listed}; change or delete those first",
            referrers=users[: references.MAX_LISTED],
        )


def _audit(
    access: Access, action: str, key: Key, before: Document | None, after: Mapping[str, Any] | None
) -> AuditEntry:
    kind, organization, name = key
    return AuditEntry(
        access.context.now,
        access.principal.actor,
        action,
        kind.value,
        organization,
        name,
        public(kind, before.body) if before else None,
        public(kind, after) if after is not None else None,
    )


def entity_of(kind: Kind, body: Mapping[str, Any]) -> Entity:
    """Return a stored body as its model."""
    return ENTITIES[kind].model_validate(dict(body))
