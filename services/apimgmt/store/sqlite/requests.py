"""Reserve and settle, one request after the other, inside a transaction that the caller began.

Requests of one transaction share counters (of their organization, their team), so what they add is kept here, and
written once for each counter, by `write`. A request sees what those before it added; a refused one adds nothing.
"""

import functools
import json
import operator
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from services.apimgmt.store.api import DIMENSIONS, SUMS, Charge, Grant, Pace, Reservation, Settlement, StoreError
from services.apimgmt.store.sqlite.counters import SLOT_BITS, Counters

MAX_DIMENSIONS = 65_536
"""Sets of dimensions whose number a process remembers."""

MAX_OWNERS = 1024
"""Owners that a process remembers to have seen (commonly one: itself)."""

FIRST_LEASE_S = 60
"""Lease of an owner that has none yet when it first reserves; `renew` sets the real one."""

HOUR_S = 3600

_HELD_CHARGE = struct.Struct("<4q")
"""One charge of a reservation in the column `held`: place, when it expires, amount, and what is charged if lost."""

_dimensions = operator.itemgetter(*DIMENSIONS)
_sums = operator.itemgetter(*SUMS[1:])

_ARRIVAL = "SELECT arrival_us FROM paces WHERE counter = ?"
_ARRIVE = "INSERT OR REPLACE INTO paces (counter, arrival_us) VALUES (?, ?)"
_RESERVE = (
    "INSERT OR IGNORE INTO reservations (id, owner, held, record) "
    "SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM ledger WHERE id = ?1)"
)
_HELD = "SELECT owner, held, record FROM reservations WHERE id = ?"
_END = "DELETE FROM reservations WHERE id = ?"
_RECORD = "INSERT OR IGNORE INTO ledger (id, time, record) VALUES (?, ?, ?)"
_MATCH = " AND ".join(f"{name} = ?" for name in DIMENSIONS)
_NUMBER = f"SELECT id FROM dimensions WHERE {_MATCH}"  # noqa: S608 - constants
_DIMENSIONS = f"INSERT INTO dimensions ({', '.join(DIMENSIONS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_ROLLUP = (
    f"INSERT INTO rollups (dimensions, hour, {', '.join(SUMS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
    f"ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in SUMS)}"
)


