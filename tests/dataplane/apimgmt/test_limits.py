"""Limits bind before the spend: however requests race, no more pass than a quota allows."""

import asyncio
import re
from collections import Counter
from typing import Any

import httpx
import openai
import pytest

from services.apimgmt.usage.prompt import measure
from tests.dataplane.apimgmt.declaration import ALPHA, REQUEST_PRICE, SLOW
from tests.dataplane.apimgmt.managed import BOOKS, CHAT, Managed, Tenant, chat
from tests.support.stack import eventually

pytestmark = pytest.mark.xdist_group("apimgmt")

RACERS, PASSING = 64, 23
WHOLE = {"ignore_eos": True}
"""Field of vLLM's: the answer has all tokens that were asked for."""


def limit(
    name: str, kind: str, amount: int, scope: str = "organization", window: str | None = "month"
) -> dict[str, Any]:
    """Return a limit; a month's window does not end while a test runs."""
    return {"name": name, "scope": scope, "kind": kind, "amount": amount} | ({"window": window} if window else {})


def refusal(answer: httpx.Response) -> dict[str, Any]:
    """Hold a 429 to what clients rely on, and return the error."""
    assert answer.status_code == 429, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert int(answer.headers["retry-after"]) >= 1
    return error


async def race(tenant: Tenant, body: Any, number: int = RACERS, *, key: str | None = None) -> list[httpx.Response]:
    async with tenant.http(key) as http:
        return await asyncio.gather(*(http.post(CHAT, json=body) for _ in range(number)))


@pytest.mark.parametrize("stream", [False, True])
async def test_exactly_as_many_requests_pass_as_the_limit_allows(managed: Managed, stream: bool) -> None:
    tenant = managed.tenant([limit("few", "requests", PASSING), *BOOKS])
    answers = await race(tenant, chat(stream=stream))
    assert Counter(answer.status_code for answer in answers) == {200: PASSING, 429: RACERS - PASSING}
    for answer in answers:
        assert answer.headers["x-ratelimit-limit-requests"] == str(PASSING)
    left = sorted(int(a.headers["x-ratelimit-remaining-requests"]) for a in answers if a.status_code == 200)
    assert left == list(range(PASSING))
    assert {refusal(a)["code"] for a in answers if a.status_code == 429} == {"insufficient_quota"}
    await tenant.recorded(PASSING, outcome="ok")
    await tenant.recorded(RACERS - PASSING, outcome="refused")
    await tenant.balanced()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_token_quota_is_never_exceeded_however_requests_race(managed: Managed, stream: bool) -> None:
    """While all of them are under way their reservations fill it; what they did not use can be used afterwards."""
    body = chat("Count.", model=SLOW, max_tokens=40, stream=stream, ignore_eos=True)
    most = measured(body) + 40
    tenant = managed.tenant([limit("tokens", "tokens", 5 * most + most - 1)])
    answers = await race(tenant, body, 32)
    assert Counter(answer.status_code for answer in answers) == {200: 5, 429: 27}
    await tenant.balanced()
    used = (await tenant.totals())["tokens"]
    ok = await tenant.recorded(5, outcome="ok")
    assert used == sum(r["promptTokens"] + r["completionTokens"] for r in ok)
    room = tenant.limits["tokens"].amount - used
    each, quick = ok[0]["promptTokens"] + 40, {**body, "model": ALPHA}
    fit = (room - most) // each + 1
    answers = [(await race(tenant, quick, 1))[0] for _ in range(fit + 2)]  # one after the other, until it is full
    assert [answer.status_code for answer in answers] == [200] * fit + [429] * 2
    assert (await tenant.totals())["tokens"] <= tenant.limits["tokens"].amount


def measured(body: dict[str, Any]) -> int:
    """Return what is reserved for the prompt of a chat with `estimation: {reserve: bytes}`: a token per byte."""
    prompt = measure("chat_completions", body, 0)
    return prompt.size + prompt.fixed


async def test_a_money_quota_stops_the_spend(sqlite: Managed) -> None:
    tenant = sqlite.tenant([limit("money", "cost", 100 * REQUEST_PRICE, "user"), *BOOKS[:2]])
    answers = [answer for _ in range(4) for answer in await race(tenant, chat(max_tokens=100), 16)]
    assert {a.status_code for a in answers} == {200, 429}
    error = refusal(answers[-1])
    assert error["code"] == "insufficient_quota"
    assert "limit 0.010000 USD" in error["message"]
    await tenant.balanced()
    spent = (await tenant.totals())["money"]
    assert spent == sum(r["costMicros"] for r in tenant.records(outcome="ok"))
    assert tenant.limits["money"].amount * 0.8 < spent <= tenant.limits["money"].amount


async def test_requests_at_once(sqlite: Managed) -> None:
    tenant = sqlite.tenant([limit("at-once", "concurrent", 3, "key", None), *BOOKS[:2]])
    body = chat(model=SLOW, max_tokens=30)
    answers = await race(tenant, body, 16)
    assert Counter(a.status_code for a in answers) == {200: 3, 429: 13}
    error = refusal(next(a for a in answers if a.status_code == 429))
    assert f"{tenant.name}-at-once" in error["message"]
    await tenant.balanced()
    assert Counter(a.status_code for a in await race(tenant, body, 3)) == {200: 3}, "all three places are free again"


