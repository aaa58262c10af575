"""Bodies arrive as they were sent: large, slow, over HTTP/2 with trailers, and of sizes around those of pieces."""

import asyncio
import hashlib
import json
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.dataplane.echo import ALPHA, BETA
from tests.support.http2 import Http2Client
from tests.support.stack import Stack

pytestmark = pytest.mark.xdist_group("echo-stack")

PATH = "/v1/completions"
JSON = {"content-type": "application/json"}


@pytest.fixture
async def http(echo: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=echo.url, headers=JSON, trust_env=False, timeout=30) as client:
        yield client


def body_of(size: int, model: str = ALPHA) -> bytes:
    """Return a JSON body of exactly `size` bytes that no compression or repetition would reproduce."""
    frame = len(json.dumps({"prompt": "", "model": model}))
    text = random.Random(size).randbytes(size // 2 + 1).hex()[: size - frame]
    return json.dumps({"prompt": text, "model": model}).encode()


def assert_intact(report: dict[str, Any], body: bytes) -> None:
    assert (report["bytes"], report["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


SIZES = (64, 16_383, 16_384, 61_999, 62_000, 62_001, 65_536, 124_000, 1_048_577, 5_000_000)


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
@pytest.mark.parametrize("size", SIZES)
async def test_sizes(http: httpx.AsyncClient, size: int, chunked: bool) -> None:
    """62,000 bytes are the size of a callout's pieces, 16 KiB of HTTP/2 frames; the model's name stands at the end."""
    body = body_of(size)
    assert len(body) == size

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, size, 40_000):
            yield body[at : at + 40_000]

    answer = await http.post(PATH, content=pieces() if chunked else body)
    assert answer.status_code == 200, answer.text
    assert_intact(answer.json(), body)


async def test_large_bodies_at_the_same_time_do_not_mix(http: httpx.AsyncClient) -> None:
    bodies = [body_of(700_000 + number, (ALPHA, BETA)[number % 2]) for number in range(12)]
    answers = await asyncio.gather(*(http.post(PATH, content=body) for body in bodies))
    for body, answer in zip(bodies, answers, strict=True):
        assert_intact(answer.json(), body)


async def test_a_slow_upload(http: httpx.AsyncClient) -> None:
    """It lasts longer than the second that a callout has for each message, in pieces down to a single byte."""
    body = body_of(3_000)
    cuts = sorted(random.Random(7).sample(range(1, 3_000), 23))
    began = time.monotonic()

    async def pieces() -> AsyncIterator[bytes]:
        for start, end in zip([0, *cuts], [*cuts, 3_000], strict=True):
            yield body[start:end]
            await asyncio.sleep(0.1)  # what is tested, not a wait for something

    answer = await http.post(PATH, content=pieces())
    assert answer.status_code == 200, answer.text
    assert_intact(answer.json(), body)
    assert time.monotonic() - began > 2


@pytest.mark.parametrize("size", [64, 62_001, 5_000_000])
def test_http2(echo: Stack, size: int) -> None:
    body = body_of(size)
    with Http2Client(echo.port) as client:
        for _ in range(2):
            answer = client.post(PATH, JSON.items(), body)
            assert answer.status == 200, answer.body
            assert_intact(json.loads(answer.body), body)


@pytest.mark.parametrize("size", [64, 62_001, 5_000_000])
def test_http2_with_trailers(echo: Stack, size: int) -> None:
    body = body_of(size)
    with Http2Client(echo.port) as client:
        for _ in range(2):
            answer = client.post(PATH, JSON.items(), body, trailers=[("x-checksum", "abc"), ("x-other", "d")])
            assert answer.status == 200, answer.body
            assert_intact(json.loads(answer.body), body)


def test_http2_with_trailers_is_refused_and_accounted_like_any_other(echo: Stack) -> None:
    with Http2Client(echo.port) as client:
        for body, status in ((b'{"model": ', 400), (b'{"model": "other"}', 404)):
            answer = client.post(PATH, JSON.items(), body, trailers=[("x-checksum", "abc")])
            assert answer.status == status
            assert set(json.loads(answer.body)["error"]) == {"message", "type", "param", "code"}


async def test_streamed_events_arrive_one_by_one(http: httpx.AsyncClient) -> None:
    """Nobody on the path collects them: the first is here long before the last is sent."""
    body = {"model": ALPHA, "prompt": "one two three four five", "stream": True, "gap": 0.2}
    arrived: list[float] = []
    async with http.stream("POST", PATH, json=body) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        lines = []
        async for line in answer.aiter_lines():
            if line:
                lines.append(line)
                arrived.append(time.monotonic())
    assert [json.loads(line[6:])["choices"][0]["text"] for line in lines[:-1]] == "one two three four five".split()
    assert lines[-1] == "data: [DONE]"
    assert arrived[-1] - arrived[0] > 0.8
