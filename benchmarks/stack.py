"""Runs the plan of `penstock local` for a benchmark: chosen pieces, changed as a benchmark wants, unsupervised."""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cli.graph.program import record_environment
from cli.local.health import get, until_ready
from cli.local.model import Kind, Piece, Plan, Traffic
from cli.local.plan import Options, make_plan
from cli.local.ports import PortAllocator
from cli.local.process import start
from cli.local.state import StateDir
from cli.local.up import write_plan

ROOT = Path(__file__).resolve().parent.parent
_START_S = 60.0


@dataclass
class Stack:
    """A running stack: where it listens, and the process of each piece by name."""

    plan: Plan
    pids: dict[str, int]
    folder: Path

    @property
    def port(self) -> int:
        """Port of the gateway's first listener."""
        return self.plan.traffic.listeners[0].port


def keep(plan: Plan, pool: str, *kinds: Kind) -> Plan:
    """Return the plan with only the pieces of `kinds`, of replicas and pickers only those of `pool`."""
    pieces = [piece for piece in plan.pieces if piece.kind in kinds]
    return replace(plan, pieces=tuple(each for each in pieces if each.kind == "callout" or each.name.startswith(pool)))


def without_pickers(plan: Plan) -> Plan:
    """Return the plan with every pool balanced by round robin."""
    listeners = tuple(
        replace(
            listener,
            rules=tuple(
                replace(rule, backends=tuple(replace(backend, picker=None) for backend in rule.backends))
                for rule in listener.rules
            ),
        )
        for listener in plan.traffic.listeners
    )
    return replace(plan, traffic=replace(plan.traffic, listeners=listeners))


def without_callout(plan: Plan, name: str) -> Plan:
    """Return the plan without one callout, neither run nor asked."""
    left = tuple(each for each in plan.traffic.extensions if not each.name.endswith(f"/{name}"))
    traffic = replace(plan.traffic, extensions=left)
    return replace(plan, traffic=traffic, pieces=tuple(each for each in plan.pieces if each.name != name))


def without_extensions(plan: Plan) -> Plan:
    """Return the plan with no service extension: a request must carry the header that its route matches."""
    traffic = Traffic(listeners=plan.traffic.listeners, clusters=plan.traffic.clusters, extensions=())
    return replace(plan, traffic=traffic)


def change_replicas(plan: Plan, change: Callable[[Piece], Piece]) -> Plan:
    """Return the plan with `change` applied to every replica."""
    return replace(plan, pieces=tuple(change(each) if each.kind == "replica" else each for each in plan.pieces))


@asynccontextmanager
async def running(
    change: Callable[[Plan], Plan],
    replicas: int | None = None,
    prepare: Callable[[Plan], Awaitable[None]] | None = None,
) -> AsyncIterator[Stack]:
    """Run the environment `local` as `change` leaves it, with Envoy in front; everything is ended on leaving.

    `prepare` is awaited when all files are written and nothing runs yet.

    Raises RuntimeError with the end of a piece's log when it does not become ready.
    """
    ports = PortAllocator()
    processes: list[asyncio.subprocess.Process] = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        state = StateDir(Path(folder))
        state.prepare()
        try:
            options = Options(root=ROOT, state_dir=state.path, replicas=replicas)
            plan = change(make_plan(record_environment("local", root=ROOT), options, ports, os.environ))
            pieces = [*plan.pieces, write_plan(plan, state)]
            pids = {}
            if prepare:
                await prepare(plan)
            for piece in pieces:
                env = {**os.environ, **piece.env}
                process = await start(piece.command, env=env, cwd=ROOT, log=state.logs / f"{piece.name}.log")
                processes.append(process)
                pids[piece.name] = process.pid
            await asyncio.gather(
                *(_ready(each, process, state.logs) for each, process in zip(pieces, processes, strict=True))
            )
            await _envoy_sees(plan)
            yield Stack(plan, pids, state.path)
        finally:
            for process in reversed(processes):
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            ports.close()


async def _ready(piece: Piece, process: asyncio.subprocess.Process, logs: Path) -> None:
    if not await until_ready(piece.check, _START_S, lambda: process.returncode is not None):
        log = (logs / f"{piece.name}.log").read_text(errors="replace")
        raise RuntimeError(f"{piece.name} did not become ready:\n{log[-2000:]}")


async def _envoy_sees(plan: Plan) -> None:
    """Wait until Envoy's health checks have passed for every endpoint that runs here."""
    ports = {port for piece in plan.pieces for port in piece.ports.values()}
    for _ in range(int(_START_S * 10)):
        _, body = await get(plan.admin_port, "/clusters?format=json")
        missing = [
            host
            for cluster in json.loads(body).get("cluster_statuses", [])
            for host in cluster.get("host_statuses", [])
            if host["address"]["socket_address"]["port_value"] in ports
            and host.get("health_status", {}).get("failed_active_health_check")
        ]
        if not missing:
            return
        await asyncio.sleep(0.1)
    raise RuntimeError("Envoy does not see every endpoint as healthy")
