"""The response cache: what repeats is answered without a replica, as it was answered before, and to nobody else."""

from typing import Any

import pytest

from tests.dataplane.apimgmt.declaration import ALPHA, REQUEST_PRICE
from tests.dataplane.apimgmt.managed import CHAT, Managed, Tenant, chat

pytestmark = pytest.mark.xdist_group("apimgmt")

CACHE = {"policies": [{"policy": "cache"}]}


async def finished(managed: Managed) -> int:
    """Return how many requests the replicas have answered."""
    return sum(state["finished"] for state in (await managed.stack.states(f"{ALPHA}-a-")).values())


def same(**more: Any) -> dict[str, Any]:
    """Return a request that repeats."""
    return chat("What is the answer?", temperature=0, **more)


@pytest.fixture
def tenant(sqlite: Managed) -> Tenant:
    return sqlite.tenant(product=CACHE)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_second_answer_comes_from_memory(tenant: Tenant, stream: bool) -> None:
    async with tenant.http() as http:
        first = await http.post(CHAT, json=same(stream=stream))
        before = await finished(tenant.managed)
        second = await http.post(CHAT, json=same(stream=stream))
    assert first.headers["cache-status"] == "penstock; fwd=uri-miss; stored"
    assert second.headers["cache-status"].startswith("penstock; hit; ttl=")
    assert second.headers["content-type"].partition(";")[0] == ("text/event-stream" if stream else "application/json")
    assert second.content == first.content
    assert "x-penstock-overhead-ms" in second.headers
    assert await finished(tenant.managed) == before, "no replica worked"
    made, repeated = await tenant.recorded(2)
    assert (made["outcome"], repeated["outcome"], repeated["stream"]) == ("ok", "cached", stream)
    assert repeated["promptTokens"] == repeated["completionTokens"] == 0
    await tenant.balanced()
    assert (repeated["costMicros"], made["costMicros"] > REQUEST_PRICE) == (REQUEST_PRICE, True)
    assert (await tenant.totals())["requests"] == 2, "a hit is a request"


async def test_the_real_client_reads_a_stream_from_memory(tenant: Tenant) -> None:
    asked: Any = {**same(stream=True), "stream_options": {"include_usage": True}}
    with tenant.openai() as client:
        first, second = (list(client.chat.completions.create(**asked)) for _ in range(2))
        other = list(client.chat.completions.create(**same(stream=True)))
    assert [chunk.model_dump() for chunk in first] == [chunk.model_dump() for chunk in second]
    assert first[-1].usage is not None
    assert all(chunk.usage is None for chunk in other), "a stream with usage is no answer for who did not ask for it"
    assert [r["outcome"] for r in await tenant.recorded(3)] == ["ok", "cached", "ok"]


async def test_nobody_else_gets_an_answer(tenant: Tenant) -> None:
    managed = tenant.managed
    second_key = managed.issue(tenant.name)["key"]
    neighbour = managed.tenant(product=CACHE)
    for key in (tenant.key, second_key, neighbour.key):
        async with tenant.http(key) as http:
            answer = await http.post(CHAT, json=same())
            assert answer.headers["cache-status"] == "penstock; fwd=uri-miss; stored", "not across keys"
            answer = await http.post(CHAT, json=same())
            assert "; hit; " in answer.headers["cache-status"]


@pytest.mark.parametrize("body", [chat(), chat(temperature=0.7), same(n=2)], ids=["default", "warm", "several"])
async def test_what_does_not_repeat_is_not_kept(tenant: Tenant, body: dict[str, Any]) -> None:
    async with tenant.http() as http:
        for _ in range(2):
            assert (await http.post(CHAT, json=body)).headers["cache-status"] == "penstock; fwd=bypass"
    assert [r["outcome"] for r in await tenant.recorded(2)] == ["ok", "ok"]


async def test_clients_can_ask_for_a_fresh_answer(tenant: Tenant) -> None:
    async with tenant.http() as http:
        await http.post(CHAT, json=same())
        fresh = await http.post(CHAT, json=same(), headers={"cache-control": "no-cache"})
        assert fresh.headers["cache-status"] == "penstock; fwd=request; stored"
        none = await http.post(CHAT, json=same(), headers={"cache-control": "no-store"})
        assert none.headers["cache-status"] == "penstock; fwd=request"
        again = await http.post(CHAT, json=same())
    assert "; hit; " in again.headers["cache-status"]
    assert again.content == fresh.content


@pytest.mark.parametrize(
    "few",
    [{"scope": "key", "kind": "requests", "amount": 3}, {"scope": "user", "kind": "cost", "amount": 400}],
    ids=["requests", "money"],
)
async def test_hits_count_against_limits_of_requests_and_money(sqlite: Managed, few: dict[str, Any]) -> None:
    """Each has its price: the first answer costs 100 for the request and less than 100 for its tokens."""
    tenant = sqlite.tenant([{"name": "few", "window": "month", **few}], product=CACHE)
    async with tenant.http() as http:
        answers = [await http.post(CHAT, json=same()) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert "; hit; " in answers[2].headers["cache-status"]
    assert "; hit; " not in answers[-1].headers.get("cache-status", "")
    await tenant.balanced()
