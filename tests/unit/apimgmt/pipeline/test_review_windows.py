"""Requests whose parts come long after each other."""

import json
from pathlib import Path

from tests.support.extproc import body
from tests.unit.apimgmt.pipeline.world import CHAT, World, answer, limit, reply


async def test_a_body_that_comes_late_counts_when_it_comes(tmp_path: Path) -> None:
    async with World(tmp_path, limits=[limit("rpm", "requests", 1)]) as world:
        late = world.session()
        await late.receive(world.request_headers())
        world.clock.now += 600
        prompt = world.session()
        await world.request(prompt)
        await answer(prompt)
        answers = await late.receive(body("request", json.dumps(CHAT).encode(), last=True))
        status, _, error = reply(answers)
        assert (status, error["error"]["code"]) == (429, "rate_limit_exceeded")
        late.close()
        prompt.close()
        times = sorted(record["time"] for record in await world.records())
        assert times == [int(world.clock.now * 1000)] * 2
