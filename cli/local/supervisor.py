"""Runs the pieces of a plan: starts them together, awaits readiness, restarts what crashes, stops all."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cli.local.health import get, until_ready
from cli.local.model import LOOPBACK, Piece, Plan
from cli.local.process import identity, signal_group, start
from cli.local.state import StateDir, tail

_BACKOFF_S, _BACKOFF_MAX_S = 0.2, 10.0
_STABLE_S = 30.0
"""A piece that ran for so long starts its backoff anew when it crashes."""
_START_ATTEMPTS = 3
_ENVOY_SEES_S = 15.0
GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL when all is stopped."""


NO_ACCESS = {"api_key": None, "admin_url": None, "developer": None}
"""What opens the stack, before API management is ready or where there is none: the development key, the address of
admin API and portal, and whose key it is (`organization/name`)."""


class StartError(Exception):
    """A piece did not become ready; the message tells which, why, and the end of its log."""


class Runner:
    """One piece: its process, state and restarts."""

    def __init__(self, supervisor: "Supervisor", piece: Piece) -> None:
        self._supervisor = supervisor
        self.piece = piece
        self.state = "starting"
        self.restarts = 0
        self.process: asyncio.subprocess.Process | None = None
        self.ready = asyncio.Event()
        self.exit = ""
        """How the last process ended."""
        self.log = supervisor.state_dir.logs / f"{piece.name}.log"

    async def run(self) -> None:
        """Keep the piece running until cancelled."""
        backoff = _BACKOFF_S
        while True:
            began = time.monotonic()
            if await self._once():
                backoff = _BACKOFF_S if time.monotonic() - began >= _STABLE_S else backoff
            if not self.ready.is_set() and self.restarts + 1 >= _START_ATTEMPTS:
                self._supervisor.fail(self._failure(f"it {self.exit} {_START_ATTEMPTS} times before it was ready"))
                return
            self._supervisor.report(f"crashed   {self.piece.name}: {self.exit}; restarting, log: {self.log}")
            await asyncio.sleep(backoff)
            while self._supervisor.state_dir.held(self.piece.name):  # noqa: ASYNC110 - a file is waited for
                await asyncio.sleep(_BACKOFF_S)
            backoff = min(backoff * 2, _BACKOFF_MAX_S)
            self.restarts += 1
            self._set("starting")

    async def _once(self) -> bool:
        """Run one process to its end; return whether it was ready in between."""
        began = time.monotonic()
        process = await start(self.piece.command, env=self.piece.env, cwd=self._supervisor.cwd, log=self.log)
        self.process = process
        self._set("starting")
        wait = self._supervisor.start_timeout_s
        ready = await until_ready(self.piece.check, wait, lambda: process.returncode is not None)
        if ready:
            self._set("ready")
            again = " again" if self.restarts else ""
            took = time.monotonic() - began
            self._supervisor.report(f"ready     {self.piece.name:<24} {self.piece.address:<16} {took:.1f} s{again}")
            self.ready.set()
        elif process.returncode is None and not self.ready.is_set():
            self._supervisor.fail(self._failure(f"it was not ready within {wait:.0f} s"))
        code = await process.wait()
        signal_group(process.pid, signal.SIGKILL)  # workers that a crashed parent left behind
        self.exit = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
        self.process = None
        self._set("crashed")
        return ready

    def _failure(self, reason: str) -> str:
        return f"{self.piece.name} did not start: {reason}. The end of {self.log}:\n{tail(self.log)}"

    def _set(self, state: str) -> None:
        self.state = state
        self._supervisor.save()

    def shown(self) -> dict[str, Any]:
        """Return the piece as `status --json` shows it, and what recognizes its process."""
        pid = self.process.pid if self.process else None
        return {
            "name": self.piece.name,
            "kind": self.piece.kind,
            "pid": pid,
            "address": self.piece.address,
            "state": self.state,
            "restarts": self.restarts,
            "log": str(self.log),
            "ports": {str(declared): port for declared, port in self.piece.ports.items()},
            "identity": identity(pid) if pid else None,
        }


