"""Free ports on the loopback address that stay ours between being chosen and being bound.

Ports come in blocks below the ephemeral range, so that no outgoing connection takes one by chance. A lock file per
block keeps two `penstock local` of one user apart; binding each port once keeps everybody else apart.
"""

import fcntl
import os
import socket
import tempfile
from pathlib import Path
from typing import IO

from cli.local.model import LOOPBACK, PlanError

FIRST, LAST, BLOCK = 20000, 31999, 100
"""Linux hands out ephemeral ports from 32768, macOS and Windows from 49152 (net.ipv4.ip_local_port_range, IANA)."""


class PortAllocator:
    """Hands out free ports, each once. Keep it alive as long as the ports are in use; `close` releases the blocks."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"penstock-ports-{os.getuid()}"
        self._locks: list[IO[str]] = []
        self._next = self._end = 0
        self._next_block = FIRST

    def take(self, span: int = 1) -> int:
        """Return the first of `span` consecutive free ports. Raises `PlanError` when there are none."""
        if not 1 <= span <= BLOCK:
            raise PlanError([f"{span} consecutive ports are wanted; at most {BLOCK} are possible"])
        while True:
            while self._next + span <= self._end:
                first = self._next
                self._next += 1
                if all(is_free(port) for port in range(first, first + span)):
                    self._next = first + span
                    return first
            self._claim_block()

    def close(self) -> None:
        """Release every block."""
        for lock in self._locks:
            lock.close()
        self._locks.clear()

    def _claim_block(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if self._folder.is_symlink() or self._folder.stat().st_uid != os.getuid():
            raise PlanError([f"{self._folder} belongs to another user; remove it, or set TMPDIR"])
        while self._next_block + BLOCK - 1 <= LAST:
            first, self._next_block = self._next_block, self._next_block + BLOCK
            lock = (self._folder / str(first)).open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            self._locks.append(lock)
            self._next, self._end = first, first + BLOCK
            return
        raise PlanError([f"no free ports between {FIRST} and {LAST}: stop what listens there"])


def is_free(port: int) -> bool:
    """Tell whether `port` can be bound on the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
