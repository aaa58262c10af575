"""Refusals while the store goes away."""

from pathlib import Path
from typing import Any

from services.apimgmt.store.api import StoreError
from tests.unit.apimgmt.pipeline.test_accounting import broken
from tests.unit.apimgmt.pipeline.world import World, answer, limit, reply


async def test_a_refusal_stays_one_where_the_store_cannot_tell_how_long(tmp_path: Path) -> None:
    async with World(tmp_path, limits=[limit("rolling", "requests", 1, "minute", rolling=True)]) as world:
        first = world.session()
        await world.request(first)
        await answer(first)

        async def totals(_charges: Any) -> Any:
            raise StoreError("away")

        broken(world).totals = totals  # type: ignore[attr-defined]
        status, fields, error = reply(await world.request(world.session()))
        assert (status, error["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(fields["retry-after"]) <= 65
