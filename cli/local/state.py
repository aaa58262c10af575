"""The state folder of one local environment: what runs, its files and logs.

`<base>/<environment>/` holds `state.json` (replaced atomically), `envoy.json`, `mounts/`, `logs/`, `hold/` and `lock`.
The supervisor holds a lock on `lock` for as long as it lives, so a state without it is stale, whatever it says.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from cli.errors import UsageError
from cli.local.process import identity, signal_group
from cli.local.secrets import write_private

BASE_VARIABLE = "PENSTOCK_STATE_DIR"
_ENVIRONMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class StateDir:
    """The folder of one environment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.envoy_config = path / "envoy.json"
        self.access_log = self.logs / "access.log"
        self.supervisor_log = path / "supervisor.log"
        self._state = path / "state.json"
        self._lock: IO[str] | None = None

    @classmethod
    def of(cls, environment: str, root: Path, environ: Mapping[str, str]) -> "StateDir":
        """Return the folder of `environment`: below $PENSTOCK_STATE_DIR, else below `.penstock` of the project."""
        if not _ENVIRONMENT.fullmatch(environment):
            raise UsageError(f"--env: {environment!r} is not an environment's name (letters, digits, . _ -)")
        base = environ.get(BASE_VARIABLE)
        return cls((Path(base).resolve() if base else root / ".penstock") / environment)

    def acquire(self) -> bool:
        """Take the lock for the life of this process; False when another process has it."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = (self.path / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return False
        self._lock = lock
        return True

    def running(self) -> bool:
        """Tell whether a supervisor holds the lock."""
        if not (self.path / "lock").exists():
            return False
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def read(self) -> dict[str, Any] | None:
        """Return the last state written, None where there is none."""
        try:
            state: dict[str, Any] = json.loads(self._state.read_text())
        except FileNotFoundError:
            return None
        return state

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the state atomically."""
        write_private(self._state, json.dumps(state, indent=1))

    def held(self, piece: str) -> bool:
        """Tell whether `piece` must stay down: a file of its name in `hold/` suspends restarts (for tests)."""
        return (self.path / "hold" / piece).exists()

    def prepare(self) -> None:
        """Make the folders for a new start and drop the last run's logs."""
        self.clear()
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)

    def clear(self) -> None:
        """Remove everything but the logs, which tell what happened."""
        for folder in ("mounts", "hold"):
            shutil.rmtree(self.path / folder, ignore_errors=True)
        for file in (self._state, self.envoy_config):
            file.unlink(missing_ok=True)

    def end_survivors(self) -> list[str]:
        """Kill what a dead supervisor left running and clear its state; return the names of what was killed.

        Only for a state without a supervisor. A process is taken for ours only if it started when ours did; a group
        without its leader is ours, since its number is not given out anew while a member lives.
        """
        state = self.read()
        killed = []
        for piece in (state or {}).get("pieces", []):
            pid = piece.get("pid")
            if pid and identity(pid) in (piece.get("identity"), None) and signal_group(pid, signal.SIGKILL):
                killed.append(str(piece["name"]))
        if state is not None:
            self.clear()
        return killed


def wait_for(condition: Any, seconds: float, poll_s: float = 0.05) -> bool:
    """Poll `condition()` until it is true or `seconds` are over; return its last value."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(poll_s)
    return True


def tail(path: Path, lines: int = 15) -> str:
    """Return the last `lines` of a text file, empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
