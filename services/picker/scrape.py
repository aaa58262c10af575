"""Reads the metrics of all replicas, all the time, over kept-alive connections.

One connection to each replica and at most one request on it: plain protocol callbacks and timers, no task for each
replica. Reading costs about 0.1 ms of CPU with vLLM's pages of 54 KB, so 1,000 replicas every 50 ms would take two
cores; therefore all replicas together are read at most `MAX_RATE` times a second, and the interval grows with the pool.
Between readings the picker's own counts keep the estimates true (`pool.py`).
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import cast

import httptools

from services.picker.metrics import MetricsError, parse
from services.picker.pool import Pool, Replica

INTERVAL_S = 0.05
"""Seconds between two readings of a replica. Source: upstream's `--refresh-metrics-interval`."""

MAX_RATE = 500.0
"""Most readings per second of all replicas together."""

TIMEOUT_S = 1.0
"""How long connecting, or one answer, may take, seconds."""

RETRY_S = 0.25
"""Seconds until a replica that failed is asked again."""

MAX_PAGE_BYTES = 8 * 1024 * 1024
"""Largest page that is read."""

JITTER = 0.1
"""Share by which an interval varies, so that readings spread out."""


class Scraper:
    """Keeps the readings of a pool's replicas up to date from `start` to `stop`."""

    def __init__(
        self,
        pool: Pool,
        interval_s: float = INTERVAL_S,
        path: str = "/metrics",
        on_error: Callable[[Replica, str], None] = lambda replica, reason: None,
        on_reading: Callable[[Replica], None] = lambda replica: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_error` is told why a reading failed: `refused`, `timeout`, `closed`, `status` or `format`."""
        self.pool, self.path, self.on_error, self.on_reading, self.clock = pool, path, on_error, on_reading, clock
        self._interval_s = interval_s
        self._lines: dict[Replica, _Line] = {}

    @property
    def interval_s(self) -> float:
        """Seconds between two readings of one replica, with as many replicas as there are now."""
        return max(self._interval_s, len(self._lines) / MAX_RATE)

    def add(self, replica: Replica) -> None:
        """Read this replica from now on. Needs a running event loop."""
        self._lines[replica] = _Line(self, replica)

    def remove(self, replica: Replica) -> None:
        """Read this replica no longer."""
        line = self._lines.pop(replica, None)
        if line is not None:
            line.close()

    def stop(self) -> None:
        """End all reading."""
        for replica in list(self._lines):
            self.remove(replica)


class _Line:
    """The reading of one replica: connect, ask, wait, ask again."""

    def __init__(self, scraper: Scraper, replica: Replica) -> None:
        self._scraper, self._replica = scraper, replica
        self._loop = asyncio.get_running_loop()
        self._request = (
            f"GET {scraper.path} HTTP/1.1\r\nhost: {replica.endpoint}\r\naccept: text/plain\r\n\r\n".encode()
        )
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._in_flight = 0
        self._closed = False
        self._timer = self._loop.call_soon(self._ask)

    def close(self) -> None:
        self._closed = True
        self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort()

    def _ask(self) -> None:
        if self._connection is None:
            self._connecting = self._loop.create_task(self._connect())
            return
        self._in_flight = self._replica.in_flight
        self._connection.ask(self._request)
        self._timer = self._loop.call_later(TIMEOUT_S, self._fail, "timeout")

    async def _connect(self) -> None:
        address = self._replica.address
        try:
            async with asyncio.timeout(TIMEOUT_S):
                _, self._connection = await self._loop.create_connection(
                    lambda: _Connection(self._answered, self._fail), address.host, address.port
                )
        except TimeoutError:
            self._fail("timeout")
            return
        except OSError:
            self._scraper.pool.refused(self._replica)
            self._fail("refused")
            return
        finally:
            self._connecting = None
        self._ask()

    def _answered(self, status: int, page: bytes) -> None:
        try:
            if status != 200:
                raise MetricsError(f"status {status}")
            metrics = parse(page)
        except MetricsError:
            self._fail("status" if status != 200 else "format")
            return
        scraper = self._scraper
        scraper.pool.observed(self._replica, metrics, self._in_flight, scraper.clock())
        scraper.on_reading(self._replica)
        self._again(scraper.interval_s)

    def _fail(self, reason: str) -> None:
        """A reading failed, or the idle connection went away: start over with a new one after a pause."""
        if self._closed:
            return
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        self._scraper.on_error(self._replica, reason)
        self._again(max(RETRY_S, self._scraper.interval_s))

    def _again(self, delay_s: float) -> None:
        self._timer.cancel()
        self._timer = self._loop.call_later(delay_s * random.uniform(1 - JITTER, 1 + JITTER), self._ask)


class _Connection(asyncio.Protocol):
    """A kept-alive HTTP/1.1 connection with one request at a time."""

    def __init__(self, answered: Callable[[int, bytes], None], failed: Callable[[str], None]) -> None:
        self._answered, self._failed = answered, failed
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._size = 0

    def ask(self, request: bytes) -> None:
        assert self._transport is not None  # noqa: S101 - connected before anyone has this object
        self._body, self._size = [], 0
        self._transport.write(request)

    def abort(self) -> None:
        """Close without a word to anyone."""
        self._failed = self._ignore
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._failed("format")

    def connection_lost(self, exc: Exception | None) -> None:
        self._failed("closed")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size <= MAX_PAGE_BYTES:
            self._body.append(body)

    def on_message_complete(self) -> None:
        keep = self._parser.should_keep_alive()
        page = b"".join(self._body) if self._size <= MAX_PAGE_BYTES else b""
        self._answered(self._parser.get_status_code(), page)
        if not keep:
            self._failed("closed")

    @staticmethod
    def _ignore(reason: str) -> None:
        return
