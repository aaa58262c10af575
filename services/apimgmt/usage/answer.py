"""Reads the usage of an answer in one piece (JSON), from a copy of bounded size; what passes is never touched."""

import json
import re
from typing import Any

import orjson

from services.apimgmt.usage.tokens import Tokens, from_usage

MAX_ANSWER = 4 * 1024 * 1024
"""Longest answer that is kept to be parsed, bytes. Of a longer one the end is kept."""

TAIL = 64 * 1024
"""How much of the end."""

WHOLE_VECTORS = 4 * 1024
"""Answers of embeddings up to this are parsed as a whole, bytes; of longer ones only the end is read: all that stands
before `usage` in them is numbers, and nothing that clients sent."""

_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
_DECODER = json.JSONDecoder()


class AnswerReader:
    """One per answer that is no event stream."""

    __slots__ = ("_kept", "_most", "_operation", "_parsed", "_truncated", "complete", "size")

    def __init__(self, operation: str) -> None:
        """`operation` is a label of `bodyrouter.operations.ROUTED`."""
        self._operation = operation
        self._most = TAIL if operation == "embeddings" else MAX_ANSWER
        self._kept = bytearray()
        self._truncated = False
        self._parsed: dict[str, Any] | None = None
        self.size = 0
        """Bytes so far."""
        self.complete = False

    def feed(self, chunk: bytes, last: bool) -> bytes:
        """Keep a copy; return the chunk."""
        self.size += len(chunk)
        self.complete = self.complete or last
        self._kept += chunk
        if len(self._kept) > self._most + TAIL:
            del self._kept[:-TAIL]
            self._most, self._truncated = TAIL, True
        return chunk

    def usage(self) -> Tokens | None:
        """Return what the answer says, None if it says nothing that can be read."""
        if self._truncated or (self._operation == "embeddings" and self.size > WHOLE_VECTORS):
            # An answer of the Responses API repeats JSON of the request, which may have any key: its end alone is no
            # evidence.
            return None if self._operation == "responses" else from_usage(_last_usage(bytes(self._kept)))
        return from_usage(self._values().get("usage"))

    def deferred(self) -> bool:
        """Whether the model goes on working after this answer (`background` of the Responses API)."""
        return self._operation == "responses" and self._values().get("status") in ("queued", "in_progress")

    def _values(self) -> dict[str, Any]:
        if self._parsed is None:
            self._parsed = {} if self._truncated else _object(self._kept)
        return self._parsed


def _object(body: bytearray) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _last_usage(body: bytes) -> object:
    """Return the value of the last `usage`. A key within text would have its quotes escaped."""
    found = None
    for match in _USAGE.finditer(body):
        found = match
    if found is None:
        return None
    try:
        value, _ = _DECODER.raw_decode(body[found.end() : found.end() + TAIL].decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return value
