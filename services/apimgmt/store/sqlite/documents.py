"""Documents, audit and the change feed: functions of one connection. Writers begin the transaction."""

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from services.apimgmt.domain import Kind
from services.apimgmt.store.api import AuditEntry, Change, Conflict, Document, Feed

MAX_FEED = 10_000
"""Changes that the feed remembers; who asks from further back is told to forget everything."""

_COLUMNS = "kind, organization, name, body, revision, declared, updated"
_PUT = f"INSERT OR REPLACE INTO documents ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - constants
_ONE = "kind = ? AND organization = ? AND name = ?"


def snapshot(connection: sqlite3.Connection) -> tuple[int, Sequence[Document]]:
    """Return revision and documents, of one moment."""
    connection.execute("BEGIN")
    try:
        rows = connection.execute(f"SELECT {_COLUMNS} FROM documents").fetchall()  # noqa: S608 - constants
        return _state(connection, "revision"), [_document(row) for row in rows]
    finally:
        connection.execute("COMMIT")


def get(connection: sqlite3.Connection, kind: Kind, organization: str, name: str) -> Document | None:
    """Return one document."""
    query = f"SELECT {_COLUMNS} FROM documents WHERE {_ONE}"  # noqa: S608 - constants
    row = connection.execute(query, (kind.value, organization, name)).fetchone()
    return row and _document(row)


def page(
    connection: sqlite3.Connection, kind: Kind, organization: str | None, after: str, limit: int
) -> Sequence[Document]:
    """Return documents after `organization/name`, in the order of the primary key."""
    last_organization, _, last_name = after.partition("/")
    query = f"SELECT {_COLUMNS} FROM documents WHERE kind = ? AND (organization, name) > (?, ?)"  # noqa: S608
    arguments: list[Any] = [kind.value, last_organization, last_name]
    if organization is not None:
        query += " AND organization = ?"
        arguments.append(organization)
    rows = connection.execute(f"{query} ORDER BY organization, name LIMIT ?", (*arguments, limit)).fetchall()
    return [_document(row) for row in rows]


def change(connection: sqlite3.Connection, changes: Sequence[Change], audit: Sequence[AuditEntry]) -> int:
    """Make all changes, or raise Conflict."""
    revision = announce(connection, [""]) if changes else _state(connection, "revision")
    now = int(time.time())
    for one in changes:
        _change(connection, one, revision, now)
    write_audit(connection, audit)
    return revision


def feed(connection: sqlite3.Connection, since: int) -> Feed:
    """Return what changed since a revision: two reads by primary key if nothing did."""
    connection.execute("BEGIN")
    try:
        revision = _state(connection, "revision")
        if revision == since:
            return Feed(revision, False, ())
        if since > revision or since < _state(connection, "feed_floor"):
            return Feed(revision, True, (), everything=True)
        query = "SELECT DISTINCT key FROM changes WHERE revision > ?"
        changed = [row[0] for row in connection.execute(query, (since,))]
        return Feed(revision, "" in changed, [key for key in changed if key])
    finally:
        connection.execute("COMMIT")


def announce(connection: sqlite3.Connection, changed: Sequence[str]) -> int:
    """Begin a new revision, in which these keys changed (an empty id is "documents"). Return it."""
    query = "UPDATE state SET value = value + 1 WHERE name = 'revision' RETURNING value"
    revision = int(connection.execute(query).fetchone()[0])
    rows = ((revision, key) for key in changed)
    connection.executemany("INSERT INTO changes (revision, key) VALUES (?, ?)", rows)
    last = connection.execute("SELECT max(sequence) FROM changes").fetchone()[0] or 0
    oldest = connection.execute("SELECT revision FROM changes WHERE sequence = ?", (last - MAX_FEED,)).fetchone()
    if oldest:
        connection.execute("UPDATE state SET value = ? WHERE name = 'feed_floor'", oldest)
        connection.execute("DELETE FROM changes WHERE sequence <= ?", (last - MAX_FEED,))
    return revision


def write_audit(connection: sqlite3.Connection, entries: Sequence[AuditEntry]) -> None:
    """Write audit entries in their order."""
    rows = ((entry.organization, _json(asdict(entry))) for entry in entries)
    connection.executemany("INSERT INTO audit (organization, entry) VALUES (?, ?)", rows)


def read_audit(
    connection: sqlite3.Connection, organization: str | None, before: int, limit: int
) -> Sequence[AuditEntry]:
    """Return the newest entries before a sequence."""
    conditions, arguments = [], list[Any]()
    if organization is not None:
        conditions.append("organization = ?")
        arguments.append(organization)
    if before:
        conditions.append("sequence < ?")
        arguments.append(before)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    query = f"SELECT sequence, entry FROM audit {where} ORDER BY sequence DESC LIMIT ?"  # noqa: S608 - constants
    rows = connection.execute(query, (*arguments, limit)).fetchall()
    return [AuditEntry(**{**json.loads(entry), "sequence": sequence}) for sequence, entry in rows]


def _change(connection: sqlite3.Connection, one: Change, revision: int, now: int) -> None:
    place = (one.kind.value, one.organization, one.name)
    if one.expected is not None:
        row = connection.execute(f"SELECT revision FROM documents WHERE {_ONE}", place).fetchone()  # noqa: S608
        stored = row[0] if row else 0
        if stored != one.expected:
            raise Conflict(_mismatch(one, stored))
    if one.body is None:
        connection.execute(f"DELETE FROM documents WHERE {_ONE}", place)  # noqa: S608 - constants
    else:
        connection.execute(_PUT, (*place, _json(one.body), revision, one.declared, now))


def _mismatch(one: Change, stored: int) -> str:
    name = "/".join(part for part in (one.kind.value, one.organization, one.name) if part)
    found = f"revision {stored} is stored" if stored else "it is not stored"
    wanted = f"revision {one.expected}" if one.expected else "that it is not there yet"
    return f"{name}: the change expects {wanted}, but {found}; read it again and repeat the change"


def _state(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()[0])


def _document(row: tuple[Any, ...]) -> Document:
    kind, organization, name, body, revision, declared, updated = row
    return Document(Kind(kind), organization, name, json.loads(body), revision, bool(declared), updated)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
