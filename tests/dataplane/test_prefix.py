"""Where repeated prompts go: to the replica that has them in its cache, until it has too much to do."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests.support.stack import Stack, eventually, running_stack

REPLICA = "x-penstock-replica"
SLOTS = 2
SETTINGS: dict[str, Any] = {
    "bodyRouter": {"replicas": 1},
    "models": [
        {
            "name": "m",
            "source": "example/m",
            "replicas": 2,
            "maxModelLen": 16384,
            "extraArgs": [f"--max-num-seqs={SLOTS}"],
            "replicaSets": [{"name": "a"}],
        }
    ],
}
SIMULATOR = {"PENSTOCK_SIM_PREFILL_TPS": "inf", "PENSTOCK_SIM_DECODE_TPS": "80"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(SETTINGS, environ=SIMULATOR) as running:
        yield running


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False, timeout=15) as client:
        yield client


def conversation(seed: int, size: int = 24_000) -> list[dict[str, str]]:
    """Return the beginning of a conversation: a system prompt of `size` bytes."""
    words = random.Random(seed).choices(["frog", "newt", "toad", "olm", "axolotl", "caecilian"], k=size)
    return [{"role": "system", "content": f"{seed} {' '.join(words)}"[:size]}]


async def ask(http: httpx.AsyncClient, messages: list[dict[str, str]], question: str) -> str:
    """Return the replica that answers."""
    body = {"model": "m", "messages": [*messages, {"role": "user", "content": question}], "max_tokens": 2}
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.headers[REPLICA]


async def test_a_long_prefix_stays_on_its_replica(stack: Stack, http: httpx.AsyncClient) -> None:
    """Six conversations of five turns, by turns: blind choice would keep them apart once in 1.7e7 runs."""
    conversations = [conversation(seed) for seed in range(6)]
    before = {name: state["prefix_cache"]["hits"] for name, state in (await stack.states()).items()}
    homes = [{await ask(http, each, "the first question")} for each in conversations]
    for turn in range(4):
        for home, each in zip(homes, conversations, strict=True):
            home.add(await ask(http, each, f"question {turn}"))
    assert [len(home) for home in homes] == [1] * 6
    after = {name: state["prefix_cache"]["hits"] for name, state in (await stack.states()).items()}
    tokens = 24_000 // 4  # four bytes to a token
    assert sum(after.values()) - sum(before.values()) > 24 * 0.95 * tokens, "the replicas did have the prefixes"


async def test_it_stays_under_moderate_load_and_moves_when_its_replica_is_full(
    stack: Stack, http: httpx.AsyncClient
) -> None:
    prefix = conversation(99)
    home = await ask(http, prefix, "hello")
    other = next(name for name in stack.named("replica") if name != home)

    async with Load(stack, home) as load:
        await load.grow_to(running=1, waiting=0)
        assert [await ask(http, prefix, f"{number}") for number in range(5)] == [home] * 5

        await load.grow_to(running=SLOTS, waiting=8)
        assert [await ask(http, prefix, f"{number}") for number in range(5)] == [other] * 5
        assert (await stack.state(home))["waiting"] >= 8

    # The other one knows the prefix now too, so either may take it; one that is new to both goes anywhere.
    assert await ask(http, prefix, "again") in (home, other)


class Load:
    """Keeps a replica busy from outside of the path, so that nothing but its metrics tells of it."""

    def __init__(self, stack: Stack, replica: str) -> None:
        self._stack, self._replica = stack, replica
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Load":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._until(0, 0)

    async def grow_to(self, running: int, waiting: int) -> None:
        """Add requests, and wait until replica and picker have seen them."""
        while len(self._tasks) < running + waiting:
            self._tasks.append(asyncio.create_task(self._one()))
        await self._until(running, waiting)

    async def _until(self, running: int, waiting: int) -> None:
        async def reached() -> bool:
            state = await self._stack.state(self._replica)
            values = await self._stack.metrics("m-a-picker")
            mean = values["penstock_picker_average_queue_size"]
            return (state["running"], state["waiting"], mean) == (running, waiting, waiting / 2)

        await eventually(reached, f"{running} run and {waiting} wait at {self._replica}, and the picker knows")

    async def _one(self) -> None:
        url = f"http://{self._stack.pieces[self._replica].address}/v1/completions"
        body = {"model": "m", "prompt": "x", "max_tokens": 16_000, "ignore_eos": True}
        async with httpx.AsyncClient(trust_env=False, timeout=None) as client:
            await client.post(url, json=body)
