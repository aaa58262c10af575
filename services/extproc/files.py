"""Telling that mounted files changed, without reading them.

Kubelets publish a changed ConfigMap or Secret by swapping the symbolic link `..data`: all files of a mount change at
once and under new inodes. One `stat` of each file sees that; inotify would need care for each layout of links. Source:
Kubernetes, "Mounted ConfigMaps are updated automatically"; a kubelet takes up to its sync period, a minute, to do so.
"""

import os
from collections.abc import Sequence
from pathlib import Path

POLL_S = 1.0
"""How often files are looked at, seconds."""

Stamp = tuple[tuple[int, int, int, int] | None, ...]


def file_stamp(files: Sequence[Path]) -> Stamp:
    """Return what changes when one of `files` is replaced or written to; None stands for one that is not there."""
    return tuple([_one(path) for path in files])


def _one(path: Path) -> tuple[int, int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns
