"""Callouts behind a real Envoy: what the client and the upstream see."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from services.extproc.api import BodyMode, Ending, Exchange, deny
from services.extproc.limits import Limits
from tests.contract.extproc.conftest import Behind, Serve
from tests.support.extproc import Scripted
from tests.support.http2 import Http2Client
from tests.support.upstream import Upstream

NO, WHOLE, CHUNKS = BodyMode.NONE, BodyMode.WHOLE, BodyMode.CHUNKS
DUPLEX, STREAMED, BUFFERED = "FULL_DUPLEX_STREAMED", "STREAMED", "BUFFERED"
LARGE = bytes(range(256)) * 20_000  # 5 MB


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as made:
        yield made


def marking(request: BodyMode = WHOLE, response: BodyMode = NO, name: str = "x-mark") -> Scripted:
    """Sets a header to the length of the body it has seen, and overwrites what the client sent."""

    def mark(exchange: Exchange) -> None:
        exchange.request_changes.set[name] = str(len(exchange.request_body))
        exchange.request_changes.remove.add("x-smuggled")

    hook = "on_request_body" if request is WHOLE else "on_request_headers"
    return Scripted(request, response, **{hook: mark})


async def ended(one: Scripted) -> list[Ending]:
    async with asyncio.timeout(10):
        await one.ended.wait()
    return [outcome.ending for outcome in one.outcomes]


async def chunked(*parts: bytes, gap: float = 0.0) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await asyncio.sleep(gap)


@pytest.mark.parametrize("mode", [DUPLEX, BUFFERED])
async def test_headers_are_set_from_the_body(
    mode: str, serve: Serve, behind: Behind, client: httpx.AsyncClient, upstream: Upstream
) -> None:
    one = marking()
    envoy = await behind(await serve(one), request=mode, response="NONE")
    answer = await client.post(envoy.url + "/echo", content=b"hello", headers={"x-mark": "no", "x-smuggled": "1"})
    assert (answer.status_code, answer.content) == (200, b"hello")
    assert upstream.requests[-1].headers["x-mark"] == "5"
    assert "x-smuggled" not in upstream.requests[-1].headers
    answer = await client.get(envoy.url + "/echo")
    assert answer.status_code == 200
    assert upstream.requests[-1].headers["x-mark"] == "0"
    assert len(one.outcomes) in (1, 2)
    stats = await envoy.stats("ext_proc")
    assert stats["http.in.ext_proc.spurious_msgs_received"] == stats["http.in.ext_proc.streams_failed"] == 0


@pytest.mark.parametrize(("request_mode", "response_mode"), [(DUPLEX, DUPLEX), (STREAMED, STREAMED)])
@pytest.mark.parametrize("wants", [NO, CHUNKS, WHOLE])
async def test_large_and_chunked_bodies_arrive_whole(
    request_mode: str,
    response_mode: str,
    wants: BodyMode,
    serve: Serve,
    behind: Behind,
    client: httpx.AsyncClient,
    upstream: Upstream,
) -> None:
    one = Scripted(wants, wants)
    envoy = await behind(await serve(one), request=request_mode, response=response_mode)
    answer = await client.post(envoy.url + "/echo", content=LARGE)
    assert answer.status_code == 200
    assert answer.content == LARGE
    assert upstream.requests[-1].body == LARGE
    answer = await client.post(envoy.url + "/echo", content=chunked(b"a" * 20_000, b"b" * 20_000, gap=0.05))
    assert answer.content == b"a" * 20_000 + b"b" * 20_000
    if wants is WHOLE:
        assert one.bodies[:2] == [LARGE, LARGE]


async def test_body_changes_of_any_length(serve: Serve, behind: Behind, client: httpx.AsyncClient) -> None:
    for mode in (DUPLEX, STREAMED, BUFFERED):
        one = Scripted(
            WHOLE,
            WHOLE,
            on_request_body=lambda e: e.replace_request_body(b"<" + e.request_body + b">"),
            on_response_body=lambda e: e.replace_response_body(e.response_body * 2),
        )
        envoy = await behind(await serve(one), request=mode, response=mode)
        answer = await client.post(envoy.url + "/echo", content=b"body")
        assert (mode, answer.status_code, answer.content) == (mode, 200, b"<body><body>")


async def test_http2_with_trailers_both_ways(serve: Serve, behind: Behind, upstream: Upstream) -> None:
    for wants in (NO, CHUNKS, WHOLE):
        one = Scripted(wants, wants)
        envoy = await behind(await serve(one))

        def post(port: int = envoy.port) -> object:
            with Http2Client(port) as connection:
                return connection.post("/trailers", [("te", "trailers")], b"x" * 100_000, [("x-down", "yes")])

        answer = await asyncio.to_thread(post)
        assert answer.status == 200  # type: ignore[attr-defined]
        assert answer.body == b"x" * 100_000  # type: ignore[attr-defined]
        assert answer.trailers == {"x-up": "yes"}  # type: ignore[attr-defined]
        assert upstream.requests[-1].trailers == {"x-down": "yes"}
        assert await ended(one) == [Ending.COMPLETE]


async def test_two_callouts_in_a_row(
    serve: Serve, behind: Behind, client: httpx.AsyncClient, upstream: Upstream
) -> None:
    first, second = marking(WHOLE, CHUNKS, "x-first"), marking(WHOLE, WHOLE, "x-second")
    envoy = await behind(await serve(first), await serve(second))
    for size in (10, 1_000_000):
        answer = await client.post(envoy.url + "/echo", content=b"z" * size)
        assert answer.content == b"z" * size
        seen = upstream.requests[-1].headers
        assert (seen["x-first"], seen["x-second"]) == (str(size), str(size))


@pytest.mark.parametrize("mode", [DUPLEX, STREAMED])
async def test_events_pass_as_they_come(mode: str, serve: Serve, behind: Behind, client: httpx.AsyncClient) -> None:
    envoy = await behind(await serve(Scripted(NO, CHUNKS)), response=mode)
    times: list[float] = []
    async with client.stream("GET", envoy.url + "/events?n=5&gap=0.1") as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                times.append(time.monotonic())
    assert len(times) == 5
    assert times[-1] - times[0] > 0.3
    assert times[1] - times[0] < 0.3


async def test_events_can_be_held_whole(serve: Serve, behind: Behind, client: httpx.AsyncClient) -> None:
    one = Scripted(NO, WHOLE, on_response_body=lambda e: e.response_changes.set.update({"x-seen": "1"}))
    envoy = await behind(await serve(one))
    answer = await client.get(envoy.url + "/events?n=4")
    assert answer.headers["x-seen"] == "1"
    assert answer.text.count("data:") == 4
    assert one.bodies == [answer.content]


@pytest.mark.parametrize("mode", [DUPLEX, BUFFERED])
@pytest.mark.parametrize("hook", ["on_request_headers", "on_request_body", "on_response_headers", "on_response_body"])
async def test_deny_at_each_phase(
    hook: str, mode: str, serve: Serve, behind: Behind, client: httpx.AsyncClient
) -> None:
    one = Scripted(WHOLE, WHOLE, **{hook: lambda e: deny(403, "not allowed", code="not_allowed")})
    envoy = await behind(await serve(one), request=mode, response=mode)
    answer = await client.post(envoy.url + "/echo", content=b"hello")
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/json"
    error = {"message": "not allowed", "type": "invalid_request_error", "param": None, "code": "not_allowed"}
    assert answer.json() == {"error": error}
    assert await ended(one) == [Ending.DENIED]


@pytest.mark.parametrize("mode", [DUPLEX, STREAMED])
async def test_deny_in_the_middle_of_events_ends_them_cleanly(
    mode: str, serve: Serve, behind: Behind, client: httpx.AsyncClient
) -> None:
    def stop(exchange: Exchange, chunk: bytes, last: bool) -> object:
        return deny(403, "blocked", code="blocked") if b"data: 2" in chunk else chunk

    one = Scripted(NO, CHUNKS, on_response_chunk=stop)
    envoy = await behind(await serve(one), response=mode)
    answer = await client.get(envoy.url + "/events?n=6&gap=0.05")
    assert answer.text.startswith("data: 0\n\ndata: 1\n\n")
    assert answer.text.rstrip().endswith("data: [DONE]")
    assert '"code":"blocked"' in answer.text
    assert "data: 3" not in answer.text
    assert await ended(one) == [Ending.DENIED]


async def test_deny_in_the_middle_of_a_document_breaks_it(
    serve: Serve, behind: Behind, client: httpx.AsyncClient
) -> None:
    one = Scripted(NO, CHUNKS, on_response_chunk=lambda e, chunk, last: deny(403, "no") if last else chunk)
    envoy = await behind(await serve(one))
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get(envoy.url + "/bytes?size=100000")
    assert await ended(one) == [Ending.DENIED]


async def test_too_large_request_gets_413_although_the_client_is_still_sending(
    serve: Serve, behind: Behind, client: httpx.AsyncClient, upstream: Upstream
) -> None:
    envoy = await behind(await serve(Scripted(WHOLE), limits=Limits(max_body_bytes=2_000_000)))
    for content in (LARGE, chunked(LARGE[:2_500_000], LARGE[:2_500_000])):
        answer = await client.post(envoy.url + "/echo", content=content)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"
    assert upstream.requests == []


async def test_client_that_leaves_is_seen_once(
    serve: Serve, behind: Behind, client: httpx.AsyncClient, upstream: Upstream
) -> None:
    one = Scripted(WHOLE, CHUNKS)
    envoy = await behind(await serve(one))
    async with client.stream("GET", envoy.url + "/silent") as answer:
        assert answer.status_code == 200
    assert await ended(one) == [Ending.ABORTED]
    async with asyncio.timeout(10):
        await upstream.gone.wait()


async def test_client_that_leaves_while_a_filter_waits(serve: Serve, behind: Behind, client: httpx.AsyncClient) -> None:
    entered = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        entered.set()
        await asyncio.Event().wait()

    one = Scripted(WHOLE, on_request_body=wait)
    envoy = await behind(await serve(one))
    request = asyncio.create_task(client.post(envoy.url + "/echo", content=b"x"))
    async with asyncio.timeout(10):
        await entered.wait()
    request.cancel()
    assert await ended(one) == [Ending.ABORTED]


async def test_hanging_filter_gets_504_and_others_go_on(
    serve: Serve, behind: Behind, client: httpx.AsyncClient
) -> None:
    async def maybe(exchange: Exchange) -> None:
        if exchange.request_body == b"hang":
            await asyncio.Event().wait()

    envoy = await behind(await serve(Scripted(WHOLE, on_request_body=maybe), limits=Limits(request_body_s=0.5)))
    hanging = asyncio.create_task(client.post(envoy.url + "/echo", content=b"hang"))
    for _ in range(5):
        assert (await client.post(envoy.url + "/echo", content=b"go")).status_code == 200
    answer = await hanging
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "callout_deadline"


async def test_idle_limit_counts_from_the_last_piece(serve: Serve, behind: Behind, client: httpx.AsyncClient) -> None:
    envoy = await behind(await serve(Scripted(WHOLE), limits=Limits(upload_idle_s=1.0)))
    slow = chunked(*[b"p"] * 5, gap=0.4)
    answer = await client.post(envoy.url + "/echo", content=slow)
    assert (answer.status_code, answer.content) == (200, b"ppppp")
    reader, writer = await asyncio.open_connection("127.0.0.1", envoy.port)
    writer.write(b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\np")
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b'"request_timeout"' in await reader.readuntil(b"}}")
    writer.close()
