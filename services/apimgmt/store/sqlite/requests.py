"""Reserve and settle, one request at a time, inside a transaction that the caller began.

Few statements, since each costs microseconds: all counters are read by one row of subqueries and written by one upsert
of many rows. Every decision is computed before the first write, so a refused reservation leaves nothing.
"""

import functools
import json
import operator
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from services.apimgmt.store.api import (
    DIMENSIONS,
    SUMS,
    Charge,
    Grant,
    Pace,
    Reservation,
    Settlement,
    StoreError,
)

LAST_SLOT = 2**63 - 1
"""Largest integer of SQLite: a rolling window also counts the slots of processes whose clock is ahead."""

MAX_DIMENSIONS = 65_536
"""Sets of dimensions whose number a process remembers."""

MAX_OWNERS = 1024
"""Owners that a process remembers to have seen (commonly one: itself)."""

FIRST_LEASE_S = 60
"""Lease of an owner that has none yet when it first reserves; `renew` sets the real one."""

HOUR_S = 3600

_dimensions = operator.itemgetter(*DIMENSIONS)
_sums = operator.itemgetter(*SUMS[1:])

_RESERVE = "INSERT INTO reservations (id, owner, release, record) VALUES (?, ?, ?, ?)"
_END = "DELETE FROM reservations WHERE id = ?"
_RECORD = "INSERT OR IGNORE INTO ledger (id, time, record) VALUES (?, ?, ?)"
_MATCH = " AND ".join(f"{name} = ?" for name in DIMENSIONS)
_NUMBER = f"SELECT id FROM dimensions WHERE {_MATCH}"  # noqa: S608 - constants
_DIMENSIONS = f"INSERT INTO dimensions ({', '.join(DIMENSIONS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_ROLLUP = (
    f"INSERT INTO rollups (dimensions, hour, {', '.join(SUMS)}) VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
    f"ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in SUMS)}"
)


@functools.lru_cache(256)
def select(charges: int, paces: int) -> str:
    """Return the statement that reads so many windows and paces as one row."""
    window = "(SELECT sum(used) FROM counters WHERE counter = ? AND slot BETWEEN ? AND ?)"
    pace = "(SELECT arrival_us FROM paces WHERE counter = ?)"
    return "SELECT " + ", ".join([window] * charges + [pace] * paces)


@functools.lru_cache(256)
def _add(rows: int) -> str:
    return (
        f"INSERT INTO counters (counter, slot, used, expires) VALUES {', '.join(['(?, ?, ?, ?)'] * rows)} "  # noqa: S608
        "ON CONFLICT DO UPDATE SET used = used + excluded.used"
    )


@functools.lru_cache(256)
def _arrive(rows: int) -> str:
    return (
        f"INSERT INTO paces (counter, arrival_us) VALUES {', '.join(['(?, ?)'] * rows)} "  # noqa: S608 - marks only
        "ON CONFLICT DO UPDATE SET arrival_us = excluded.arrival_us"
    )


def windows(charges: Sequence[Charge]) -> list[Any]:
    """Return the arguments of `select` for charges."""
    arguments: list[Any] = []
    for charge in charges:
        slot, slots = charge.slot, charge.slots
        arguments += (charge.counter, slot - slots + 1, slot if slots == 1 else LAST_SLOT)
    return arguments


