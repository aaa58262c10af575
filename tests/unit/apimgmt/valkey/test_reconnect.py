"""What happens when the server goes away, stands still, forgets its scripts, or refuses us."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from services.apimgmt.settings import ValkeyStore as Settings
from services.apimgmt.store.api import StoreError
from services.apimgmt.store.valkey import ValkeyStore, client, hot, link
from services.apimgmt.store.valkey.store import read_address
from tests.support.valkey import Server, server
from tests.unit.apimgmt.valkey.calls import concurrent, reservation, settlement, window

BOUND_S = 8.0
"""What "a bounded time" is, with the defaults."""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may stop."""
    with server(tmp_path / "valkey") as running:
        yield running


async def test_calls_fail_within_a_bounded_time_and_work_again(own: Server) -> None:
    store = own.store()
    await store.open()
    made = reservation([window("a", 6, 10)])
    await store.reserve(made)
    own.kill()
    started = time.monotonic()
    calls = [store.totals(made.charges), store.feed(0), store.reserve(reservation([window("a", 1, 10)]))]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreError] * 3
    assert time.monotonic() - started < BOUND_S
    for answer in answers:
        assert f"127.0.0.1:{own.port}" in str(answer)
        assert own.password not in str(answer)
    own.start()
    assert await store.totals(made.charges) == [6]
    await store.settle(settlement(made, [2]))
    assert await store.totals(made.charges) == [2]
    await store.close()


async def test_settlements_outlast_a_restart(own: Server) -> None:
    store = own.store()
    await store.open()
    made = [reservation([window("a", 6, 1000), concurrent("c", 100)]) for _ in range(20)]
    await asyncio.gather(*[store.reserve(one) for one in made])
    settling = [asyncio.ensure_future(store.settle(settlement(one, [2, 0]))) for one in made[:10]]
    await asyncio.sleep(0)  # the first ten are on their way
    own.kill()
    settling += [asyncio.ensure_future(store.settle(settlement(one, [2, 0]))) for one in made[10:]]
    await asyncio.sleep(0)
    await asyncio.to_thread(own.start)
    await asyncio.gather(*settling)
    found = [orjson.loads(record)["id"] for record in (await store.ledger("", 100))[1]]
    assert sorted(found) == sorted(one.id for one in made)
    assert await store.totals(made[0].charges) == [40, 0]
    await store.close()


