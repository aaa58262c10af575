import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import orjson
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.extproc.proto import ext_proc_pb2 as pb
from tests.contract.picker.conftest import REPOSITORY, Picker, Simulators, until
from tests.support.envoy import Envoy

HEALTH_NAMES = ("", "liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor", "inference-extension")


def chat(text: str) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 2, "messages": [{"role": "user", "content": text}]}


def request(body: bytes, hint: list[str] | None = None, **headers: str) -> list[pb.ProcessingRequest]:
    """The messages of a request as Envoy sends them."""
    first = pb.ProcessingRequest()
    first.protocol_config.request_body_mode = pb.FULL_DUPLEX_STREAMED
    first.protocol_config.response_body_mode = pb.FULL_DUPLEX_STREAMED
    for name, value in {":method": "POST", ":path": "/v1/chat/completions", **headers}.items():
        first.request_headers.headers.headers.add(key=name.replace("_", "-"), raw_value=value.encode())
    second = pb.ProcessingRequest()
    second.request_body.body, second.request_body.end_of_stream = body, True
    if hint is not None:
        for message in (first, second):
            values = message.metadata_context.filter_metadata["envoy.lb.subset_hint"]
            values.update({"x-gateway-destination-endpoint-subset": hint})
    return [first, second]


def denied(answer: pb.ProcessingResponse) -> tuple[int, dict[str, Any]]:
    reply = answer.immediate_response
    return reply.status.code, orjson.loads(reply.body)["error"]


async def test_an_empty_list_is_ready_and_answers_503(picker: Picker) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{picker.health_port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def status(name: str) -> int:
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), wait_for_ready=True, timeout=15)
            except grpc.aio.AioRpcError:
                return 0
            return int(answer.status)

        readiness = await status("readiness")
        assert readiness == health_pb2.HealthCheckResponse.NOT_SERVING, "no list has been read"
        picker.set_replicas([])

        async def serving() -> bool:
            return await status("readiness") == health_pb2.HealthCheckResponse.SERVING

        await until(serving, "readiness")
        assert {name: await status(name) for name in HEALTH_NAMES} == dict.fromkeys(HEALTH_NAMES, 1)
    code, error = denied((await picker.ask(*request(b"{}")))[0])
    assert (code, error["code"]) == (503, "no_ready_replica")


async def test_the_answer_on_the_wire(picker: Picker, simulators: Simulators) -> None:
    ports = list(simulators.processes)
    picker.set_replicas(ports)
    await picker.ready(3)
    endpoints = [f"127.0.0.1:{port}" for port in ports]
    answers = await picker.ask(*request(orjson.dumps(chat("hello"))), answers=2)
    headers = {
        option.header.key: option.header.raw_value.decode()
        for option in answers[0].request_headers.response.header_mutation.set_headers
    }
    picks = headers["x-gateway-destination-endpoint"]
    assert set(picks.split(",")) < set(endpoints)
    assert len(picks.split(",")) == 2
    metadata = answers[0].dynamic_metadata["envoy.lb"]
    assert metadata["x-gateway-destination-endpoint"] == picks
    assert orjson.loads(answers[1].request_body.response.body_mutation.streamed_response.body) == chat("hello")

    hinted = await picker.ask(*request(b"{}", hint=[endpoints[2]]), answers=1)
    assert hinted[0].request_headers.response.header_mutation.set_headers[0].header.raw_value.decode() == endpoints[2]
    for hint in ([], ["10.0.0.1:1"]):
        code, error = denied((await picker.ask(*request(b"{}", hint=hint)))[0])
        assert (code, error["type"]) == (503, "server_error")


async def test_a_saturated_pool_sheds_negative_priority_only(picker: Picker) -> None:
    page = b"vllm:num_requests_waiting 50\nvllm:num_requests_running 8\nvllm:kv_cache_usage_perc 0.9\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(page), page))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        picker.set_replicas([server.sockets[0].getsockname()[1]])
        await picker.ready(1)
        answer = (await picker.ask(*request(b"{}", x_gateway_inference_objective="batch")))[0]
        code, error = denied(answer)
        headers = {
            option.header.key: option.header.raw_value for option in answer.immediate_response.headers.set_headers
        }
        assert (code, error["type"], error["code"]) == (429, "rate_limit_error", "pool_saturated")
        assert headers["retry-after"] == b"1"
        assert headers["x-llm-d-request-dropped-reason"] == b"rejected-saturated"
        answer = (await picker.ask(*request(b"{}")))[0]
        assert answer.HasField("request_headers")
        picker.set_replicas([])  # so that the picker lets go of the server
        await picker.ready(0)


async def test_envoy_follows_the_pick_and_prefixes_stay(picker: Picker, path: Envoy, simulators: Simulators) -> None:
    async with httpx.AsyncClient(base_url=path.url, trust_env=False, timeout=20) as client:
        for text in ("a " * 2000, "b " * 2000):
            before = {port: await picker.picks(port) for port in simulators.processes}
            for turn in range(4):
                answer = await client.post("/v1/chat/completions", json=chat(text + f"turn {turn}"))
                assert answer.status_code == 200
            grown = [await picker.picks(port) - before[port] for port in simulators.processes]
            assert sorted(grown) == [0, 0, 4]
        assert (await client.get("/v1/models")).status_code == 200
    assert await picker.metric("penstock_picker_served_elsewhere_total") == 0
    assert await picker.metric('penstock_picker_prefix_blocks_total{found="yes"}') >= 6 * 15

    async def settled() -> bool:
        return await picker.metric("penstock_picker_in_flight") == 0

    await until(settled, "no request in flight")


async def test_a_replica_that_dies_is_left_without_an_error(
    picker: Picker, path: Envoy, simulators: Simulators
) -> None:
    text = "c " * 2000
    async with httpx.AsyncClient(base_url=path.url, trust_env=False, timeout=20) as client:
        await client.post("/v1/chat/completions", json=chat(text))
        picks = {port: await picker.picks(port) for port in simulators.processes}
        hot = max(picks, key=lambda port: picks[port])
        simulators.kill(hot)
        for _ in range(5):  # the first may still be picked for the dead one: the list's second answers
            assert (await client.post("/v1/chat/completions", json=chat(text))).status_code == 200
        await picker.ready(2)
        before = await picker.picks(hot)
        for _ in range(5):
            assert (await client.post("/v1/chat/completions", json=chat(text))).status_code == 200
        assert await picker.picks(hot) == before
        for port in simulators.processes:
            simulators.kill(port)
        await picker.ready(0)
        answer = await client.post("/v1/chat/completions", json=chat(text))
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "no_ready_replica"


@pytest.mark.parametrize(
    ("flags", "config", "expected"),
    [
        (["--replicas=nonsense"], None, "expected kubernetes, dns:HOST:PORT or file:PATH"),
        (["--replicas=file:x"], "kind: Wrong\napiVersion: v1\n", "3 problems"),
        (["--replicas=file:x", "--refresh-metrics-interval=1ns"], None, "expected 10ms to 1m"),
    ],
)
def test_wrong_flags_and_config_end_with_2(tmp_path: Path, flags: list[str], config: str | None, expected: str) -> None:
    path = tmp_path / "config.yaml"
    text = config or "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
    path.write_text(text + ("plugins: [{type: x}]\n" if config else ""))
    command = [sys.executable, "-m", "services.picker", "--pool-name=p", f"--config-file={path}", *flags]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 2, result.stderr
    assert expected in result.stderr
