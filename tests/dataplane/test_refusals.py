"""Whatever is refused on the path, by whichever part, is an error in OpenAI's shape."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.local import Stack

pytestmark = pytest.mark.xdist_group("local-stack")

MODEL = "llama-3.1-8b"
MIB = 1024 * 1024
CHAT = "/v1/chat/completions"


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    headers = {"content-type": "application/json", "authorization": f"Bearer {stack.api_key}"}
    with httpx.Client(base_url=stack.url, headers=headers, trust_env=False, timeout=30) as client:
        yield client


def error_of(status: int, body: bytes, kind: str | None) -> Any:
    """Return the error, having checked its shape."""
    assert kind == "application/json", (status, body)
    found = json.loads(body)
    assert list(found) == ["error"]
    error = found["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert isinstance(error["type"], str)
    return error


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code."""
    error = error_of(answer.status_code, answer.content, answer.headers.get("content-type"))
    return answer.status_code, error["code"]


BAD_BODIES = {
    "not JSON": b'{"model": ',
    "empty": b"",
    "an array": b"[]",
    "no model": b'{"messages": []}',
    "a number for a model": b'{"model": 1}',
    "an empty model": b'{"model": ""}',
    "two models": b'{"model": "llama-3.1-8b", "model": "gemma-3-12b"}',
    "two models, one escaped": b'{"model": "llama-3.1-8b", "mod\\u0065l": "gemma-3-12b"}',
    "nesting bomb of arrays": b'{"model": "llama-3.1-8b", "x": ' + b"[" * 200_000,
    "closed nesting bomb": b'{"model": "llama-3.1-8b", "x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "nesting bomb of objects": b'{"a":' * 200_000,
    "not UTF-8": b'{"model": "llama-3.1-8b", "x": "\xff\xfe"}',
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=list(BAD_BODIES))
def test_bad_bodies_are_400(http: httpx.Client, body: bytes) -> None:
    status, code = refusal(http.post(CHAT, content=body))
    assert status == 400
    assert code


def test_unknown_paths_and_methods(http: httpx.Client) -> None:
    body = json.dumps({"model": MODEL}).encode()
    for path in ("/v1/unknown", "/", "/metrics", "/v1/load_lora_adapter", "/sim/state", "/v1/chat/completions/"):
        assert refusal(http.post(path, content=body)) == (404, "unknown_url"), path
    assert refusal(http.get("/metrics")) == (404, "unknown_url")
    assert refusal(http.get(CHAT)) == (405, "method_not_supported")
    assert refusal(http.post("/v1/models", content=body))[0] == 405


def test_paths_that_normalize_do_not_reach_what_is_private(http: httpx.Client, stack: Stack) -> None:
    """httpx would tidy up such paths itself, hence a socket."""
    body = json.dumps({"model": MODEL}).encode()
    for path in ("/v1/chat/completions/../../metrics", "/v1//load_lora_adapter", "/v1/%6Doad_lora_adapter", "/%2e/sim"):
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        status, _, answer = raw(stack, head.encode() + b"\r\n" + body)
        assert status == 404, path
        assert json.loads(answer)["error"]["code"] in ("unknown_url", "route_not_found"), path


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
def test_too_large_is_413(http: httpx.Client, chunked: bool) -> None:
    body = json.dumps({"model": MODEL, "prompt": "x" * 10 * MIB}).encode()
    pieces = (body[at : at + MIB] for at in range(0, len(body), MIB)) if chunked else None
    assert refusal(http.post("/v1/completions", content=pieces or body)) == (413, "request_too_large")


def test_just_below_the_limit_passes(http: httpx.Client) -> None:
    """The replica's own refusal, of a prompt longer than its context, shows that all of it arrived there."""
    size = 10 * MIB - 200
    answer = http.post("/v1/completions", json={"model": MODEL, "prompt": "x" * size, "max_tokens": 1})
    assert answer.status_code == 400
    assert answer.headers["x-penstock-replica"].startswith("llama-3-1-8b-")


def test_other_content_is_415(http: httpx.Client) -> None:
    body = json.dumps({"model": MODEL, "prompt": "x"}).encode()
    assert refusal(http.post(CHAT, content=body, headers={"content-type": "text/plain"}))[0] == 415
    assert refusal(http.post(CHAT, content=body, headers={"content-encoding": "gzip"}))[0] == 415


def raw(stack: Stack, request: bytes) -> tuple[int, str, bytes]:
    """Send bytes as they are; return status, content type and body of the answer."""
    host, _, port = stack.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536) or pytest.fail(f"the connection was closed after {data!r}")
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:])
        while len(body) < int(fields["content-length"]):
            body += connection.recv(65536) or pytest.fail("the answer was cut")
    return int(lines[0].split()[1]), fields.get("content-type", ""), body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: abc\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: nonsense\r\n\r\n", 501),
        (b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-long: " + b"y" * 100_000 + b"\r\n\r\n", 431),
        (b"no HTTP at all\r\n\r\n", 400),
    ],
    ids=["bad length", "bad transfer encoding", "long headers", "not HTTP"],
)
def test_what_envoy_itself_refuses(stack: Stack, request_: bytes, status: int) -> None:
    got, kind, body = raw(stack, request_)
    assert got == status
    error_of(got, body, kind)
