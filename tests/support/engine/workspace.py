"""Drives the plain Pulumi CLI on a project in a temporary folder, with our language host and providers.

The repository stays untouched: project and environment files are copied, code is linked, backend and state of the
made-up cloud are folders of the test.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.engine.apiserver import ApiServer
from tests.support.engine.build import require
from tests.support.engine.cloud import Cloud

ROOT = Path(__file__).resolve().parents[3]
_PLUGINS = {
    "pulumi-language-python": "-m tests.support.engine.language_host",
    "pulumi-resource-gcp": "-m tests.support.engine.gcp",
    "pulumi-resource-kubernetes": "-m tests.support.engine.kubernetes",
    "pulumi-resource-penstock": str(ROOT / "components" / "__main__.py"),
}
"""Found on PATH before anything else; what stands after Python."""

TIMEOUT_S = 100
"""Of one command of the CLI."""


@dataclass(frozen=True)
class Run:
    """What one command did.

    Attributes:
        steps: `type::name` -> operations that changed something, e.g. `["create"]`, in their order.
        differences: `type::name` -> paths of the inputs that differ.
    """

    code: int
    output: str
    steps: Mapping[str, list[str]] = field(default_factory=dict)
    differences: Mapping[str, set[str]] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Return how many times each operation occurred."""
        operations = [operation for steps in self.steps.values() for operation in steps]
        return {operation: operations.count(operation) for operation in sorted(set(operations))}


class CommandFailed(AssertionError):
    """A command failed that should not have; holds what it printed."""