class Supervisor:
    """Runs `plan` and `envoy` in front of it until told to stop.

    Args:
        plan: what to run.
        envoy: the piece that runs Envoy; stopped first, so that no request meets a half-stopped stack.
        state_dir: prepared and locked by the caller.
        cwd: working directory of all pieces.
        start_timeout_s: how long a piece may take to be ready.
        report: gets a line for each event.
    """

    def __init__(
        self,
        plan: Plan,
        envoy: Piece,
        state_dir: StateDir,
        *,
        cwd: Path,
        start_timeout_s: float,
        report: Callable[[str], None],
    ) -> None:
        self.state_dir = state_dir
        self.cwd = cwd
        self.start_timeout_s = start_timeout_s
        self.report = report
        self._plan = plan
        self._runners = [Runner(self, piece) for piece in (*plan.pieces, envoy)]
        self._stop = asyncio.Event()
        self._failure: str | None = None
        self._phase = "starting"
        self.access: dict[str, Any] = dict(NO_ACCESS)

    def fail(self, message: str) -> None:
        """Give up: the stack cannot start."""
        self._failure = self._failure or message
        self._stop.set()

    def state(self) -> dict[str, Any]:
        """Return what the state file holds."""
        return {
            "environment": self._plan.environment,
            "endpoint": self._plan.endpoint,
            "phase": self._phase,
            "pid": os.getpid(),
            "admin": f"{LOOPBACK}:{self._plan.admin_port}",
            **self.access,
            "models": list(self._plan.models),
            "not_realized": [asdict(item) for item in self._plan.warnings],
            "pieces": [runner.shown() for runner in self._runners],
        }

    def save(self) -> None:
        """Write the state file."""
        self.state_dir.write(self.state())

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Start everything, call `on_ready`, and serve until SIGINT or SIGTERM. Raises `StartError`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        tasks = [asyncio.create_task(runner.run()) for runner in self._runners]
        stopped = asyncio.create_task(self._stop.wait())
        starting = asyncio.create_task(self._start())
        try:
            await _first([starting, stopped, *tasks])
            if starting.done() and not self._stop.is_set():
                starting.result()
                self._phase = "ready"
                on_ready()
                self.save()  # last, so that who waits for this finds everything said
                await _first([stopped, *tasks])
            for task in tasks:
                if task.done() and not task.cancelled() and task.exception():
                    raise StartError(str(task.exception()))
        finally:
            await _cancel([starting, stopped, *tasks])
            await self._shutdown()
        if self._failure:
            raise StartError(self._failure)

    async def _start(self) -> None:
        await asyncio.gather(*(runner.ready.wait() for runner in self._runners))
        # Ready by their own word; Envoy must also have seen it, or the first requests fail.
        deadline = time.monotonic() + _ENVOY_SEES_S
        while missing := await _unhealthy(self._plan.admin_port):
            if time.monotonic() > deadline:
                self.fail(f"Envoy does not reach {', '.join(missing)}; see {self.state_dir.logs}")
                return
            await asyncio.sleep(0.1)

    async def _shutdown(self) -> None:
        self._phase = "stopping"
        running = [runner for runner in self._runners if runner.process]
        envoys = [runner for runner in running if runner.piece.kind == "envoy"]
        others = [runner for runner in running if runner.piece.kind != "envoy"]
        for group in (envoys, others):
            await asyncio.gather(*(_end(runner) for runner in group))


async def _first(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def _cancel(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _end(runner: Runner) -> None:
    process = runner.process
    if process is None:
        return
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), GRACE_S)
    except TimeoutError:
        pass
    signal_group(process.pid, signal.SIGKILL)
    await process.wait()


async def _unhealthy(admin_port: int) -> list[str]:
    """Return the endpoints that Envoy's active health checks have not passed yet."""
    try:
        status, body = await get(admin_port, "/clusters?format=json")
    except OSError:
        return ["its own admin port"]
    if status != 200:
        return ["its own admin port"]
    return [
        f"{cluster['name']} at {host['address']['socket_address']['port_value']}"
        for cluster in json.loads(body).get("cluster_statuses", [])
        for host in cluster.get("host_statuses", [])
        if host.get("health_status", {}).get("failed_active_health_check")
    ]
