"""Processes that run scripts (`worker.py`), and what keeps them honest: a deadline, after which one is killed."""

import asyncio
import logging
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import orjson

logger = logging.getLogger("penstock.apimgmt")

WORKER = Path(__file__).with_name("worker.py")

START_S = 10.0
"""How long a process may take to start."""

GRACE_S = 0.1
"""How much longer than its CPU limit a call may take before its process is killed: a machine may be busy, and some of
the engine's own functions (`new Array(1e9).join()`) do not look at the limit."""

MAX_FRAME = 4 * 1024 * 1024
"""Longest answer that is read, bytes."""


class ScriptError(Exception):
    """A script failed. The text says how, and quotes nothing of the request."""


class _Worker:
    """One process. Not shared: `Pool` hands it to one call at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        self.process, self._in, self._out = process, process.stdin, process.stdout

    async def ask(self, frame: bytes) -> bytes:
        self._in.write(struct.pack(">I", len(frame)) + frame)
        await self._in.drain()
        size = struct.unpack(">I", await self._out.readexactly(4))[0]
        if size > MAX_FRAME:
            raise ScriptError("the result is too large")
        return await self._out.readexactly(size)

    async def end(self) -> None:
        if self.process.returncode is None:
            try:
                self.process.kill()
            except ProcessLookupError:
                pass
        self._in.close()
        await self.process.wait()


class Pool:
    """Runs one script in up to `size` processes. Each call has one of them for itself."""

    def __init__(self, source: str, *, cpu_s: float, memory_bytes: int, size: int) -> None:
        self._first = orjson.dumps({"source": source, "memoryBytes": memory_bytes, "cpuSeconds": cpu_s})
        self._deadline_s = cpu_s + GRACE_S
        self._idle: list[_Worker] = []
        self._slots = asyncio.Semaphore(size)
        self._size, self._closed = size, False
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start all processes. Raises ScriptError for a script that cannot be used."""
        try:
            self._idle = list(await asyncio.gather(*(self._spawn() for _ in range(self._size))))
        except OSError as error:
            raise ScriptError(f"no process can be started: {error.strerror}") from None

    async def stop(self) -> None:
        """End all processes."""
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(worker.end() for worker in idle), *self._ending)

    async def call(self, argument: bytes) -> bytes:
        """Return the result (JSON) for `argument` (JSON). Raises ScriptError; never takes longer than the limit and
        `GRACE_S`, plus the start of a process where the last call ended with one killed."""
        async with self._slots:
            if self._closed:
                raise ScriptError("the service stops")
            async with _Lent(self) as worker, asyncio.timeout(self._deadline_s):
                frame = await worker.ask(argument)
        if frame[:1] == b"R":
            return frame[1:]
        raise ScriptError(frame[1:].decode("utf-8", "replace"))

    async def take(self) -> _Worker:
        """Return a process that waits for work."""
        while self._idle:
            worker = self._idle.pop()
            if worker.process.returncode is None:
                return worker
            await worker.end()
        return await self._spawn()

    def give(self, worker: _Worker) -> None:
        """Take one back that answered."""
        if self._closed:
            self.drop(worker)
        else:
            self._idle.append(worker)

    def drop(self, worker: _Worker) -> None:
        """Kill one that did not."""
        task = asyncio.get_running_loop().create_task(worker.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _spawn(self) -> _Worker:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", str(WORKER)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
        worker = _Worker(process)
        try:
            async with asyncio.timeout(START_S):
                frame = await worker.ask(self._first)
        except BaseException as error:
            await worker.end()
            if isinstance(error, TimeoutError | asyncio.IncompleteReadError | ConnectionError):
                raise ScriptError("its process does not start") from None
            raise
        if frame[:1] != b"R":
            await worker.end()
            raise ScriptError(frame[1:].decode("utf-8", "replace"))
        return worker


class _Lent:
    """A process for the time of one call."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._worker: _Worker | None = None

    async def __aenter__(self) -> _Worker:
        self._worker = await self._pool.take()
        return self._worker

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        worker = self._worker
        assert worker is not None  # noqa: S101 - entered before
        if error is None:
            self._pool.give(worker)
            return
        self._pool.drop(worker)  # in the middle of a call: what it writes next would answer another
        if isinstance(error, TimeoutError):
            raise ScriptError("it took too long") from None
        if isinstance(error, asyncio.IncompleteReadError | ConnectionError):
            raise ScriptError("its process ended") from None
