"""Callout processes as they are deployed: flags, ports, health, TLS, metrics, draining, workers."""

import asyncio
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.extproc.proto import ext_proc_pb2 as pb
from services.extproc.tls import self_signed
from tests.support.extproc import DUPLEX, NONE, body, headers

ROOT = Path(__file__).parents[3]
NAMES = ["", "liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor", "inference-extension"]
Launch = Callable[..., Awaitable["Running"]]


class Running:
    """A callout process and its ports."""

    def __init__(self, *flags: str, processes: int = 1) -> None:
        self.grpc_port, self.health_port, self.metrics_port = _free_ranges(3, processes)
        ports = ["--grpc-port", self.grpc_port, "--health-port", self.health_port, "--metrics-port", self.metrics_port]
        command = [sys.executable, "-m", "tests.support.echo_callout", "--config-file", os.devnull, *map(str, ports)]
        command += ["--processes", str(processes), *flags]
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    async def ready(self, worker: int = 0) -> "Running":
        deadline = time.monotonic() + 20
        async with httpx.AsyncClient(trust_env=False) as client:
            while time.monotonic() < deadline and self.process.poll() is None:
                try:
                    if (await client.get(f"http://127.0.0.1:{self.metrics_port + worker}/healthz")).status_code == 200:
                        return self
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.02)
        self.process.kill()
        raise AssertionError(self.process.communicate()[1])

    async def ended(self, timeout: float = 15) -> tuple[int, str]:
        _, errors = await asyncio.to_thread(self.process.communicate, timeout=timeout)
        return self.process.returncode, errors


def _free_ranges(ranges: int, count: int) -> list[int]:
    """Return the firsts of some ranges of `count` free ports, below the ports that the kernel gives to clients."""
    while True:
        firsts = random.sample(range(10_000, 30_000, 8), ranges)
        try:
            for number in (first + n for first in firsts for n in range(count)):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return firsts


@pytest.fixture
async def launch() -> AsyncIterator[Launch]:
    running: list[Running] = []

    async def start(*flags: str, processes: int = 1) -> Running:
        one = Running(*flags, processes=processes)
        running.append(one)
        for worker in range(processes):
            await one.ready(worker)
        return one

    yield start
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        assert one.process.stderr is not None
        one.process.stderr.close()


async def health(channel: grpc.aio.Channel, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
    return int(answer.status)


def process_call(channel: grpc.aio.Channel) -> "grpc.aio.StreamStreamCall[pb.ProcessingRequest, pb.ProcessingResponse]":
    return channel.stream_stream(
        "/envoy.service.ext_proc.v3.ExternalProcessor/Process",
        request_serializer=pb.ProcessingRequest.SerializeToString,
        response_deserializer=pb.ProcessingResponse.FromString,
    )()


async def exchange(channel: grpc.aio.Channel) -> list[str | None]:
    call = process_call(channel)
    await call.write(headers("request", modes=(DUPLEX, NONE)))
    await call.write(body("request", b"hello", last=True))
    kinds = [(await call.read()).WhichOneof("response") for _ in range(2)]
    await call.done_writing()
    return kinds


async def test_plain_health_metrics_and_graceful_end(launch: Launch) -> None:
    one = await launch("--tls-mode", "off")
    for port in (one.grpc_port, one.health_port):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert [await health(channel, name) for name in NAMES] == [1] * len(NAMES)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health(channel, "other")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    async with grpc.aio.insecure_channel(f"127.0.0.1:{one.grpc_port}") as channel:
        assert await exchange(channel) == ["request_headers", "request_body"]
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://127.0.0.1:{one.metrics_port}/metrics")).text
        assert (await client.get(f"http://127.0.0.1:{one.metrics_port}/none")).status_code == 404
        assert (await client.post(f"http://127.0.0.1:{one.metrics_port}/metrics")).status_code == 405
    assert 'penstock_extproc_endings_total{outcome="complete"} 1.0' in text
    assert 'penstock_extproc_body_bytes_total{direction="request"} 5.0' in text
    one.process.send_signal(signal.SIGINT)
    code, errors = await one.ended()
    assert code == 0, errors
    assert '"message":"stopped"' in errors


async def test_self_signed_tls(launch: Launch) -> None:
    one = await launch()
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", one.grpc_port))
    secure = grpc.ssl_channel_credentials(pem.encode())
    async with grpc.aio.secure_channel(f"127.0.0.1:{one.grpc_port}", secure) as channel:
        assert await exchange(channel) == ["request_headers", "request_body"]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{one.health_port}") as channel:
        assert await health(channel, "readiness") == 1


async def test_tls_from_files(launch: Launch, tmp_path: Path) -> None:
    key, certificate = self_signed("callout", "127.0.0.1")
    (tmp_path / "tls.key").write_bytes(key)
    (tmp_path / "tls.crt").write_bytes(certificate)
    one = await launch("--tls-mode", "files", "--tls-dir", str(tmp_path))
    secure = grpc.ssl_channel_credentials(certificate)
    async with grpc.aio.secure_channel(f"127.0.0.1:{one.grpc_port}", secure) as channel:
        assert await exchange(channel) == ["request_headers", "request_body"]


async def test_drain_finishes_open_streams_and_reports_not_ready(launch: Launch) -> None:
    one = await launch("--tls-mode", "off")
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{one.grpc_port}") as channel,
        grpc.aio.insecure_channel(f"127.0.0.1:{one.health_port}") as probe,
    ):
        call = process_call(channel)
        await call.write(headers("request", modes=(DUPLEX, NONE)))
        await _in_flight(one, 1)
        one.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while await health(probe, "readiness") != 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert await health(probe, "liveness") == 1
        await call.write(body("request", b"late", last=True))
        kinds = [(await call.read()).WhichOneof("response") for _ in range(2)]
        assert kinds == ["request_headers", "request_body"]
        await call.done_writing()
    assert (await one.ended())[0] == 0


