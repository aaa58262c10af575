"""Several worker processes under one parent, each with an endpoint of its own.

A proxy keeps one HTTP/2 connection to an endpoint, so workers that share a port would not share its load.
"""

import logging
import os
import signal
import time
from collections.abc import Callable

logger = logging.getLogger("penstock.extproc")

POLL_S = 0.05
"""How often the parent looks after its workers while it waits for a signal, seconds."""


def run_workers(count: int, work: Callable[[int, int], int], kill_after_s: float) -> int:
    """Fork `count` workers that run `work(index, parent_pid)` and exit with what it returns.

    SIGTERM and SIGINT are passed on; a second signal ends workers and parent at once. If a worker ends unasked, the
    others are terminated and, after `kill_after_s` seconds, killed.

    Returns:
        0 if all workers ended well after a signal, else 1 (or the code 2 of a worker that could not start).
    """
    parent = os.getpid()
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    workers = {_fork(index, parent, work): index for index in range(count)}
    code, sent, deadline = 0, 0, float("inf")
    while workers:
        while sent < min(len(signals), 2):
            deadline = min(deadline, time.monotonic() + kill_after_s)
            _signal(workers, signal.SIGTERM if sent == 0 else signal.SIGKILL)
            code, sent = (code if sent == 0 else 1), sent + 1
        if time.monotonic() > deadline:
            _signal(workers, signal.SIGKILL)
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in workers:
            index, ended = workers.pop(pid), os.waitstatus_to_exitcode(status)
            if ended != 0 or not signals:
                logger.error("a worker ended", extra={"worker": index, "exit_code": ended})
                code = code or (2 if ended == 2 else 1)
                signals = signals or [signal.SIGTERM]
        elif pid == 0:
            time.sleep(POLL_S)
    return code


def _fork(index: int, parent: int, work: Callable[[int, int], int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        code = work(index, parent)
    finally:
        os._exit(code)


def _signal(workers: dict[int, int], number: int) -> None:
    for pid in workers:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