async def test_a_settlement_gives_up_at_last(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = own.store()
    await store.open()
    made = reservation([window("a", 6, 10)])
    await store.reserve(made)
    monkeypatch.setattr(hot, "SETTLE_S", 0.5)
    own.kill()
    with pytest.raises(StoreError, match=r"tried for 0\.5 s"):
        await store.settle(settlement(made, [2]))
    await store.close()


async def test_a_server_that_stands_still(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reservation whose reply does not come may have been made: it is taken back when the server answers again."""
    monkeypatch.setattr(link, "REPLY_S", 0.5)
    monkeypatch.setattr(link, "CONNECT_S", 0.5)
    monkeypatch.setattr(hot, "RESERVE_S", 1.0)
    store = own.store()
    await store.open()
    await store.reserve(reservation([concurrent("other", 9)]))
    assert own.pid is not None
    os.kill(own.pid, signal.SIGSTOP)
    try:
        made = reservation([window("a", 6, 10), concurrent("c", 1)])
        with pytest.raises(StoreError):
            await store.reserve(made)
    finally:
        os.kill(own.pid, signal.SIGCONT)
    deadline = time.monotonic() + 10
    while await store.totals(made.charges) != [0, 0] or store._hot._tasks:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert (await store.reserve(reservation([window("a", 10, 10), concurrent("c", 1)]))).granted
    with pytest.raises(StoreError, match="is there already"):
        await store.reserve(made)
    await store.close()


async def test_scripts_are_loaded_again(own: Server) -> None:
    store = own.store()
    await store.open()
    await store.reserve(reservation([window("a", 1, 10)]))
    own.command("SCRIPT", "FLUSH", "SYNC")
    assert list((await store.reserve(reservation([window("a", 1, 10)]))).totals) == [2]
    own.command("SCRIPT", "FLUSH", "SYNC")
    grants = await asyncio.gather(*[store.reserve(reservation([window("a", 1, 6)])) for _ in range(10)])
    assert sum(grant.granted for grant in grants) == 4
    await store.close()


async def test_calls_of_one_turn_share_a_write(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = own.store()
    await store.open()
    await store.reserve(reservation())
    writes: list[int] = []
    flush = link.Link._flush

    def counted(self: link.Link) -> None:
        writes.append(len(self._out))
        flush(self)

    monkeypatch.setattr(link.Link, "_flush", counted)
    await asyncio.gather(*[store.reserve(reservation([window("a", 1, 100)])) for _ in range(16)])
    assert writes == [16]
    writes.clear()
    monkeypatch.setattr(link, "MAX_BATCH_BYTES", 2000)
    await asyncio.gather(*[store.reserve(reservation([window("a", 1, 100)])) for _ in range(16)])
    assert len(writes) > 2
    assert sum(writes) == 16
    await store.close()


async def test_a_cancelled_call_does_not_shift_replies(own: Server) -> None:
    store = own.store()
    await store.open()
    await store.reserve(reservation())
    calls = [asyncio.ensure_future(store.reserve(reservation([window("a", 1, 100)]))) for _ in range(9)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    totals = [list(answer.totals) for answer in answers if not isinstance(answer, BaseException)]
    assert totals == [[2], [4], [6], [8]]
    await store.close()


async def test_cancelled_requests_hold_nothing_and_lose_nothing(own: Server) -> None:
    store = own.store()
    await store.open()
    await store.reserve(reservation())
    made = [reservation([window("a", 6, 100), concurrent("c", 100)]) for _ in range(4)]
    await asyncio.gather(*[store.reserve(one) for one in made[:2]])
    calls = [asyncio.ensure_future(store.settle(settlement(one, [2, 0]))) for one in made[:2]]
    calls += [asyncio.ensure_future(store.reserve(one)) for one in made[2:]]  # type: ignore[misc]
    await asyncio.sleep(0)
    own.kill()  # whether they arrived is open
    for call in calls:
        call.cancel()
    assert all(isinstance(a, asyncio.CancelledError) for a in await asyncio.gather(*calls, return_exceptions=True))
    await asyncio.to_thread(own.start)
    deadline = time.monotonic() + 10
    while store._hot._tasks:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert await store.totals(made[0].charges) == [4, 0]
    found = [orjson.loads(record)["id"] for record in (await store.ledger("", 100))[1]]
    assert sorted(found) == sorted(one.id for one in made[:2])
    await store.close()


async def test_too_many_calls_at_once_are_refused(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = own.store()
    await store.open()
    await store.feed(0)  # its script is known
    monkeypatch.setattr(link, "MAX_PENDING", 5)
    monkeypatch.setattr(client, "PATIENCE_S", 0.01)
    answers = await asyncio.gather(*[store.feed(0) for _ in range(9)], return_exceptions=True)
    assert sum(isinstance(answer, StoreError) for answer in answers) >= 1
    assert sum(not isinstance(answer, BaseException) for answer in answers) >= 5
    await store.close()


async def test_a_wrong_password_is_told_without_it(own: Server) -> None:
    store = ValkeyStore(own.settings, {**own.environ, "PENSTOCK_STORE_PASSWORD": "not-the-secret"})
    with pytest.raises(StoreError, match="WRONGPASS: the server refuses the credentials") as raised:
        await store.open()
    assert "not-the-secret" not in str(raised.value)
    await store.close()
    with pytest.raises(StoreError, match="PENSTOCK_STORE_PASSWORD is not set"):
        ValkeyStore(own.settings, {"PENSTOCK_STORE_ADDRESS": "127.0.0.1:1"})
    none = ValkeyStore(own.settings.model_copy(update={"auth": "none"}), own.environ)
    with pytest.raises(StoreError, match="NOAUTH"):
        await none.open()
    await none.close()


async def test_something_else_listens_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 0.3)

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    web = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = web.sockets[0].getsockname()[1]
    store = ValkeyStore(Settings(kind="valkey", auth="none"), {"PENSTOCK_STORE_ADDRESS": f"127.0.0.1:{port}"})
    with pytest.raises(StoreError, match="does not speak the Redis protocol"):
        await store.open()
    await store.close()
    web.close()
    await web.wait_closed()


async def test_nobody_listens_there(monkeypatch: pytest.MonkeyPatch, own: Server) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 0.3)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        environ = {**own.environ, "PENSTOCK_STORE_ADDRESS": f"127.0.0.1:{held.getsockname()[1]}"}
        store = ValkeyStore(own.settings, environ)
        with pytest.raises(StoreError, match=r"Connect call failed|Connection refused"):
            await store.open()
        await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.feed(0)


async def test_a_newer_layout_is_refused(own: Server) -> None:
    own.command("SET", "penstock:{:directory}:schema", "99")
    store = own.store()
    with pytest.raises(StoreError, match="newer release"):
        await store.open()
    await store.close()


async def test_warns_of_servers_that_forget(own: Server, caplog: pytest.LogCaptureFixture) -> None:
    own.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
    own.command("CONFIG", "SET", "appendonly", "no")
    store = own.store()
    await store.open()
    await store.close()
    assert "append-only" in caplog.text
    assert "noeviction" in caplog.text
    assert own.password not in caplog.text


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.5:6379", ("10.0.0.5", 6379)),
        ("valkey", ("valkey", 6379)),
        ("[::1]:7000", ("::1", 7000)),
        ("/run/valkey.sock", ("/run/valkey.sock", 0)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize("text", ["", ":6379", "host:0", "host:x", "host:99999"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(StoreError, match="expected host:port"):
        read_address(text)
