import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from services.picker.pool import Address, Pool, Replica
from services.picker.scrape import MAX_RATE, Scraper

PAGE = b"vllm:num_requests_waiting %d\nvllm:num_requests_running 2\nvllm:kv_cache_usage_perc 0.5\n"


def plain(page: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(page), page)


def chunked(page: bytes) -> bytes:
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(page[i : i + 40]), page[i : i + 40]) for i in range(0, len(page), 40))
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"


@dataclass
class Server:
    """A replica's `/metrics` that answers what it is told; None keeps silent."""

    answer: bytes | None = plain(PAGE % 0)
    requests: int = 0
    connections: int = 0
    head: bytes = b""
    server: asyncio.Server | None = None
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def start(self, port: int = 0) -> int:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", port)
        return int(self.server.sockets[0].getsockname()[1])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                self.head = await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                if self.answer is not None:
                    writer.write(self.answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()


@dataclass
class Bench:
    pool: Pool
    scraper: Scraper
    server: Server
    replica: Replica
    errors: list[str]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    server, pool, errors = Server(), Pool(), list[str]()
    port = await server.start()
    scraper = Scraper(pool, 0.01, on_error=lambda replica, reason: errors.append(reason))
    come, _ = pool.update([Address("a", "127.0.0.1", port)])
    scraper.add(come[0])
    yield Bench(pool, scraper, server, come[0], errors)
    scraper.stop()
    server.stop()
    await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        await asyncio.sleep(0.005)


async def test_readings_follow_each_other_on_one_connection(bench: Bench) -> None:
    await until(lambda: bench.server.requests >= 5)
    assert bench.server.connections == 1
    assert bench.server.head.startswith(b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1:")
    assert (bench.replica.fresh, bench.replica.metrics.running) == (True, 2)
    bench.server.answer = chunked(PAGE % 4)
    await until(lambda: bench.replica.metrics.waiting == 4)
    assert bench.errors == []


async def test_only_what_was_sent_after_asking_is_added_to_a_reading(bench: Bench) -> None:
    await until(lambda: bench.replica.fresh)
    bench.server.answer = None
    for _ in range(2):
        bench.pool.sent(bench.replica)
    seen = bench.server.requests
    await until(lambda: bench.server.requests > seen)
    for _ in range(3):
        bench.pool.sent(bench.replica)
    bench.server.writers[-1].write(plain(PAGE % 1))
    await until(lambda: bench.replica.metrics.waiting == 1)
    assert bench.replica.outstanding == 1 + 2 + 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "status"),
        (plain(b"nothing here\n"), "format"),
        (b"SSH-2.0-x\r\n\r\n", "format"),
    ],
)
async def test_a_bad_answer_is_an_error_and_leaves_the_last_reading(bench: Bench, answer: bytes, reason: str) -> None:
    await until(lambda: bench.replica.fresh)
    at = bench.replica.scraped_at
    bench.server.answer = answer
    await until(lambda: bool(bench.errors))
    assert set(bench.errors) == {reason}
    assert bench.replica.scraped_at >= at
    assert not bench.replica.refused
    bench.server.answer = plain(PAGE % 9)
    await until(lambda: bench.replica.metrics.waiting == 9)


async def test_a_closed_connection_is_opened_again(bench: Bench) -> None:
    bench.server.answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (
        len(PAGE % 7),
        PAGE % 7,
    )
    await until(lambda: bench.server.connections >= 2)
    assert bench.replica.metrics.waiting == 7


async def test_a_replica_that_died_is_out_at_once_and_comes_back(bench: Bench) -> None:
    await until(lambda: bench.replica.fresh)
    bench.server.stop()
    await until(lambda: bench.replica.refused)
    assert not bench.replica.fresh
    assert bench.errors[-1] == "refused"
    await bench.server.start(bench.replica.address.port)
    await until(lambda: bench.replica.fresh)
    assert not bench.replica.refused


async def test_a_silent_replica_times_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.picker.scrape.TIMEOUT_S", 0.05)
    bench.server.answer = None
    await until(lambda: "timeout" in bench.errors)
    assert not bench.replica.refused


async def test_nothing_is_read_after_a_replica_was_removed(bench: Bench) -> None:
    await until(lambda: bench.server.requests >= 2)
    bench.scraper.remove(bench.replica)
    bench.scraper.remove(bench.replica)
    await asyncio.sleep(0.03)  # what was under way
    seen = bench.server.requests
    await asyncio.sleep(0.1)
    assert bench.server.requests == seen


async def test_the_interval_grows_with_the_pool() -> None:
    pool = Pool()
    scraper = Scraper(pool, 0.05)
    come, _ = pool.update(Address(f"r{n}", "127.0.0.1", n + 1) for n in range(200))
    assert scraper.interval_s == 0.05
    for replica in come:
        scraper.add(replica)
    assert scraper.interval_s == pytest.approx(200 / MAX_RATE)
    scraper.stop()
