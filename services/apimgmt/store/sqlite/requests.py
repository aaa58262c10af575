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
from services.apimgmt.store.sqlite.reservations import Held, Reservations, charges_of, entries_of

MAX_DIMENSIONS = 65_536
"""Sets of dimensions whose number a process remembers."""

MAX_OWNERS = 1024
"""Owners that a process remembers to have seen (commonly one: itself)."""

FIRST_LEASE_S = 60
"""Lease of an owner that has none yet when it first reserves; `renew` sets the real one."""

HOUR_S = 3600

_dimensions = operator.itemgetter(*DIMENSIONS)
_sums = operator.itemgetter(*SUMS[1:])

_ARRIVAL = "SELECT arrival_us FROM paces WHERE counter = ?"
_ARRIVE = "INSERT OR REPLACE INTO paces (counter, arrival_us) VALUES (?, ?)"
_SETTLED = "SELECT 1 FROM ledger WHERE id = ?"
_RECORD = "INSERT OR IGNORE INTO ledger (id, time, record) VALUES (?, ?, ?)"
_MATCH = " AND ".join(f"{name} = ?" for name in DIMENSIONS)
_NUMBER = f"SELECT id FROM dimensions WHERE {_MATCH}"  # noqa: S608 - constants
_DIMENSIONS = f"INSERT INTO dimensions ({', '.join(DIMENSIONS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_ROLLUP = (
    f"INSERT INTO rollups (dimensions, hour, {', '.join(SUMS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
    f"ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in SUMS)}"
)


class Swept(Exception):
    """Another process has settled a reservation of this one (its lease had ended): the transaction begins anew."""


