"""Documents, their change feed and audit trail, and notes: one hash tag, so that every change is one script."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson

from services.apimgmt.domain import Kind
from services.apimgmt.store.api import AuditEntry, Change, Conflict, Document, Feed
from services.apimgmt.store.valkey import directory_scripts as scripts
from services.apimgmt.store.valkey.client import Client, Script
from services.apimgmt.store.valkey.layout import DIRECTORY, DIRECTORY_PREFIX
from services.apimgmt.store.valkey.link import Arg

MAX_FEED_KEYS = 1000
"""More changed keys than this are told as "everything"."""


class Directory:
    """See the module's text."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def _script(self, script: Script, *args: Arg) -> Any:
        return await self._client.script(script, DIRECTORY, [DIRECTORY_PREFIX], list(args))

    async def snapshot(self) -> tuple[int, list[Document]]:
        """See `Store.snapshot`."""
        revision, flat = await self._script(scripts.SNAPSHOT)
        documents = [_document(field, value) for field, value in zip(flat[::2], flat[1::2], strict=True)]
        return revision, sorted(documents, key=lambda d: (d.kind, d.organization, d.name))

    async def get(self, kind: Kind, organization: str, name: str) -> Document | None:
        """See `Store.get`."""
        field = f"{kind}/{_member(organization, name)}"
        value = await self._client.run(DIRECTORY, ("HGET", f"{DIRECTORY_PREFIX}docs", field))
        return None if value is None else _document(field.encode(), value)

    async def page(self, kind: Kind, organization: str | None, after: str, limit: int) -> list[Document]:
        """See `Store.page`."""
        first, last = "-", "+"
        if organization is not None:
            first, last = f"[{_member(organization, '')}", f"({organization}\x01"
        if after:
            place = _member(*after.partition("/")[::2])
            first = max(first, f"({place}", key=lambda bound: bound[1:])
        flat = await self._script(scripts.PAGE, kind, first, last, limit)
        return [_document(field, value) for field, value in zip(flat[::2], flat[1::2], strict=True)]

    async def change(self, changes: Sequence[Change], audit: Sequence[AuditEntry]) -> int:
        """See `Store.change`."""
        updated = audit[0].time if audit else int(time.time())
        args: list[Arg] = [secrets.token_hex(8), len(changes), len(audit)]
        for c in changes:
            expected = "" if c.expected is None else c.expected
            args += (c.kind, _member(c.organization, c.name), expected, "delete" if c.body is None else "put")
            args.append(b"" if c.body is None else b"\n%d\n%d\n%b" % (c.declared, updated, orjson.dumps(c.body)))
        args += audit_args(audit)
        done, *rest = await self._script(scripts.CHANGE, *args)
        if not done:
            raise Conflict(_conflict(changes[rest[0]], rest[1]))
        return int(rest[0])

    async def feed(self, since: int) -> Feed:
        """See `Store.feed`."""
        revision, *rest = await self._script(scripts.FEED, since)
        if not rest:
            return Feed(revision, documents=False, keys=())
        items = [item.partition(b":")[2] for item in rest[1]] if rest[0] else []
        keys = dict.fromkeys(item.decode() for item in items if item)
        if not rest[0] or len(keys) > MAX_FEED_KEYS:
            return Feed(revision, documents=True, keys=(), everything=True)
        return Feed(revision, documents=b"" in items, keys=tuple(keys))

    async def audit(self, organization: str | None, before: int, limit: int) -> list[AuditEntry]:
        """See `Store.audit`."""
        name = f"{DIRECTORY_PREFIX}audit" + ("" if organization is None else f":{organization}")
        if before == 1:
            return []
        newest = f"{before - 1}-0" if before else "+"
        found = await self._client.run(DIRECTORY, ("XREVRANGE", name, newest, "-", "COUNT", limit))
        return [
            replace(AuditEntry(**orjson.loads(fields[1])), sequence=int(id_.partition(b"-")[0]))
            for id_, fields in found
        ]

    async def note(self, name: str) -> tuple[int, bytes]:
        """See `Store.note`."""
        value = await self._client.run(DIRECTORY, ("HGET", f"{DIRECTORY_PREFIX}notes", name))
        if value is None:
            return 0, b""
        version, _, content = value.split(b"\n", 2)
        return int(version), content

    async def put_note(self, name: str, value: bytes, expected: int) -> int:
        """See `Store.put_note`."""
        version = await self._script(scripts.PUT_NOTE, name, value, expected, secrets.token_hex(8))
        if version < 0:
            raise Conflict(f"note {name}: not at version {expected} any more; read it again")
        return int(version)


def audit_args(audit: Sequence[AuditEntry]) -> list[Arg]:
    """Return organization and text of each entry, as scripts take them."""
    args: list[Arg] = []
    for e in audit:
        entry = {"time": e.time, "actor": e.actor, "action": e.action, "kind": e.kind}
        text = orjson.dumps(
            {**entry, "organization": e.organization, "name": e.name, "before": e.before, "after": e.after}
        )
        args += (e.organization, text)
    return args


def _member(organization: str, name: str) -> str:
    """Return an entry of a kind's index: sorted by bytes, they are in the order of (organization, name)."""
    return f"{organization}\0{name}"


def _document(field: bytes, value: bytes) -> Document:
    kind, _, member = field.decode().partition("/")
    organization, _, name = member.partition("\0")
    revision, declared, updated, body = value.split(b"\n", 3)
    return Document(Kind(kind), organization, name, orjson.loads(body), int(revision), declared == b"1", int(updated))


def _conflict(change: Change, stored: int) -> str:
    where = f"{change.kind}/{change.organization}/{change.name}".replace("//", "/")
    if not change.expected:
        return f"{where}: is there already (revision {stored}); choose another name, or change it"
    if not stored:
        return f"{where}: is gone (revision {change.expected} expected); create it again"
    return f"{where}: changed meanwhile (revision {stored}, {change.expected} expected); read it again"
