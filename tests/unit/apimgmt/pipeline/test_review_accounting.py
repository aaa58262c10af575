"""The books after the process stood still, and beside a settlement that cannot be written."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.apimgmt import accounting
from services.apimgmt.accounting import Accounting
from services.apimgmt.metrics import Metrics
from services.apimgmt.store.api import Store, StoreError
from tests.unit.apimgmt.pipeline.test_accounting import LIMITS, Broken, broken
from tests.unit.apimgmt.pipeline.world import World, answer


async def test_a_process_that_stood_still_does_not_lose_its_own_requests(tmp_path: Path) -> None:
    """A laptop sleeps, a container is paused, a clock is set: every lease has ended, nobody has died."""
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        await world.request(opened)
        world.clock.now += 600
        await world.accounting.sweep()
        assert await world.records() == []
        await answer(opened)
        opened.close()
        [record] = await world.records()
        assert (record["outcome"], record["completionTokens"]) == ("ok", 5)


async def test_nor_do_others_on_the_machine_that_stood_still(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        other = Accounting(world.store, Metrics(CollectorRegistry()), 30, world.clock)
        await other.start()
        opened = world.session()
        await world.request(opened)
        world.clock.now += 600
        await other.sweep()  # the first one after the pause: it had no lease itself
        await world.accounting.sweep()
        await other.sweep()
        assert await world.records() == []
        opened.close()
        await other.stop()


async def test_requests_of_a_process_that_died_are_lost_by_a_process_that_did_not_stand_still(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        await world.request(opened)
        died = world.accounting
        for task in died._tasks:
            task.cancel()
        other = Accounting(world.store, Metrics(CollectorRegistry()), 30, world.clock)
        await other.start()
        for _ in range(4):
            world.clock.now += 10
            await other.renew()
        await other.sweep()
        [record] = await world.records()
        assert record["outcome"] == "lost"
        opened.close()
        await other.stop()


class Choosy(Broken):
    """A store that never takes the first settlement that it saw."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.never = ""

    async def settle(self, settlement: Any) -> None:
        self.never = self.never or settlement.id
        if settlement.id == self.never:
            raise StoreError("a value cannot be written")
        await super().settle(settlement)


async def test_a_settlement_that_cannot_be_written_does_not_keep_others_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounting, "RETRY_S", 0.01)
    async with World(tmp_path, limits=LIMITS) as world:
        store = Choosy(world.store)
        world.accounting.store = store
        for _ in range(3):
            opened = world.session()
            await world.request(opened)
            store.away = "settle"
            await answer(opened)
            opened.close()
        store.away = ""
        async with asyncio.timeout(10):
            while world.accounting.pending > 1:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.001)
        _, found = await world.store.ledger("", 10)
        assert len(found) == 2
        world.accounting.store = broken(world).store
