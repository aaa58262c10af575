"""The books when the store is away, slow, or gone for good; and when a process dies."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.apimgmt import accounting
from services.apimgmt.accounting import Accounting
from services.apimgmt.store.api import Store, StoreError
from tests.unit.apimgmt.pipeline.world import World, answer, limit, reply

LIMITS = [limit("requests", "requests", 100), limit("tokens", "tokens", 1000), limit("open", "concurrent", 9, None)]


def _asking(name: str) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: getattr(self.store, name)(*args, **kwargs)


Asking: Any = type("Asking", (Store,), {name: _asking(name) for name in vars(Store) if name[0] != "_"})
"""A store that asks another one, its `store`."""


class Broken(Asking):
    """A store whose settlements or reservations fail while `away` says so."""

    def __init__(self, store: Store) -> None:
        self.store, self.away = store, ""
        self.held = asyncio.Event()

    async def reserve(self, reservation: Any) -> Any:
        if self.away == "reserve":
            raise StoreError("away")
        if self.away == "after":
            await self.store.reserve(reservation)
            raise StoreError("the answer was lost")
        return await self.store.reserve(reservation)

    async def settle(self, settlement: Any) -> None:
        if self.away == "settle":
            raise StoreError("away")
        if self.away == "slow":
            await self.held.wait()
        await self.store.settle(settlement)


def broken(world: World) -> Broken:
    store = Broken(world.store)
    world.accounting.store = store
    return store


async def test_without_a_reservation_nothing_is_spent(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        store = broken(world)
        store.away = "reserve"
        opened = world.session()
        status, fields, error = reply(await world.request(opened))
        assert (status, error["error"]["code"], fields["retry-after"]) == (503, "ledger_unavailable", "1")
        opened.close()
        [record] = await world.records()
        assert (record["outcome"], record["promptTokens"]) == ("error", 0)
        assert world.metrics.in_flight == 0


async def test_a_grant_whose_answer_was_lost_is_given_back(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        store = broken(world)
        store.away = "after"
        opened = world.session()
        assert reply(await world.request(opened))[0] == 503
        assert (await world.totals())["open"] == 1
        opened.close()
        await world.records()
        assert await world.totals() == {"requests": 0, "tokens": 0, "open": 0}


async def test_settlements_are_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "RETRY_S", 0.01)
    async with World(tmp_path, limits=LIMITS) as world:
        store = broken(world)
        opened = world.session()
        await world.request(opened)
        store.away = "settle"
        answers = await answer(opened)
        assert answers  # not withheld
        opened.close()
        assert world.accounting.pending == 1
        assert (await world.totals())["open"] == 1
        store.away = ""
        [record] = await world.records()
        assert record["outcome"] == "ok"
        assert await world.totals() == {"requests": 1, "tokens": 12, "open": 0}
        assert world.metrics.settlements.counts[("retried",)] == 1


async def test_an_answer_is_not_withheld_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.apimgmt.accounting.HOLD_S", 0.02)
    async with World(tmp_path, limits=LIMITS) as world:
        store = broken(world)
        opened = world.session()
        await world.request(opened)
        store.away = "slow"
        assert await answer(opened)
        assert world.metrics.settlements.counts[("late",)] == 1
        assert (await world.totals())["open"] == 1
        store.held.set()
        opened.close()
        assert len(await world.records()) == 1
        assert (await world.totals())["open"] == 0


async def test_stop_writes_what_is_pending(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        store = broken(world)
        opened = world.session()
        await world.request(opened)
        store.away = "settle"
        opened.close()
        await asyncio.sleep(0)
        store.away = ""
        await world.accounting.stop()
        assert world.accounting.pending == 0
        _, records = await world.store.ledger("", 10)
        assert len(records) == 1


async def test_a_process_that_died_leaves_a_lost_record(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        await world.request(world.session())  # and never ends
        for task in world.accounting._tasks:
            task.cancel()  # no lease is renewed any more
        world.clock.now += 31
        later = Accounting(world.store, world.metrics, 30, world.clock)
        await later.start()
        async with asyncio.timeout(10):
            while not world.metrics.lost.counts[()]:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.005)
        [record] = await world.records()
        assert (record["outcome"], record["completionTokens"]) == ("lost", 0)
        assert record["promptTokens"] > 0
        await later.stop()
        world.clock.now -= 31
        assert await world.totals() == {"requests": 1, "tokens": record["promptTokens"], "open": 0}


async def test_ids_sort_by_time_and_never_repeat() -> None:
    ids = accounting.Ids("0" * 12)
    made = [ids.next(1_700_000_000 + i // 4) for i in range(100)]
    assert made == sorted(set(made))
    assert all(len(each) == 32 for each in made)
