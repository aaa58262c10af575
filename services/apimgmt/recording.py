"""Recordings: what passed, kept for `penstock policy replay`. Sampled, bounded, written by a thread of its own.

A recording is a file of JSON lines, readable by its owner only, and a former one beside it (`<path>.1`) that is dropped
when the file has grown to half of `maxBytes`. Each file begins with a header. Bodies and request headers are there only
if the settings say so; credentials never are. What cannot be written in time is dropped and counted: requests never
wait for a recording.
"""

import fcntl
import logging
import os
import queue
import random
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import REGISTRY, CollectorRegistry
from pydantic import ConfigDict, Field, ValidationError

from services.apimgmt.call import Call
from services.apimgmt.conditions import facts
from services.apimgmt.settings import Recording
from services.extproc.api import Outcome
from services.extproc.config import ConfigModel
from services.extproc.meters import Meter

VERSION = 1
MAX_WAITING = 1000
"""Requests that wait for the thread; with bodies each may be as large as a body may be."""

MODE = 0o600

logger = logging.getLogger("penstock.apimgmt")


class Found(ConfigModel):
    """What a policy found (a line of the ledger record's `verdicts`)."""

    policy: str
    verdict: str
    code: str = ""
    shadow: bool = False


class Header(ConfigModel):
    """First line of a file."""

    recording: int
    sample_ratio: float
    bodies: bool


class Recorded(ConfigModel):
    """One request. Names as in the ledger record; times in Unix seconds."""

    model_config = ConfigDict(extra="ignore")

    id: str
    time: float
    organization: str
    team: str = ""
    user: str = ""
    app: str
    key: str = ""
    product: str = ""
    agent: str = ""
    credential: str = "api_key"
    operation: str
    method: str = "POST"
    model: str
    """As the client asked for it, after the body router: a model or an adapter."""
    base: str = ""
    """The adapter's base model."""
    stream: bool = False
    expected_prompt_tokens: int = Field(default=0, ge=0)
    """What was reserved for the prompt."""
    max_output: int = Field(default=0, ge=0)
    prompt_tokens: int = Field(default=0, ge=0)
    """Used."""
    cached_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    reasoning_tokens: int = Field(default=0, ge=0)
    status: int = 0
    outcome: str
    latency_ms: int = Field(default=0, ge=0)
    verdicts: list[Found] = Field(default_factory=list)
    headers: dict[str, str] | None = None
    body: dict[str, Any] | None = None


class RecordingError(Exception):
    """A recording cannot be read. The text says which line, what was expected and the fix."""


class Recorder:
    """Observes requests (`pipeline.Observer`). `start` before, `stop` after."""

    def __init__(self, settings: Recording, registry: CollectorRegistry = REGISTRY) -> None:
        """`registry`: where `penstock_apimgmt_recorded_total{result}` goes."""
        self._settings = settings
        self._waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._file = _File(settings)
        self.meter = Meter("penstock_apimgmt_recorded", "Requests of the recording", ["result"], registry)

    def start(self) -> None:
        """Open the file, and begin to write. Raises OSError."""
        self._file.open()
        self._thread = threading.Thread(target=self._write, name="recording", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._file.close()

    def observe(self, call: Call, record: Mapping[str, Any], outcome: Outcome) -> None:
        """Keep a request, or not. Called on the event loop."""
        if random.random() >= self._settings.sample_ratio:
            return
        if self._waiting.qsize() >= MAX_WAITING:
            self.meter.counts[("dropped",)] += 1
            return
        self.meter.counts[("kept",)] += 1
        self._waiting.put(_entry(call, record, bodies=self._settings.bodies))

    def _write(self) -> None:
        entries: list[dict[str, Any]] = []
        while True:
            entry = self._waiting.get()
            ended = entry is None
            if entry is not None:
                entries.append(entry)
                if not self._waiting.empty() and len(entries) < 100:
                    continue
            try:
                self._file.append([orjson.dumps(found) for found in entries])
            except (OSError, TypeError) as error:
                logger.error("requests could not be recorded", extra={"error": type(error).__name__})
            entries.clear()
            if ended:
                return


class _File:
    """The file, which any number of processes may append to."""

    def __init__(self, settings: Recording) -> None:
        self._path, self._limit = Path(settings.path), settings.max_bytes // 2
        header = Header(recording=VERSION, sample_ratio=settings.sample_ratio, bodies=settings.bodies)
        self._header = orjson.dumps(header.model_dump(by_alias=True)) + b"\n"
        self._descriptor = -1

    def open(self) -> None:
        """Open or make the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, MODE)
        os.fchmod(self._descriptor, MODE)

    def close(self) -> None:
        os.close(self._descriptor)

    def append(self, lines: list[bytes]) -> None:
        """Write lines; begin a new file where one is full."""
        for line in lines:
            data = line + b"\n"
            if len(data) + len(self._header) > self._limit:
                continue  # would not fit into any file
            self._lock()
            if os.fstat(self._descriptor).st_size + len(data) > self._limit:
                os.replace(self._path, self._path.with_name(self._path.name + ".1"))
                self._reopen()
            if os.fstat(self._descriptor).st_size == 0:
                data = self._header + data
            _write_all(self._descriptor, data)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _lock(self) -> None:
        """Lock the file that is at the path now: another process may have begun a new one."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        while not self._current():
            self._reopen()

    def _reopen(self) -> None:
        os.close(self._descriptor)
        self.open()
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def _current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _entry(call: Call, record: Mapping[str, Any], *, bodies: bool) -> dict[str, Any]:
    entry = {
        **record,
        "time": call.now,
        "model": call.model,
        "base": record["model"] if record.get("adapter") else "",
        "expectedPromptTokens": call.prompt_tokens,
        "maxOutput": call.max_output,
        "method": call.exchange.request_headers.get(":method"),
    }
    if bodies:
        entry["headers"] = facts(call, body=False)["request"]["headers"]
        body = dict(call.body)
        if call.strip_usage:  # asked for by us
            body.pop("stream_options", None)
        entry["body"] = body
    return entry


def read(path: Path) -> tuple[Header, Iterator[Recorded]]:
    """Return the header of a recording and its requests, the former file's first. Raises RecordingError.

    Reading the requests raises RecordingError, too; a last line that was cut off is passed over.
    """
    files = [file for file in (path.with_name(path.name + ".1"), path) if file.exists()]
    if not files:
        raise RecordingError(f"{path}: does not exist; name the `path` of the config's `recording`")
    headers = [_header(file) for file in files]
    return headers[-1], (recorded for file in files for recorded in _requests(file))


def _header(path: Path) -> Header:
    try:
        with path.open("rb") as file:
            header = Header.model_validate(orjson.loads(file.readline()))
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror}; check the path and its permissions") from None
    except (ValueError, ValidationError):
        raise RecordingError(f"{path}: line 1: expected the header of a recording; name another file") from None
    if header.recording != VERSION:
        raise RecordingError(f"{path}: line 1: recording of version {header.recording}; this command reads {VERSION}")
    return header


def _requests(path: Path) -> Iterator[Recorded]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1 or not line.strip():
                continue
            try:
                yield Recorded.model_validate(orjson.loads(line))
            except (ValueError, ValidationError) as error:
                if not line.endswith(b"\n"):
                    return
                where = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else "JSON"
                text = f"{path}: line {number}: expected a request, {where or 'it'} does not fit"
                raise RecordingError(f"{text}; take the line out") from None
