"""Updates that are cut off: what was begun is finished by the next one, or can be taken into the state."""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import deployments
from tests.support.engine.definitions import CRDS
from tests.support.engine.workspace import Stack

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not CRDS.is_dir(), reason="schemas of third parties are kept beside the repository, not in it"),
]

HELD = "gemma-3-12b-a-deployment"
KEY = f"kubernetes:apps/v1:Deployment::{HELD}"
COMPONENT = "penstock:index:ModelReplicaSet::gemma-3-12b-a"
OBJECT = "inference/gemma-3-12b-a"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with deployments.workspace(tmp_path) as workspace:
        (stack,) = deployments.stacks(workspace, "local")
        yield stack


def begin(stack: Stack, moment: str) -> "subprocess.Popen[bytes]":
    """Start an update and return when it is creating `HELD`, which goes on only when `release` lets it.

    One resource at a time, so that it is known what had been begun.
    """
    folder = stack.workspace.cloud.folder
    (folder / f"{HELD}.{moment}").touch()
    command = stack.command("up", "--parallel", "1", log=stack.workspace.folder / "interrupted.json")
    command[0] = str(stack.workspace.folder / "bin" / command[0])
    with (stack.workspace.folder / "interrupted.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=stack.workspace.project, env=stack.workspace.env, stdout=log, stderr=subprocess.STDOUT
        )
    reached, deadline = folder / f"{HELD}.{moment}.reached", time.monotonic() + 60
    while not reached.exists():
        assert process.poll() is None, (stack.workspace.folder / "interrupted.log").read_text()
        assert time.monotonic() < deadline, "the update never came to it"
        time.sleep(0.05)
    return process


def release(stack: Stack, moment: str) -> None:
    (stack.workspace.cloud.folder / f"{HELD}.{moment}").unlink()


def kill(stack: Stack, process: "subprocess.Popen[bytes]") -> None:
    """Kill the CLI, and wait until its plugins, which watch it, are gone too: nothing is created behind its back."""
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while plugins(stack):
        assert time.monotonic() < deadline, "plugins outlive their engine"
        time.sleep(0.05)


def plugins(stack: Stack) -> list[str]:
    """Return the plugins that run with the environment of this stack."""
    marker = f"PENSTOCK_ENGINE_CLOUD={stack.workspace.cloud.folder}".encode()
    running = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and marker in (folder / "environ").read_bytes().split(b"\0"):
                running.append(folder.name)
        except (OSError, PermissionError):
            continue
    return running


def settled(stack: Stack) -> None:
    """Assert that everything exists once, and that state and cluster agree."""
    # Until it is told otherwise, the engine keeps on warning of creations whose end it has not seen.
    stack.run("refresh", "--clear-pending-creates")
    assert not stack.pending()
    assert not stack.run("up").steps
    names = [item["metadata"]["name"] for item in stack.workspace.objects("/apis/apps/v1/deployments")]
    in_state = [key for key in stack.state() if key.startswith("kubernetes:apps/v1:Deployment::")]
    assert len(names) == len(set(names)) == len(in_state)


def test_an_update_that_is_killed_before_a_creation_is_completed_by_the_next(stack: Stack) -> None:
    process = begin(stack, "before")
    kill(stack, process)
    release(stack, "before")
    assert stack.pending() == [KEY]
    stack.run("cancel", "--yes")
    again = stack.run("up")
    assert "create" in again.counts()
    assert KEY in again.steps
    settled(stack)


def test_an_update_that_is_killed_after_a_creation_is_completed_once_the_object_is_imported(stack: Stack) -> None:
    process = begin(stack, "after")
    kill(stack, process)
    release(stack, "after")
    stack.run("cancel", "--yes")
    refused = stack.run("up", fails=True)
    assert "exists already" in refused.output

    component = next(row["urn"] for key, row in stack.state().items() if key == COMPONENT)
    kind, name = KEY.split("::")
    flags = ["--parent", f"parent={component}", "--protect=false", "--generate-code=false", "--yes", "--skip-preview"]
    stack.run("import", kind, name, OBJECT, *flags)
    stack.run("up")
    settled(stack)


def test_an_update_that_is_interrupted_ends_what_it_began_and_is_completed_by_the_next(stack: Stack) -> None:
    process = begin(stack, "before")
    process.send_signal(signal.SIGINT)
    release(stack, "before")
    assert process.wait(60) != 0
    assert not stack.pending()
    stack.run("up")
    settled(stack)
