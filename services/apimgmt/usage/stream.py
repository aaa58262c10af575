"""Reads the usage of a streamed answer while it passes, and takes it out where the client did not ask for it.

What vLLM 0.32 sends (recorded): with `include_usage` the last event has no choices but `usage`, and carries the
`system_fingerprint` that else stands in the event with the last `finish_reason`. Other servers also send
`"usage": null` in every event (OpenAI API reference, "Chat completion chunk"). Streams of the Responses API have usage
in their last event, inside `response`, asked or not.
"""

import re
import time
from typing import Any

import orjson

from services.apimgmt.usage.sse import Splitter, data_of, with_data
from services.apimgmt.usage.tokens import Tokens, from_usage

_DONE = b"[DONE]\n\n"
"""End of a stream's last event (OpenAI API reference)."""

_WITHOUT_CONTENT = re.compile(rb'"(?:content|text)":\s*""|"delta":\s*\{\}|"choices":\s*\[\]')
"""Events that tell a role, an end or usage, but no text."""


class StreamReader:
    """One per answer of type `text/event-stream`. With `strip`, usage is taken out."""

    __slots__ = ("_held", "_splitter", "_strip", "complete", "events", "final", "first_at", "running")

    def __init__(self, strip: bool) -> None:
        self._strip = strip
        self._splitter = Splitter()
        self._held = b""
        """An event that ends a choice: it gets the fingerprint if usage follows. Waits for one event, no longer."""
        self.events = 0
        """Events with content so far."""
        self.first_at: float | None = None
        """`time.perf_counter()` of the first."""
        self.final: Tokens | None = None
        """Usage of the whole answer."""
        self.running: Tokens | None = None
        """Usage up to here (`continuous_usage_stats`)."""
        self.complete = False
        """The last event has come."""

    def feed(self, chunk: bytes, last: bool) -> bytes:
        """Return what goes on in place of `chunk`: without `strip` always the chunk itself."""
        if (
            self.first_at is not None
            and not last
            and not self._splitter.carry
            and not self._held
            and b'"usage"' not in chunk
            and chunk.endswith(b"\n\n")
            and not chunk.endswith(_DONE)
            and not (self._strip and b'"finish_reason":"' in chunk)
        ):
            self.events += chunk.count(b"\n\n")
            return chunk
        return self._cut(chunk, last)

    def _cut(self, chunk: bytes, last: bool) -> bytes:
        pieces = self._splitter.feed(chunk)
        if last:
            self.complete = True
            pieces.append(self._splitter.rest())
        if not self._strip:
            for piece, whole in pieces:
                if whole:
                    self._look(piece)
            return chunk
        out = [self._pass(piece) if whole else self._release() + piece for piece, whole in pieces]
        if last:
            out.append(self._release())
        return b"".join(out)

    def _pass(self, event: bytes) -> bytes:
        """Look at an event, and return what may go on now."""
        parsed = self._look(event)
        if parsed is not None and "usage" in parsed:
            usage = parsed.pop("usage")
            if isinstance(usage, dict) and not parsed.get("choices"):
                before = event[: len(event) - len(event.lstrip(b"\r\n"))]
                return _with_fingerprint(self._release(), parsed.get("system_fingerprint")) + before
            event = _rewritten(event, parsed)
        held = self._release()
        if b'"finish_reason":"' not in event:
            return held + event
        self._held = event
        return held

    def _release(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def _look(self, event: bytes) -> dict[str, Any] | None:
        """Count an event; return its data parsed if it may hold usage."""
        if _has_content(event):
            self.events += 1
            if self.first_at is None:
                self.first_at = time.perf_counter()
        if b'"usage"' not in event:
            self.complete = self.complete or data_of(event) == b"[DONE]"
            return None
        try:
            parsed = orjson.loads(data_of(event))
        except orjson.JSONDecodeError:
            return None
        if not isinstance(parsed, dict):
            return None
        self._note(parsed)
        return parsed

    def _note(self, parsed: dict[str, Any]) -> None:
        response = parsed.get("response")
        source = response if isinstance(response, dict) else parsed
        tokens = from_usage(source.get("usage"))
        if tokens is None:
            return
        if parsed.get("choices"):
            self.running = tokens
        else:
            self.final = tokens


def _has_content(event: bytes) -> bool:
    """Whether an event carries a piece of an answer: a choice of a chunk, or a delta of the Responses API."""
    if b'"choices"' in event:
        return _WITHOUT_CONTENT.search(event) is None
    return b'.delta"' in event


def _with_fingerprint(event: bytes, fingerprint: object) -> bytes:
    """Return the last event as it would have been without the usage that followed."""
    data = data_of(event)
    if not isinstance(fingerprint, str) or not data.endswith(b"}") or b'"system_fingerprint"' in data:
        return event
    return with_data(event, b'%b,"system_fingerprint":%b}' % (data[:-1], orjson.dumps(fingerprint)))


def _rewritten(event: bytes, parsed: dict[str, Any]) -> bytes:
    try:
        return with_data(event, orjson.dumps(parsed))
    except TypeError:  # nested deeper than can be written again: goes on as it came
        return event
