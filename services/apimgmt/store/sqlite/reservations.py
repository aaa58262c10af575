"""Reservations: what a process holds, in memory, and what is left of it in the file if the process dies.

Those that one transaction makes share a row, which goes when the last of them is settled. Whether one of a row was
settled before, the ledger tells by its id. So a request costs no row of its own that comes and goes, and only a sweep
ever reads one.
"""

import random
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_CHARGE = struct.Struct("<4q")
"""One charge in `Held.packed`: place, when it expires, amount, and what is charged if the request is lost."""

_ENTRY = struct.Struct("<3I")
"""Begin of one reservation in a row: lengths of id, `packed` and record, which follow."""

_INSERT = "INSERT INTO reservations (number, owner, body) VALUES (?, ?, ?)"
_DELETE = "DELETE FROM reservations WHERE number = ?"
_FIND = "SELECT body FROM reservations WHERE instr(body, ?)"


@dataclass(slots=True)
class Held:
    """One reservation."""

    owner: str
    packed: bytes
    """All charges (`charges_of`)."""
    places: Sequence[int]
    """Of the charges' slots."""
    record: bytes
    row: int = field(default=0, compare=False)
    """Row that has it; 0 while it is not written."""


def charges_of(packed: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Return the charges of a reservation: place, when it expires, amount, what is charged if it is lost."""
    return _CHARGE.iter_unpack(packed)


def entries_of(body: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """Return the reservations of a row: id, `Held.packed`, record."""
    at = 0
    while at < len(body):
        of_id, of_packed, of_record = _ENTRY.unpack_from(body, at)
        begin = at + _ENTRY.size
        middle, end = begin + of_id + of_packed, begin + of_id + of_packed + of_record
        yield body[begin : begin + of_id].decode(), body[begin + of_id : middle], body[middle:end]
        at = end


class Reservations:
    """Those of one connection. What a transaction makes and ends counts from its `committed` on."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        cursor = connection.cursor()
        self._execute, self._many = cursor.execute, cursor.executemany
        self._next = random.getrandbits(30) << 32
        """Rows are numbered without asking the file; two processes that begin alike would refuse each other's."""
        self._open: dict[str, Held] = {}
        self._left: dict[int, int] = {}
        """Row -> how many of it are open."""
        self._made: dict[str, Held] = {}
        self._ended: dict[str, int] = {}
        """Id -> row, of those that the transaction ends."""

    def get(self, request: str) -> Held | None:
        """Return what is held for a request, as the transaction has it now."""
        if request in self._ended:
            return None
        return self._made.get(request) or self._open.get(request)

    def has_ended(self, request: str) -> bool:
        """Whether the transaction has ended what was held for a request."""
        return request in self._ended

    def make(self, request: str, held: Held) -> None:
        """Hold; `held.row` is 0."""
        self._made[request] = held

    def end(self, request: str, held: Held) -> None:
        """Hold no longer."""
        self._ended[request] = held.row

    def write(self) -> None:
        """Write rows, and drop those of which nothing is open any more."""
        ended, left = self._ended, self._left
        if self._made:
            self._write_rows([request for request in self._made if request not in ended])
        gone = list[tuple[int]]()
        for row in ended.values():
            if row:
                left[row] -= 1
                if not left[row]:
                    gone.append((row,))
        if gone:
            self._many(_DELETE, gone)

    def _write_rows(self, requests: Sequence[str]) -> None:
        """Write one row for each owner (there is one, commonly)."""
        bodies = dict[str, tuple[int, list[bytes]]]()
        for request in requests:
            held = self._made[request]
            body = bodies.get(held.owner)
            if body is None:
                self._next += 1
                body = bodies[held.owner] = self._next, []
            held.row = body[0]
            id_ = request.encode()
            body[1].extend((_ENTRY.pack(len(id_), len(held.packed), len(held.record)), id_, held.packed, held.record))
        for owner, (number, parts) in bodies.items():
            self._left[number] = len(parts) // 4
            self._execute(_INSERT, (number, owner, b"".join(parts)))

    def committed(self) -> None:
        """The transaction is in the file."""
        self._open.update(self._made)
        for request, row in self._ended.items():
            self._open.pop(request, None)
            if row and not self._left.get(row, 1):
                del self._left[row]
        self._made.clear()
        self._ended.clear()

    def rolled_back(self) -> None:
        """The transaction is not in the file."""
        self._made.clear()
        self._ended.clear()
        self._left.clear()
        for held in self._open.values():
            self._left[held.row] = self._left.get(held.row, 0) + 1

    def of_others(self, request: str) -> bytes | None:
        """Return `Held.packed` of a reservation that another process made: slow, and hardly ever asked for."""
        for (body,) in self._execute(_FIND, (request.encode(),)).fetchall():
            for id_, packed, _ in entries_of(body):
                if id_ == request:
                    return packed
        return None
