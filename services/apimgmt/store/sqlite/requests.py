"""Reserve and settle, one request after the other, inside a transaction that the caller began.

Requests of one transaction share counters (of their organization, their team), so what they add is kept here, and
written once for each counter, by `write`. A request sees what those before it added; a refused one adds nothing.
What was read is remembered until another connection, of whatever process, has written to the file: SQLite tells
(`PRAGMA data_version`), inside the transaction, so nothing is ever decided on what is not true any more.
"""

import json
import operator
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from services.apimgmt.store.api import DIMENSIONS, SUMS, Charge, Grant, Pace, Reservation, Settlement, StoreError

SLOT_BITS = 32
"""A counter's slots are from 0 to 2**32 - 1, and the places of its slots in the file one after the other."""

LAST_SLOT = (1 << SLOT_BITS) - 1
"""A rolling window also counts the slots of processes whose clock is ahead."""

MAX_WINDOWS = 65_536
"""Counters whose sums are remembered (some 400 bytes each)."""

WINDOWS_EACH = 4
"""Windows of one counter that are remembered: rolling ones move on."""

MAX_NUMBERS = 131_072
"""Counters, and sets of dimensions, whose numbers a process remembers (some 200 bytes each)."""

MAX_OWNERS = 1024
"""Owners that a process remembers to have seen (commonly one: itself)."""

FIRST_LEASE_S = 60
"""Lease of an owner that has none yet when it first reserves; `renew` sets the real one."""

HOUR_S = 3600

_dimensions = operator.itemgetter(*DIMENSIONS)
_sums = operator.itemgetter(*SUMS[1:])

TOTAL = "SELECT sum(used) FROM counters WHERE place BETWEEN ? AND ?"
NAMED = "SELECT number FROM names WHERE counter = ?"
_FORGOTTEN = "SELECT value FROM state WHERE name = 'forgotten'"
_NAME = "INSERT INTO names (counter) VALUES (?)"
_ADD = (
    "INSERT INTO counters (place, used, expires) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET used = used + excluded.used"
)
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


def bounds(number: int, charge: Charge) -> tuple[int, int]:
    """Return the places of the first and the last slot of a charge's window."""
    first = number << SLOT_BITS
    if charge.slots == 1:
        return first + charge.slot, first + charge.slot
    return first + max(0, charge.slot - charge.slots + 1), first + LAST_SLOT


