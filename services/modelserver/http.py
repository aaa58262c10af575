"""The little of ASGI that the simulator needs, close to the metal: answers must cost next to nothing."""

from collections.abc import Callable, MutableMapping
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Scope = MutableMapping[str, Any]
JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"
CONNECTION = "penstock.connection"
"""Key in the ASGI scope of the `Connection`."""


class Connection(HttpToolsProtocol):
    """A client's connection that can be cut in the middle and that tells when it is lost."""

    on_lost: Callable[[], None] | None = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: Scope = self.scope  # type: ignore[assignment]
        scope[CONNECTION] = self

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()
            self.on_lost = None

    def cut(self, flush: bool) -> None:
        """Close without an orderly end of the answer; `flush` sends first what has been written."""
        if self.cycle is not None:
            self.cycle.disconnected = True
        if flush:
            self.transport.close()
        else:
            self.transport.abort()


class ClientGone(Exception):
    """The connection is closed, by the client or by a fault: there is nobody left to answer."""


class HttpError(Exception):
    """An answer in vLLM's error shape, raised from anywhere below the app.

    `kind` is vLLM's `type`: BadRequestError, NotFoundError, ... ; `message` and `param` are sent as they are.
    """

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": status}})


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "_receive",
        "_send",
        "connection",
        "drop_after",
        "extra",
        "method",
        "path",
        "scope",
        "sent_bytes",
        "status",
    )

    def __init__(self, scope: Scope, receive: Any, send: Any, extra: list[tuple[bytes, bytes]]) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.connection: Connection | None = scope.get(CONNECTION)
        self.extra = extra
        """Headers that every answer ends with."""
        self.drop_after: int | None = None
        """Chunks of a stream until a `drop` fault cuts the connection; an answer in one piece is cut in half."""
        self.status = 0
        self.sent_bytes = 0
        self._receive = receive
        self._send = send

    def header(self, name: bytes) -> str:
        """Return the first value of a request header (lower case), or an empty string."""
        for key, value in self.scope["headers"]:
            if key == name:
                return str(value, "latin-1")
        return ""

    async def body(self) -> bytes:
        """Return the whole request body. Raises ClientGone."""
        parts = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)

    async def reply(
        self, body: bytes, status: int = 200, kind: bytes | None = JSON, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        """Send a complete answer; `kind` is its content type."""
        self.status, self.sent_bytes = status, len(body)
        fields = [*headers, (b"content-length", b"%d" % len(body))]
        if kind is not None:
            fields.append((b"content-type", kind))
        await self._send({"type": "http.response.start", "status": status, "headers": fields + self.extra})
        if self.drop_after is not None:
            await self.write(body[: len(body) // 2])
            self.cut(flush=True)
            raise ClientGone
        await self._send({"type": "http.response.body", "body": body})

    async def start(self, kind: bytes = EVENT_STREAM) -> None:
        """Begin a streamed answer."""
        self.status = 200
        fields = [(b"content-type", kind), *self.extra]
        await self._send({"type": "http.response.start", "status": 200, "headers": fields})

    async def write(self, data: bytes) -> None:
        """Send a piece of a streamed answer."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """Finish a streamed answer."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def cut(self, flush: bool = False) -> None:
        """Break the connection."""
        if self.connection is not None:
            self.connection.cut(flush)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the client goes away before the answer is complete, at once if it has gone."""
        if self.connection is None:
            return
        if self.connection.transport.is_closing():
            callback()
        else:
            self.connection.on_lost = callback

    def settle(self) -> None:
        """Stop watching for the client's going away."""
        if self.connection is not None:
            self.connection.on_lost = None
