"""The simulator's answers have the shape of those recorded from vLLM 0.32: keys, order, types, nulls, headers."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.modelserver.conftest import ROOT, Simulator

RECORDINGS = ROOT.parent / "shared" / "vllm"
pytestmark = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="no recorded vLLM answers at ../shared/vllm")
HELLO = [{"role": "user", "content": "hello world"}]
VARIABLE = {"top_logprobs", "bytes", "text", "content"}
"""Lists and texts whose length depends on the model."""


def split(text: str) -> tuple[str, dict[str, str], str]:
    """Return status line, headers and body of a recorded answer."""
    head, _, body = text.replace("\r\n", "\n").partition("\n\n")
    status, *lines = head.strip().split("\n")
    return status, dict(line.split(": ", 1) for line in lines), body


def recording(name: str) -> tuple[str, dict[str, str], str]:
    """Read a file with one answer."""
    return split((RECORDINGS / name).read_text())


def sections(name: str) -> dict[str, tuple[str, dict[str, str], str]]:
    """Read a file with several answers under `### title`."""
    parts = re.split(r"^### (.*)\n", (RECORDINGS / name).read_text(), flags=re.MULTILINE)
    return {title: split(text) for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def shape(value: Any, key: str = "") -> Any:
    """Reduce a JSON value to keys in order and types."""
    if isinstance(value, dict):
        return [(name, shape(item, name)) for name, item in value.items()]
    if isinstance(value, list):
        return [shape(item) for item in (value[:1] if key in VARIABLE else value)]
    return type(value).__name__


def events(body: str) -> list[Any]:
    """Return the data of server-sent events."""
    lines = [line.removeprefix("data: ") for line in body.split("\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def check_headers(answer: httpx.Response, headers: dict[str, str]) -> None:
    assert list(answer.headers) == list(headers)
    for name in headers.keys() - {"date", "content-length"}:
        assert answer.headers[name] == headers[name]


def post(simulator: Simulator, path: str, body: object, **headers: str) -> httpx.Response:
    return httpx.post(f"{simulator.url}{path}", json=body, headers=headers)


PLAIN = [
    ("chat_nonstream.http.txt", "/v1/chat/completions", {"model": "tiny", "messages": HELLO, "max_tokens": 16}),
    ("chat_nonstream_lora.http.txt", "/v1/chat/completions", {"model": "lora-a", "messages": HELLO, "max_tokens": 16}),
    (
        "chat_logprobs.http.txt",
        "/v1/chat/completions",
        {"model": "tiny", "messages": HELLO, "max_tokens": 4, "logprobs": True, "top_logprobs": 2},
    ),
    ("completions_nonstream.http.txt", "/v1/completions", {"model": "lora-b", "prompt": "hello", "max_tokens": 8}),
]


@pytest.mark.parametrize(("name", "path", "body"), PLAIN, ids=[row[0].partition(".")[0] for row in PLAIN])
def test_plain_answers(recorded: Simulator, name: str, path: str, body: dict[str, object]) -> None:
    _, headers, expected = recording(name)
    answer = post(recorded, path, body)
    assert answer.status_code == 200
    check_headers(answer, headers)
    assert shape(answer.json()) == shape(json.loads(expected))
    assert answer.json()["model"] == body["model"]
    assert re.fullmatch(r"vllm-0\.32\.0-[0-9a-f]{8}", answer.json()["system_fingerprint"])
    known, choice = json.loads(expected), answer.json()["choices"][0]
    assert choice["finish_reason"] == known["choices"][0]["finish_reason"]
    assert answer.json()["usage"]["completion_tokens"] == known["usage"]["completion_tokens"]
    assert list(answer.json()) == list(known)


STREAMS = [
    ("chat_stream_usage", 8, "tiny", {"include_usage": True}),
    ("chat_stream_continuous_usage", 6, "tiny", {"include_usage": True, "continuous_usage_stats": True}),
    ("chat_stream_lora_nousage", 8, "lora-a", None),
]


@pytest.mark.parametrize(("name", "tokens", "model", "options"), STREAMS, ids=[row[0] for row in STREAMS])
def test_chat_streams(recorded: Simulator, name: str, tokens: int, model: str, options: dict[str, bool] | None) -> None:
    _, headers, expected = recording(f"{name}.sse.http.txt")
    body: dict[str, object] = {"model": model, "messages": HELLO, "max_tokens": tokens, "stream": True}
    if options:
        body["stream_options"] = options
    answer = post(recorded, "/v1/chat/completions", body)
    check_headers(answer, headers)
    assert [shape(event) for event in events(answer.text)] == [shape(event) for event in events(expected)]
    for ours, theirs in zip(events(answer.text)[:-1], events(expected)[:-1], strict=True):
        assert ours.get("usage", {}).get("completion_tokens") == theirs.get("usage", {}).get("completion_tokens")
    assert answer.text.endswith("data: [DONE]\n\n")


def test_completion_stream(recorded: Simulator) -> None:
    _, headers, expected = recording("completions_stream.sse.http.txt")
    options = {"include_usage": True}
    body = {"model": "tiny", "prompt": "hello", "max_tokens": 4, "stream": True, "stream_options": options}
    answer = post(recorded, "/v1/completions", body)
    check_headers(answer, headers)
    assert [shape(event) for event in events(answer.text)] == [shape(event) for event in events(expected)]


def chat(**body: object) -> tuple[str, str, bytes]:
    return "POST", "/v1/chat/completions", json.dumps({"model": "tiny", **body}).encode()


ERRORS = {
    "unknown model": chat(model="nope", messages=HELLO),
    "malformed json": ("POST", "/v1/chat/completions", b'{"model":}'),
    "too long max_tokens": chat(messages=HELLO, max_tokens=5000),
    "stream too long": chat(messages=HELLO, max_tokens=5000, stream=True),
    "missing messages": chat(),
    "404 path": ("GET", "/v1/nothing", b""),
    "GET on chat": ("GET", "/v1/chat/completions", b""),
    "health": ("GET", "/health", b""),
}


@pytest.mark.parametrize("title", ERRORS)
def test_errors(recorded: Simulator, title: str) -> None:
    status, headers, expected = sections("errors.http.txt")[title]
    method, path, body = ERRORS[title]
    answer = httpx.request(method, recorded.url + path, content=body, headers={"content-type": "application/json"})
    assert f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}" == status
    check_headers(answer, headers)
    assert answer.text == expected.strip()


def test_all_recorded_errors_are_covered() -> None:
    assert sections("errors.http.txt").keys() == ERRORS.keys()


def test_models(recorded: Simulator) -> None:
    _, headers, expected = recording("models.http.txt")
    answer = httpx.get(f"{recorded.url}/v1/models")
    check_headers(answer, headers)

    def stable(text: str) -> str:
        return re.sub(r'"created":\d+|modelperm-[0-9a-f]{16}', "", text)

    assert stable(answer.text) == stable(expected)


def test_adapters_at_run_time(recorded: Simulator, tmp_path: Path) -> None:
    known = sections("lora_runtime.http.txt")
    (tmp_path / "lora-c").mkdir()
    load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
    c = {"lora_name": "lora-c", "lora_path": str(tmp_path / "lora-c")}
    steps = [
        ("load_lora_adapter", load, c),
        ("load again", load, c),
        ("load missing path", load, {"lora_name": "lora-d", "lora_path": "/nope"}),
        ("unload", unload, {"lora_name": "lora-c"}),
        ("unload again", unload, {"lora_name": "lora-c"}),
    ]
    for title, path, body in steps:
        status, headers, expected = known[title]
        answer = post(recorded, path, body)
        assert f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}" == status, title
        check_headers(answer, headers)
        assert answer.text == expected.strip(), title
        if title == "load missing path":
            names = [card["id"] for card in httpx.get(f"{recorded.url}/v1/models").json()["data"]]
            assert names == ["tiny", "lora-a", "lora-b", "lora-c"]


def test_request_id(recorded: Simulator) -> None:
    body = {"model": "tiny", "messages": HELLO, "max_tokens": 1}
    answer = post(recorded, "/v1/chat/completions", body, **{"x-request-id": "abc"})
    assert answer.json()["id"] == "chatcmpl-abc"
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{16}", post(recorded, "/v1/chat/completions", body).json()["id"])


def series(text: str) -> dict[str, float]:
    """Return sample -> value."""
    samples = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in samples}


def claimed(name: str) -> bool:
    return name.startswith(("vllm:", "http_"))


def test_metric_series(recorded: Simulator) -> None:
    """Every series of vLLM's, with its labels and in its order, and no other."""
    for model in ("tiny", "lora-a", "lora-b"):
        post(recorded, "/v1/chat/completions", {"model": model, "messages": HELLO, "max_tokens": 2})
    post(recorded, "/v1/completions", {"model": "tiny", "prompt": "hello", "max_tokens": 2})
    httpx.get(f"{recorded.url}/v1/models")
    ours = series(httpx.get(f"{recorded.url}/metrics").text)
    theirs = series((RECORDINGS / "metrics_after_busy.txt").read_text())

    def names(samples: dict[str, float]) -> list[str]:
        relevant = [name for name in samples if claimed(name) and not name.startswith(("http_", "vllm:lora"))]
        return [re.sub(r'kv_cache_memory_bytes="[^"]*"', "", name) for name in relevant]

    assert names(ours) == names(theirs)
    http = {name for name in theirs if name.startswith("http_")}
    assert http <= ours.keys()
    lora = {name for name in ours if name.startswith("vllm:lora_requests_info")}
    assert lora <= {name for name in theirs if name.startswith("vllm:lora_requests_info")}
    assert len(lora) == 3


def test_metric_types(recorded: Simulator) -> None:
    def types(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("# TYPE ") and claimed(line.split()[2])]

    post(recorded, "/v1/chat/completions", {"model": "tiny", "messages": HELLO, "max_tokens": 1})
    ours = httpx.get(f"{recorded.url}/metrics").text
    assert types(ours) == types((RECORDINGS / "metrics_after_busy.txt").read_text())
    listed = [line.split() for line in (RECORDINGS / "metric_names.txt").read_text().splitlines()]
    assert [line.split()[2:] for line in types(ours) if "vllm:" in line] == listed
