"""The whole local stack for data path tests: `penstock local up --detach` in a folder of its own.

    from tests.support.local import Stack, stack  # noqa: F401

    def test_x(stack: Stack) -> None:
        client = OpenAI(base_url=stack.endpoint, api_key=stack.api_key)

`stack` is one for all tests of the package that imports it: a test that kills or holds a piece puts it back, which
`down` does. Files that use it name one `xdist_group`, so that one worker starts it.
For other settings of the simulator or a changed declaration, open `running_stack` yourself.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cli.local.state import StateDir, wait_for

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0
RECOVERY_S = 30.0
FAST = {"PENSTOCK_SIM_PREFILL_TPS": "200000", "PENSTOCK_SIM_DECODE_TPS": "1000", "PENSTOCK_SIM_LOG_LEVEL": "warning"}
"""Settings of the simulator for tests: an answer of 50 tokens takes 50 ms."""


class Stack:
    """A running stack. `state_dir` has `envoy.json`, `state.json` and `logs/`."""

    def __init__(self, state_dir: StateDir, env: Mapping[str, str]) -> None:
        self.dir = state_dir
        self.state_dir = state_dir.path
        self._env = env

    @property
    def state(self) -> dict[str, Any]:
        """The state file, read anew."""
        return self.dir.read() or {"pieces": [], "endpoint": None}

    @property
    def endpoint(self) -> str:
        """Base URL for OpenAI clients, with `/v1`."""
        return str(self.state["endpoint"])

    @property
    def api_key(self) -> str:
        """The development key; where there is no API management, what clients send for want of one."""
        return str(self.state["api_key"] or "unused")

    @property
    def url(self) -> str:
        """The gateway's URL without a path."""
        return self.endpoint.removesuffix("/v1")

    @property
    def pieces(self) -> dict[str, dict[str, Any]]:
        """Pieces by name, as in `status --json`."""
        return {piece["name"]: piece for piece in self.state["pieces"]}

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """Pieces of one kind."""
        return [piece for piece in self.pieces.values() if piece["kind"] == kind]

    def bootstrap(self) -> dict[str, Any]:
        """Envoy's configuration."""
        config: dict[str, Any] = json.loads(self.dir.envoy_config.read_text())
        return config

    def admin(self, path: str) -> str:
        """Return the body of a GET to Envoy's admin port, e.g. `/stats?filter=ext_proc`."""
        with urllib.request.urlopen(f"http://{self.state['admin']}{path}", timeout=5) as response:
            return str(response.read().decode())

    def stats(self, pattern: str) -> dict[str, int]:
        """Return Envoy's counters and gauges whose names match a regular expression."""
        lines = self.admin(f"/stats?filter={pattern}").splitlines()
        pairs = (line.rpartition(": ") for line in lines)
        return {name: int(value) for name, _, value in pairs if value.isdigit()}

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill a piece; it is restarted, unless `down` holds it."""
        os.kill(self.pieces[name]["pid"], number)

    @contextlib.contextmanager
    def down(self, *names: str) -> Iterator[None]:
        """Keep pieces down for a while; afterwards wait until they are ready and Envoy has seen it."""
        holds = [self.state_dir / "hold" / name for name in names]
        for hold in holds:
            hold.parent.mkdir(exist_ok=True)
            hold.touch()
        try:
            for name in names:
                self.kill(name)
            self.await_state("crashed", *names)
            yield
        finally:
            for hold in holds:
                hold.unlink(missing_ok=True)
            self.await_state("ready", *names)
            self.await_healthy()

    def await_state(self, state: str, *names: str) -> None:
        """Wait until all of `names` are in `state`."""
        reached = wait_for(lambda: all(self.pieces[name]["state"] == state for name in names), RECOVERY_S)
        assert reached, {name: self.pieces[name]["state"] for name in names}

    def unhealthy(self) -> list[int]:
        """Return the serving ports that Envoy's health checks have marked as failed."""
        clusters = json.loads(self.admin("/clusters?format=json"))["cluster_statuses"]
        return [
            host["address"]["socket_address"]["port_value"]
            for cluster in clusters
            for host in cluster.get("host_statuses", [])
            if host["health_status"].get("failed_active_health_check")
        ]

    def await_healthy(self) -> None:
        """Wait until Envoy reaches everything."""
        assert wait_for(lambda: not self.unhealthy(), RECOVERY_S), self.unhealthy()

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `penstock local ARGUMENTS` for this stack."""
        return penstock(self._env, *arguments)


def penstock(env: Mapping[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `penstock local ARGUMENTS` in the project's folder."""
    command = [sys.executable, "-m", "cli.main", "local", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=START_S)


@contextlib.contextmanager
def running_stack(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None, root: Path = ROOT, environment: str = "local"
) -> Iterator[Stack]:
    """Start a stack with its state below `folder`, and stop it afterwards.

    Args:
        folder: for state and logs.
        arguments: further ones of `penstock local up`, e.g. `--replicas`, `1`.
        env: variables on top of the caller's and `FAST`, e.g. `PENSTOCK_SIM_FAULT`.
        root: folder with another `Pulumi.yaml`.
        environment: which environment to start.
    """
    variables = {**os.environ, **FAST, **(env or {}), "PENSTOCK_STATE_DIR": str(folder)}
    where = ("--env", environment, "--root", str(root))
    started = penstock(variables, "up", "--detach", *where, *arguments)
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        yield Stack(StateDir(folder.resolve() / environment), variables)
    finally:
        stopped = penstock(variables, "down", *where)
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The environment `local`, as declared, with a fast simulator."""
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running
