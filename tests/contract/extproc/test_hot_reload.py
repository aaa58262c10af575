"""Callout processes whose mounted config changes: the real processes, over gRPC."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import orjson
import pytest
from penstock._labels import config_hash

from services.extproc.proto import ext_proc_pb2 as pb
from tests.support.envoy import free_port
from tests.support.extproc import DUPLEX, NONE, body, headers

REPOSITORY = Path(__file__).parents[3]
CHAT = {":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json"}
PICKER = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"


@dataclass
class Callout:
    """A running callout with a mounted config."""

    process: subprocess.Popen[bytes]
    folder: Path
    grpc_port: int
    metrics_port: int
    generation: int = 0

    def publish(self, **files: str) -> None:
        """Replace the mount as a kubelet does."""
        self.generation += 1
        publish(self.folder, self.generation, files)

    def log(self) -> list[dict[str, Any]]:
        """Return the records so far."""
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]

    async def metric(self, name: str) -> float:
        """Return a metric by its full name with labels; 0 if it is not there."""
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://127.0.0.1:{self.metrics_port}/metrics")).text
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def until(self, name: str, value: float) -> None:
        """Wait until a metric has a value."""
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(httpx.TransportError):
                if await self.metric(name) == value:
                    return
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, (name, self.log())
            await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def stream(self) -> AsyncIterator["grpc.aio.StreamStreamCall[pb.ProcessingRequest, pb.ProcessingResponse]"]:
        """Open an exchange."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            call = channel.stream_stream(
                "/envoy.service.ext_proc.v3.ExternalProcessor/Process",
                request_serializer=pb.ProcessingRequest.SerializeToString,
                response_deserializer=pb.ProcessingResponse.FromString,
            )()
            yield call
            if not call.done():
                await call.done_writing()

    async def status(self, model: str) -> int:
        """Ask for a model; return 200 if it is routed, else the status of the answer."""
        async with self.stream() as call:
            await call.write(headers("request", CHAT, modes=(DUPLEX, NONE)))
            await call.write(body("request", orjson.dumps({"model": model}), last=True))
            return status(await asyncio.wait_for(call.read(), 10))


def status(answer: pb.ProcessingResponse) -> int:
    return int(answer.immediate_response.status.code) if answer.HasField("immediate_response") else 200


def publish(folder: Path, generation: int, files: dict[str, str]) -> None:
    fresh = folder / f"..{generation}"
    fresh.mkdir(parents=True)
    for name, text in files.items():
        (fresh / f"{name}.yaml").write_text(text)
        if not (folder / f"{name}.yaml").is_symlink():
            (folder / f"{name}.yaml").symlink_to(f"..data/{name}.yaml")
    (folder / "..tmp").symlink_to(fresh.name)
    os.replace(folder / "..tmp", folder / "..data")


Launch = Callable[..., Callout]


@pytest.fixture
def launch(tmp_path: Path) -> Any:
    running: list[Callout] = []

    def start(module: str, *flags: str, **files: str) -> Callout:
        publish(tmp_path, 0, files)
        ports = [free_port(), free_port(), free_port()]
        command = [
            sys.executable,
            "-m",
            f"services.{module}",
            f"--config-file={tmp_path}/config.yaml",
            "--tls-mode=off",
        ]
        command += [f"--{name}-port={port}" for name, port in zip(("grpc", "health", "metrics"), ports, strict=True)]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen([*command, *flags], cwd=REPOSITORY, stderr=log)
        running.append(Callout(process, tmp_path, ports[0], ports[2]))
        return running[-1]

    yield start
    for one in running:
        one.process.send_signal(signal.SIGTERM)
        try:
            assert one.process.wait(15) == 0, one.log()
        finally:
            one.process.kill()
        broken = [record for record in one.log() if "Traceback" in str(record)]
        assert not broken, broken


def models(*names: str) -> str:
    return "models:\n" + "".join(f"- name: {name}\n" for name in names)


