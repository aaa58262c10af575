"""A stack for tests of the data path: the plan of `penstock local` with a real Envoy, without its supervisor.

Nothing is restarted by itself, so that a test decides when a piece is gone and when it is back.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import yaml

from cli.graph.model import Graph
from cli.graph.program import record_environment
from cli.local.health import until_ready
from cli.local.model import Piece, Plan
from cli.local.plan import Options, make_plan
from cli.local.ports import PortAllocator
from cli.local.process import signal_group
from cli.local.state import StateDir
from cli.local.up import write_plan

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 60.0
POLL_S = 0.05
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*(?:\{.*\})?) (\S+)$", re.MULTILINE)


@dataclass
class Stack:
    """Running pieces by name. `kill` and `start` one, read what it says of itself."""

    plan: Plan
    folder: Path
    pieces: dict[str, Piece]
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Base URL of the gateway, without `/v1`."""
        return self.plan.endpoint.removesuffix("/v1")

    @property
    def port(self) -> int:
        """Port of the gateway."""
        return self.plan.traffic.listeners[0].port

    def named(self, kind: str, prefix: str = "") -> list[str]:
        """Return the names of pieces of a kind."""
        return [piece.name for piece in self.pieces.values() if piece.kind == kind and piece.name.startswith(prefix)]

    def start(self, name: str) -> None:
        """Start a piece; `ready` waits for it."""
        piece = self.pieces[name]
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                piece.command, env=dict(piece.env), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def kill(self, name: str) -> None:
        """End a piece without any grace, and all of its workers."""
        process = self.processes.pop(name)
        signal_group(process.pid, signal.SIGKILL)
        process.wait()

    async def ready(self, *names: str) -> None:
        """Wait until those pieces (default: all) are ready and Envoy sees the endpoints of all that run as healthy."""

        async def one(name: str) -> None:
            process = self.processes[name]
            if not await until_ready(self.pieces[name].check, START_S, lambda: process.poll() is not None):
                raise RuntimeError(f"{name} did not become ready:\n{self.log(name).read_text()[-2000:]}")

        await asyncio.gather(*(one(name) for name in names or self.pieces))
        await eventually(self._envoy_sees, "Envoy sees all endpoints as healthy")

    def log(self, name: str) -> Path:
        """Return the path of a piece's log."""
        return self.folder / "logs" / f"{name}.log"

    async def state(self, replica: str) -> dict[str, Any]:
        """Return the /sim/state of a simulated replica."""
        return await sim_state(self.pieces[replica].port)

    async def states(self, prefix: str = "") -> dict[str, dict[str, Any]]:
        """Return the /sim/state of replicas by name."""
        return {name: await self.state(name) for name in self.named("replica", prefix)}

    async def metrics(self, name: str) -> dict[str, float]:
        """Return the samples of a callout, `name{labels}` -> value."""
        return await metrics(self.pieces[name].ports[9090])

    async def stat(self, name: str) -> int:
        """Return a counter or gauge of Envoy."""
        found = json.loads(await _get(self.plan.admin_port, f"/stats?format=json&filter={re.escape(name)}"))["stats"]
        return sum(each["value"] for each in found if each.get("name") == name)

    async def hosts(self) -> dict[int, bool]:
        """Return whether Envoy takes the endpoint at each port for healthy."""
        clusters = json.loads(await _get(self.plan.admin_port, "/clusters?format=json"))["cluster_statuses"]
        return {
            host["address"]["socket_address"]["port_value"]: not host["health_status"].get("failed_active_health_check")
            for cluster in clusters
            for host in cluster.get("host_statuses", [])
        }

    async def _envoy_sees(self) -> bool:
        running = {port for name in self.processes for port in self.pieces[name].ports.values()}
        return all(healthy for port, healthy in (await self.hosts()).items() if port in running)


@asynccontextmanager
async def without(stack: Stack, name: str) -> AsyncIterator[None]:
    """Kill a piece; on leaving it runs again and Envoy has seen it. Envoy's workers may hear of it a second later."""
    stack.kill(name)
    try:
        yield
    finally:
        stack.start(name)
        await stack.ready(name)


@contextmanager
def running_stack(
    settings: Mapping[str, Any] | None = None,
    *,
    replicas: int | None = None,
    environ: Mapping[str, str] | None = None,
    change_graph: Callable[[Graph], Graph] = lambda graph: graph,
    change: Callable[[Plan], Plan] = lambda plan: plan,
) -> Iterator[Stack]:
    """Run a stack; all of it is ended on leaving.

    Args:
        settings: configuration in place of the repository's `Pulumi.local.yaml`, keys without `penstock:`.
        replicas: replicas of each set; None takes what is declared.
        environ: what is added to the environment that replicas take their settings from.
        change_graph: applied to the recorded graph, e.g. to declare further objects.
        change: applied to the plan.
    """
    ports = PortAllocator()
    with tempfile.TemporaryDirectory(prefix="penstock-test-") as folder:
        graph = change_graph(_record(settings, Path(folder) / "project"))
        state = StateDir(Path(folder) / "state")
        state.prepare()
        options = Options(root=ROOT, state_dir=state.path, replicas=replicas)
        plan = change(make_plan(graph, options, ports, {**os.environ, **(environ or {})}))
        envoy = write_plan(plan, state)
        # The access log is written every ten seconds otherwise.
        envoy = replace(envoy, command=(*envoy.command, "--file-flush-interval-msec", "50"))
        stack = Stack(plan, state.path, {piece.name: piece for piece in (*plan.pieces, envoy)})
        try:
            for name in stack.pieces:
                stack.start(name)
            # in a thread, since a fixture may be asked for from inside of an asynchronous one, whose loop is running
            with ThreadPoolExecutor(1) as thread:
                thread.submit(asyncio.run, stack.ready()).result()
            yield stack
        finally:
            for name in reversed(list(stack.processes)):
                stack.kill(name)
            ports.close()


def _record(settings: Mapping[str, Any] | None, project: Path) -> Graph:
    if settings is None:
        return record_environment("local", root=ROOT)
    project.mkdir()
    shutil.copy(ROOT / "Pulumi.yaml", project)
    images = {"image": "example/services:1", "vllmImage": "example/vllm:1"}
    config = {f"penstock:{key}": value for key, value in (images | dict(settings)).items()}
    (project / "Pulumi.local.yaml").write_text(yaml.safe_dump({"config": config}))
    return record_environment("local", root=project)


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, seconds: float = 20.0) -> None:
    """Poll until `condition` holds. Raises AssertionError that names `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        await asyncio.sleep(POLL_S)


async def metrics(port: int) -> dict[str, float]:
    """Return the samples of a `/metrics` page, `name{labels}` -> value."""
    page = (await _get(port, "/metrics")).decode()
    return {name: float(value) for name, value in _SAMPLE.findall(page)}


async def sim_state(port: int) -> dict[str, Any]:
    """Return the /sim/state of a simulated replica."""
    state: dict[str, Any] = json.loads(await _get(port, "/sim/state"))
    return state


def total(values: Mapping[str, float], name: str) -> float:
    """Sum the samples of a metric over its labels."""
    return sum(value for key, value in values.items() if key.partition("{")[0] == name)


async def _get(port: int, path: str) -> bytes:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        return (await client.get(f"http://127.0.0.1:{port}{path}")).content
