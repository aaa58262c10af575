"""What the filters of a callout see of one HTTP exchange.

A callout is a chain of filters behind one ext_proc stream. A `Filter` is made once per process and holds
configuration; for each HTTP exchange it opens a `FilterStream`, whose hooks are called in the order of the
exchange. Hooks are plain functions where they can answer at once; a hook that must wait returns an awaitable, and only
its own stream is suspended. This module knows nothing of gRPC, protobuf or asyncio servers: `session.py` translates.
"""

import abc
import builtins
import enum
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import orjson
from mypy_extensions import mypyc_attr


class BodyMode(enum.Enum):
    """How much of a body a filter wants."""

    NONE = "none"
    """Nothing: the hook for that body is never called."""
    WHOLE = "whole"
    """Once, complete. The message's headers are held back until then, so that they may still be changed."""
    CHUNKS = "chunks"
    """Each piece as it passes, of any size, cut anywhere; the last call has `last=True` and may be empty. It is also
    made for a message without a body, where what it returns is not sent."""


class Headers:
    """Header fields of one message, in order; names are lower case, pseudo headers (`:path`) included.

    Values arrive as bytes (Envoy fills `raw_value` only) and are decoded as UTF-8 with surrogate escapes.
    """

    __slots__ = ("_first", "_items")

    def __init__(self, items: Iterable[tuple[str, bytes]] = ()) -> None:
        self._items: list[tuple[str, bytes]] = list(items)
        self._first = dict(reversed(self._items))
        """Name -> first value: reversed, since the last of equal keys stays."""

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of `name` (lower case), or `default`."""
        value = self._first.get(name)
        return default if value is None else value.decode("utf-8", "surrogateescape")

    def get_all(self, name: str) -> list[str]:
        """Return every value of `name` (lower case), in order."""
        return [value.decode("utf-8", "surrogateescape") for key, value in self._items if key == name]

    def names(self) -> set[str]:
        """Return the distinct header names."""
        return set(self._first)

    def __contains__(self, name: object) -> bool:
        return name in self._first

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return iter(self._items)


_NO_HEADERS = Headers()


@dataclass(slots=True)
class HeaderChanges:
    """Changes a filter asks for. `set` overwrites (never appends); a name in both is set."""

    set: dict[str, str] = field(default_factory=dict)
    remove: builtins.set[str] = field(default_factory=builtins.set)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer given by the callout instead of the upstream: an error (`deny`) or a local answer (`answer`)."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    details: str = ""
    """Appears as Envoy's `%RESPONSE_CODE_DETAILS%`; snake_case, e.g. `unknown_model`."""


def deny(
    status: int,
    message: str,
    *,
    type: str = "invalid_request_error",  # noqa: A002 - OpenAI's name
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Make an error in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

    Source: OpenAI API reference, "Error codes"; `type` is one of OpenAI's (`invalid_request_error`,
    `not_found_error`, `rate_limit_error`, `server_error`, ...), `code` a stable snake_case word or None.
    """
    error = {"message": message, "type": type, "param": param, "code": code}
    return Reply(
        status,
        orjson.dumps({"error": error}),
        {"content-type": "application/json", **(headers or {})},
        code or type,
    )


class Ending(enum.Enum):
    """How an exchange ended, as far as the callout could see it."""

    COMPLETE = "complete"
    """All that the callout was subscribed to has passed."""
    DENIED = "denied"
    """A filter of this callout answered with a `Reply`."""
    ABORTED = "aborted"
    """Client, upstream or Envoy went away in the middle of a message."""
    DEADLINE = "deadline"
    """A phase took longer than its deadline."""
    ERROR = "error"
    """A filter raised, or the peer broke the protocol."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known when an exchange is over."""

    ending: Ending
    status: int | None
    """HTTP status seen on the response or sent by a `Reply`; None where neither happened."""
    duration_s: float
    request_bytes: int
    response_bytes: int


