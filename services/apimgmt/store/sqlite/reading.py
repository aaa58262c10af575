"""Leases, counters, ledger, usage and notes: functions of one connection. Writers begin the transaction."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from services.apimgmt.store.api import (
    DIMENSIONS,
    SUMS,
    Charge,
    Conflict,
    StoreError,
    UnknownCursor,
    UsageQuery,
    UsageRow,
)
from services.apimgmt.store.sqlite.counters import NAMED, SLOT_BITS, TOTAL, bounds
from services.apimgmt.store.sqlite.requests import HOUR_S, Requests

BATCH = 500
"""Rows that one transaction of background work changes: requests wait for the lock meanwhile."""

ORPHANED = 8
"""Rows of reservations that one transaction settles: each may hold as many as `hot.MAX_BATCH`."""

LAST = (1 << 63) - 1
"""Largest sequence that SQLite gives (SQLite documentation, "AUTOINCREMENT")."""

_BUCKETS = {
    "hour": f"rollups.hour * {HOUR_S}",
    "day": f"rollups.hour / 24 * 24 * {HOUR_S}",
    "month": f"CAST(strftime('%s', rollups.hour * {HOUR_S}, 'unixepoch', 'start of month') AS INTEGER)",
    "all": "0",
}


def renew(connection: sqlite3.Connection, owner: str, until: int) -> None:
    """Keep the reservations of an owner until then."""
    connection.execute("INSERT OR REPLACE INTO leases (owner, until) VALUES (?, ?)", (owner, until))


def orphans(connection: sqlite3.Connection, now: int) -> list[int]:
    """Return the rows of reservations that no lease keeps."""
    query = "SELECT number FROM reservations WHERE owner NOT IN (SELECT owner FROM leases WHERE until >= ?)"
    return [row[0] for row in connection.execute(query, (now,))]


def lose(connection: sqlite3.Connection, rows: Sequence[int], now: int) -> int:
    """Settle those that are still without a lease, as they were left. Return how many requests."""
    still = set(orphans(connection, now)) if rows else set()
    requests = Requests(connection)
    requests.begin()
    lost = sum(requests.lose(row, now) for row in rows if row in still)
    requests.write()
    return lost


def expire(connection: sqlite3.Connection, now: int) -> int:
    """Drop a batch of slots that nobody asks for any more, and leases that ended. Return how many slots."""
    connection.execute(
        "DELETE FROM leases WHERE until < ? AND owner NOT IN (SELECT owner FROM reservations)",
        (now,),
    )
    query = """DELETE FROM counters WHERE place IN
        (SELECT place FROM counters WHERE expires > 0 AND expires <= ? LIMIT ?)"""
    return connection.execute(query, (now, BATCH)).rowcount


def forget(connection: sqlite3.Connection, after: int) -> int | None:
    """Take their numbers from a batch of counters that have no slot. Return where to go on; None at the end.

    Whoever remembers such a number must not add to it any more: `forgotten` tells, in the same transaction. Numbers are
    never given again. (A reservation that still names one is of a slot that expired.)
    """
    query = "SELECT number FROM names WHERE number > ? ORDER BY number LIMIT ?"
    numbers = [row[0] for row in connection.execute(query, (after, BATCH))]
    if not numbers:
        return None
    query = f"""DELETE FROM names WHERE number > ? AND number <= ? AND NOT EXISTS (SELECT 1 FROM counters
        WHERE place BETWEEN number << {SLOT_BITS} AND ((number + 1) << {SLOT_BITS}) - 1)"""  # noqa: S608 - constants
    if connection.execute(query, (after, numbers[-1])).rowcount:
        connection.execute("UPDATE state SET value = value + 1 WHERE name = 'forgotten'")
    return int(numbers[-1])


def expire_paces(connection: sqlite3.Connection, now: int, after: str) -> str:
    """Drop those of a batch of paces that are back at rest. Return where to go on; "" at the end."""
    query = "SELECT counter FROM paces WHERE counter > ? ORDER BY counter LIMIT ?"
    counters = [row[0] for row in connection.execute(query, (after, BATCH))]
    if not counters:
        return ""
    connection.execute(
        "DELETE FROM paces WHERE counter > ? AND counter <= ? AND arrival_us <= ?",
        (after, counters[-1], now * 1e6),
    )
    return str(counters[-1])


def totals(connection: sqlite3.Connection, charges: Sequence[Charge]) -> Sequence[int]:
    """Return used and held per charge."""
    connection.execute("BEGIN")
    try:
        return [_total(connection, charge) for charge in charges]
    finally:
        connection.execute("COMMIT")


def _total(connection: sqlite3.Connection, charge: Charge) -> int:
    row = connection.execute(NAMED, (charge.counter,)).fetchone()
    return connection.execute(TOTAL, bounds(row[0], charge)).fetchone()[0] or 0 if row else 0


def ledger(
    connection: sqlite3.Connection, after: str, limit: int, until: str | None = None
) -> tuple[str, Sequence[bytes]]:
    """Return records after a sequence. Writers follow each other, so none appears before one that was seen."""
    query = """SELECT sequence, record FROM ledger WHERE sequence > ? AND sequence <= ? AND record IS NOT NULL
        ORDER BY sequence LIMIT ?"""
    rows = connection.execute(query, (sequence_of(after), sequence_of(until), limit)).fetchall()
    return (str(rows[-1][0]) if rows else after), [row[1] for row in rows]


def sequence_of(cursor: str | None) -> int:
    """Return the sequence that a cursor names; one that none exceeds for None. Raises UnknownCursor."""
    if cursor is None:
        return LAST
    if cursor and not (cursor.isascii() and cursor.isdecimal()):
        raise UnknownCursor(f"ledger: {cursor[:40]!r} is no cursor; pass one that was returned, or nothing")
    return min(int(cursor or 0), LAST)


def usage(connection: sqlite3.Connection, query: UsageQuery) -> Sequence[UsageRow]:
    """Sum whole hours."""
    unknown = [name for name in (*query.group_by, *query.where) if name not in DIMENSIONS]
    if unknown or query.bucket not in _BUCKETS:
        raise StoreError(f"usage: {(unknown or [query.bucket])[0]!r} is none of {', '.join((*DIMENSIONS, *_BUCKETS))}")
    where = dict(query.where)
    arguments: list[Any] = [query.since // HOUR_S, query.until // HOUR_S]
    conditions = "rollups.hour >= ? AND rollups.hour < ?"
    if query.organization is not None:
        conditions += " AND dimensions.organization = ?"
        arguments.append(query.organization)
    for name, value in where.items():
        conditions += f" AND dimensions.{name} = ?"
        arguments.append(value)
    groups = [f"dimensions.{name}" for name in query.group_by]
    columns = ", ".join(
        [f"{_BUCKETS[query.bucket]} AS start", *groups, *(f"CAST(sum({name}) AS INTEGER)" for name in SUMS)]
    )
    order = ", ".join(["start", *groups])
    text = f"""SELECT {columns} FROM dimensions JOIN rollups ON rollups.dimensions = dimensions.id
        WHERE {conditions} GROUP BY {order} ORDER BY {order}"""  # noqa: S608 - names were checked
    count = 1 + len(groups)
    return [
        UsageRow(
            row[0], dict(zip(query.group_by, row[1:count], strict=True)), dict(zip(SUMS, row[count:], strict=True))
        )
        for row in connection.execute(text, arguments).fetchall()
    ]


def prune(connection: sqlite3.Connection, before: int, after: int, until: int = LAST) -> tuple[int, int | None]:
    """Drop old records among a batch after a sequence, up to another. Return how many, and where to go on (None: done).

    The last record only loses its content: its number must not be given again, cursors count on that.
    """
    query = "SELECT sequence, time FROM ledger WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?"
    rows = connection.execute(query, (after, until, BATCH)).fetchall()
    old = [sequence for sequence, time in rows if time < before]
    if not old:
        return 0, None
    last = connection.execute("SELECT max(sequence) FROM ledger").fetchone()[0]
    empty = connection.execute(
        "SELECT count(*) FROM ledger WHERE sequence BETWEEN ? AND ? AND time < ? AND record IS NULL",
        (old[0], old[-1], before),
    ).fetchone()[0]
    connection.execute(
        "DELETE FROM ledger WHERE sequence BETWEEN ? AND ? AND time < ? AND sequence < ?",
        (old[0], old[-1], before, last),
    )
    if old[-1] == last:
        connection.execute("UPDATE ledger SET record = NULL WHERE sequence = ?", (last,))
    return len(old) - empty, rows[-1][0]


def note(connection: sqlite3.Connection, name: str) -> tuple[int, bytes]:
    """Return version and value."""
    row = connection.execute("SELECT version, value FROM notes WHERE name = ?", (name,)).fetchone()
    return (row[0], bytes(row[1])) if row else (0, b"")


def put_note(connection: sqlite3.Connection, name: str, value: bytes, expected: int) -> int:
    """Replace a note."""
    version, _ = note(connection, name)
    if version != expected:
        raise Conflict(f"note {name}: version {version} is stored, not {expected}; another process was faster")
    connection.execute(
        "INSERT OR REPLACE INTO notes (name, version, value) VALUES (?, ?, ?)", (name, version + 1, value)
    )
    return version + 1
