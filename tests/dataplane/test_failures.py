"""Pieces that go away: replicas before and during an answer, pickers under both failure modes, the body router.

Models `closed` and `open` differ in `failureMode` alone. Each replica runs two requests at once, at 80 tokens a second.
"""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.dataplane.conftest import MakeClient
from tests.support.stack import Stack, eventually, running_stack, total, without

REPLICA = "x-penstock-replica"
MODES = {"closed": "FailClose", "open": "FailOpen"}
SETTINGS: dict[str, Any] = {
    "bodyRouter": {"replicas": 1, "logLevel": "debug"},
    "picker": {"logLevel": "debug"},
    "models": [
        {
            "name": name,
            "source": f"example/{name}",
            "failureMode": mode,
            "replicas": 2,
            "maxModelLen": 8192,
            "extraArgs": ["--max-num-seqs=2"],
            "replicaSets": [{"name": "a"}],
        }
        for name, mode in MODES.items()
    ],
}
SIMULATOR = {"PENSTOCK_SIM_PREFILL_TPS": "inf", "PENSTOCK_SIM_DECODE_TPS": "80", "PENSTOCK_SIM_LOG_LEVEL": "debug"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(SETTINGS, environ=SIMULATOR) as running:
        yield running


@pytest.fixture
async def http(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.url, trust_env=False, timeout=30) as client:
        yield client


async def ask(http: httpx.AsyncClient, model: str, **more: Any) -> httpx.Response:
    return await http.post("/v1/completions", json={"model": model, "prompt": "x", "max_tokens": 1, **more})


def error_of(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()
    assert list(found) == ["error"]
    assert set(found["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = found["error"]
    return error


async def replicas_ready(stack: Stack, picker: str, count: int) -> None:
    """Wait until a picker counts so many replicas with fresh metrics."""

    async def counted() -> bool:
        return (await stack.metrics(picker))["penstock_picker_ready_endpoints"] == count

    await eventually(counted, f"{picker} counts {count} ready replicas")


async def recovered(http: httpx.AsyncClient, model: str) -> None:
    """Wait until requests succeed. Envoy's workers learn of a host up to a second after its admin page says so."""

    async def succeeds() -> bool:
        return (await ask(http, model)).status_code == 200

    await eventually(succeeds, f"requests to {model} succeed")


async def turned_away(stack: Stack, service: str) -> int:
    """Return for how many requests Envoy knew that nothing serves `service`, rather than tried to connect."""
    return await stack.stat(f"cluster.service/inference/{service.replace(':', '_')}.upstream_cx_none_healthy")


async def test_a_replica_killed_before_requests(stack: Stack, http: httpx.AsyncClient) -> None:
    """At most one request may fail: one that is written to a connection at the very moment of its death.

    A connection that is refused is tried again elsewhere, at most twice; the picker leaves the replica out as soon as
    its metrics connection breaks, and Envoy's health checks leave it out later.
    """
    await replicas_ready(stack, "closed-a-picker", 2)
    async with without(stack, "closed-a-0"):
        first = [await ask(http, "closed") for _ in range(20)]
        failed = [answer for answer in first if answer.status_code != 200]
        assert len(failed) <= 1, [answer.text for answer in failed]
        assert all(error_of(answer)["type"] == "server_error" for answer in failed)
        await replicas_ready(stack, "closed-a-picker", 1)
        later = [await ask(http, "closed") for _ in range(20)]
        assert {(each.status_code, each.headers[REPLICA]) for each in later} == {(200, "closed-a-1")}

    await replicas_ready(stack, "closed-a-picker", 2)

    prompts = (f"{number} of many" for number in itertools.count())  # the same one would stay with the other replica

    async def back() -> bool:
        return (await ask(http, "closed", prompt=next(prompts))).headers[REPLICA] == "closed-a-0"

    await eventually(back, "the replica serves again")


async def test_all_replicas_killed(stack: Stack, http: httpx.AsyncClient) -> None:
    """503 in OpenAI's shape from a picker, which knows; and from Envoy where no picker is asked."""
    async with without(stack, "open-a-0"), without(stack, "open-a-1"):
        await replicas_ready(stack, "open-a-picker", 0)

        async def refused() -> bool:
            answer = await ask(http, "open")
            assert answer.status_code == 503
            return error_of(answer)["code"] == "no_ready_replica"

        await eventually(refused, "the picker says that no replica is ready")
        async with without(stack, "open-a-picker"):
            answer = await ask(http, "open")
            assert (answer.status_code, error_of(answer)["code"]) == (503, "service_unavailable")
        assert (await ask(http, "closed")).status_code == 200


async def test_a_replica_killed_in_the_middle_of_a_stream(stack: Stack, openai_client: MakeClient) -> None:
    """The client gets an exception, no end that looks regular; the next requests succeed."""
    await replicas_ready(stack, "closed-a-picker", 2)
    client = openai_client(stack.plan.endpoint)
    started = client.chat.completions.with_raw_response.create(
        model="closed", messages=[{"role": "user", "content": "x"}], max_tokens=4000, stream=True,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    name, stream = started.headers[REPLICA], started.parse()
    reasons = [next(stream).choices[0].finish_reason for _ in range(5)]
    async with without(stack, name):
        with pytest.raises((openai.APIError, openai.APIConnectionError, httpx_errors())):
            reasons += [chunk.choices[0].finish_reason for chunk in stream]
        assert set(reasons) == {None}
        for _ in range(5):
            answer = client.completions.with_raw_response.create(model="closed", prompt="x", max_tokens=1)
            assert answer.headers[REPLICA] != name

    async def released() -> bool:
        return (await stack.metrics("closed-a-picker"))["penstock_picker_in_flight"] == 0

    await eventually(released, "the picker has no request in flight")


def httpx_errors() -> type[Exception]:
    """Return what the OpenAI client lets through while it reads a stream."""
    import httpx2

    return httpx2.TransportError


async def test_a_replica_killed_before_it_answers(stack: Stack, http: httpx.AsyncClient) -> None:
    """What a replica has begun to work on is not tried again: the client hears of it, and may."""
    await replicas_ready(stack, "closed-a-picker", 2)
    asked = asyncio.create_task(ask(http, "closed", max_tokens=4000, ignore_eos=True))

    async def works() -> list[str]:
        states = await stack.states("closed-")
        return [name for name, state in states.items() if state["running"]]

    async def begun() -> bool:
        return bool(await works())

    await eventually(begun, "a replica works on the request")
    other = {"closed-a-0": "closed-a-1", "closed-a-1": "closed-a-0"}[(await works())[0]]
    before = (await stack.state(other))["finished"]
    async with without(stack, (await works())[0]):
        answer = await asked
        assert answer.status_code == 503
        assert error_of(answer)["type"] == "server_error"
        state = await stack.state(other)
        assert (state["running"], state["finished"]) == (0, before)


async def test_picker_killed_under_fail_close(stack: Stack, http: httpx.AsyncClient) -> None:
    async with without(stack, "closed-a-picker"):
        while await turned_away(stack, "closed-a-picker:9002") < 10:
            answer = await ask(http, "closed")
            assert (answer.status_code, error_of(answer)["code"]) == (503, "service_unavailable")
        assert (await ask(http, "open")).status_code == 200
    await recovered(http, "closed")
    answers = [await ask(http, "closed") for _ in range(10)]
    assert [answer.status_code for answer in answers] == [200] * 10


async def test_picker_killed_under_fail_open(stack: Stack, http: httpx.AsyncClient) -> None:
    """Round robin as soon as Envoy has noticed, exactly even; after a restart the picker decides again."""
    await replicas_ready(stack, "open-a-picker", 2)
    async with without(stack, "open-a-picker"):
        await recovered(http, "open")
        answers = [await ask(http, "open") for _ in range(20)]
        assert [answer.status_code for answer in answers] == [200] * 20
        assert Counter(answer.headers[REPLICA] for answer in answers) == {"open-a-0": 10, "open-a-1": 10}

    prompt = "the same long prompt " * 200

    async def picks() -> float:
        return total(await stack.metrics("open-a-picker"), "penstock_picker_picks_total")

    async def asked() -> bool:
        assert (await ask(http, "open")).status_code == 200
        return await picks() > 0

    await eventually(asked, "the picker is asked again")
    before = await picks()
    answers = [await ask(http, "open", prompt=prompt) for _ in range(20)]
    assert await picks() == before + 20
    assert len({answer.headers[REPLICA] for answer in answers}) == 1


async def test_body_router_killed_never_routes_around(stack: Stack, http: httpx.AsyncClient) -> None:
    """Not even for a client that sends the headers itself, which routes match."""
    finished = {name: state["finished"] for name, state in (await stack.states()).items()}
    smuggled = {"x-gateway-model-name": "open", "x-gateway-destination-endpoint": stack.pieces["open-a-0"].address}
    async with without(stack, "body-router"):
        while await turned_away(stack, "body-router:9004") < 10:
            for headers in ({}, smuggled):
                body = {"model": "open", "prompt": "x", "max_tokens": 1}
                answer = await http.post("/v1/completions", json=body, headers=headers)
                assert answer.status_code in (500, 503)
                assert error_of(answer)["type"] == "server_error"
                answer = await http.get("/v1/models", headers=headers)
                assert answer.status_code in (500, 503)
        assert {name: state["finished"] for name, state in (await stack.states()).items()} == finished
    await recovered(http, "open")


async def test_a_client_gone_in_the_middle_of_a_stream(stack: Stack, http: httpx.AsyncClient) -> None:
    """Its replica stops working at once, and no callout keeps anything of it."""
    callouts = ("body-router", "open-a-picker")

    async def asked() -> bool:
        assert (await ask(http, "open")).status_code == 200
        return total(await stack.metrics("open-a-picker"), "penstock_picker_picks_total") > 0

    await eventually(asked, "the picker is asked")
    before = {name: (await stack.metrics(name)) for name in callouts}
    long = {"model": "open", "prompt": "x", "max_tokens": 4000, "ignore_eos": True, "stream": True}
    async with http.stream("POST", "/v1/completions", json=long) as answer:
        name = answer.headers[REPLICA]
        aborted = (await stack.state(name))["aborted"]
        lines = answer.aiter_lines()
        assert json.loads((await anext(lines))[6:])["choices"][0]["finish_reason"] is None
        assert (await stack.state(name))["running"] == 1

        async def counted() -> bool:
            return (await stack.metrics("open-a-picker"))["penstock_picker_in_flight"] == 1

        await eventually(counted, "the picker counts the request")

    async def stopped() -> bool:
        state = await stack.state(name)
        return (state["running"], state["waiting"], state["aborted"]) == (0, 0, aborted + 1)

    await eventually(stopped, "the replica has aborted the request", 5)

    async def released() -> bool:
        values = [await stack.metrics(callout) for callout in callouts]
        open_streams = sum(each["penstock_extproc_streams_in_flight"] for each in values)
        return open_streams == 0 and values[1]["penstock_picker_in_flight"] == 0

    await eventually(released, "no callout has anything in flight", 5)
    for callout in callouts:
        after = await stack.metrics(callout)
        for name in ("penstock_extproc_streams_total", "penstock_extproc_endings_total"):
            assert total(after, name) == total(before[callout], name) + 1, callout
        assert after['penstock_extproc_endings_total{outcome="error"}'] == 0