class Requests:
    """What `reserve`, `settle` and the sweep do with one connection: `begin`, any number of calls, `write`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        cursor = connection.cursor()
        self._execute, self._many = cursor.execute, cursor.executemany
        self._counters = Counters(connection)
        self._dimensions: dict[tuple[str, ...], int] = {}
        """Set of dimensions -> its row."""
        self._owners: set[str] = set()
        """Owners that have, or had, a lease."""
        self._arrivals: dict[str, float] = {}
        """Pace -> its time stamp, as far as the transaction has come."""
        self._rollups: dict[tuple[int, int], Sequence[int]] = {}
        """Set of dimensions, hour -> what the transaction adds."""

    def begin(self) -> None:
        """Begin to use a transaction."""
        self._counters.begin()

    def write(self) -> None:
        """Write what was added: before the commit."""
        self._counters.write()
        if self._arrivals:
            self._many(_ARRIVE, list(self._arrivals.items()))
        if self._rollups:
            self._many(_ROLLUP, [(*place, *sums) for place, sums in self._rollups.items()])
        self._clear()

    def rolled_back(self) -> None:
        """Forget the transaction, and all that it may have made."""
        self._clear()
        self._counters.rolled_back()
        self._dimensions.clear()
        self._owners.clear()

    def _clear(self) -> None:
        self._arrivals.clear()
        self._rollups.clear()

    def reserve(self, reservation: Reservation) -> Grant:
        """Decide, and hold all or nothing. A repetition of what is held gets its grant again, and holds no more."""
        charges, paces, id_ = reservation.charges, reservation.paces, reservation.id
        counters = self._counters
        numbers, sums = counters.numbers, counters.sums
        totals: list[int] = []
        refused: list[int] = []
        places: list[int] = []
        held: list[int] = []
        for charge, lost in zip(charges, reservation.lost, strict=True):
            number, amount = numbers.get(charge.counter) or counters.number_of(charge.counter), charge.amount
            place = (number << SLOT_BITS) + charge.slot
            total = sums.get(place) if charge.slots == 1 else counters.rolling_sum(number, charge)
            if total is None:
                total = counters.sum(place)
            if total + amount > charge.ceiling and charge.enforced:
                refused.append(len(totals))
            totals.append(total)
            places.append(place)
            held += (place, charge.expires, amount, lost)
        before = totals
        if len({place >> SLOT_BITS for place in places}) < len(places):
            totals = _with_twins(charges, totals)
            refused = [i for i, c in enumerate(charges) if c.enforced and totals[i] + c.amount > c.ceiling]
        waits, arrivals = self._waits(paces, reservation.now * 1e6) if paces else ([], {})
        refused += [len(charges) + i for i, wait in enumerate(waits) if wait > 0 and paces[i].enforced]
        packed = _packing(len(held)).pack(*held)
        if refused:
            again = self._execute(_HELD, (id_,)).fetchone() is not None
        else:
            again = self._execute(_RESERVE, (id_, reservation.owner, packed, reservation.record)).rowcount != 1
        if again:
            self._check_repeated(reservation, packed)
            return Grant(True, before, [0.0] * len(paces))
        if refused:
            return Grant(False, totals, waits, refused)
        if reservation.owner not in self._owners:
            self._meet(reservation.owner, int(reservation.now))
        for at, (place, charge) in enumerate(zip(places, charges, strict=True)):
            self._counters.add(place, charge.amount, charge.expires)
            totals[at] += charge.amount
        self._arrivals.update(arrivals)
        return Grant(True, totals, waits)

    def settle(self, settlement: Settlement) -> None:
        """Write the record; release and charge, if there was a reservation. Nothing if the id was settled before."""
        id_, charges = settlement.id, settlement.charges
        if not self._book(id_, settlement.now, settlement.record, settlement.usage):
            return
        if not charges and (row := self._execute(_HELD, (id_,)).fetchone()):
            self._execute(_END, (id_,))
            self._release(row[1], lost=False)
        elif charges and self._execute(_END, (id_,)).rowcount == 1:
            for charge, used in zip(charges, settlement.used, strict=True):
                if used != charge.amount:
                    number = self._counters.number_of(charge.counter)
                    self._counters.add((number << SLOT_BITS) + charge.slot, used - charge.amount, charge.expires)

    def lose(self, request: str, now: int) -> bool:
        """Settle a reservation whose process is gone, as it was left. Tell whether it was still there."""
        row = self._execute(_HELD, (request,)).fetchone()
        if row is None:
            return False
        _, held, record = row
        self._execute(_END, (request,))
        self._book(request, now, record, _usage(record))
        self._release(held, lost=True)
        return True

    def _release(self, held: bytes, *, lost: bool) -> None:
        """Release what a reservation held; charge what is charged for a lost one."""
        for place, expires, amount, charged in _HELD_CHARGE.iter_unpack(held):
            self._counters.add(place, (charged if lost else 0) - amount, expires)

    def _check_repeated(self, reservation: Reservation, held: bytes) -> None:
        row = self._execute(_HELD, (reservation.id,)).fetchone()
        if row is None or row != (reservation.owner, held, reservation.record):
            raise StoreError(f"request {reservation.id} is there already; every request needs an id of its own")

    def _waits(self, paces: Sequence[Pace], now_us: float) -> tuple[list[float], dict[str, float]]:
        """Return how long each pace would have to wait, and the time stamps of those that need not.

        Theoretical arrival times, by the virtual scheduling algorithm of ITU-T I.371.
        """
        waits: list[float] = []
        fitting: dict[str, float] = {}
        latest: dict[str, float] = {}
        for pace in paces:
            begin = latest.get(pace.counter)
            if begin is None:
                begin = max(self._arrival(pace.counter), now_us)
            arrival = latest[pace.counter] = begin + pace.amount * pace.interval_us
            waits.append(max(0.0, arrival - now_us - pace.burst_us))
            if waits[-1] <= 0:
                fitting[pace.counter] = arrival
        return waits, fitting

    def _arrival(self, counter: str) -> float:
        arrival = self._arrivals.get(counter)
        if arrival is None:
            row = self._execute(_ARRIVAL, (counter,)).fetchone()
            arrival = row[0] if row else 0.0
        return arrival

    def _meet(self, owner: str, now: int) -> None:
        """Keep a sweep from taking the reservations of an owner that has not renewed its lease yet."""
        if len(self._owners) >= MAX_OWNERS:
            self._owners.clear()
        self._owners.add(owner)
        self._execute("INSERT OR IGNORE INTO leases (owner, until) VALUES (?, ?)", (owner, now + FIRST_LEASE_S))

    def _book(self, request: str, now: float, record: bytes, usage: Mapping[str, Any]) -> bool:
        """Write a record and add it to the sums; tell whether it is new."""
        if self._execute(_RECORD, (request, int(now), record)).rowcount != 1:
            return False
        try:
            names, sums = _dimensions(usage), _sums(usage)
            number = self._dimensions.get(names)
        except (KeyError, TypeError):
            names = tuple(str(usage.get(name) or "") for name in DIMENSIONS)
            sums = tuple(usage.get(name) or 0 for name in SUMS[1:])
            number = self._dimensions.get(names)
        if None in sums:
            sums = tuple(value or 0 for value in sums)
        if number is None:
            number = self._number_of_dimensions(names)
        place = (number, int(now) // HOUR_S)
        before = self._rollups.get(place)
        row = (1, *sums)
        self._rollups[place] = row if before is None else tuple(map(operator.add, before, row))
        return True

    def _number_of_dimensions(self, names: tuple[str, ...]) -> int:
        texts = [str(name or "") for name in names]
        row = self._execute(_NUMBER, texts).fetchone()
        if row is None:
            self._execute(_DIMENSIONS, texts)
            row = self._execute("SELECT last_insert_rowid()").fetchone()
        if len(self._dimensions) >= MAX_DIMENSIONS:
            self._dimensions.clear()
        self._dimensions[names] = row[0]
        return int(row[0])


def _with_twins(charges: Sequence[Charge], totals: Sequence[int]) -> list[int]:
    """Return each charge's total with the other charges of the same reservation that fall into its window."""
    found = list(totals)
    for i, charge in enumerate(charges):
        first = charge.slot - charge.slots
        found[i] += sum(
            other.amount
            for k, other in enumerate(charges)
            if k != i
            and other.counter == charge.counter
            and (other.slot == charge.slot if charge.slots == 1 else other.slot > first)
        )
    return found


@functools.lru_cache(256)
def _packing(numbers: int) -> struct.Struct:
    """Return how the column `held` has so many numbers."""
    return struct.Struct(f"<{numbers}q")


def _usage(record: bytes) -> Mapping[str, Any]:
    """Read a ledger record as `Settlement.usage`; what is no JSON object has none."""
    try:
        value = json.loads(record)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
