"""CPU time of other processes, the steadiest figure on a shared machine."""

import os
import subprocess
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Return user plus system CPU seconds of `pid` and its living children.

    Linux reads `/proc` (resolution 10 ms); other systems ask `ps`. Raises ProcessLookupError for a process that ended.
    """
    return sum(_own_cpu_seconds(each) for each in [pid, *_children(pid)])


def _own_cpu_seconds(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat")
    if stat.exists():
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    out = subprocess.run(
        ["ps", "-o", "cputime=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    if not out:
        raise ProcessLookupError(pid)
    seconds = 0.0
    for part in out.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    if not path.exists():
        return []
    direct = [int(child) for child in path.read_text().split()]
    return [each for child in direct for each in (child, *_children(child))]
