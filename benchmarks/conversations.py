"""Multi-turn conversations over a few shared system prompts: the load that prefix-aware routing is for.

`drive` plays them against an OpenAI-compatible endpoint with a fixed number of users and measures the time to the first
token of every turn. The same seed gives the same conversations, so that two ways of routing see the same work.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import orjson

from benchmarks.load import percentile

_WORDS = (
    "valve gate water level turbine shaft load cell pipe grid flow head dam lake steel weld sensor alarm shift crew "
    "manual step check torque seal bearing oil filter pump report limit state before after during never always"
).split()


@dataclass(frozen=True)
class Workload:
    """Shape of the load. Sizes are in characters; the simulator counts about four to a token."""

    conversations: int = 120
    turns: int = 6
    users: int = 24
    system_prompts: int = 12
    system_size: int = 12_000
    user_size: int = 300
    max_tokens: int = 32
    seed: int = 7


@dataclass(frozen=True)
class Conversation:
    """One conversation: a system prompt shared with others, and the user's messages."""

    system: str
    questions: tuple[str, ...]


@dataclass
class DriveResult:
    """What the users saw; times in seconds."""

    elapsed_s: float
    ttft_s: list[float]
    completion_tokens: int

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens per second over all users."""
        return self.completion_tokens / self.elapsed_s

    def ttft(self, q: float) -> float:
        """Time to first token in seconds that the share `q` of the turns did not exceed."""
        return percentile(self.ttft_s, q)


def conversations(load: Workload) -> Iterator[Conversation]:
    """Yield the conversations of `load`, the same for the same seed."""
    rng = random.Random(load.seed)
    systems = [_text(rng, load.system_size) for _ in range(load.system_prompts)]
    for _ in range(load.conversations):
        yield Conversation(rng.choice(systems), tuple(_text(rng, load.user_size) for _ in range(load.turns)))


def _text(rng: random.Random, size: int) -> str:
    words: list[str] = []
    length = 0
    while length < size:
        words.append(rng.choice(_WORDS))
        length += len(words[-1]) + 1
    return " ".join(words)[:size]


async def drive(endpoint: str, model: str, load: Workload) -> DriveResult:
    """Play `load` against `endpoint` (a base URL with `/v1`).

    Raises httpx.HTTPStatusError on an answer other than 200.
    """
    waiting = conversations(load)
    ttft_s: list[float] = []
    tokens = 0

    async def user(client: httpx.AsyncClient) -> None:
        nonlocal tokens
        for conversation in waiting:
            messages = [{"role": "system", "content": conversation.system}]
            for question in conversation.questions:
                messages.append({"role": "user", "content": question})
                first_s, answer, used = await _turn(client, endpoint, model, messages, load.max_tokens)
                ttft_s.append(first_s)
                tokens += used
                messages.append({"role": "assistant", "content": answer})

    started = time.perf_counter()
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=load.users)) as client:
        await asyncio.gather(*(user(client) for _ in range(load.users)))
    return DriveResult(time.perf_counter() - started, ttft_s, tokens)


async def _turn(
    client: httpx.AsyncClient, endpoint: str, model: str, messages: list[dict[str, str]], max_tokens: int
) -> tuple[float, str, int]:
    body = {
        "model": model,
        "messages": messages,
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started = time.perf_counter()
    first_s, parts, used = 0.0, [], 0
    async with client.stream("POST", f"{endpoint}/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = orjson.loads(line[6:])
            if chunk.get("usage"):
                used = chunk["usage"]["completion_tokens"]
            for choice in chunk["choices"]:
                if text := choice["delta"].get("content"):
                    first_s = first_s or time.perf_counter() - started
                    parts.append(text)
    return first_s, "".join(parts), used
