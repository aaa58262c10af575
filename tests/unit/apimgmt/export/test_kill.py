"""Processes that export are killed while others settle: all objects together are the ledger. On both stores."""

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.apimgmt.ledger.export import Export
from services.apimgmt.store.api import Store
from tests.contract.apimgmt.store.support import Place
from tests.support.places import place
from tests.unit.apimgmt.export.support import Clock, drain, exporter, files, settle, union, whole_ledger

__all__ = ["place"]

ORGANIZATIONS = ("acme", "mid", "zen")


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    opened = place.store()
    await opened.open()
    yield opened
    await opened.close()


async def write(store: Store, first: int, count: int) -> None:
    """Settle for several organizations at once, in no order between them."""
    await asyncio.gather(
        *(
            settle(store, range(first + i, first + count, len(ORGANIZATIONS)), organization=name)
            for i, name in enumerate(ORGANIZATIONS)
        )
    )


async def test_records_that_are_settled_while_others_export(store: Store, place: Place, tmp_path: Path) -> None:
    clock, out = Clock(), tmp_path / "out"
    second = place.store()
    await second.open()
    jobs = [exporter(one, f"file://{out}", clock, max_records=9) for one in (store, second)]
    done = asyncio.Event()

    async def work(export: Export) -> None:
        while not done.is_set():
            await export.step()
            clock.now += 61
            await asyncio.sleep(0)

    async def settling() -> None:
        for n in range(0, 600, 30):
            await write(store, n, 30)
        done.set()

    await asyncio.gather(settling(), *map(work, jobs))
    clock.now += 400
    await drain(jobs[0])
    found = await whole_ledger(store)
    assert len(found) == 600
    assert union(files(out)) == found
    await second.close()


@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_processes_leave_nothing_twice(store: Store, place: Place, tmp_path: Path, seed: int) -> None:
    dice, out = random.Random(seed), tmp_path / "out"
    arguments = {"settings": place.settings, "environ": place.environ, "url": f"file://{out}"}
    text = json.dumps(arguments, default=dict)
    written = 0
    for _ in range(4):
        workers = [await start(text) for _ in range(2)]
        try:
            for process in workers:
                await line(process)
            for _ in range(dice.randint(1, 4)):
                await write(store, written, 60)
                written += 60
                await line(workers[0])
            await asyncio.sleep(dice.uniform(0, 0.03))  # where in a step it ends is up to this
        finally:
            for process in workers:
                process.kill()
                await process.wait()
    export = exporter(store, f"file://{out}", lambda: time.time() + 1000)
    await drain(export)
    found = await whole_ledger(store)
    assert len(found) == written
    assert union(files(out)) == found


async def start(text: str) -> asyncio.subprocess.Process:
    command = [sys.executable, "-m", "tests.unit.apimgmt.export.worker", text]
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)


async def line(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"step\n"
