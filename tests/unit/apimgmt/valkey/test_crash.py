"""The server dies again and again while requests run: nothing is lost, counted twice, or held for ever."""

import asyncio
import random
import time
from pathlib import Path

import orjson
import pytest

from services.apimgmt.store.api import StoreError
from services.apimgmt.store.valkey import ValkeyStore, hot, link
from tests.support.valkey import server
from tests.unit.apimgmt.valkey.calls import NOW, concurrent, reservation, rolling, settlement, window

CRASHES = 2
CEILING, AT_ONCE = 4000, 10


@pytest.mark.parametrize("cluster", [False, True])
async def test_the_server_crashes_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, cluster: bool) -> None:
    monkeypatch.setattr(hot, "RESERVE_S", 0.2)  # so that some give up while the server is away
    monkeypatch.setattr(link, "CONNECT_S", 1.0)
    dice = random.Random(7)
    with server(tmp_path / "valkey", cluster=cluster) as running:
        stores = [running.store() for _ in range(4)]
        for store in stores:
            await store.open()
        settled: dict[str, int] = {}
        failures = 0
        stop, progress = asyncio.Event(), asyncio.Event()

        async def work(store: ValkeyStore) -> None:
            nonlocal failures
            while not stop.is_set():
                amount = dice.randint(1, 20)
                charges = [window("a", amount, CEILING), rolling("r", amount, CEILING), concurrent("c", AT_ONCE)]
                made = reservation(charges)
                try:
                    grant = await store.reserve(made)
                except StoreError:
                    failures += 1
                    continue
                assert all(total <= most for total, most in zip(grant.totals, (CEILING, CEILING, AT_ONCE), strict=True))
                if grant.granted:
                    used = dice.randint(0, amount)
                    await store.settle(settlement(made, [used, used, 0]))
                    settled[made.id] = used
                    progress.set()
                else:
                    await asyncio.sleep(0.001)

        workers = [asyncio.create_task(work(store)) for store in stores for _ in range(4)]
        for _ in range(CRASHES):
            for _ in range(10):
                await asyncio.wait_for(progress.wait(), 20)
                progress.clear()
            running.kill()
            await asyncio.sleep(0.4)  # long enough for reservations to give up
            await asyncio.to_thread(running.start)
        stop.set()
        await asyncio.gather(*workers)
        assert failures > 0, "no reservation was interrupted"

        store, spent = stores[0], sum(settled.values())
        asked = [window("a", 0, 0), rolling("r", 0, 0), concurrent("c", 0)]
        deadline = time.monotonic() + 20
        while any(one._hot._tasks for one in stores):  # type: ignore[attr-defined]
            assert time.monotonic() < deadline, "reservations are still being taken back"
            await asyncio.sleep(0.02)
        assert await store.totals(asked) == [spent, spent, 0]
        found = [orjson.loads(record)["id"] for record in (await store.ledger("", 100_000))[1]]
        assert sorted(found) == sorted(settled)
        await store.renew("process-1", 1)
        assert await store.sweep(int(NOW) + 10**6) == 0, "something was still held"
        for one in stores:
            await one.close()
