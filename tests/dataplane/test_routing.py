"""Which replica gets a request, and that every part of the path accounts for it once."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.support.local import Stack
from tests.support.stack import eventually, metrics, sim_state, total

pytestmark = pytest.mark.xdist_group("local-stack")

LLAMA, GEMMA, ADAPTERS = "llama-3.1-8b", "gemma-3-12b", ("LoRA-1-gemma", "LoRA-2-gemma")
REPLICA = "x-penstock-replica"
CONNECTIONS = 16


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {stack.api_key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, trust_env=False, timeout=30) as client:
        yield client


async def at_most(limit: int, calls: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """Make all calls, `limit` at a time; return what they return, in order."""
    gate = asyncio.Semaphore(limit)

    async def one(call: Callable[[], Awaitable[Any]]) -> Any:
        async with gate:
            return await call()

    return await asyncio.gather(*(one(call) for call in calls))


def binomial(count: int, share: float, low: int, high: int) -> float:
    """Return the probability that of `count` draws, `low` to `high` fall on a share."""
    return sum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(low, high + 1))


async def test_weights_of_replica_sets(http: httpx.AsyncClient) -> None:
    """90/10 over 1,000 requests: 54 to 150 on the lighter set.

    A right split misses these bounds with a probability below 1e-6, and a wrong one of 80/20 meets them with one below
    1e-4; 95/5 is caught in two runs of three, 100/0 always. Both figures are computed here, exactly.
    """
    count, low, high = 1000, 54, 150
    assert 1 - binomial(count, 0.1, low, high) < 1e-6
    assert binomial(count, 0.2, low, high) < 1e-4

    async def ask() -> str:
        answer = await http.post("/v1/completions", json={"model": LLAMA, "prompt": "x", "max_tokens": 1})
        assert answer.status_code == 200, answer.text
        return answer.headers[REPLICA].rpartition("-")[0]

    sets = Counter(await at_most(CONNECTIONS, [ask] * count))
    assert set(sets) == {"llama-3-1-8b-a", "llama-3-1-8b-b"}
    assert low <= sets["llama-3-1-8b-b"] <= high, sets


async def test_adapters_reach_the_pool_of_their_base_model_alone(stack: Stack, http: httpx.AsyncClient) -> None:
    replicas = stack.of_kind("replica")

    async def finished() -> dict[str, int]:
        return {each["name"]: (await sim_state(port_of(each)))["finished"] for each in replicas}

    before = await finished()
    names = [GEMMA, *ADAPTERS] * 12

    async def ask(model: str) -> None:
        body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
        answer = await http.post("/v1/chat/completions", json=body)
        assert answer.json()["model"] == model
        assert answer.headers[REPLICA].startswith("gemma-3-12b-a-")

    await at_most(4, [lambda name=name: ask(name) for name in names])  # type: ignore[misc]
    after = await finished()
    served = {name: after[name] - before[name] for name in after}
    assert sum(count for name, count in served.items() if name.startswith("gemma-")) == len(names)
    assert all(count == 0 for name, count in served.items() if not name.startswith("gemma-")), served


def port_of(piece: dict[str, Any]) -> int:
    return int(piece["address"].rpartition(":")[2])


async def streams_and_endings(stack: Stack, name: str) -> tuple[dict[str, float], float]:
    """Return a callout's endings by outcome with the number of streams, and what is open now."""
    values = await metrics(stack.pieces[name]["ports"]["9090"])
    found = {key: value for key, value in values.items() if key.startswith("penstock_extproc_endings_total")}
    found["streams"] = total(values, "penstock_extproc_streams_total")
    return found, values["penstock_extproc_streams_in_flight"]


async def test_mixed_load_is_answered_by_the_right_pools_and_accounted_once(
    stack: Stack, http: httpx.AsyncClient
) -> None:
    """200 requests, 16 at a time; after them each callout has ended as many exchanges as it began, none in error."""
    callouts = [each["name"] for kind in ("callout", "picker") for each in stack.of_kind(kind)]
    before = {name: (await streams_and_endings(stack, name))[0] for name in callouts}
    chat = [{"role": "user", "content": "Tell me of frogs."}]
    requests: list[tuple[str, dict[str, Any], str]] = [
        ("/v1/chat/completions", {"model": LLAMA, "messages": chat, "max_tokens": 5}, "llama-3-1-8b-"),
        ("/v1/chat/completions", {"model": GEMMA, "messages": chat, "max_tokens": 9, "stream": True}, "gemma-3-12b-a-"),
        ("/v1/completions", {"model": ADAPTERS[0], "prompt": "Once", "max_tokens": 3}, "gemma-3-12b-a-"),
        ("/v1/embeddings", {"model": LLAMA, "input": "a frog"}, "llama-3-1-8b-"),
    ]

    async def ask(number: int) -> None:
        if number % 5 == 4:
            answer = await http.get("/v1/models")
            assert len(answer.json()["data"]) == 4
            return
        path, body, replicas = requests[number % 5]
        answer = await http.post(path, json={**body, "user": str(number)})
        assert answer.status_code == 200, answer.text
        assert answer.headers[REPLICA].startswith(replicas)
        if body.get("stream"):
            assert answer.text.endswith("data: [DONE]\n\n")

    await at_most(CONNECTIONS, [lambda number=number: ask(number) for number in range(200)])  # type: ignore[misc]

    async def quiet() -> bool:
        return all([(await streams_and_endings(stack, name))[1] == 0 for name in callouts])

    await eventually(quiet, "no exchange is open at any callout")
    picked = 0.0
    for name in callouts:
        after, _ = await streams_and_endings(stack, name)
        grown = {key: value - before[name].get(key, 0.0) for key, value in after.items()}
        streams = grown.pop("streams")
        endings = {key.partition('outcome="')[2].rstrip('"}'): value for key, value in grown.items() if value}
        if name == "body-router":
            assert endings == {"complete": 160, "denied": 40}  # it answers the model list itself
            assert streams == 200
        else:
            assert endings == {"complete": streams}
            assert name != "api-management" or streams == 160
            picked += streams if name.endswith("-picker") else 0
    assert picked == 160
