"""Whoever goes away in the middle of an answer: what was used is charged once, and nothing stays held."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.dataplane.apimgmt.declaration import SLOW
from tests.dataplane.apimgmt.managed import CHAT, Managed, Tenant, chat
from tests.support.stack import eventually

pytestmark = pytest.mark.xdist_group("apimgmt")

LONG: dict[str, Any] = {"model": SLOW, "max_tokens": 150, "ignore_eos": True}
"""Takes 1.5 s: time to go away."""
REPLICA = f"{SLOW}-a-0"


@asynccontextmanager
async def faults(managed: Managed, *texts: str) -> AsyncIterator[None]:
    """Let the slow replica commit faults."""
    url = f"http://127.0.0.1:{managed.stack.pieces[REPLICA].port}/sim/faults"
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.post(url, json={"faults": list(texts)})
        assert answer.status_code == 200, answer.text
        try:
            yield
        finally:
            await http.post(url, json={"faults": []})


async def began(http: httpx.AsyncClient, events: int = 3, **more: Any) -> int:
    """Read some events of a stream, and go away."""
    async with http.stream("POST", CHAT, json=chat("Count.", **LONG, stream=True, **more)) as answer:
        assert answer.status_code == 200
        seen = 0
        async for line in answer.aiter_lines():
            seen += line.startswith("data: ")
            if seen > events:
                break
    return seen - 1


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}])
async def test_a_client_that_goes_away_in_mid_stream(managed: Managed, options: dict[str, Any]) -> None:
    tenant = managed.tenant()
    async with tenant.http() as http:
        seen = await began(http, 5, **options)
    (record,) = await tenant.recorded(1)
    assert (record["outcome"], record["estimated"], record["stream"]) == ("aborted", True, True)
    assert record["promptTokens"] > 0
    assert seen <= record["completionTokens"] < LONG["max_tokens"]
    await tenant.balanced()


async def test_many_clients_that_go_away_at_once(sqlite: Managed) -> None:
    tenant = sqlite.tenant()
    async with tenant.http() as http:
        await asyncio.gather(*(began(http, i % 4) for i in range(24)))
    records = await tenant.recorded(24)
    assert {r["outcome"] for r in records} == {"aborted"}
    await tenant.balanced()


async def test_a_client_that_goes_away_before_the_answer_begins(sqlite: Managed) -> None:
    tenant = sqlite.tenant()
    async with tenant.http() as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post(CHAT, json=chat("Count.", **LONG), timeout=0.3)
    (record,) = await tenant.recorded(1)
    assert (record["outcome"], record["estimated"]) == ("aborted", True)
    await tenant.balanced()


async def test_an_upstream_that_ends_in_mid_stream(managed: Managed) -> None:
    tenant = managed.tenant()
    async with faults(managed, "drop:6"), tenant.http() as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post(CHAT, json=chat("Count.", **LONG, stream=True))
    (record,) = await tenant.recorded(1)
    assert (record["outcome"], record["estimated"]) == ("aborted", True)
    assert 0 < record["completionTokens"] <= 6
    await tenant.balanced()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_that_fails(sqlite: Managed, stream: bool) -> None:
    """Nothing is charged for an error, whatever was reserved."""
    tenant = sqlite.tenant()
    async with faults(sqlite, "error:500"), tenant.http() as http:
        answer = await http.post(CHAT, json=chat("Count.", **LONG, stream=stream))
    assert answer.status_code == 500
    (record,) = await tenant.recorded(1)
    assert (record["outcome"], record["status"], record["costMicros"]) == ("error", 500, 0)
    assert set((await tenant.totals()).values()) == {0}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_replica_that_is_killed_while_it_answers(sqlite: Managed, stream: bool) -> None:
    tenant, stack = sqlite.tenant(), sqlite.stack
    async with tenant.http() as http:
        tasks = [asyncio.create_task(http.post(CHAT, json=chat("Count.", **LONG, stream=stream))) for _ in range(6)]

        async def busy() -> bool:
            return bool((await stack.state(REPLICA))["running"] == 6)

        await eventually(busy, "six requests run")
        stack.kill(REPLICA)
        try:
            answers = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            stack.start(REPLICA)
            await stack.ready(REPLICA)
    records = await tenant.recorded(6)
    if stream:
        assert all(isinstance(answer, httpx.RemoteProtocolError) for answer in answers)
        assert {r["outcome"] for r in records} == {"aborted"}
        assert all(r["estimated"] and r["completionTokens"] < LONG["max_tokens"] for r in records)
    else:
        assert {answer.status_code for answer in answers if isinstance(answer, httpx.Response)} <= {502, 503}
        assert {r["outcome"] for r in records} <= {"error", "aborted"}
    await tenant.balanced()


async def test_what_a_broken_connection_to_the_client_leaves(tenant_of_books: Tenant) -> None:
    """A request that is cut off in its body was never passed on."""
    tenant, port = tenant_of_books, tenant_of_books.managed.stack.port
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {tenant.key}\r\n"
        "content-type: application/json\r\ncontent-length: 5000\r\n\r\n"
    )
    for _ in range(8):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + b'{"model": "alpha", "messages": [')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    async with tenant.http() as http:
        assert (await http.post(CHAT, json=chat())).status_code == 200
    await tenant.recorded(1, outcome="ok")
    await tenant.balanced()
    assert (await tenant.totals())["requests"] == 1


@pytest.fixture
def tenant_of_books(sqlite: Managed) -> Tenant:
    return sqlite.tenant()