async def test_the_refusal_names_limit_window_and_when_to_come_again(sqlite: Managed) -> None:
    hour = limit("hourly", "tokens", 500, "key", "hour") | {"rolling": True}
    tenant = sqlite.tenant([hour, limit("wide", "requests", 10**6)])
    with tenant.openai() as client:
        raw = client.chat.completions.with_raw_response.create(**chat(max_tokens=300), extra_body=WHOLE)
        assert raw.headers["x-ratelimit-limit-tokens"] == "500"
        assert raw.headers["x-ratelimit-limit-requests"] == str(10**6)
        with pytest.raises(openai.RateLimitError) as raised:
            client.chat.completions.create(**chat(max_tokens=300), extra_body=WHOLE)
    error, headers = raised.value, raised.value.response.headers
    assert (error.code, error.type) == ("rate_limit_exceeded", "tokens")
    assert f"{tenant.name}-hourly" in error.message
    assert "hour" in error.message
    used = sum(r["promptTokens"] + r["completionTokens"] for r in tenant.records(outcome="ok"))
    assert headers["x-ratelimit-limit-tokens"] == "500"
    assert int(headers["x-ratelimit-remaining-tokens"]) == 500 - used
    wait = int(headers["retry-after"])
    assert 55 * 60 <= wait <= 65 * 60 + 1, "the only use is as old as the request before"
    assert re.fullmatch(r"(\d+h)?(\d+m)?\d+s", headers["x-ratelimit-reset-tokens"])


async def test_a_request_larger_than_the_whole_limit_is_told_so(sqlite: Managed) -> None:
    tenant = sqlite.tenant([limit("small", "tokens", 50)])
    (answer,) = await race(tenant, chat(max_tokens=100), 1)
    assert answer.status_code in (400, 429)
    assert f"{tenant.name}-small" in answer.json()["error"]["message"]
    await tenant.balanced()


async def test_a_group_budget_is_shared_by_its_teams_and_the_strictest_limit_wins(managed: Managed) -> None:
    group = limit("shared", "requests", 10, "group")
    tenant = managed.tenant([group, limit("per-key", "requests", 8, "key"), *BOOKS[:1]])
    base = f"/organizations/{tenant.name}"
    managed.put(f"{base}/teams/blue", {})
    managed.put(f"{base}/developers/bob", {"team": "blue"})
    products = [{"product": tenant.name}]
    managed.put(f"{base}/apps/second", {"team": "blue", "developer": "bob", "products": products})
    managed.put(f"{base}/groups/both", {"teams": ["red", "blue"], "limits": [f"{tenant.name}-shared"]})
    other = managed.issue(tenant.name, "second")["key"]
    await known(managed, other)
    first = await race(tenant, chat(), 16)
    assert Counter(a.status_code for a in first) == {200: 8, 429: 8}
    assert {a.headers["x-ratelimit-limit-requests"] for a in first} == {"8"}
    assert all(f"{tenant.name}-per-key" in refusal(a)["message"] for a in first if a.status_code == 429)
    second = await race(tenant, chat(), 16, key=other)
    assert Counter(a.status_code for a in second) == {200: 2, 429: 14}
    assert all(f"{tenant.name}-shared" in refusal(a)["message"] for a in second if a.status_code == 429)
    assert (await tenant.totals())["shared"] == 10


async def known(managed: Managed, key: str) -> None:
    """Wait until every pod knows a key's app."""
    async with managed.http(key) as http:

        async def taken() -> bool:
            answers = [await http.post(CHAT, json=chat(max_tokens=0)) for _ in range(8)]
            return all(answer.status_code == 400 for answer in answers)

        await eventually(taken, "the app is known", 5)


async def test_a_raised_limit_lets_more_pass_at_once(sqlite: Managed) -> None:
    tenant = sqlite.tenant([limit("few", "requests", 2)])
    assert [a.status_code for a in await race(tenant, chat(), 2)] == [200, 200]
    refusal((await race(tenant, chat(), 1))[0])
    path = f"/limits/{tenant.name}-few"
    sqlite.put(path, {"scope": "organization", "kind": "requests", "amount": 3, "window": "month"})

    async def passes() -> bool:
        return (await race(tenant, chat(), 1))[0].status_code == 200

    await eventually(passes, "the raised limit", 2)
    refusal((await race(tenant, chat(), 1))[0])
    assert await tenant.totals() == {"few": 3}


@pytest.mark.parametrize("scope", ["key", "model"])
async def test_spike_arrest_spreads_what_a_limit_would_let_through(sqlite: Managed, scope: str) -> None:
    rate = {"amount": 1, "per": "minute", "burst": 4}
    product = {"policies": [{"policy": "spike-arrest", "settings": {"requests": rate, "scope": scope}}]}
    tenant = sqlite.tenant(product=product)
    answers = await race(tenant, chat(), 24)
    assert Counter(a.status_code for a in answers) == {200: 4, 429: 20}
    error = refusal(next(a for a in answers if a.status_code == 429))
    assert "1 requests per minute" in error["message"]
    assert {int(a.headers["retry-after"]) for a in answers if a.status_code == 429} <= set(range(50, 61))
    await tenant.recorded(4, outcome="ok")
    await tenant.balanced()


async def test_a_limit_of_one_model_leaves_the_others_alone(sqlite: Managed) -> None:
    tenant = sqlite.tenant([limit("slow-only", "requests", 1) | {"models": [SLOW]}])
    assert [a.status_code for a in await race(tenant, chat(model=SLOW, max_tokens=1), 1)] == [200]
    refusal((await race(tenant, chat(model=SLOW, max_tokens=1), 1))[0])
    assert {a.status_code for a in await race(tenant, chat(model=ALPHA), 4)} == {200}
