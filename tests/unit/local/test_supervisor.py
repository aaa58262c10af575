"""The supervisor over tiny processes: readiness, restarts, and that nothing is left running."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.local.process import identity
from cli.local.state import StateDir, wait_for
from tests.support.local_fake import processes_with

START_S = 20.0
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def state_dir(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "fake")


@pytest.fixture
def start(state_dir: StateDir) -> Iterator[Start]:
    """Start `tests.support.local_fake` with pieces; everything is ended after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*pieces: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.support.local_fake", str(state_dir.path), *pieces]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
    state_dir.end_survivors()


def pieces(state_dir: StateDir) -> dict[str, dict[str, Any]]:
    state = state_dir.read() or {"pieces": []}
    return {piece["name"]: piece for piece in state["pieces"]}


def phase(state_dir: StateDir) -> str | None:
    return (state_dir.read() or {}).get("phase")


def test_ready_crash_restart_and_stop(start: Start, state_dir: StateDir) -> None:
    process = start("envoy", "one", "two")
    assert wait_for(lambda: phase(state_dir) == "ready", START_S)
    before = pieces(state_dir)
    assert {name: piece["state"] for name, piece in before.items()} == {
        "envoy": "ready",
        "one": "ready",
        "two": "ready",
    }

    os.kill(before["one"]["pid"], signal.SIGKILL)
    assert wait_for(
        lambda: (pieces(state_dir)["one"]["restarts"], pieces(state_dir)["one"]["state"]) == (1, "ready"), START_S
    )
    after = pieces(state_dir)
    assert after["one"]["address"] == before["one"]["address"]
    assert after["two"]["pid"] == before["two"]["pid"]

    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=START_S)
    assert process.returncode == 0
    assert "crashed   one: was ended by SIGKILL" in output
    assert processes_with(str(state_dir.path)) == []
    assert state_dir.read() is None
    assert "listening" in (state_dir.logs / "one.log").read_text()


def test_a_held_piece_stays_down_until_released(start: Start, state_dir: StateDir) -> None:
    start("envoy", "one")
    assert wait_for(lambda: phase(state_dir) == "ready", START_S)
    hold = state_dir.path / "hold" / "one"
    hold.parent.mkdir()
    hold.touch()
    os.kill(pieces(state_dir)["one"]["pid"], signal.SIGKILL)
    assert wait_for(lambda: pieces(state_dir)["one"]["state"] == "crashed", START_S)
    assert not wait_for(lambda: pieces(state_dir)["one"]["state"] != "crashed", 1.0)
    hold.unlink()
    assert wait_for(lambda: pieces(state_dir)["one"]["state"] == "ready", START_S)


def test_a_piece_that_never_gets_ready_fails_the_start_with_its_log(start: Start, state_dir: StateDir) -> None:
    process = start("envoy", "bad=crash")
    output, _ = process.communicate(timeout=START_S)
    assert process.returncode == 1
    assert "bad did not start: it ended with exit status 3 3 times before it was ready" in output
    assert "no way" in output
    assert processes_with(str(state_dir.path)) == []


def test_a_deaf_piece_and_its_child_are_killed(start: Start, state_dir: StateDir) -> None:
    process = start("envoy", "deaf=deaf")
    assert wait_for(lambda: phase(state_dir) == "ready", START_S)
    assert len(processes_with(str(state_dir.path))) == 4  # supervisor, envoy, the deaf one and its child
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=START_S)
    assert processes_with(str(state_dir.path)) == []


def test_killing_the_supervisor_leaves_nothing_and_its_state_is_cleaned(start: Start, state_dir: StateDir) -> None:
    process = start("envoy", "one", "deaf=deaf")
    assert wait_for(lambda: phase(state_dir) == "ready", START_S)
    process.kill()
    process.wait()
    if sys.platform == "linux":  # the kernel ends the pieces, not yet what they have started
        assert wait_for(lambda: not any("well" in line for line in processes_with(str(state_dir.path))), 5)
    assert not state_dir.running()
    state_dir.end_survivors()
    assert wait_for(lambda: processes_with(str(state_dir.path)) == [], 5)
    assert state_dir.read() is None


def test_a_second_supervisor_is_refused(start: Start, state_dir: StateDir) -> None:
    start("envoy")
    assert wait_for(lambda: phase(state_dir) == "ready", START_S)
    second = start("envoy")
    second.communicate(timeout=START_S)
    assert second.returncode == 1
    assert phase(state_dir) == "ready"


def test_survivors_are_recognized_by_their_start_time(state_dir: StateDir) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as process:
        state_dir.path.mkdir(parents=True)
        state_dir.write({"pieces": [{"name": "other", "pid": process.pid, "identity": "another process's"}]})
        assert state_dir.end_survivors() == []
        assert process.poll() is None
        state_dir.write({"pieces": [{"name": "ours", "pid": process.pid, "identity": identity(process.pid)}]})
        assert state_dir.end_survivors() == ["ours"]
        assert process.wait(5) == -signal.SIGKILL
