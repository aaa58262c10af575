"""Requests whose parts come long after each other."""

import json
from pathlib import Path

from services.apimgmt import keys
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


async def test_a_key_that_was_revoked_before_the_body_came_opens_nothing(tmp_path: Path) -> None:
    async with World(tmp_path, limits=[limit("rpm", "requests", 9)]) as world:
        late = world.session()
        assert not any(a.HasField("immediate_response") for a in await late.receive(world.request_headers()))
        world.clock.now += 5
        await keys.save_revocation(world.store, world.key_id, actor="test", now=world.clock.now)
        await world.directory.refresh()
        status, _, error = reply(await late.receive(body("request", json.dumps(CHAT).encode(), last=True)))
        assert (status, error["error"]["code"]) == (401, "invalid_api_key")
        late.close()
        [record] = await world.records()
        assert (record["outcome"], record["promptTokens"]) == ("refused", 0)


async def test_a_late_body_of_a_good_key_goes_on(tmp_path: Path) -> None:
    async with World(tmp_path, limits=[limit("rpm", "requests", 9)]) as world:
        late = world.session()
        await late.receive(world.request_headers())
        world.clock.now += 5
        answers = await late.receive(body("request", json.dumps(CHAT).encode(), last=True))
        assert not any(a.HasField("immediate_response") for a in answers)
        await answer(late)
        late.close()
        [record] = await world.records()
        assert (record["outcome"], record["completionTokens"]) == ("ok", 5)
