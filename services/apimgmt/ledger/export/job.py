"""The job that exports: reads what is new in the ledger, writes an object, notes how far it came.

What the next object holds and how it is called is noted before it is written, so that a process that dies in between
leaves a plan that any other carries out to the same bytes. A lease in the note keeps several processes from doing the
same work at the same time; that nothing is exported twice or missed does not depend on it.
"""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from services.apimgmt.ledger.export import encode, parquet
from services.apimgmt.ledger.export.metrics import ExportMetrics
from services.apimgmt.ledger.export.state import NOTE, Plan, State, load
from services.apimgmt.ledger.export.target import PUT_S, ExportError, Target
from services.apimgmt.settings import ExportTarget
from services.apimgmt.store.api import Conflict, Store, StoreError

PAGE = 250
"""Records that are read in one go."""

SLICE, SLICE_PAUSE_S = 25, 0.001
"""Records that are prepared in one go, some tenths of a millisecond of work, and the pause after them: requests of the
process wait no longer. (A thread would make them wait for Python's lock at each step.)"""

MAX_BYTES = 64 * 1024 * 1024
"""An object ends with the page that brings its records to this size, however many records it may have: one PUT."""

LEASE_S = 2 * PUT_S + 30.0
"""How long others leave a plan to the process that made it (two objects, if some records do not fit), seconds."""

LOOK_S = 5.0
"""Longest time between two looks while another process writes, seconds."""

BACKOFF_S = (1.0, 300.0)
"""First and longest pause after failures; each is twice the one before."""

logger = logging.getLogger("penstock.apimgmt")


@dataclass(frozen=True, slots=True)
class _Batch:
    until: str
    records: Sequence[bytes]
    last: bool
    """Nothing was left behind it."""


