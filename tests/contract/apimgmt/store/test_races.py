"""Eight processes on one store: no ceiling is ever exceeded, and nothing is lost when one is killed."""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.apimgmt.store.api import Store, UsageQuery
from tests.contract.apimgmt.store.conftest import Opener
from tests.contract.apimgmt.store.support import NOW, Place, charge, ledger, reservation

PROCESSES = 8
REPOSITORY = Path(__file__).parents[4]
PLENTY = {"requests": 10**9, "tokens": 10**9, "cost": 10**9, "rolling": 10**9, "concurrent": 10**9}


class Racers:
    """Processes of `racer.py`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.all: list[subprocess.Popen[bytes]] = []

    def start(self, mode: str, owner: str, **fields: Any) -> subprocess.Popen[bytes]:
        """Start one and wait until it is ready."""
        place = {"settings": dict(self._place.settings), "environ": dict(self._place.environ)}
        arguments = json.dumps({**place, "owner": owner, **fields})
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.apimgmt.store.racer", mode, arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
        )
        self.all.append(process)
        return process

    def go(self) -> None:
        """Let all begin, once all are ready."""
        for process in self.all:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline()) == {"ready": True}
        for process in self.all:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()

    def finish(self) -> list[dict[str, Any]]:
        """Return what all told. Each must end well."""
        told = []
        for process in self.all:
            out, _ = process.communicate(timeout=60)
            assert process.returncode == 0
            told += [json.loads(line) for line in out.splitlines()]
        return told


@pytest.fixture
def racers(place: Place) -> Iterator[Racers]:
    racers = Racers(place)
    yield racers
    for process in racers.all:
        if process.poll() is None:
            process.kill()
        process.communicate()


# what is scarce: its ceiling, and the most that one request uses of it
SCARCE = [
    ("requests", 150, 1),
    ("tokens", 4000, 60),
    ("cost", 28_000, 420),
    ("rolling", 4000, 60),
]


@pytest.mark.parametrize(("scarce", "ceiling", "largest"), SCARCE)
async def test_processes_race_for_a_limit(
    store: Store, racers: Racers, scarce: str, ceiling: int, largest: int
) -> None:
    ceilings = {**PLENTY, scarce: ceiling, "concurrent": 6}
    names = list(PLENTY)
    for n in range(PROCESSES):
        racers.start("race", f"p{n}", ceilings=ceilings, seed=n)
    racers.go()
    told = await asyncio.to_thread(racers.finish)

    for grant in told:
        for name, total in zip(names, grant["totals"], strict=True):
            assert total <= ceilings[name], f"{name} was granted beyond its ceiling"
    sums = [sum(one["used"][n] for one in told) for n in range(len(names))]
    slots = {"rolling": (102, 60), "concurrent": (0, 1)}
    asked = [charge(name, slot=slots.get(name, (5, 1))[0], slots=slots.get(name, (5, 1))[1]) for name in names]
    assert list(await store.totals(asked)) == sums
    assert sums[-1] == 0
    assert len(told) == len({one["id"] for one in told}) == len(await ledger(store))
    assert len({one["id"].partition("-")[0] for one in told}) > 1, "there was no race"

    left = ceiling - sums[names.index(scarce)]
    assert 0 <= left <= largest
    place = asked[names.index(scarce)]
    rest = [charge(scarce, amount, ceiling, slot=place.slot, slots=place.slots) for amount in (left + 1, left)]
    assert not (await store.reserve(reservation(rest[0]))).granted
    assert (await store.reserve(reservation(rest[1]))).granted


@pytest.mark.parametrize("seed", range(4))
async def test_a_killed_process_loses_nothing_and_counts_nothing_twice(
    another: Opener, racers: Racers, seed: int
) -> None:
    dice = random.Random(seed)
    killed, other = racers.start("loop", "killed"), racers.start("loop", "other")
    racers.go()
    confirmed: list[str] = []
    assert killed.stdout is not None
    for _ in range(dice.randint(20, 300)):
        confirmed.append(json.loads(await asyncio.to_thread(killed.stdout.readline))["id"])
    await asyncio.sleep(dice.random() / 200)  # the moment: anywhere within a transaction
    killed.kill()
    other.kill()
    confirmed += [json.loads(line)["id"] for line in killed.stdout.read().splitlines()]
    assert other.stdout is not None
    confirmed += [json.loads(line)["id"] for line in other.stdout.read().splitlines()]
    for process in (killed, other):
        process.wait()

    store = await another()
    before = [r["id"] for r in await ledger(store)]
    assert len(before) == len(set(before))
    assert set(confirmed) <= set(before), "a confirmed settlement is lost"

    await store.renew("keeper", NOW + 10**6)
    lost = await store.sweep(NOW + 3600)
    records = await ledger(store)
    outcomes = [r["outcome"] for r in records]
    assert (len(records), outcomes.count("lost")) == (len(before) + lost, lost)
    assert lost <= 8
    assert len({r["id"] for r in records}) == len(records)
    tokens = 7 * len(before) + 20 * lost
    assert sum(r["promptTokens"] for r in records) == tokens
    assert list(await store.totals([charge("tokens"), charge("concurrent", slot=0, expires=0)])) == [tokens, 0]
    (row,) = await store.usage(UsageQuery("acme", NOW - 3600, NOW + 7200, "all"))
    assert (row.sums["requests"], row.sums["promptTokens"]) == (len(records), tokens)
    assert await store.sweep(NOW + 3601) == 0
