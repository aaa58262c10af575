"""What the config file declares, applied to the store: at start and at each reload, all of it or nothing.

The file wins over the admin API: a document that was made there is taken over when the file declares its name. What
vanishes from the file is deleted, except that nothing is taken away under somebody:
- a developer or app with keys that still hold is kept, inactive: its keys are refused, and nobody can make another of
  its name that they would open. So are the team and organization that it belongs to. They go with the last key.
- a key-value map with values is kept, and left to the admin API.
- what documents of the admin API still name is not let go: the file is refused, and the error names them.
Ledger and audit trail are never touched.
"""

import asyncio
import logging
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from services.apimgmt import references, template_rules
from services.apimgmt.differences import Diff, Difference, public
from services.apimgmt.domain import KeyRecord, Kind
from services.apimgmt.references import Key, label
from services.apimgmt.settings import Settings
from services.apimgmt.store.api import AuditEntry, Change, Conflict, Document, Store, StoreError
from services.extproc.config import ConfigError, Problem

ACTOR = "declared"
ATTEMPTS = 20
"""How often a plan is made anew because another process changed the store meanwhile."""
BACKOFF_S = 0.02
"""Longest pause before the second attempt, seconds; it grows with each."""
MAX_LOGGED = 50
"""Lines of a diff that are logged at most."""
KEYS_PAGE = 500

logger = logging.getLogger("penstock.apimgmt.declared")


def plan(documents: Sequence[Document], settings: Settings, held: Collection[Key] = ()) -> Diff:
    """Return what applying `settings` to a store with `documents` does.

    Args:
        held: apps and developers among the documents that keys depend on (`holders`).

    Raises:
        ConfigError: with every name that leads nowhere, stands twice, or cannot be let go, and each declared product
            that violates a declared template rule. (Rules of the admin API do not keep a process from starting.)
    """
    wanted, paths, problems = _wanted(settings)
    stored = {_key(document): document for document in documents}
    gone = {k for k, document in stored.items() if document.declared and k not in wanted}
    others = {k: d.body for k, d in stored.items() if not d.declared and k not in wanted}
    known = wanted.keys() | others.keys()
    for key, body in wanted.items():
        problems += references.missing(key, body, known, paths[key])
    problems += _still_named(gone, others)
    problems += template_rules.problems_of_rules(settings.template_rules)
    problems += template_rules.problems_of_products(settings.template_rules, settings.policies, settings.products)
    if problems:
        raise ConfigError("declared", problems)
    differences, unchanged = [], []
    for key, body in wanted.items():
        before = stored.get(key)
        if before and key[0] is Kind.KEY_VALUE_MAP:
            body = {**body, "entries": before.body.get("entries") or {}}  # set over the API
        if before and before.declared and before.body == body:
            unchanged.append(key)
        else:
            note = "" if before is None or before.declared else "taken over from the admin API"
            differences.append(Difference(key, before, body, note=note))
    for change in _vanished(stored, gone, held):
        if change.before and change.after == change.before.body and change.declared:
            unchanged.append(change.key)
        else:
            differences.append(change)
    return Diff(differences, unchanged)


async def apply(store: Store, settings: Settings, now: int) -> Diff:
    """Bring the store to what `settings` declares, in one step, and log what that changed.

    Of several processes that do so at once one makes the changes, and the others find nothing to do.

    Raises:
        ConfigError: as `plan`; nothing has changed then.
        StoreError: the store cannot be used.
    """
    for attempt in range(1, ATTEMPTS + 1):
        diff = await preview(store, settings, now)
        if not diff.differences:
            logger.info("declared: nothing to change", extra={"unchanged": len(diff.unchanged)})
            return diff
        try:
            await store.change([_change(d) for d in diff.differences], [_audit(d, now) for d in diff.differences])
        except Conflict:
            await asyncio.sleep(random.uniform(0, BACKOFF_S * attempt))
            continue
        lines = str(diff).splitlines()
        more = [f"and {len(lines) - MAX_LOGGED} more"] if len(lines) > MAX_LOGGED else []
        logger.info("declared: " + "\n".join(lines[:MAX_LOGGED] + more))
        return diff
    raise StoreError(f"declared: the store changed in each of {ATTEMPTS} attempts; start again when others are done")