async def test_new_exchanges_follow_a_new_config_and_open_ones_keep_theirs(launch: Launch) -> None:
    one = launch("bodyrouter", config=models("old", "both"))
    version = config_hash({"config.yaml": models("old", "both")})
    await one.until(f'penstock_extproc_config_info{{version="{version}"}}', 1)
    async with one.stream() as call:
        await call.write(headers("request", CHAT, modes=(DUPLEX, NONE)))
        assert await one.status("old") == 200
        one.publish(config=models("both", "new"))
        await one.until('penstock_extproc_config_reload_total{result="accepted"}', 1)
        assert [await one.status(name) for name in ("old", "both", "new")] == [404, 200, 200]
        await call.write(body("request", b'{"model": "old"}', last=True))
        assert status(await asyncio.wait_for(call.read(), 10)) == 200, "it began when `old` was served"
    serving = next(record for record in one.log() if record["message"] == "serving")
    assert serving["config_version"] == version


async def test_a_wrong_config_changes_nothing_and_is_named(launch: Launch) -> None:
    one = launch("bodyrouter", config=models("a"))
    await one.until("penstock_extproc_config_refused", 0)
    one.publish(config="models:\n- name: a\n- name: a\nmaxBodyByte: 3\n")
    await one.until('penstock_extproc_config_reload_total{result="refused"}', 1)
    assert await one.metric("penstock_extproc_config_refused") == 1
    assert await one.status("a") == 200
    (record,) = [record for record in one.log() if record["severity"] == "ERROR"]
    assert record["message"] == "config refused, the last good one stays in use"
    problems = {problem["path"]: problem for problem in record["problems"]}
    assert problems["maxBodyByte"]["fix"] == "did you mean 'maxBodyBytes'?"
    assert problems["models[1].name"]["value"] == "'a'"
    one.publish(config=models("b"))
    await one.until('penstock_extproc_config_reload_total{result="accepted"}', 1)
    assert await one.metric("penstock_extproc_config_refused") == 0
    assert [await one.status(name) for name in ("a", "b")] == [404, 200]


async def test_a_higher_body_cap_needs_no_restart(launch: Launch) -> None:
    one = launch("bodyrouter", config=models("a") + "maxBodyBytes: 2048\n")
    await one.until("penstock_extproc_config_refused", 0)
    large = orjson.dumps({"model": "a", "prompt": "x" * 24_000_000})

    async def send() -> int:
        async with one.stream() as call:
            await call.write(headers("request", CHAT, modes=(DUPLEX, NONE)))
            await call.write(body("request", large, last=True))
            return status(await asyncio.wait_for(call.read(), 30))

    assert await send() == 413
    one.publish(config=models("a") + "maxBodyBytes: 33554432\n")
    await one.until('penstock_extproc_config_reload_total{result="accepted"}', 1)
    assert await send() == 200


async def test_a_picker_keeps_its_replicas_and_takes_new_objectives(launch: Launch, tmp_path: Path) -> None:
    replicas = tmp_path / "replicas"
    replicas.write_text("replicas: [{name: a, address: 127.0.0.1, port: 9}]")
    one = launch(
        "picker", "--pool-name=p", f"--replicas=file:{replicas}", f"--objectives-file={tmp_path}/objectives.yaml",
        config=PICKER, objectives="objectives: []",
    )  # fmt: skip
    await one.until("penstock_picker_replicas", 1)
    one.publish(config=PICKER, objectives="objectives: [{name: batch, priority: low}]")
    await one.until('penstock_extproc_config_reload_total{result="refused"}', 1)
    scorers = "plugins:\n- type: queue-scorer\n- {type: prefix-cache-scorer, parameters: {blockSizeTokens: 16}}\n"
    one.publish(config=PICKER + scorers, objectives="objectives: [{name: batch, priority: -1}]")
    await one.until('penstock_extproc_config_reload_total{result="accepted"}', 1)
    assert await one.metric("penstock_picker_replicas") == 1
    (record,) = [record for record in one.log() if "refused" in record["message"]]
    assert "objectives[0].priority" in record["problems"][0]["path"]
