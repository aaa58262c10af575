"""Counters in one transaction after the other: read once, written once, remembered while nobody else writes.

What was read is remembered until another connection, of whatever process, has written to the file: SQLite tells
(`PRAGMA data_version`) inside the transaction, so nothing is ever decided on what is not true any more.
"""

import sqlite3

from services.apimgmt.store.api import Charge

SLOT_BITS = 32
"""A counter's slots are from 0 to 2**32 - 1, and the places of its slots in the file one after the other."""

LAST_SLOT = (1 << SLOT_BITS) - 1
"""A rolling window also counts the slots of processes whose clock is ahead."""

MAX_WINDOWS = 65_536
"""Counters whose sums are remembered (some 400 bytes each)."""

WINDOWS_EACH = 4
"""Windows of one counter that are remembered: rolling ones move on."""

MAX_NUMBERS = 131_072
"""Counters whose numbers a process remembers (some 200 bytes each)."""

TOTAL = "SELECT sum(used) FROM counters WHERE place BETWEEN ? AND ?"
NAMED = "SELECT number FROM names WHERE counter = ?"
_FORGOTTEN = "SELECT value FROM state WHERE name = 'forgotten'"
_NAME = "INSERT INTO names (counter) VALUES (?)"
_ADD = (
    "INSERT INTO counters (place, used, expires) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET used = used + excluded.used"
)


def bounds(number: int, charge: Charge) -> tuple[int, int]:
    """Return the places of the first and the last slot of a charge's window."""
    first = number << SLOT_BITS
    if charge.slots == 1:
        return first + charge.slot, first + charge.slot
    return first + max(0, charge.slot - charge.slots + 1), first + LAST_SLOT


class Counters:
    """What one connection knows of counters: `begin`, any number of calls, `write`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        cursor = connection.cursor()
        self._execute, self._many = cursor.execute, cursor.executemany
        self.numbers: dict[str, int] = {}
        """Counter -> its number (from 1), since `_forgotten` has its value."""
        self._forgotten = -1
        self._version = -1
        """Of the file, as `sums` and `_rolling` know it."""
        self.sums: dict[int, int] = {}
        """Place -> what is used and held there, with what the transaction adds."""
        self._rolling: dict[int, dict[int, int]] = {}
        """Counter -> first place of a rolling window -> the same."""
        self._added: dict[int, int] = {}
        """Place -> what the transaction adds."""
        self._expires: dict[int, int] = {}
        """Place -> when the slot expires."""
        self._touched: set[int] = set()
        """Counters of these places."""

    def begin(self) -> None:
        """Begin to use a transaction."""
        version = self._execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._version = version
            self._changed()
        elif len(self.sums) + len(self._rolling) > MAX_WINDOWS:
            self.sums.clear()
            self._rolling.clear()

    def _changed(self) -> None:
        """Forget what others may have changed: sums, and numbers of counters where one lost its number."""
        self.sums.clear()
        self._rolling.clear()
        forgotten = self._execute(_FORGOTTEN).fetchone()[0]
        if forgotten != self._forgotten or len(self.numbers) > MAX_NUMBERS:
            self.numbers.clear()
            self._forgotten = forgotten

    def write(self) -> None:
        """Write what was added: before the commit."""
        rows = [(place, more, self._expires[place]) for place, more in self._added.items() if more]
        if rows:
            self._many(_ADD, rows)
        self._clear()

    def rolled_back(self) -> None:
        """Forget the transaction, and all that it may have made."""
        self._clear()
        self.sums.clear()
        self._rolling.clear()
        self.numbers.clear()

    def _clear(self) -> None:
        self._added.clear()
        self._expires.clear()
        self._touched.clear()

    def number_of(self, counter: str) -> int:
        """Return a counter's number; a new one for one that has none."""
        number = self.numbers.get(counter)
        if number is None:
            row = self._execute(NAMED, (counter,)).fetchone()
            if row is None:
                self._execute(_NAME, (counter,))
                row = self._execute("SELECT last_insert_rowid()").fetchone()
            number = self.numbers[counter] = int(row[0])
        return number

    def sum(self, place: int) -> int:
        """Read used and held in one slot, as the transaction has it now."""
        total = (self._execute(TOTAL, (place, place)).fetchone()[0] or 0) + self._added.get(place, 0)
        self.sums[place] = total
        return total

    def rolling_sum(self, number: int, charge: Charge) -> int:
        """Return used and held in a rolling window, as the transaction has it now."""
        first, last = bounds(number, charge)
        known = self._rolling.setdefault(number, {})
        total = known.get(first)
        if total is None:
            if len(known) >= WINDOWS_EACH:
                known.clear()
            total = self._execute(TOTAL, (first, last)).fetchone()[0] or 0
            if number in self._touched:
                total += sum([more for place, more in self._added.items() if first <= place <= last])
            known[first] = total
        return total

    def add(self, place: int, amount: int, expires: int) -> None:
        """Add to one slot: from now on in the sums, and in the file when it is written."""
        added, sums, number = self._added, self.sums, place >> SLOT_BITS
        added[place] = added.get(place, 0) + amount
        self._expires[place] = expires
        self._touched.add(number)
        if place in sums:
            sums[place] += amount
        if known := self._rolling.get(number):
            for first in known:
                if first <= place:
                    known[first] += amount
