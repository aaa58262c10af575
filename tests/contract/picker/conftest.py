"""A real picker process, replicas that are simulators, and a real Envoy that follows the pick."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest

from services.extproc.proto import ext_proc_pb2 as pb
from tests.support.envoy import Config, Envoy, bootstrap, cluster, ext_proc, free_port, start_envoy

REPOSITORY = Path(__file__).parents[3]
CONFIG = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- {type: max-score-picker, parameters: {maxNumOfEndpoints: 2}}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
  - {pluginRef: max-score-picker}
"""
OBJECTIVES = "objectives: [{name: batch, priority: -1}]\n"


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for something that takes milliseconds."""
    deadline = time.monotonic() + 20
    while not await condition():
        assert time.monotonic() < deadline, f"{what}: not within 20 s"
        await asyncio.sleep(0.02)


@dataclass
class Picker:
    """A running picker process."""

    process: subprocess.Popen[bytes]
    folder: Path
    grpc_port: int
    health_port: int
    metrics_port: int

    def set_replicas(self, ports: list[int]) -> None:
        """Replace the file of replicas."""
        entries = [{"name": f"r{port}", "address": "127.0.0.1", "port": port} for port in ports]
        (self.folder / "replicas.new").write_text(json.dumps({"replicas": entries}))
        os.replace(self.folder / "replicas.new", self.folder / "replicas.yaml")

    async def metric(self, name: str) -> float:
        """Return a metric's value, by its full name with labels; 0 if it is not there."""
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://127.0.0.1:{self.metrics_port}/metrics")).text
        return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)

    async def picks(self, port: int) -> float:
        """Return how often a replica was picked."""
        return await self.metric(f'penstock_picker_picks_total{{replica="127.0.0.1:{port}"}}')

    async def ready(self, replicas: int) -> None:
        """Wait until so many replicas have fresh metrics."""

        async def check() -> bool:
            assert self.process.poll() is None, (self.folder / "picker.log").read_text()
            try:
                return await self.metric("penstock_picker_ready_endpoints") == replicas
            except httpx.TransportError:
                return False

        await until(check, f"{replicas} ready replicas")

    async def ask(self, *messages: pb.ProcessingRequest, answers: int = 1) -> list[pb.ProcessingResponse]:
        """Send messages on one ext_proc stream and return the first answers."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            call = channel.stream_stream(
                "/envoy.service.ext_proc.v3.ExternalProcessor/Process",
                request_serializer=pb.ProcessingRequest.SerializeToString,
                response_deserializer=pb.ProcessingResponse.FromString,
            )()
            for message in messages:
                await call.write(message)
            found = [await asyncio.wait_for(call.read(), 10) for _ in range(answers)]
            await call.done_writing()
            return found


@pytest.fixture
def picker(tmp_path: Path) -> Iterator[Picker]:
    """A picker with an empty pool."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "objectives.yaml").write_text(OBJECTIVES)
    ports = [free_port(), free_port(), free_port()]
    command = [sys.executable, "-m", "services.picker", "--pool-name=pool", "--pool-namespace=ns", "--tls-mode=off"]
    flags = [f"--{name}-port={port}" for name, port in zip(("grpc", "health", "metrics"), ports, strict=True)]
    files = [f"--config-file={tmp_path}/config.yaml", f"--objectives-file={tmp_path}/objectives.yaml"]
    source = [f"--replicas=file:{tmp_path}/replicas.yaml"]
    with (tmp_path / "picker.log").open("wb") as log:
        process = subprocess.Popen([*command, *flags, *files, *source], cwd=REPOSITORY, stderr=log)
    running = Picker(process, tmp_path, *ports)
    try:
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(15)
        finally:
            process.kill()
    text = (tmp_path / "picker.log").read_text()
    assert status == 0, text
    assert "Traceback" not in text


@dataclass
class Simulators:
    """Replicas by port."""

    processes: dict[int, subprocess.Popen[bytes]]

    def kill(self, port: int) -> None:
        """End a replica at once."""
        self.processes[port].kill()
        self.processes[port].wait(10)


@pytest.fixture
def simulators() -> Iterator[Simulators]:
    """Three replicas that answer at once."""
    running: dict[int, subprocess.Popen[bytes]] = {}
    for _ in range(3):
        port = free_port()
        command = [sys.executable, "-m", "services.modelserver", "/models/m", "--served-model-name", "m"]
        running[port] = subprocess.Popen(
            [*command, "--port", str(port), "--host", "127.0.0.1", "--sim-time-scale", "0"],
            cwd=REPOSITORY,
            stderr=subprocess.DEVNULL,
        )
    try:
        yield Simulators(running)
    finally:
        for process in running.values():
            process.kill()
            process.wait(10)


@pytest.fixture
async def path(picker: Picker, simulators: Simulators, tmp_path: Path) -> AsyncIterator[Envoy]:
    """Envoy in front of picker and replicas, all of them ready."""
    picker.set_replicas(list(simulators.processes))
    await picker.ready(3)
    port = free_port()
    spaces = {"untyped": ["envoy.lb"]}
    metadata = {"receiving_namespaces": spaces, "forwarding_namespaces": spaces}
    retry = {"retry_on": "connect-failure,reset,5xx", "num_retries": 2}
    config = bootstrap(
        port,
        [ext_proc("picker", metadata_options=metadata)],
        [cluster("picker", picker.grpc_port, http2=True), _pool(list(simulators.processes))],
        upstream="pool",
        retry_policy=retry,
    )
    envoy = await start_envoy(config, port, tmp_path)
    try:
        yield envoy
    finally:
        envoy.stop()


def _pool(ports: list[int]) -> Config:
    """A cluster that follows the picker's list, then goes round robin."""
    made: Config = cluster("pool", 0)
    addresses: list[Any] = [{"socket_address": {"address": "127.0.0.1", "port_value": port}} for port in ports]
    made["load_assignment"]["endpoints"][0]["lb_endpoints"] = [{"endpoint": {"address": each}} for each in addresses]
    policies = "type.googleapis.com/envoy.extensions.load_balancing_policies"
    key = "x-gateway-destination-endpoint"
    robin = {"name": "rr", "typed_config": {"@type": f"{policies}.round_robin.v3.RoundRobin"}}
    override = {
        "@type": f"{policies}.override_host.v3.OverrideHost",
        "override_host_sources": [{"header": key}, {"metadata": {"key": "envoy.lb", "path": [{"key": key}]}}],
        "selected_host_key": {"key": "envoy.lb", "path": [{"key": f"{key}-served"}]},
        "fallback_policy": {"policies": [{"typed_extension_config": robin}]},
    }
    policy = {"name": "envoy.load_balancing_policies.override_host", "typed_config": override}
    made["load_balancing_policy"] = {"policies": [{"typed_extension_config": policy}]}
    return made