class Requests:
    """What `reserve`, `settle` and the sweep do with one connection: `begin`, any number of calls, `write`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        cursor = connection.cursor()
        self._execute, self._many = cursor.execute, cursor.executemany
        self._counters = Counters(connection)
        self._reservations = Reservations(connection)
        self._dimensions: dict[tuple[str, ...], int] = {}
        """Set of dimensions -> its row."""
        self._owners: set[str] = set()
        """Owners that have, or had, a lease."""
        self._arrivals: dict[str, float] = {}
        """Pace -> its time stamp, as far as the transaction has come."""
        self._records: list[tuple[str, int, bytes]] = []
        """Of requests that this process holds."""
        self._rollups: dict[tuple[int, int], Sequence[int]] = {}
        """Set of dimensions, hour -> what the transaction adds."""
        self._careful = False

    def begin(self, *, careful: bool = False) -> None:
        """Begin to use a transaction. `careful`: one in which `write` raised Swept before."""
        self._careful = careful
        self._counters.begin()

    def write(self) -> None:
        """Write what was added: before the commit. Raises Swept, after which nothing may be committed."""
        if self._records and self._many(_RECORD, self._records).rowcount != len(self._records):
            raise Swept
        self._reservations.write()
        self._counters.write()
        if self._arrivals:
            self._many(_ARRIVE, list(self._arrivals.items()))
        if self._rollups:
            self._many(_ROLLUP, [(*place, *sums) for place, sums in self._rollups.items()])

    def committed(self) -> None:
        """The transaction is in the file."""
        self._reservations.committed()
        self._clear()

    def rolled_back(self) -> None:
        """Forget the transaction, and all that it may have made."""
        self._clear()
        self._reservations.rolled_back()
        self._counters.rolled_back()
        self._dimensions.clear()
        self._owners.clear()

    def _clear(self) -> None:
        self._arrivals.clear()
        self._records.clear()
        self._rollups.clear()

    def reserve(self, reservation: Reservation) -> Grant:
        """Decide, and hold all or nothing. A repetition of what is held gets its grant again, and holds no more."""
        charges, paces, counters = reservation.charges, reservation.paces, self._counters
        numbers, sums = counters.numbers, counters.sums
        known: list[int] = []
        places: list[int] = []
        totals: list[int] = []
        packed: list[int] = []
        fits = True
        for charge, lost in zip(charges, reservation.lost, strict=True):
            number, amount = numbers.get(charge.counter) or counters.number_of(charge.counter), charge.amount
            place = (number << SLOT_BITS) + charge.slot
            total = sums.get(place) if charge.slots == 1 else counters.rolling_sum(number, charge)
            if total is None:
                total = counters.sum(place)
            if total + amount > charge.ceiling and charge.enforced:
                fits = False
            known.append(number)
            places.append(place)
            totals.append(total)
            packed += (place, charge.expires, amount, lost)
        before = totals
        if len(set(known)) < len(known):
            totals = _with_twins(charges, totals)
            fits = False
        refused = [] if fits else [i for i, c in enumerate(charges) if c.enforced and totals[i] + c.amount > c.ceiling]
        waits, arrivals = self._waits(paces, reservation.now * 1e6) if paces else ([], {})
        refused += [len(charges) + i for i, wait in enumerate(waits) if wait > 0 and paces[i].enforced]
        held = Held(reservation.owner, _packing(len(packed)).pack(*packed), places, reservation.record)
        if (there := self._reservations.get(reservation.id)) is not None:
            if there != held:
                raise _taken(reservation.id)
            return Grant(True, before, [0.0] * len(paces))
        if refused:
            return Grant(False, totals, waits, refused)
        if self._was_settled(reservation.id):
            raise _taken(reservation.id)
        if reservation.owner not in self._owners:
            self._meet(reservation.owner, int(reservation.now))
        self._reservations.make(reservation.id, held)
        add = counters.add
        for at, (place, charge) in enumerate(zip(places, charges, strict=True)):
            add(place, charge.amount, charge.expires)
            totals[at] += charge.amount
        if arrivals:
            self._arrivals.update(arrivals)
        return Grant(True, totals, waits)

    def _was_settled(self, request: str) -> bool:
        return self._reservations.has_ended(request) or self._execute(_SETTLED, (request,)).fetchone() is not None

    def settle(self, settlement: Settlement) -> None:
        """Write the record; release and charge, if there was a reservation. Nothing if the id was settled before."""
        held = self._reservations.get(settlement.id)
        if held is None:
            self._settle_unknown(settlement)
            return
        self._reservations.end(settlement.id, held)
        record = (settlement.id, int(settlement.now), settlement.record)
        if not self._careful:
            self._records.append(record)
        elif self._execute(_RECORD, record).rowcount != 1:
            return
        self._book(settlement.now, settlement.usage)
        if not settlement.charges:
            self._release(held.packed, lost=False)
            return
        add = self._counters.add
        for charge, used, place in zip(settlement.charges, settlement.used, held.places, strict=True):
            if used != charge.amount:
                add(place, used - charge.amount, charge.expires)

    def _settle_unknown(self, settlement: Settlement) -> None:
        """Settle what this process does not hold: nothing was reserved, it was settled before, or another made it."""
        if self._execute(_RECORD, (settlement.id, int(settlement.now), settlement.record)).rowcount != 1:
            return
        self._book(settlement.now, settlement.usage)
        packed = self._reservations.of_others(settlement.id) if settlement.charges else None
        if packed is not None:
            charged = zip(charges_of(packed), settlement.used, strict=True)
            for (place, expires, amount, _), used in charged:
                self._counters.add(place, used - amount, expires)

    def lose(self, row: int, now: int) -> int:
        """Settle the reservations of a row, whose process is gone, as it left them. Return how many that were."""
        found = self._execute("DELETE FROM reservations WHERE number = ? RETURNING body", (row,)).fetchone()
        lost = 0
        for request, packed, record in entries_of(found[0]) if found else ():
            if self._execute(_RECORD, (request, now, record)).rowcount == 1:
                self._book(now, _usage(record))
                self._release(packed, lost=True)
                lost += 1
        return lost

    def _release(self, packed: bytes, *, lost: bool) -> None:
        """Release what a reservation held; charge what is charged for a lost one."""
        for place, expires, amount, charged in charges_of(packed):
            self._counters.add(place, (charged if lost else 0) - amount, expires)

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

    def _book(self, now: float, usage: Mapping[str, Any]) -> None:
        """Add a record to the sums."""
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


def _taken(request: str) -> StoreError:
    """Return what is said of an id that comes again."""
    return StoreError(f"request {request} is there already; every request needs an id of its own")


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
    """Return how `Held.packed` has so many numbers."""
    return struct.Struct(f"<{numbers}q")


def _usage(record: bytes) -> Mapping[str, Any]:
    """Read a ledger record as `Settlement.usage`; what is no JSON object has none."""
    try:
        value = json.loads(record)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
