"""A real body router process behind a real Envoy whose routes match the router's headers."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.envoy import Config, bootstrap, cluster, ext_proc, free_port, start_envoy
from tests.support.upstream import Upstream

CONFIG = """
models:
  - name: llama-3.1-8b
  - name: gemma-3-12b
    adapters: [LoRA-1-gemma]
maxBodyBytes: 1048576
"""
REPOSITORY = Path(__file__).parents[3]


@dataclass
class Routed:
    """What a test talks to: `client` goes through Envoy, the upstreams keep what reached them."""

    client: httpx.AsyncClient
    llama: Upstream
    gemma: Upstream
    metrics_url: str


@pytest.fixture
async def path(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Routed]:
    """A parameter of the fixture replaces `CONFIG`."""
    llama, gemma = await Upstream().start(), await Upstream().start()
    grpc_port, health_port, metrics_port = free_port(), free_port(), free_port()
    (tmp_path / "config.yaml").write_text(getattr(request, "param", CONFIG))
    router = _launch(tmp_path, grpc_port, health_port, metrics_port)
    port = free_port()
    config = bootstrap(
        port,
        [ext_proc("router", response="NONE", processing_mode={"response_header_mode": "SKIP"})],
        [
            cluster("router", grpc_port, http2=True, tls=True),
            cluster("llama", llama.port),
            cluster("gemma", gemma.port),
        ],
        upstream="llama",
    )
    _routes(config)
    try:
        await _ready(f"http://127.0.0.1:{metrics_port}/healthz", router)
        envoy = await start_envoy(config, port, tmp_path)
        try:
            async with httpx.AsyncClient(base_url=envoy.url, trust_env=False, timeout=20) as client:
                yield Routed(client, llama, gemma, f"http://127.0.0.1:{metrics_port}/metrics")
        finally:
            envoy.stop()
    finally:
        router.send_signal(signal.SIGTERM)
        try:
            status = router.wait(15)
        finally:
            router.kill()
            await llama.stop()
            await gemma.stop()
    assert status == 0, (tmp_path / "router.log").read_text()


def _launch(folder: Path, grpc_port: int, health_port: int, metrics_port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "services.bodyrouter", "--config-file", str(folder / "config.yaml")]
    ports = [f"--grpc-port={grpc_port}", f"--health-port={health_port}", f"--metrics-port={metrics_port}"]
    with (folder / "router.log").open("wb") as log:
        return subprocess.Popen([*command, *ports], cwd=REPOSITORY, stderr=log)


def _routes(config: Config) -> None:
    """Route as an HTTPRoute does: by model header, adapters by their base; nothing else is routed."""
    manager: Any = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["virtual_hosts"][0]["routes"] = [
        {
            "match": {"prefix": "/", "headers": [{"name": header, "string_match": {"exact": model}}]},
            "route": {"cluster": target},
        }
        for header, model, target in [
            ("x-gateway-model-name", "llama-3.1-8b", "llama"),
            ("x-gateway-model-name", "gemma-3-12b", "gemma"),
            ("x-gateway-base-model-name", "gemma-3-12b", "gemma"),
        ]
    ]


async def _ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    async with httpx.AsyncClient(trust_env=False) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)
    raise RuntimeError("the body router did not become ready")


def chat(model: str, size: int = 10) -> bytes:
    """A chat request of at least `size` bytes."""
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "x" * size}]}).encode()