class Exchange:
    """One HTTP exchange: shared by all filters of the chain, so that work (JSON, hashes) is done once.

    `request_json()` parses the whole body once; a filter that replaces the body replaces the parse with it.
    """

    __slots__ = (
        "_json",
        "_json_done",
        "attributes",
        "clear_route_cache",
        "dynamic_metadata",
        "metadata",
        "notes",
        "request_body",
        "request_body_changed",
        "request_changes",
        "request_headers",
        "request_id",
        "response_body",
        "response_body_changed",
        "response_changes",
        "response_headers",
    )

    def __init__(self) -> None:
        self.request_headers = _NO_HEADERS
        self.request_id = ""
        self.request_body: bytes = b""
        self.request_body_changed = False
        self.request_changes = HeaderChanges()
        self.response_headers = _NO_HEADERS
        self.response_body: bytes = b""
        self.response_body_changed = False
        self.response_changes = HeaderChanges()
        self.clear_route_cache = False
        """Set by a filter whose header changes may change the route (route extensions only)."""
        self.dynamic_metadata: dict[str, dict[str, object]] = {}
        """Namespace -> values, sent with the next answer."""
        self.metadata: Mapping[str, Mapping[str, object]] = {}
        """`metadata_context.filter_metadata` of the latest message: namespace -> values."""
        self.attributes: Mapping[str, object] = {}
        self.notes: dict[str, object] = {}
        """What one filter leaves for the next, by a key that the leaving filter owns."""
        self._json: object = None
        self._json_done = False

    def request_json(self) -> object:
        """Return the parsed request body. Raises `orjson.JSONDecodeError` (a ValueError)."""
        if not self._json_done:
            self._json = orjson.loads(self.request_body)
            self._json_done = True
        return self._json

    def replace_request_body(self, body: bytes, parsed: object = None) -> None:
        """Send `body` upstream in place of the client's; `parsed` spares the next filter the parse."""
        self.request_body, self.request_body_changed = body, True
        self._json, self._json_done = parsed, parsed is not None

    def replace_response_body(self, body: bytes) -> None:
        """Send `body` to the client in place of the upstream's (filters with a WHOLE response body)."""
        self.response_body, self.response_body_changed = body, True


Answer = Reply | Awaitable[Reply | None] | None
"""None lets the exchange go on; a `Reply` ends it; an awaitable suspends this stream only."""

ChunkAnswer = bytes | Reply | Awaitable[bytes | Reply]
"""What goes on in place of a chunk. A `Reply` ends the exchange: with its status while response headers can still be
sent; later by an error event that closes an SSE stream, or by a reset of any other stream."""


@mypyc_attr(allow_interpreted_subclasses=True)
class FilterStream:
    """A filter's view of one exchange. Override what is needed; every hook defaults to "go on"."""

    def on_request_headers(self) -> Answer:
        """Called first. With a WHOLE request body this is called when the headers arrive, before the body."""
        return None

    def on_request_body(self) -> Answer:
        """WHOLE: `exchange.request_body` is complete (empty for a request without a body)."""
        return None

    def on_request_chunk(self, chunk: bytes, last: bool) -> ChunkAnswer:
        """CHUNKS: return what goes upstream in place of `chunk`."""
        return chunk

    def on_response_headers(self) -> Answer:
        """The response's headers arrived; `exchange.metadata` is that of the response."""
        return None

    def on_response_body(self) -> Answer:
        """WHOLE: `exchange.response_body` is complete."""
        return None

    def on_response_chunk(self, chunk: bytes, last: bool) -> ChunkAnswer:
        """CHUNKS: return what goes to the client in place of `chunk`."""
        return chunk

    def on_end(self, outcome: Outcome) -> None:
        """Called exactly once, however the exchange ended. Must not raise and must not wait."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Filter(abc.ABC):
    """One per process. `open` is called once per exchange, with the exchange that the whole chain shares."""

    name: ClassVar[str]
    request_body: ClassVar[BodyMode] = BodyMode.NONE
    response_body: ClassVar[BodyMode] = BodyMode.NONE
    fail_open: bool = False
    """What an exception or a missed deadline in a hook does: False denies with 500 or 504, True skips this filter for
    the rest of the exchange (changes that it has made stay)."""

    @abc.abstractmethod
    def open(self, exchange: Exchange) -> FilterStream:
        """Return the stream of this filter for one exchange."""
