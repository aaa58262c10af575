"""One connection to a Valkey or Redis server, shared by all calls of a process.

Commands of one turn of the event loop leave in one write, and replies come back in order (RESP2, Redis protocol
specification): concurrent requests share round trips, and a command costs a few microseconds.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis

CONNECT_S = 2.0
"""Longest time for a connection with TLS and AUTH."""

CLOSE_S = 1.0
"""Longest time that what was written last has to leave."""

REPLY_S = 3.0
"""Longest silence of a server that owes replies; then the connection is given up."""

CHECK_S = 0.25
"""How often that is looked at while replies are due."""

MAX_PENDING = 20_000
"""Commands that may wait for replies on one connection. More are refused at once."""

MAX_BATCH_BYTES = 256 * 1024
"""Commands that are joined into one write, bytes; beyond it they leave without waiting for the end of the turn."""

Arg = str | bytes | int | float

ReplyError = hiredis.ReplyError
"""An error that the server replied with: returned, never raised, by `Link.call`."""


class Broken(Exception):
    """A command has no reply, and may or may not have been carried out. The text holds no secret."""


class Link(asyncio.Protocol):
    """See the module's text. Made by `connect`."""

    def __init__(self, name: str, on_lost: Callable[["Link"], None] | None = None) -> None:
        """`name` stands in errors, e.g. `10.0.0.5:6379`."""
        self.name, self._on_lost = name, on_lost
        self.open = False
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._heard = 0.0
        """When the server was last heard, or had nothing to say."""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._why = "the server closed the connection"
        self._gone = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport, self.open = cast(asyncio.WriteTransport, transport), True

    def call(self, args: tuple[Arg, ...]) -> "asyncio.Future[Any]":
        """Send a command. The future has the reply, a `ReplyError`, or raises `Broken`."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if not self.open or len(self._pending) >= MAX_PENDING:
            full = f"more than {MAX_PENDING} commands wait for replies"
            future.set_exception(Broken(full if self.open else self._why))
            return future
        data = hiredis.pack_command(args)  # type: ignore[arg-type]  # its stub says: of one item
        if not self._pending:
            self._heard = self._loop.time()
            if self._timer is None:
                self._timer = self._loop.call_later(CHECK_S, self._check)
        self._pending.append(future)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes > MAX_BATCH_BYTES:
            self._flush()
        return future

    def _flush(self) -> None:
        if self._out and self._transport is not None and self.open:
            self._transport.write(b"".join(self._out))
        self._out, self._out_bytes = [], 0

    def data_received(self, data: bytes) -> None:
        """Hand replies to those who wait for them."""
        self._heard = self._loop.time()
        reader, pending = self._reader, self._pending
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                future = pending.popleft()
                if not future.done():
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError):
            self.abort("the server does not speak the Redis protocol; check PENSTOCK_STORE_ADDRESS and tls")

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what waits."""
        self.open = False
        if not self._gone.done():
            self._gone.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
        while self._pending:
            future = self._pending.popleft()
            if not future.done():
                future.set_exception(Broken(self._why))
                future.exception()  # who waits gets it; nobody may wait any more
        if self._on_lost is not None:
            self._on_lost(self)

    def _check(self) -> None:
        self._timer = None
        if not self._pending:
            return
        if self._loop.time() - self._heard > REPLY_S:
            self.abort(f"no reply within {REPLY_S:g} s")
            return
        self._timer = self._loop.call_later(CHECK_S, self._check)

    def abort(self, why: str) -> None:
        """Give the connection up: everything that waits fails with `why`."""
        self._why, self.open = why, False
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Close after what was written."""
        self._flush()
        self._why, self.open = "the store is closed", False
        if self._transport is not None:
            self._transport.close()
            if not (await asyncio.wait([self._gone], timeout=CLOSE_S))[0]:
                self._transport.abort()
                await self._gone


async def connect(
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    password: str | None,
    on_lost: Callable[[Link], None] | None = None,
) -> Link:
    """Open a connection and authenticate. Raises Broken, or Refused if the password is wrong."""
    name = f"{host}:{port}"
    loop = asyncio.get_running_loop()
    link: Link | None = None
    try:
        async with asyncio.timeout(CONNECT_S):
            if host.startswith("/"):
                _, link = await loop.create_unix_connection(lambda: Link(host, on_lost), host)
            else:
                _, link = await loop.create_connection(lambda: Link(name, on_lost), host, port, ssl=tls)
            reply = await link.call(("AUTH", password) if password else ("PING",))
    except BaseException as error:
        if link is not None:
            link.abort("could not be set up")
        if not isinstance(error, OSError | TimeoutError | Broken):
            raise
        raise Broken(f"{name}: {_reason(error)}") from None
    if isinstance(reply, ReplyError) and not str(reply).startswith("LOADING"):
        link.abort("refused")
        raise Refused(f"{name}: {str(reply).split(' ')[0]}: the server refuses the credentials")
    return link


class Refused(Exception):
    """The server does not take the credentials."""


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); set caFile to the authority that signed it"
    if isinstance(error, TimeoutError):
        return f"no connection within {CONNECT_S:g} s"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)
