"""A closed-loop HTTP/1.1 load generator, cheap enough to share two cores with what it measures.

Each connection sends the next request of a list, round and round, as soon as the answer is complete. Only what the
benchmarks need is parsed: the status, and the end of the answer by `content-length` or by the last chunk.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast


@dataclass
class LoadResult:
    """What a run saw: answers by status, and the latency of each answer in seconds."""

    elapsed_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """Answers received."""
        return len(self.latencies_s)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.requests / self.elapsed_s

    def percentile(self, q: float) -> float:
        """Latency in seconds that the share `q` (0 to 1) of the answers did not exceed."""
        return percentile(self.latencies_s, q)


def percentile(values: list[float], q: float) -> float:
    """Return the value that the share `q` (0 to 1) of `values` does not exceed; nan without values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def http_request(path: str, body: bytes, host: str = "penstock.local", key: str = "") -> bytes:
    """Return the bytes of a POST of a JSON `body`; `key` is an API key."""
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", "content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"authorization: Bearer {key}"] if key else []
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Connection(asyncio.Protocol):
    def __init__(
        self, requests: Iterator[bytes], result: LoadResult, stop_at: float, done: asyncio.Future[None]
    ) -> None:
        self.requests, self.result, self.stop_at, self.done = requests, result, stop_at, done
        self.buffer = bytearray()
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._send()

    def _send(self) -> None:
        self.sent_at = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not _complete(self.buffer):
            return
        now = time.perf_counter()
        status = int(self.buffer[9:12])
        self.result.statuses[status] = self.result.statuses.get(status, 0) + 1
        self.result.latencies_s.append(now - self.sent_at)
        self.buffer.clear()
        if now < self.stop_at:
            self._send()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            early = time.perf_counter() < self.stop_at
            self.done.set_exception(ConnectionError("the server closed a connection")) if early else (
                self.done.set_result(None)
            )


def _complete(buffer: bytearray) -> bool:
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = bytes(buffer[:end]).lower()
    at = head.find(b"content-length:")
    if at >= 0:
        return len(buffer) >= end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
    return buffer.endswith(b"0\r\n\r\n")


async def run_load(port: int, request: bytes | Sequence[bytes], connections: int, seconds: float) -> LoadResult:
    """Send `request`, or several in turn, on `connections` to 127.0.0.1:`port` for `seconds`.

    Raises ConnectionError when the server closes one early.
    """
    loop = asyncio.get_running_loop()
    result = LoadResult()
    requests = itertools.cycle([request] if isinstance(request, bytes) else request)
    started = time.perf_counter()
    done: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
    for future in done:
        await loop.create_connection(
            lambda future=future: _Connection(requests, result, started + seconds, future), "127.0.0.1", port
        )
    await asyncio.wait_for(asyncio.gather(*done), seconds + 30)
    result.elapsed_s = time.perf_counter() - started
    return result
