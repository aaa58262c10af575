"""Time, queues, faults, disconnects and endings of a real process."""

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.modelserver.conftest import Simulator, Start

CHAT = "/v1/chat/completions"


def body(**changes: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, **changes}


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    """Poll until `condition` holds; return how long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "the condition never held"
        time.sleep(0.01)
    return time.monotonic() - started


def begin(simulator: Simulator, request: dict[str, object]) -> socket.socket:
    """Send a request and leave the answer in the socket."""
    host, port = simulator.url.removeprefix("http://").split(":")
    data = json.dumps(request).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    connection = socket.create_connection((host, int(port)))
    connection.sendall(head.encode() + data)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_slot_and_blocks(start: Start, stream: bool) -> None:
    simulator = start("m", "--max-num-seqs", "1", "--sim-decode-tps", "2")
    request = body(max_tokens=1000, ignore_eos=True, stream=stream)
    with begin(simulator, request):
        wait_for(lambda: simulator.state()["running"] == 1)
        with begin(simulator, request):
            wait_for(lambda: simulator.state()["waiting"] == 1)
        assert wait_for(lambda: simulator.state()["waiting"] == 0) < 5
    wait_for(lambda: simulator.state()["running"] == 0)
    state = simulator.state()
    assert state["aborted"] == 2
    blocks = state["kv_blocks"]
    assert isinstance(blocks, dict)
    assert blocks["free"] == blocks["usable"]


def test_queue_and_running_show_in_the_metrics(start: Start) -> None:
    simulator = start("m", "--max-num-seqs", "2", "--sim-decode-tps", "10")
    with ThreadPoolExecutor(5) as pool:
        request = body(max_tokens=5, ignore_eos=True)
        futures = [pool.submit(httpx.post, simulator.url + CHAT, json=request, timeout=30) for _ in range(5)]
        wait_for(lambda: simulator.state()["waiting"] == 3)
        page = f"{simulator.url}/metrics"
        wait_for(lambda: 'vllm:num_requests_running{engine="0",model_name="m"} 2.0' in httpx.get(page).text)
        text = httpx.get(page).text
        assert 'vllm:num_requests_waiting{engine="0",model_name="m"} 3.0' in text
        assert 'vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 3.0' in text
        usage = next(line for line in text.splitlines() if line.startswith("vllm:kv_cache_usage_perc"))
        assert 0 < float(usage.split()[-1]) < 0.01
        assert [future.result().status_code for future in futures] == [200] * 5


def test_tokens_come_at_the_pace_of_the_model(start: Start) -> None:
    simulator = start("m", "--sim-decode-tps", "20", "--sim-prefill-tps", "1000")
    moments = []
    with httpx.stream("POST", simulator.url + CHAT, json=body(max_tokens=5, stream=True)) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                moments.append(time.monotonic())
    assert len(moments) == 6  # the role first, together with the first token
    assert moments[-1] - moments[0] >= 0.19


def test_error_fault_hits_the_next_requests_only(start: Start) -> None:
    simulator = start("m", "--sim-time-scale", "0")
    simulator.set_faults("error:503,n=2")
    with httpx.Client(base_url=simulator.url) as http:
        statuses = [http.post(CHAT, json=body()).status_code for _ in range(3)]
        health = http.get("/health").status_code
    assert (statuses, health) == ([503, 503, 200], 200)
    assert simulator.state()["faults"] == [{"fault": "error:503,n=2", "remaining": 0, "hits": 2}]
    simulator.set_faults()
    assert simulator.state()["faults"] == []


def test_faults_that_break_the_connection(start: Start) -> None:
    simulator = start("m", "--sim-time-scale", "0", "--sim-fault", "abort,n=1")
    with httpx.Client(base_url=simulator.url) as http:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            http.post(CHAT, json=body())
        simulator.set_faults("drop,n=1")
        with pytest.raises(httpx.RemoteProtocolError):
            http.post(CHAT, json=body())
        simulator.set_faults("drop:2,n=1")
        lines: list[str] = []
        with (
            pytest.raises(httpx.RemoteProtocolError),
            http.stream("POST", CHAT, json=body(max_tokens=9, stream=True)) as answer,
        ):
            lines.extend(line for line in answer.iter_lines() if line)
        assert len(lines) == 3  # the role and two tokens
        assert http.post(CHAT, json=body()).status_code == 200
    assert simulator.state()["running"] == 0


def test_hang_and_delay(start: Start) -> None:
    simulator = start("m", "--sim-time-scale", "0")
    simulator.set_faults("hang,n=1", "delay:0.3,n=1")
    with httpx.Client(base_url=simulator.url) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post(CHAT, json=body(), timeout=0.2)
        started = time.monotonic()
        assert http.post(CHAT, json=body()).status_code == 200
    assert time.monotonic() - started >= 0.3


def test_health_can_fail_too(start: Start) -> None:
    simulator = start("m")
    simulator.set_faults("error:500,path=/health")
    assert httpx.get(f"{simulator.url}/health").status_code == 500


def test_the_prefix_cache_can_be_emptied_between_runs(start: Start) -> None:
    simulator = start("m", "--sim-time-scale", "0")
    long = body(messages=[{"role": "user", "content": "x" * 1000}])

    def hits() -> object:
        assert httpx.post(simulator.url + CHAT, json=long).status_code == 200
        cache = simulator.state()["prefix_cache"]
        assert isinstance(cache, dict)
        return cache["hits"]

    assert [hits(), hits()] == [0, 256]
    assert httpx.post(f"{simulator.url}/sim/reset_prefix_cache").json() == {"reset": True}
    assert hits() == 256


def test_malformed_faults_are_refused(start: Start) -> None:
    simulator = start("m")
    for wrong in ({"faults": ["explode"]}, {"faults": [1]}, {}, {"faults": "hang"}):
        assert httpx.post(f"{simulator.url}/sim/faults", json=wrong).status_code == 400


def test_sigterm_finishes_open_requests_and_exits_0(start: Start) -> None:
    simulator = start("m", "--sim-decode-tps", "10")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(httpx.post, simulator.url + CHAT, json=body(max_tokens=8, ignore_eos=True), timeout=30)
        wait_for(lambda: simulator.state()["running"] == 1)
        simulator.process.send_signal(signal.SIGTERM)
        answer = future.result()
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 8
    assert simulator.process.wait(10) == 0


def test_sigterm_does_not_wait_for_ever(start: Start) -> None:
    simulator = start("m", "--sim-fault", "hang", "--sim-drain-s", "1")
    with begin(simulator, body()):
        wait_for(lambda: simulator.state()["faults"] == [{"fault": "hang", "remaining": None, "hits": 1}])
        simulator.process.send_signal(signal.SIGTERM)
        assert simulator.process.wait(10) == 0


def test_a_taken_port_is_said_clearly(start: Start) -> None:
    simulator = start("m")
    port = simulator.url.rpartition(":")[2]
    with pytest.raises(AssertionError, match="cannot listen on"):
        start("m", port=port)


@pytest.fixture(scope="module")
def http(recorded: Simulator) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=recorded.url, timeout=30) as client:
        yield client


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries({"role": JSON, "content": JSON}) | JSON
FIELDS = {
    "model": st.sampled_from(["tiny", "lora-a", "nope", None, 1]) | JSON,
    "messages": st.lists(MESSAGE, max_size=3) | JSON,
    "prompt": JSON | st.lists(st.integers(0, 2**33), max_size=4),
    "input": JSON | st.lists(st.text(max_size=5), max_size=3),
    "max_tokens": st.integers(-1, 40) | JSON,
    "n": st.integers(-1, 3) | JSON,
    "stop": JSON,
    "stream": st.booleans() | JSON,
    "stream_options": JSON,
    "logprobs": st.booleans() | st.integers(-1, 30) | JSON,
    "top_logprobs": st.integers(-1, 30),
    "seed": JSON,
    "temperature": JSON,
    "min_tokens": JSON,
    "dimensions": JSON,
    "encoding_format": JSON,
    "tools": JSON,
    "tokens": JSON | st.lists(st.integers(-1, 2**33), max_size=4),
    "lora_name": JSON,
    "lora_path": JSON,
}
PATHS = [
    CHAT,
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/tokenize",
    "/detokenize",
    "/v1/load_lora_adapter",
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(path=st.sampled_from(PATHS), request=st.fixed_dictionaries({}, optional=FIELDS))
def test_no_request_body_breaks_the_server(http: httpx.Client, path: str, request: dict[str, object]) -> None:
    data = json.dumps(request).encode()  # NaN and lone surrogates included
    answer = http.post(path, content=data, headers={"content-type": "application/json"})
    assert answer.status_code in (200, 400, 404), answer.text
    if answer.status_code != 200:
        assert list(answer.json()["error"]) == ["message", "type", "param", "code"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.binary(max_size=60) | st.sampled_from([b"[" * 100_000, b'{"a":' * 5_000, b"9" * 10_000, b'"\\ud800"']))
def test_no_bytes_break_the_server(http: httpx.Client, data: bytes) -> None:
    answer = http.post(CHAT, content=data, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == 400
