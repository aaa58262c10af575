"""Operating system processes: starting them so that they die with us, recognizing and ending them."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
"""Source: Linux, prctl(2)."""


async def start(command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> asyncio.subprocess.Process:
    """Start `command` as the leader of a process group of its own, its output appended to `log`.

    The group keeps a terminal's Ctrl-C from reaching it before the supervisor does, and is what `kill_group` ends.
    On Linux the kernel kills the process when the supervisor dies; elsewhere the next `penstock local` ends it.
    """
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *command,
            env=dict(env),
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid()),
        )


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died between fork and prctl
            os._exit(1)

    return tie


def identity(pid: int) -> str | None:
    """Return what tells `pid` from a later process with the same number; None when there is no such process."""
    try:
        # The command name, in parentheses, may hold spaces: count fields from its end. Field 22 is the start time,
        # field 3 the state (proc_pid_stat(5)).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip() or None


def signal_group(pid: int, number: signal.Signals) -> bool:
    """Send a signal to the process group of `pid`; False if it is gone or not ours."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
