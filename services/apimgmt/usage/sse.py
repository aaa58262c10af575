"""Server-sent events, cut out of a stream of bytes without changing them.

Source: WHATWG HTML, "Server-sent events". Lines end with LF or CRLF; a lone CR, which the standard also allows and no
model server sends, is part of the line.
"""

import re

MAX_EVENT = 1024 * 1024
"""Longest event that is looked at, bytes. A longer one passes as it is, in pieces."""

_END = re.compile(rb"\r?\n\r?\n")
_KEPT = 3
"""Bytes of an end of event that may have come already, at most."""


class Splitter:
    """Turns chunks into whole events, each with its blank line. However the bytes are cut, the events are the same."""

    __slots__ = ("_oversized", "_scanned", "carry")

    def __init__(self) -> None:
        self.carry = bytearray()
        """The begin of the next event."""
        self._scanned = 0
        """How much of it holds no end for certain: never looked at again, however small the chunks are."""
        self._oversized = False

    def feed(self, chunk: bytes) -> list[tuple[bytes, bool]]:
        """Return what is complete: (bytes, whether it is a whole event of a size that is looked at)."""
        data: bytes | bytearray = chunk
        if self.carry:
            self.carry += chunk
            data = self.carry
        pieces, start, scan = [], 0, self._scanned
        while found := _END.search(data, scan):
            end = found.end()
            pieces.append((bytes(data[start:end]), not self._oversized and end - start <= MAX_EVENT))
            self._oversized, start, scan = False, end, end
        if self._oversized or len(data) - start > MAX_EVENT:
            cut = max(len(data) - _KEPT, start)
            pieces.append((bytes(data[start:cut]), False))
            self._oversized, start = True, cut
        if start or data is chunk:
            self.carry = bytearray(data[start:])
        self._scanned = max(len(self.carry) - _KEPT, 0)
        return pieces

    def rest(self) -> tuple[bytes, bool]:
        """Return what is left when the stream ends: an event without its blank line."""
        left, whole = bytes(self.carry), not self._oversized
        self.carry, self._scanned, self._oversized = bytearray(), 0, False
        return left, whole


def data_of(event: bytes) -> bytes:
    """Return an event's data: its `data:` lines without their names, joined by LF; empty if there are none."""
    if event.startswith(b"data: ") and event.find(b"\n") >= len(event) - 3:
        return event[6:].rstrip(b"\r\n")
    return b"\n".join(_value(line) for line in event.split(b"\n") if line.startswith(b"data:"))


def with_data(event: bytes, data: bytes) -> bytes:
    """Return an event with other data (of one line) in the place of its own."""
    lines, placed = [], False
    for line in event.splitlines(keepends=True):
        if not line.startswith(b"data:"):
            lines.append(line)
        elif not placed:
            placed = True
            lines.append(b"data: " + data + line[len(line.rstrip(b"\r\n")) :])
    return b"".join(lines)


def _value(line: bytes) -> bytes:
    return line[5:].removeprefix(b" ").removesuffix(b"\r")
