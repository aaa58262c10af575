"""What clients are told of limits, and when requests are refused."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.extproc import headers
from tests.unit.apimgmt.pipeline.world import CHAT, MODEL, World, answer, limit, reply


async def refused(world: World, data: object = CHAT) -> tuple[int, dict[str, str], dict[str, Any]]:
    opened = world.session()
    status, fields, error = reply(await world.request(opened, data))
    opened.close()
    return status, fields, error["error"]


async def first_headers(world: World) -> dict[str, str]:
    """The headers on the answer to a request (they leave at once, since API management wants chunks only)."""
    opened = world.session()
    await world.request(opened)
    [answered] = await opened.receive(headers("response", {":status": "200", "content-type": "application/json"}))
    opened.close()
    mutation = answered.response_headers.response.header_mutation
    return {o.header.key: o.header.raw_value.decode() for o in mutation.set_headers}


async def test_success_tells_what_is_left_of_the_tightest_limits(tmp_path: Path) -> None:
    limits = [
        limit("wide", "requests", 1000, "hour", scope="organization"),
        limit("narrow", "requests", 10),
        limit("tpm", "tokens", 5000),
        limit("money", "cost", 10**9, "month"),
    ]
    async with World(tmp_path, limits=limits) as world:
        world.clock.now += 12.5
        fields = await first_headers(world)
        assert fields["x-ratelimit-limit-requests"] == "10"
        assert fields["x-ratelimit-remaining-requests"] == "9"
        assert fields["x-ratelimit-reset-requests"] == "48s"  # 47.5 s, rounded up
        assert fields["x-ratelimit-limit-tokens"] == "5000"
        assert 4000 < int(fields["x-ratelimit-remaining-tokens"]) < 4981
        assert float(fields["x-penstock-overhead-ms"]) > 0


async def test_a_refusal_names_the_limit_and_when_to_come_again(tmp_path: Path) -> None:
    async with World(tmp_path, limits=[limit("rpm", "requests", 1)]) as world:
        world.clock.now += 20
        await first_headers(world)
        status, fields, error = await refused(world)
        assert status == 429
        assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
        assert "`rpm`" in error["message"]
        assert f"key {world.key_id}" in error["message"]
        assert "requests per minute" in error["message"]
        assert "try again in 40s" in error["message"]
        assert fields["retry-after"] == "40"
        assert fields["x-ratelimit-remaining-requests"] == "0"
        world.clock.now += 40
        await first_headers(world)  # the next minute


@pytest.mark.parametrize(
    ("kind", "window", "type_", "code"),
    [
        ("tokens", "minute", "tokens", "rate_limit_exceeded"),
        ("tokens", "hour", "tokens", "rate_limit_exceeded"),
        ("tokens", "day", "insufficient_quota", "insufficient_quota"),
        ("requests", "month", "insufficient_quota", "insufficient_quota"),
        ("cost", "minute", "insufficient_quota", "insufficient_quota"),
    ],
)
async def test_types_and_codes(tmp_path: Path, kind: str, window: str, type_: str, code: str) -> None:
    amount = {"tokens": 60, "requests": 1, "cost": 60}[kind]
    plan = {"name": "plan", "prices": {"prompt": 10**6, "completion": 10**6}}
    product = {"name": "std", "models": ["*"], "limits": ["x"], "ratePlan": "plan"}
    limits = [limit("x", kind, amount, window)]
    async with World(tmp_path, limits=limits, ratePlans=[plan], products=[product]) as world:
        await world.request(world.session())  # stays open: holds what it reserved
        await world.request(world.session())
        status, fields, error = await refused(world)
        assert (status, error["type"], error["code"]) == (429, type_, code)
        assert int(fields["retry-after"]) >= 1


async def test_concurrent_requests(tmp_path: Path) -> None:
    async with World(tmp_path, limits=[limit("open", "concurrent", 1, None)]) as world:
        first = world.session()
        await world.request(first)
        status, fields, error = await refused(world)
        assert (status, fields["retry-after"]) == (429, "1")
        assert "(concurrent requests)" in error["message"]
        await answer(first)
        await first_headers(world)


async def test_the_longest_wait_is_named_and_the_others_are_listed(tmp_path: Path) -> None:
    limits = [
        limit("rpm", "requests", 1),
        limit("per-day", "requests", 1, "day"),
        limit("per-hour", "requests", 1, "hour"),
    ]
    async with World(tmp_path, limits=limits) as world:
        await world.request(world.session())
        _, fields, error = await refused(world)
        assert "limit `per-day`" in error["message"]
        assert "Also exceeded: rpm, per-hour." in error["message"]
        assert int(fields["retry-after"]) == 11 * 3600  # 13:00 UTC


async def test_a_request_that_no_waiting_makes_fit(tmp_path: Path) -> None:
    async with World(tmp_path, limits=[limit("tpm", "tokens", 100)]) as world:
        status, fields, error = await refused(world, {**CHAT, "max_tokens": 101})
        assert (status, error["code"], "retry-after" in fields) == (429, "rate_limit_exceeded", False)
        assert "limit 100" in error["message"]
        assert "Request too large" in error["message"]


async def test_a_rolling_window_tells_when_enough_has_left_it(tmp_path: Path) -> None:
    limits = [limit("roll", "requests", 3, rolling=True)]
    async with World(tmp_path, limits=limits) as world:
        await world.request(world.session())
        world.clock.now += 30
        await world.request(world.session())
        await world.request(world.session())
        _, fields, error = await refused(world)
        assert "rolling minute" in error["message"]
        assert int(fields["retry-after"]) == 35  # the first left its slot of 5 s, and the 60 s behind it
        world.clock.now += 34
        assert (await refused(world))[1]["retry-after"] == "1"
        world.clock.now += 1
        await first_headers(world)


async def test_models_count_each_by_itself(tmp_path: Path) -> None:
    limits = [limit("per-model", "requests", 1, scope="model", models=[MODEL, "other"])]
    async with World(tmp_path, limits=limits) as world:
        await world.request(world.session())
        await world.request(world.session(), fields={"x-gateway-model-name": "other"})
        await world.request(world.session(), fields={"x-gateway-model-name": "free"})
        assert (await refused(world))[0] == 429
        assert (await world.request(world.session(), fields={"x-gateway-model-name": "free"}))[0].HasField(
            "request_headers"
        )


async def test_a_limit_in_shadow_mode_only_tells(tmp_path: Path) -> None:
    limits = [limit("rpm", "requests", 1, mode="shadow"), limit("tpm", "tokens", 10, mode="shadow")]
    async with World(tmp_path, limits=limits) as world:
        for _ in range(2):
            opened = world.session()
            await world.request(opened)
            await answer(opened)
            opened.close()
        first, second = await world.records()
        assert [(v["policy"], v["shadow"]) for v in first["verdicts"]] == [("limits/tpm", True)]
        assert {v["policy"] for v in second["verdicts"]} == {"limits/rpm", "limits/tpm"}
        assert (await world.totals())["rpm"] == 2


async def test_the_limits_policy_in_shadow_mode(tmp_path: Path) -> None:
    policies = [{"policy": "limits", "mode": "shadow"}]
    async with World(tmp_path, limits=[limit("rpm", "requests", 1)], policies=policies) as world:
        for _ in range(3):
            assert (await world.request(world.session()))[0].HasField("request_headers")


@pytest.mark.parametrize("scope", ["key", "organization", "model"])
async def test_spike_arrest_smooths(tmp_path: Path, scope: str) -> None:
    policies = [{"policy": "spike-arrest", "settings": {"requests": {"amount": 2}, "scope": scope}}]
    async with World(tmp_path, policies=policies) as world:
        await first_headers(world)
        status, fields, error = await refused(world)
        assert (status, error["code"], error["type"]) == (429, "spike_arrest", "requests")
        assert fields["retry-after"] == "1"
        assert "500ms" in error["message"]
        world.clock.now += 0.5
        await first_headers(world)


async def test_spike_arrest_of_tokens(tmp_path: Path) -> None:
    policies = [{"policy": "spike-arrest", "settings": {"tokens": {"amount": 60, "per": "minute"}}}]
    async with World(tmp_path, policies=policies) as world:
        await first_headers(world)
        status, fields, error = await refused(world)
        assert (status, error["type"]) == (429, "tokens")
        assert int(fields["retry-after"]) > 1
        _, fields, error = await refused(world, {**CHAT, "max_tokens": 61})
        assert "retry-after" not in fields
        assert "at most 60 at once" in error["message"]


async def test_prompt_limit(tmp_path: Path) -> None:
    policies = [{"policy": "prompt-limit", "settings": {"maxTokens": 100}}]
    async with World(tmp_path, policies=policies) as world:
        await first_headers(world)
        for size, near in ((420, True), (4000, False)):
            status, _, error = await refused(world, {**CHAT, "messages": [{"role": "user", "content": "x" * size}]})
            assert (status, error["code"]) == (400, "context_length_exceeded")
            assert "at most 100 prompt tokens" in error["message"]
            assert ("estimate" in error["message"]) is near
