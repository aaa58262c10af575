"""A process of its own that uses a store: `python -m tests.contract.apimgmt.store.racer MODE JSON`.

Everything it tells goes to stdout, one JSON line each, written before it goes on: what was told has happened.

`race`: asks for all kinds of charges at once until nothing more can be had, settles less than it held, and tells each
grant. `loop`: reserves and settles until it is killed, and tells each settlement that was confirmed.
"""

import asyncio
import json
import os
import random
import sys
from typing import Any

from services.apimgmt.store.api import Charge, Store
from tests.contract.apimgmt.store.support import NOW, Place, charge, reservation, settlement

WIDTH = 4
"""Requests of one process at the same time."""

CONCURRENT = 4
"""Index of the charge that waiting makes fit again."""


def tell(**fields: Any) -> None:
    os.write(1, json.dumps(fields).encode() + b"\n")


def charges(ceilings: dict[str, int], dice: random.Random, slot: int) -> list[Charge]:
    """Return one charge of each kind; the rolling one may be in one of three slots."""
    tokens = dice.randint(20, 60)
    return [
        charge("requests", 1, ceilings["requests"]),
        charge("tokens", tokens, ceilings["tokens"]),
        charge("cost", tokens * 7, ceilings["cost"]),
        charge("rolling", tokens, ceilings["rolling"], slot=100 + slot, slots=60),
        charge("concurrent", 1, ceilings["concurrent"], slot=0, expires=0),
    ]


def used(held: list[Charge], dice: random.Random) -> list[int]:
    """Return what was used of what was held: less, mostly."""
    tokens = dice.randint(1, held[1].amount)
    return [1, tokens, tokens * 7, tokens, 0]


async def race(store: Store, owner: str, ceilings: dict[str, int], seed: int) -> None:
    """Go on until nothing more can be had: many refusals in a row, not for concurrency alone."""
    dice = random.Random(seed)
    await asyncio.gather(*(_race(store, f"{owner}-{n}", owner, ceilings, dice) for n in range(WIDTH)))


async def _race(store: Store, name: str, owner: str, ceilings: dict[str, int], dice: random.Random) -> None:
    misses = number = 0
    while misses < 40:
        held = reservation(*charges(ceilings, dice, dice.randint(0, 2)), id_=f"{name}-{number}", owner=owner)
        number += 1
        grant = await store.reserve(held)
        if not grant.granted:
            misses += list(grant.refused) != [CONCURRENT]
            await asyncio.sleep(0.001)
            continue
        misses = 0
        await asyncio.sleep(0)
        part = used(list(held.charges), dice)
        await store.settle(settlement(held, part))
        tell(id=held.id, totals=list(grant.totals), used=part)


async def loop(store: Store, owner: str) -> None:
    """Reserve and settle for ever."""
    await asyncio.gather(*(_loop(store, f"{owner}-{n}", owner) for n in range(WIDTH)))


async def _loop(store: Store, name: str, owner: str) -> None:
    number = 0
    while True:
        held = reservation(
            charge("tokens", 50, 2**40),
            charge("concurrent", 1, 2**20, slot=0, expires=0),
            id_=f"{name}-{number}",
            owner=owner,
            lost=[20, 0],
        )
        number += 1
        await store.reserve(held)
        await asyncio.sleep(0)
        await store.settle(settlement(held, [7, 0]))
        tell(id=held.id)


async def main(mode: str, arguments: dict[str, Any]) -> None:
    store = Place(arguments["settings"], arguments["environ"]).store()
    await store.open()
    await store.renew(arguments["owner"], NOW + 30)
    tell(ready=True)
    sys.stdin.readline()
    if mode == "race":
        await race(store, arguments["owner"], arguments["ceilings"], arguments["seed"])
    else:
        await loop(store, arguments["owner"])
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