class Requests:
    """What `reserve`, `settle` and the sweep do with one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.cursor().execute
        self._numbers: dict[tuple[str, ...], int] = {}
        """Set of dimensions -> its row."""
        self._owners: set[str] = set()
        """Owners that have, or had, a lease."""

    def rolled_back(self) -> None:
        """Forget what the transaction had made."""
        self._numbers.clear()
        self._owners.clear()

    def reserve(self, reservation: Reservation) -> Grant:
        """Decide, and hold all or nothing."""
        charges, paces = reservation.charges, reservation.paces
        count = len(charges)
        totals, waits, arrivals = self._look(reservation)
        refused = [i for i, c in enumerate(charges) if c.enforced and totals[i] + c.amount > c.ceiling]
        refused += [count + i for i, wait in enumerate(waits) if wait > 0 and paces[i].enforced]
        if refused:
            return Grant(False, totals, waits, refused)
        release = "\n".join(
            [f"{c.slot} {c.expires} {n - c.amount} {c.counter}" for c, n in zip(charges, reservation.lost, strict=True)]
        )
        if count and release.count("\n") != count - 1:
            raise StoreError("a counter's name has a line break; expected organization|limit|subject")
        try:
            self._execute(_RESERVE, (reservation.id, reservation.owner, release, reservation.record))
        except sqlite3.IntegrityError:
            raise StoreError(
                f"reservation {reservation.id} is there already; every request needs an id of its own"
            ) from None
        if reservation.owner not in self._owners:
            self._meet(reservation.owner, int(reservation.now))
        self._charge([(c.counter, c.slot, c.amount, c.expires) for c in charges])
        if paces:
            fitting = [(p.counter, a) for p, a, wait in zip(paces, arrivals, waits, strict=True) if wait <= 0]
            if fitting:
                self._execute(_arrive(len(fitting)), [value for row in fitting for value in row])
        return Grant(True, [total + c.amount for total, c in zip(totals, charges, strict=True)], waits)

    def settle(self, settlement: Settlement) -> None:
        """Write the record; release and charge, if there was a reservation. Nothing if the id was settled before."""
        if not self._book(settlement.id, settlement.now, settlement.record, settlement.usage):
            return
        if self._execute(_END, (settlement.id,)).rowcount:
            self._charge(
                [
                    (c.counter, c.slot, used - c.amount, c.expires)
                    for c, used in zip(settlement.charges, settlement.used, strict=True)
                ]
            )

    def lose(self, request: str, now: int) -> bool:
        """Settle a reservation whose process is gone, as it was left. Tell whether it was still there."""
        row = self._execute("SELECT release, record FROM reservations WHERE id = ?", (request,)).fetchone()
        if row is None:
            return False
        release, record = row
        self._execute(_END, (request,))
        self._book(request, now, record, _usage(record))
        parts = [line.split(" ", 3) for line in release.split("\n") if line]
        self._charge([(counter, int(slot), int(change), int(expires)) for slot, expires, change, counter in parts])
        return True

    def _look(self, reservation: Reservation) -> tuple[list[int], list[float], list[float]]:
        """Return totals before, waits, and the arrival times that paces would get."""
        charges, paces = reservation.charges, reservation.paces
        count = len(charges)
        if not count and not paces:
            return [], [], []
        arguments = windows(charges)
        arguments += [pace.counter for pace in paces]
        row = self._execute(select(count, len(paces)), arguments).fetchone()
        totals = [total or 0 for total in row[:count]]
        if len({charge.counter for charge in charges}) < count:
            _count_twins(charges, totals)
        if not paces:
            return totals, [], []
        now_us = reservation.now * 1e6
        arrivals = _arrivals(paces, row[count:], now_us)
        waits = [max(0.0, a - now_us - pace.burst_us) for a, pace in zip(arrivals, paces, strict=True)]
        return totals, waits, arrivals

    def _meet(self, owner: str, now: int) -> None:
        """Keep a sweep from taking the reservations of an owner that has not renewed its lease yet."""
        if len(self._owners) >= MAX_OWNERS:
            self._owners.clear()
        self._owners.add(owner)
        self._execute("INSERT OR IGNORE INTO leases (owner, until) VALUES (?, ?)", (owner, now + FIRST_LEASE_S))

    def _charge(self, changes: list[tuple[str, int, int, int]]) -> None:
        values: list[Any] = []
        for change in changes:
            if change[2]:
                values += change
        if values:
            self._execute(_add(len(values) // 4), values)

    def _book(self, request: str, now: float, record: bytes, usage: Mapping[str, Any]) -> bool:
        """Write a record and add it to the sums; tell whether it is new."""
        if self._execute(_RECORD, (request, int(now), record)).rowcount != 1:
            return False
        try:
            names, sums = _dimensions(usage), _sums(usage)
            number = self._numbers.get(names)
        except (KeyError, TypeError):
            names = tuple(str(usage.get(name) or "") for name in DIMENSIONS)
            sums = tuple(usage.get(name) or 0 for name in SUMS[1:])
            number = self._numbers.get(names)
        if None in sums:
            sums = tuple(value or 0 for value in sums)
        if number is None:
            number = self._number(names)
        self._execute(_ROLLUP, (number, int(now) // HOUR_S, *sums))
        return True

    def _number(self, names: tuple[str, ...]) -> int:
        texts = [str(name or "") for name in names]
        row = self._execute(_NUMBER, texts).fetchone()
        if row is None:
            self._execute(_DIMENSIONS, texts)
            row = self._execute("SELECT last_insert_rowid()").fetchone()
        if len(self._numbers) >= MAX_DIMENSIONS:
            self._numbers.clear()
        self._numbers[names] = row[0]
        return int(row[0])


def _count_twins(charges: Sequence[Charge], totals: list[int]) -> None:
    """Add, to each charge's total, the other charges of the same reservation that fall into its window."""
    for i, charge in enumerate(charges):
        first = charge.slot - charge.slots
        totals[i] += sum(
            other.amount
            for k, other in enumerate(charges)
            if k != i
            and other.counter == charge.counter
            and (other.slot == charge.slot if charge.slots == 1 else other.slot > first)
        )


def _usage(record: bytes) -> Mapping[str, Any]:
    """Read a ledger record as `Settlement.usage`; what is no JSON object has none."""
    try:
        value = json.loads(record)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _arrivals(paces: Sequence[Pace], stored: Sequence[float | None], now_us: float) -> list[float]:
    """Return the theoretical arrival times after the amounts (ITU-T I.371, virtual scheduling)."""
    arrivals: list[float] = []
    latest: dict[str, float] = {}
    for pace, before in zip(paces, stored, strict=True):
        begin = latest.get(pace.counter, max(before or 0.0, now_us))
        latest[pace.counter] = begin + pace.amount * pace.interval_us
        arrivals.append(latest[pace.counter])
    return arrivals