class Export:
    """One per process. Any number of processes may run it on one store."""

    def __init__(
        self,
        store: Store,
        settings: ExportTarget,
        metrics: ExportMetrics,
        *,
        clock: Callable[[], float] = time.time,
        lease_s: float = LEASE_S,
    ) -> None:
        """`settings` without `problems`."""
        self._store, self._settings, self._metrics = store, settings, metrics
        self._clock, self._lease_s = clock, lease_s
        self._owner = secrets.token_hex(8)
        self._target: Target | None = None

    async def run(self) -> None:
        """Export until cancelled. Failures are logged, and tried again after a pause."""
        failures = 0
        while True:
            try:
                wait = await self.step()
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it is, later records must not wait for ever
                failures += 1
                wait = min(BACKOFF_S[0] * 2 ** min(failures - 1, 16), BACKOFF_S[1]) * random.uniform(0.5, 1.0)
                self._failed(error, wait)
            await asyncio.sleep(wait)

    def _failed(self, error: Exception, wait: float) -> None:
        known = isinstance(error, StoreError | ExportError)
        reason = "store" if isinstance(error, StoreError) else "target" if known else "other"
        self._metrics.failures.counts[(reason,)] += 1
        text = str(error) if known else type(error).__name__
        logger.warning("the ledger could not be exported", extra={"error": text, "again_in_s": round(wait, 1)})

    async def step(self) -> float:
        """Write one object, if it is time and there is something. Return when to come again, in seconds.

        Raises StoreError, ExportError.
        """
        version, state = await load(self._store)
        now, interval = self._clock(), self._settings.interval_seconds
        self._metrics.complete = max(self._metrics.complete, state.complete)
        # a time further ahead than anybody would set it comes from a clock that is wrong
        if state.owner not in ("", self._owner) and now < state.lease <= now + self._lease_s:
            return min(state.lease - now, LOOK_S)
        if state.plan is None and now < state.due <= now + interval:
            return state.due - now
        if state.plan is None:
            batch = await self._read(state.cursor)
            if not batch.records:
                self._metrics.complete = now
                return interval
            state = state.planned(batch.until, len(batch.records), self._settings.format, now)
        else:
            batch = await self._read_again(state.cursor, state.plan)
        state = replace(state, owner=self._owner, lease=self._clock() + self._lease_s)
        try:
            version = await self._store.put_note(NOTE, state.dump(), version)
            done = await self._write(state, batch, now, version)
        except Conflict:
            return min(LOOK_S, interval)  # another process was faster
        return interval if done.due > now else 0.0

    async def _write(self, state: State, batch: _Batch, now: float, version: int) -> State:
        """Carry out the plan. Raises Conflict if another process did so meanwhile."""
        plan = state.plan
        assert plan is not None  # noqa: S101 - `step` made it
        suffix = plan.name.rpartition(".")[2]
        lines, unfit = await self._prepare(batch.records, suffix)
        size = 0
        if lines:
            size += await self._put(plan.name, await self._finish(lines, suffix))
        if unfit:
            size += await self._put(f"unfit/{plan.name.rpartition('.')[0]}.jsonl", encode.join(unfit))
        due, complete = (now + self._settings.interval_seconds, now) if batch.last else (0.0, state.complete)
        state = state.advanced(due, complete)
        await self._store.put_note(NOTE, state.dump(), version)
        self._metrics.complete = max(self._metrics.complete, complete)
        self._metrics.wrote(plan.records, len(unfit), size, bool(lines) + bool(unfit))
        logger.info("ledger exported", extra={"object": plan.name, "records": plan.records, "bytes": size})
        if unfit:
            logger.error("ledger records do not fit the schema", extra={"object": plan.name, "records": len(unfit)})
        return state

    async def _put(self, name: str, data: bytes | bytearray) -> int:
        if self._target is None:
            self._target = Target(self._settings)
        await self._target.put(name, data)
        return len(data)

    async def _prepare(self, records: Sequence[bytes], suffix: str) -> tuple[list[bytes], list[bytes]]:
        """Return lines of what fits, and what does not. Sorted as text records are in the order of their ids."""
        lines, unfit, ordered = list[bytes](), list[bytes](), sorted(records)
        for at in range(0, len(ordered), SLICE):
            part = encode.prepare(ordered[at : at + SLICE], suffix)
            lines += part.lines
            unfit += part.unfit
            await asyncio.sleep(SLICE_PAUSE_S)
        return lines, unfit

    async def _finish(self, lines: Sequence[bytes], suffix: str) -> bytes | bytearray:
        if suffix != "parquet":
            out, at = bytearray(sum(map(len, lines)) + len(lines)), 0
            for first in range(0, len(lines), PAGE):  # all at once would hold up requests
                text = encode.join(lines[first : first + PAGE])
                out[at : at + len(text)] = text
                at += len(text)
                await asyncio.sleep(0)
            return out
        try:
            return await parquet.convert(lines)
        except (parquet.ParquetError, OSError) as error:
            raise ExportError(str(error)) from None

    async def _read(self, cursor: str) -> _Batch:
        """Read what the next object will hold."""
        records, size, most = list[bytes](), 0, self._settings.max_records
        while len(records) < most and size < MAX_BYTES:
            cursor, page = await self._store.ledger(cursor, min(PAGE, most - len(records)))
            if not page:
                return _Batch(cursor, records, last=True)
            records += page
            size += sum(map(len, page))
        return _Batch(cursor, records, last=False)

    async def _read_again(self, cursor: str, plan: Plan) -> _Batch:
        """Read what a plan says."""
        records = list[bytes]()
        while True:
            cursor, page = await self._store.ledger(cursor, PAGE, plan.until)
            if not page:
                break
            records += page
        if len(records) != plan.records:
            # Dropped while there was no export. An object that was written meanwhile has them, and stays as it is.
            extra = {"object": plan.name, "records": plan.records, "left": len(records)}
            logger.error("records were dropped from the ledger before they were exported", extra=extra)
        return _Batch(plan.until, records, last=False)


async def exported(store: Store) -> str:
    """Return the cursor up to which the ledger was exported. Raises StoreError."""
    _, state = await load(store)
    return state.cursor
