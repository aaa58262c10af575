"""A chain of two traffic callouts between body router and picker: order, bodies both ways, denials, streams."""

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from tests.dataplane import echo
from tests.dataplane.test_bodies import assert_intact, body_of
from tests.support import small_callout
from tests.support.small_callout import POISON, REFUSED, REPLACEMENT, STAMP, WORD
from tests.support.stack import Stack, eventually, running_stack, total, without

PATH = "/v1/completions"
SETTINGS = echo.SETTINGS | {
    "models": [{"name": echo.ALPHA, "source": "example/alpha", "replicaSets": [{"name": "a"}]}],
    "callouts": [small_callout.extension("stamp"), small_callout.extension("censor")],
}
CHAIN = ("body-router", "stamp", "censor", "alpha-a-picker")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(SETTINGS, change_graph=small_callout.declare, change=echo.with_echo_replicas) as running:
        yield running


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, trust_env=False, timeout=30) as client:
        yield client


async def ask(http: httpx.AsyncClient, prompt: str, **more: Any) -> httpx.Response:
    return await http.post(PATH, json={"model": echo.ALPHA, "prompt": prompt, **more})


def error_code(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["code"])


async def endings(stack: Stack) -> dict[str, dict[str, float]]:
    """Return what each callout of the chain counts: endings by outcome, and `streams`."""
    found = {}
    for name in CHAIN:
        values = await stack.metrics(name)
        outcomes = ("complete", "denied", "aborted", "deadline", "error")
        found[name] = {each: values[f'penstock_extproc_endings_total{{outcome="{each}"}}'] for each in outcomes}
        found[name]["streams"] = total(values, "penstock_extproc_streams_total")
    return found


async def grown(stack: Stack, before: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Wait until all streams have ended; return what has been counted since `before`, without zeros."""

    async def over() -> bool:
        found = await endings(stack)
        return all(2 * each["streams"] == sum(each.values()) for each in found.values())

    await eventually(over, "every exchange of every callout has ended")
    after = await endings(stack)
    changes = {name: {key: after[name][key] - before[name][key] for key in after[name]} for name in CHAIN}
    return {name: {key: value for key, value in each.items() if value} for name, each in changes.items()}


async def test_every_callout_of_the_chain_sees_a_request_once(stack: Stack, http: httpx.AsyncClient) -> None:
    before = await endings(stack)
    answer = await ask(http, "hello", say="a frog")
    assert answer.status_code == 200, answer.text
    assert answer.headers[STAMP] == "seen"
    assert answer.json()["say"] == "a newt"
    assert await grown(stack, before) == {name: {"complete": 1.0, "streams": 1.0} for name in CHAIN}


async def test_a_request_that_the_second_callout_refuses(stack: Stack, http: httpx.AsyncClient) -> None:
    """Nothing is picked for it and no replica sees it. The picker sees the answer, as every filter of Envoy's does."""
    before, seen, picked = await endings(stack), await replica_saw(stack, http), await picks(stack)
    answer = await ask(http, REFUSED.decode())
    assert (answer.status_code, error_code(answer)) == (403, "prompt_refused")
    counted = await grown(stack, before)
    assert counted["censor"] == {"denied": 1.0, "streams": 1.0}
    assert await picks(stack) == picked
    assert await replica_saw(stack, http) == seen


async def test_a_refused_word_at_the_end_of_a_large_body(http: httpx.AsyncClient) -> None:
    answer = await ask(http, "x" * 3_000_000 + REFUSED.decode())
    assert (answer.status_code, error_code(answer)) == (403, "prompt_refused")


async def test_a_response_that_the_second_callout_refuses(stack: Stack, http: httpx.AsyncClient) -> None:
    before = await endings(stack)
    answer = await ask(http, "hello", flag="bad", say="secret thoughts")
    assert (answer.status_code, error_code(answer)) == (403, "answer_refused")
    assert "secret thoughts" not in answer.text
    assert (await grown(stack, before))["censor"] == {"denied": 1.0, "streams": 1.0}


@pytest.mark.parametrize("size", [64, 62_001, 1_048_577, 5_000_000])
async def test_large_bodies_pass_three_callouts_and_a_picker(http: httpx.AsyncClient, size: int) -> None:
    body = body_of(size)
    answer = await http.post(PATH, content=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers[STAMP] == "seen"
    assert_intact(answer.json(), body)


async def test_large_responses_pass(http: httpx.AsyncClient) -> None:
    """3 MB on their way back through pieces of 62,000 bytes."""
    said = body_of(3_000_000).decode()
    answer = await ask(http, "hello", say=said)
    assert hashlib.sha256(answer.json()["say"].encode()).digest() == hashlib.sha256(said.encode()).digest()


async def events(http: httpx.AsyncClient, words: str, gap: float = 0.0) -> tuple[httpx.Response, list[str]]:
    body = {"model": echo.ALPHA, "prompt": words, "stream": True, "gap": gap}
    async with http.stream("POST", PATH, json=body) as answer:
        return answer, [line[6:] async for line in answer.aiter_lines() if line]


async def test_a_stream_is_changed_on_its_way(http: httpx.AsyncClient) -> None:
    words = ["one", WORD.decode(), "two", WORD.decode()] * 20
    answer, data = await events(http, " ".join(words))
    assert answer.status_code == 200
    assert answer.headers[STAMP] == "seen"
    said = [json.loads(event)["choices"][0]["text"] for event in data[:-1]]
    assert said == ["one", REPLACEMENT.decode(), "two", REPLACEMENT.decode()] * 20
    assert data[-1] == "[DONE]"


async def test_a_stream_that_is_cut_ends_with_an_error_event(stack: Stack, http: httpx.AsyncClient) -> None:
    before = await endings(stack)
    answer, data = await events(http, f"good better {POISON.decode()} worse", gap=0.05)
    assert answer.status_code == 200
    assert [json.loads(event)["choices"][0]["text"] for event in data[:2]] == ["good", "better"]
    error = json.loads(data[2])["error"]
    assert (error["code"], set(error)) == ("answer_cut", {"message", "type", "param", "code"})
    assert data[3:] == ["[DONE]"]
    assert (await grown(stack, before))["censor"]["denied"] == 1


async def test_a_callout_that_is_gone_fails_closed(stack: Stack, http: httpx.AsyncClient) -> None:
    seen = await replica_saw(stack, http)
    for name in ("censor", "stamp"):
        async with without(stack, name):
            answer = await ask(http, "hello")
            assert answer.status_code in (500, 503), name
            error_code(answer)

        async def recovered() -> bool:
            return (await ask(http, "hello")).status_code == 200

        await eventually(recovered, f"requests succeed with {name} back")
        seen += 1
        assert await replica_saw(stack, http) == seen


async def picks(stack: Stack) -> float:
    """Return how many requests the picker has picked for."""
    return total(await stack.metrics("alpha-a-picker"), "penstock_picker_picks_total")


async def replica_saw(stack: Stack, http: httpx.AsyncClient) -> int:
    """Return how many requests have reached the replica."""
    return int((await http.get(f"http://127.0.0.1:{stack.pieces['alpha-a-0'].port}/seen")).text)