async def preview(store: Store, settings: Settings, now: int) -> Diff:
    """Return what `apply` would do now. Raises as `apply`."""
    _, documents = await store.snapshot()
    declared = {references.key_of(entity) for entity in settings.entities()}
    leaving = [key for d in documents if d.declared and (key := _key(d)) not in declared]
    return plan(documents, settings, [key for key in leaving if await holds_keys(store, key, now)])


async def holds_keys(store: Store, key: Key, now: int) -> bool:
    """Tell whether keys that hold, or will, depend on an app or developer."""
    kind, organization, name = key
    if kind not in (Kind.APP, Kind.DEVELOPER):
        return False
    after = ""
    while True:
        page = await store.keys(
            organization,
            app=name if kind is Kind.APP else None,
            developer=name if kind is Kind.DEVELOPER else None,
            after=after,
            limit=KEYS_PAGE,
        )
        if any(alive(record, now) for record in page):
            return True
        if len(page) < KEYS_PAGE:
            return False
        after = page[-1].id


def alive(record: KeyRecord, now: int) -> bool:
    """Tell whether a key opens anything now."""
    return not any(end is not None and end <= now for end in (record.expires, record.revoked))


def _key(document: Document) -> Key:
    return document.kind, document.organization, document.name


def _wanted(settings: Settings) -> tuple[dict[Key, dict[str, Any]], dict[Key, str], list[Problem]]:
    """Return what is declared with its place in the file, and what stands there twice."""
    wanted: dict[Key, dict[str, Any]] = {}
    paths: dict[Key, str] = {}
    problems = []
    counts: dict[Kind, int] = {}
    for entity in settings.entities():
        key, index = references.key_of(entity), counts.get(entity.kind, 0)
        counts[entity.kind] = index + 1
        path = f"{entity.kind.value}[{index}]"
        if key in wanted:
            expected = f"expected each name once; it is {paths[key]} already"
            problems.append(Problem(f"{path}.name", repr(entity.name), expected, "rename or remove one of the two"))
        else:
            wanted[key], paths[key] = references.body_of(entity), path
    return wanted, paths, problems


def _still_named(gone: Collection[Key], others: Mapping[Key, Mapping[str, Any]]) -> list[Problem]:
    """Return a problem for each vanished document that documents of the admin API name."""
    users: dict[Key, list[str]] = {}
    for key, body in others.items():
        for reference in references.references(key, body):
            if reference.target in gone:
                users.setdefault(reference.target, []).append(f"{label(key)} ({reference.path})")
    problems = []
    for key in sorted(users):
        listed = ", ".join(users[key][: references.MAX_LISTED])
        more = len(users[key]) - references.MAX_LISTED
        expected = f"gone from the file, but still named by {listed}" + (f" and {more} more" if more > 0 else "")
        problems.append(
            Problem(key[0].value, label(key), expected, "put it back, or change those by the admin API first")
        )
    return problems


def _vanished(stored: Mapping[Key, Document], gone: Collection[Key], held: Collection[Key]) -> list[Difference]:
    """Return what becomes of the documents that the file no longer has."""
    keep: set[Key] = set()
    waiting = [key for key in gone if key in held]
    while waiting:
        key = waiting.pop()
        if key in keep:
            continue
        keep.add(key)
        named = (r.target for r in references.references(key, stored[key].body))
        waiting += [target for target in named if target in gone and target[0] in references.STRUCTURE]
    valued = {k for k in gone if k[0] is Kind.KEY_VALUE_MAP and stored[k].body.get("entries")}
    lost = set(gone) - keep - valued
    changes = []
    for key in sorted(gone, reverse=True):
        before = stored[key]
        if key in valued:
            changes.append(
                Difference(key, before, before.body, declared=False, note="has values: left to the admin API")
            )
        elif key in keep:
            after = references.pruned(key, before.body, lost)
            if "active" in after:
                after["active"] = False
            changes.append(Difference(key, before, after, note="kept, inactive: keys depend on it"))
        else:
            changes.append(Difference(key, before, None))
    return changes


def _change(difference: Difference) -> Change:
    expected = difference.before.revision if difference.before else 0
    return Change(*difference.key, difference.after, difference.declared and difference.after is not None, expected)


def _audit(difference: Difference, now: int) -> AuditEntry:
    (kind, organization, name), before, after = difference.key, difference.before, difference.after
    return AuditEntry(
        now,
        ACTOR,
        difference.action,
        kind.value,
        organization,
        name,
        public(kind, before.body) if before else None,
        public(kind, after) if after is not None else None,
    )