async def test_drain_timeout_cuts_and_second_signal_ends_at_once(launch: Launch) -> None:
    short, long = await launch("--tls-mode", "off", "--drain-timeout", "0.3"), await launch("--tls-mode", "off")
    for one, signals, expected in ((short, 1, 0), (long, 2, 1)):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{one.grpc_port}") as channel:
            call = process_call(channel)
            await call.write(headers("request", modes=(DUPLEX, NONE)))
            await _in_flight(one, 1)
            one.process.send_signal(signal.SIGTERM)
            if signals == 2:
                await asyncio.sleep(0.1)  # two signals at the same instant may be merged into one by the kernel
                one.process.send_signal(signal.SIGTERM)
            assert (await one.ended(10))[0] == expected
            call.cancel()


async def test_workers_listen_on_following_ports_and_end_together(launch: Launch) -> None:
    one = await launch("--tls-mode", "off", processes=2)
    for worker in range(2):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{one.grpc_port + worker}") as channel:
            assert await exchange(channel) == ["request_headers", "request_body"]
    one.process.send_signal(signal.SIGTERM)
    assert (await one.ended())[0] == 0


async def test_a_dead_worker_ends_all(launch: Launch) -> None:
    one = await launch("--tls-mode", "off", processes=2)
    children = _children(one.process.pid)
    assert len(children) == 2
    os.kill(int(children[0]), signal.SIGKILL)
    code, errors = await one.ended()
    assert code == 1
    assert "a worker ended" in errors
    assert not [child for child in children if os.path.exists(f"/proc/{child}")]  # noqa: ASYNC240 - no disk


async def test_keepalive_pings_do_not_break_silent_streams(launch: Launch) -> None:
    one = await launch("--tls-mode", "off")
    options = [("grpc.keepalive_time_ms", 1000), ("grpc.http2.max_pings_without_data", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{one.grpc_port}", options=options) as channel:
        call = process_call(channel)
        await call.write(headers("request", modes=(DUPLEX, NONE)))
        await asyncio.sleep(4)  # gRPC's default server closes the connection at the third ping
        await call.write(body("request", b"x", last=True))
        assert (await call.read()).WhichOneof("response") == "request_headers"
        await call.done_writing()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--grpc-port", "70000"], "--grpc-port 70000: expected 0 to 65535"),
        (["--grpc-port", "9004", "--health-port", "9005", "--processes", "2"], "leave 2 between the ports"),
        (["--tls-mode", "files"], "expected --tls-dir"),
        (["--tls-mode", "files", "--tls-dir", "/nonexistent"], "expected tls.crt and tls.key"),
        (["--address", "example"], "expected an IP address"),
        (["--processes", "0", "--drain-timeout", "-1"], "--drain-timeout -1.0: expected 0 to 86400"),
    ],
)
def test_wrong_flags(flags: list[str], text: str) -> None:
    command = [sys.executable, "-m", "tests.support.echo_callout", "--config-file", os.devnull, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


async def test_port_in_use(launch: Launch) -> None:
    one = await launch("--tls-mode", "off")
    other = Running("--tls-mode", "off", "--grpc-port", str(one.grpc_port))
    code, errors = await other.ended()
    assert code == 2
    assert f"--grpc-port {one.grpc_port}: cannot listen" in errors


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def _in_flight(one: Running, count: int) -> None:
    deadline = time.monotonic() + 10
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            text = (await client.get(f"http://127.0.0.1:{one.metrics_port}/metrics")).text
            if f"penstock_extproc_streams_in_flight {count}.0" in text:
                return
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
