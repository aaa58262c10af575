"""API keys: functions of one connection. Each read goes by an index, whatever the number of keys."""

import sqlite3
from collections.abc import Iterable, Sequence

from services.apimgmt.domain import KeyPurpose, KeyRecord
from services.apimgmt.store.api import AuditEntry, Conflict
from services.apimgmt.store.sqlite.documents import announce, write_audit

READ = "SELECT record, last_used FROM keys"

_INSERT = """INSERT INTO keys (id, organization, app, developer, purpose, last_used, record)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
_LATER = "nullif(max(coalesce(keys.last_used, -1), coalesce(excluded.last_used, -1)), -1)"
_REPLACE = f"""{_INSERT} ON CONFLICT DO UPDATE SET organization = excluded.organization, app = excluded.app,
    developer = excluded.developer, purpose = excluded.purpose, record = excluded.record, last_used = {_LATER}"""


def get(connection: sqlite3.Connection, key_id: str) -> KeyRecord | None:
    """Return one key."""
    row = connection.execute(f"{READ} WHERE id = ?", (key_id,)).fetchone()
    return row and _record(*row)


def put(connection: sqlite3.Connection, records: Sequence[KeyRecord], audit: Sequence[AuditEntry], new: bool) -> int:
    """Write keys. `last_used` never goes back, nor does `revoked`; a digest never changes."""
    try:
        for record in records:
            if new:
                connection.execute(_INSERT, _row(record))
            else:
                connection.execute(_REPLACE, _row(_kept(connection, record)))
    except sqlite3.IntegrityError:
        raise Conflict("a key with one of these ids is there already; issue new ones") from None
    write_audit(connection, audit)
    return announce(connection, [record.id for record in records])


def _kept(connection: sqlite3.Connection, record: KeyRecord) -> KeyRecord:
    """Return the record with what may not be taken back, whatever its writer had read: in the writing transaction."""
    stored = get(connection, record.id)
    if stored is None:
        return record
    if stored.digest != record.digest:
        raise Conflict(f"keys/{record.id}: is another key: its digest differs; make another")
    if stored.revoked is None or (record.revoked is not None and record.revoked <= stored.revoked):
        return record
    return record.model_copy(update={"revoked": stored.revoked})


def find(
    connection: sqlite3.Connection,
    organization: str,
    app: str | None,
    developer: str | None,
    purpose: KeyPurpose | None,
    after: str,
    limit: int,
) -> Sequence[KeyRecord]:
    """Return keys of an organization in the order of their ids."""
    query, arguments = query_of(organization, app, developer, purpose, after)
    return [_record(*row) for row in connection.execute(query, (*arguments, limit)).fetchall()]


def query_of(
    organization: str, app: str | None, developer: str | None, purpose: KeyPurpose | None, after: str
) -> tuple[str, list[str]]:
    """Return the query of `find` and its arguments but the limit."""
    filters = {"organization": organization, "app": app, "developer": developer, "purpose": purpose}
    given = {name: value for name, value in filters.items() if value is not None}
    where = "".join(f"{name} = ? AND " for name in given)
    return f"{READ} WHERE {where}id > ? ORDER BY id LIMIT ?", [*map(str, given.values()), after]


def touch(connection: sqlite3.Connection, used: Iterable[tuple[str, int]]) -> None:
    """Note when keys were used last."""
    rows = ((time, key, time) for key, time in used)
    connection.executemany(
        "UPDATE keys SET last_used = ? WHERE id = ? AND coalesce(last_used, -1) < ?",
        rows,
    )


def _row(record: KeyRecord) -> tuple[str | int | None, ...]:
    text = record.model_dump_json(by_alias=True, exclude={"last_used"})
    place = (record.id, record.organization, record.app, record.developer, record.purpose.value)
    return (*place, record.last_used, text)


def _record(text: str, last_used: int | None) -> KeyRecord:
    record = KeyRecord.model_validate_json(text)
    return record.model_copy(update={"last_used": last_used})