class Workspace:
    """A project, the engine's environment and a made-up cloud, all below one folder.

    Usage:
        workspace = Workspace(tmp_path, server)
        stack = workspace.stack("dev", "Pulumi.dev.yaml")
        stack.run("up")
    """

    def __init__(self, folder: Path, server: ApiServer, project: Path = ROOT) -> None:
        """Copy the project files and link the code.

        Args:
            folder: an empty folder.
            server: where Kubernetes objects go.
            project: folder with `Pulumi.yaml`, this repository or one of its examples.
        """
        self.folder, self.project, self.server = folder, folder / "project", server
        for name in ("bin", "project", "home", "backend", "cloud"):
            (folder / name).mkdir()
        for file in sorted(project.glob("Pulumi*.yaml")):
            shutil.copy(file, self.project)
        for item in project.iterdir():
            if item.suffix == ".py" or item.name == "infra":
                (self.project / item.name).symlink_to(item)
        self.cloud = Cloud(folder / "cloud")
        self.env = self._environment()

    def stack(self, name: str, config_file: str | None = None) -> "Stack":
        """Make a stack and return it; `config_file` is a file of the project, by default `Pulumi.<name>.yaml`."""
        stack = Stack(self, name, config_file or f"Pulumi.{name}.yaml")
        stack.run("stack", "init", name, "--no-select")
        return stack

    def run(self, *arguments: str) -> str:
        """Run one command of the CLI that needs no stack, and return what it printed."""
        done = self.execute(["pulumi", *arguments, "--non-interactive", "--color", "never"])
        if done.returncode:
            raise CommandFailed(f"pulumi {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def execute(self, command: list[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command line of the CLI in the project, within `TIMEOUT_S`."""
        # The environment's PATH counts for plugins, not for finding the program.
        command = [str(self.folder / "bin" / command[0]), *command[1:]]
        try:
            return subprocess.run(
                command,
                cwd=self.project,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            said = f"{' '.join(command)} took over {TIMEOUT_S} s:\n{error.stdout!r}"
            raise CommandFailed(said) from error

    def settings(self, config_file: str) -> dict[str, Any]:
        """Return the contents of an environment file."""
        read: dict[str, Any] = yaml.safe_load((self.project / config_file).read_text())
        return read

    def write(self, config_file: str, settings: Mapping[str, Any]) -> None:
        """Replace an environment file."""
        (self.project / config_file).write_text(yaml.safe_dump(dict(settings), sort_keys=False))

    def objects(self, path: str) -> list[dict[str, Any]]:
        """Return all objects of a collection of the API server, e.g. `/api/v1/services`."""
        with self.server.client() as client:
            items: list[dict[str, Any]] = client.get(path).raise_for_status().json()["items"]
        return items

    def _environment(self) -> dict[str, str]:
        for name in ("pulumi", "pulumi-language-yaml"):
            (self.folder / "bin" / name).symlink_to(require(name))
        for name, arguments in _PLUGINS.items():
            script = self.folder / "bin" / name
            script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -u {arguments} "$@"\n')
            script.chmod(0o755)
        return {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.defpath}",
            "HOME": str(self.folder / "home"),
            "PULUMI_HOME": str(self.folder / "home" / ".pulumi"),
            "PULUMI_BACKEND_URL": (self.folder / "backend").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DEBUG_COMMANDS": "true",  # knows the flag `--event-log`
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PYTHONPATH": str(ROOT),
            "PENSTOCK_ENGINE_CLOUD": str(self.cloud.folder),
            "PENSTOCK_ENGINE_API_SERVER": self.server.url,
            "PENSTOCK_ENGINE_TOKEN": self.server.token,
            "PENSTOCK_ENGINE_CA": str(self.server.ca),
        }


@dataclass(frozen=True)
class Stack:
    """One stack of a workspace."""

    workspace: Workspace
    name: str
    config_file: str

    def run(self, *arguments: str, fails: bool = False) -> Run:
        """Run one command and return what it did.

        Args:
            arguments: e.g. `"up"`, `"preview", "--refresh"`. Operations run without questions and without a preview
                before.
            fails: whether the command has to fail instead.

        Raises:
            CommandFailed: it failed, or did not although it should.
        """
        log = self.workspace.folder / "events.json"
        log.unlink(missing_ok=True)
        done = self.workspace.execute(self.command(*arguments, log=log))
        if bool(done.returncode) != fails:
            raise CommandFailed(f"pulumi {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}")
        return Run(done.returncode, done.stdout, *_changes(log))

    def command(self, *arguments: str, log: Path) -> list[str]:
        """Return the command line of the CLI for this stack; operations write their events to `log`."""
        command = ["pulumi", *arguments, "--non-interactive", "--color", "never"]
        if arguments[0] == "cancel":
            command.insert(2, self.name)
        elif arguments[0] != "stack" or arguments[1:2] == ("export",):
            command += ["--stack", self.name]
        if arguments[0] in ("up", "destroy", "refresh"):
            command += ["--yes", "--skip-preview"]
        if arguments[0] in ("up", "destroy", "refresh", "preview"):
            command += ["--event-log", str(log), "--suppress-progress"]
        if arguments[0] in ("up", "destroy", "refresh", "preview", "import"):
            command += ["--config-file", self.config_file]
        return command

    def state(self) -> dict[str, dict[str, Any]]:
        """Return the resources of the state by `type::name`."""
        exported = json.loads(self.run("stack", "export").output)
        resources = exported["deployment"].get("resources", [])
        return {_key(resource["urn"]): resource for resource in resources}

    def unprotect(self) -> None:
        """Let everything be deleted, as an operator has to before a `destroy`."""
        self.run("state", "unprotect", "--all", "--yes")

    def pending(self) -> list[str]:
        """Return `type::name` of what an update began and did not end."""
        exported = json.loads(self.run("stack", "export").output)
        operations = exported["deployment"].get("pending_operations") or []
        return [_key(operation["resource"]["urn"]) for operation in operations]

    def outputs(self) -> dict[str, Any]:
        """Return what the stack exports."""
        found: dict[str, Any] = next((r.get("outputs", {}) for k, r in self.state().items() if "pulumi:Stack" in k), {})
        return found


def _changes(log: Path) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    steps: dict[str, list[str]] = {}
    differences: dict[str, set[str]] = {}
    for event in _events(log):
        metadata = event.get("resourcePreEvent", {}).get("metadata")
        # The refreshed state of a resource is told by the event that ends the step.
        refreshed = event.get("resOutputsEvent", {}).get("metadata")
        if metadata is None and refreshed and refreshed["op"] not in ("refresh", "same") and event["refreshing"]:
            metadata = refreshed
        if metadata is None or metadata["op"] in ("same", "refresh", "read"):
            continue
        key = _key(metadata["urn"])
        steps.setdefault(key, []).append(metadata["op"])
        differences.setdefault(key, set()).update(metadata.get("detailedDiff") or ())
    return steps, differences


def _events(log: Path) -> Iterable[dict[str, Any]]:
    if not log.exists():
        return
    refreshing = False
    for line in log.read_text().splitlines():
        event = json.loads(line)
        pre = event.get("resourcePreEvent", {}).get("metadata", {})
        refreshing = pre.get("op") == "refresh" if pre else refreshing
        yield {**event, "refreshing": refreshing}


def _key(urn: str) -> str:
    _, _, qualified, name = urn.split("::", 3)
    return f"{qualified.rpartition('$')[2]}::{name}"