class Requests:
    """What `reserve`, `settle` and the sweep do with one connection: `begin`, any number of calls, `write`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        cursor = connection.cursor()
        self._execute, self._many = cursor.execute, cursor.executemany
        self._counters: dict[str, int] = {}
        """Counter -> its number, since `_forgotten` has its value."""
        self._forgotten = -1
        self._dimensions: dict[tuple[str, ...], int] = {}
        """Set of dimensions -> its row."""
        self._owners: set[str] = set()
        """Owners that have, or had, a lease."""
        self._version = -1
        """Of the file, as `_totals` knows it."""
        self._totals: dict[int, dict[tuple[int, int], int]] = {}
        """Counter -> bounds of a window -> its sum, with what the transaction adds."""
        self._added: dict[int, int] = {}
        """Place -> what the transaction adds."""
        self._expires: dict[int, int] = {}
        """Place -> when the slot expires."""
        self._touched: set[int] = set()
        """Counters of these places."""
        self._arrivals: dict[str, float] = {}
        """Pace -> its time stamp, as far as the transaction has come."""
        self._rollups: dict[tuple[int, int], Sequence[int]] = {}
        """Set of dimensions, hour -> what the transaction adds."""

    def begin(self) -> None:
        """Begin to use a transaction."""
        version = self._execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._version = version
            self._changed()
        elif len(self._totals) > MAX_WINDOWS:
            self._totals.clear()

    def _changed(self) -> None:
        """Forget what others may have changed: sums, and numbers of counters where one lost its number."""
        self._totals.clear()
        forgotten = self._execute(_FORGOTTEN).fetchone()[0]
        if forgotten != self._forgotten or len(self._counters) > MAX_NUMBERS:
            self._counters.clear()
            self._forgotten = forgotten

    def write(self) -> None:
        """Write what was added: before the commit."""
        rows = [(place, more, self._expires[place]) for place, more in self._added.items() if more]
        if rows:
            self._many(_ADD, rows)
        if self._arrivals:
            self._many(_ARRIVE, list(self._arrivals.items()))
        if self._rollups:
            self._many(_ROLLUP, [(*place, *sums) for place, sums in self._rollups.items()])
        self._clear()

    def rolled_back(self) -> None:
        """Forget the transaction, and all that it may have made."""
        self._clear()
        self._totals.clear()
        self._counters.clear()
        self._dimensions.clear()
        self._owners.clear()

    def _clear(self) -> None:
        for kept in (self._added, self._expires, self._touched, self._arrivals, self._rollups):
            kept.clear()

    def reserve(self, reservation: Reservation) -> Grant:
        """Decide, and hold all or nothing. A repetition of what is held gets its grant again, and holds no more."""
        charges, paces = reservation.charges, reservation.paces
        numbers = [self._number_of(charge.counter) for charge in charges]
        totals = [self._total(number, charge) for number, charge in zip(numbers, charges, strict=True)]
        before = totals.copy()
        if len(set(numbers)) < len(numbers):
            _count_twins(charges, totals)
        refused = [i for i, c in enumerate(charges) if c.enforced and totals[i] + c.amount > c.ceiling]
        waits: list[float] = []
        arrivals: dict[str, float] = {}
        if paces:
            waits, arrivals = self._waits(paces, reservation.now * 1e6)
            refused += [len(charges) + i for i, wait in enumerate(waits) if wait > 0 and paces[i].enforced]
        held = "\n".join(
            [
                f"{number} {c.slot} {c.expires} {c.amount} {lost}"
                for number, c, lost in zip(numbers, charges, reservation.lost, strict=True)
            ]
        )
        if refused:
            again = self._execute(_HELD, (reservation.id,)).fetchone() is not None
        else:
            row = (reservation.id, reservation.owner, held, reservation.record)
            again = self._execute(_RESERVE, row).rowcount != 1
        if again:
            self._check_repeated(reservation, held)
            return Grant(True, before, [0.0] * len(paces))
        if refused:
            return Grant(False, totals, waits, refused)
        if reservation.owner not in self._owners:
            self._meet(reservation.owner, int(reservation.now))
        for number, charge in zip(numbers, charges, strict=True):
            self._add(number, charge.slot, charge.amount, charge.expires)
        self._arrivals.update(arrivals)
        return Grant(True, [total + c.amount for total, c in zip(totals, charges, strict=True)], waits)

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
                    number = self._number_of(charge.counter)
                    self._add(number, charge.slot, used - charge.amount, charge.expires)

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

    def _release(self, held: str, *, lost: bool) -> None:
        """Release what a reservation held; charge what is charged for a lost one."""
        for line in held.split("\n") if held else ():
            number, slot, expires, amount, charged = map(int, line.split(" "))
            self._add(number, slot, (charged if lost else 0) - amount, expires)

    def _check_repeated(self, reservation: Reservation, held: str) -> None:
        row = self._execute(_HELD, (reservation.id,)).fetchone()
        if row is None or (row[0], row[1], bytes(row[2])) != (reservation.owner, held, bytes(reservation.record)):
            raise StoreError(f"request {reservation.id} is there already; every request needs an id of its own")

    def _number_of(self, counter: str) -> int:
        number = self._counters.get(counter)
        if number is None:
            row = self._execute(NAMED, (counter,)).fetchone()
            if row is None:
                self._execute(_NAME, (counter,))
                row = self._execute("SELECT last_insert_rowid()").fetchone()
            number = self._counters[counter] = int(row[0])
        return number

    def _total(self, number: int, charge: Charge) -> int:
        """Return used and held in a charge's window, as the transaction has it now."""
        window = bounds(number, charge)
        known = self._totals.get(number)
        if known is None:
            known = self._totals[number] = {}
        total = known.get(window)
        if total is None:
            if len(known) >= WINDOWS_EACH:
                known.clear()
            total = self._execute(TOTAL, window).fetchone()[0] or 0
            if number in self._touched:
                first, last = window
                total += sum([more for place, more in self._added.items() if first <= place <= last])
            known[window] = total
        return total

    def _add(self, number: int, slot: int, amount: int, expires: int) -> None:
        place = (number << SLOT_BITS) + slot
        if place in self._added:
            self._added[place] += amount
        else:
            self._added[place], self._expires[place] = amount, expires
            self._touched.add(number)
        if known := self._totals.get(number):
            for window in known:
                if window[0] <= place <= window[1]:
                    known[window] += amount

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
        if len(self._dimensions) >= MAX_NUMBERS:
            self._dimensions.clear()
        self._dimensions[names] = row[0]
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
