"""What requests ask of the store in one turn of the event loop shares one transaction (group commit)."""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from services.apimgmt.store.api import Charge, Grant, Reservation, Settlement, StoreError
from services.apimgmt.store.sqlite.counters import SLOT_BITS
from services.apimgmt.store.sqlite.requests import Requests, Swept
from services.apimgmt.store.sqlite.schema import BUSY_S
from services.apimgmt.store.sqlite.worker import unusable

MAX_BATCH = 128
"""Most calls in one transaction: others wait for the lock meanwhile, and so does the event loop."""

RETRY_S = 0.001
"""Until the lock is asked for again while another process has it, seconds. The event loop goes on."""

MAX_AMOUNT_BITS = 53
"""Amounts below 2**53 (as `Limit.amount`): sums of them stay whole numbers of 64 bits."""

_BUSY = 5
"""SQLITE_BUSY: the low byte of SQLite's result codes for locks."""

Call = Reservation | Settlement
Pending = tuple[Call, "asyncio.Future[Any]"]


class Hot:
    """Collects calls, and runs them on the event loop's own connection."""

    def __init__(self, path: Path, connection: sqlite3.Connection, *, slow_commit: bool = False) -> None:
        """From now on `connection` does not wait for locks by itself: the event loop would stand still.

        `slow_commit`: transactions end in a thread, since the disk is waited for. What comes meanwhile is the next one.
        """
        connection.execute("PRAGMA busy_timeout = 0")
        self._path = path
        self._connection = connection
        self._execute = connection.cursor().execute
        self._requests = Requests(connection)
        self._loop = asyncio.get_running_loop()
        self._pending: list[Pending] = []
        self._busy_since: float | None = None
        self._closed = False
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="store-commit") if slow_commit else None
        self._commit: asyncio.Future[Any] | None = None
        """The commit that is going on in the thread: until it is done nobody else uses the connection."""

    def reserve(self, reservation: Reservation) -> "asyncio.Future[Grant]":
        """See `Store.reserve`. One that is cancelled before its turn holds nothing."""
        return self._add(reservation, _problem(reservation.charges, reservation.lost, "lost"))

    def settle(self, settlement: Settlement) -> "asyncio.Future[None]":
        """See `Store.settle`. Cancelling the future does not keep it from happening."""
        return self._add(settlement, _problem(settlement.charges, settlement.used, "used"))

    async def close(self) -> None:
        """Do what is pending, and let go."""
        self._closed = True
        while self._pending or self._commit is not None:
            if self._commit is not None:
                await asyncio.wait([self._commit])
            await asyncio.gather(*(future for _, future in self._pending), return_exceptions=True)
        if self._committer is not None:
            self._committer.shutdown()
        self._connection.close()

    def _add(self, call: Call, problem: str) -> "asyncio.Future[Any]":
        future = self._loop.create_future()
        if problem or self._closed:
            future.set_exception(StoreError(problem or f"store {self._path}: it is closed"))
            return future
        if not self._pending and self._commit is None:
            self._loop.call_soon(self._flush)
        self._pending.append((call, future))
        return future

    def _flush(self) -> None:
        """Run one batch, and come again if there is more."""
        if self._commit is not None or not self._pending:
            return
        batch = self._pending[:MAX_BATCH]
        try:
            self._execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            self._not_begun(error)
            return
        self._busy_since = None
        del self._pending[:MAX_BATCH]
        if self._pending:
            self._loop.call_soon(self._flush)
        self._run(batch)

    def _not_begun(self, error: sqlite3.Error) -> None:
        now = time.monotonic()
        busy = error.sqlite_errorcode & 0xFF == _BUSY
        if busy and self._busy_since is None:
            self._busy_since = now
        if busy and self._busy_since is not None and now - self._busy_since < BUSY_S:
            self._loop.call_later(RETRY_S, self._flush)
            return
        batch, self._pending, self._busy_since = self._pending, [], None
        _answer(batch, [unusable(self._path, error)] * len(batch))

    def _run(self, batch: Sequence[Pending], *, alone: bool = False, careful: bool = False) -> None:
        """Do a batch in the transaction that was begun. `alone`: one call, which is to be done when this returns."""
        try:
            self._requests.begin(careful=careful)
            results: list[Any] = [self._one(call, future) for call, future in batch]
            self._requests.write()
            if self._committer is not None and not alone:
                self._commit = self._loop.run_in_executor(self._committer, self._execute, "COMMIT")
                self._commit.add_done_callback(lambda done: self._committed(batch, results, done))
                return
            self._execute("COMMIT")
            self._requests.committed()
        except Swept:
            self._again(batch, alone)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, all of the batch must hear of it
            self._undo()
            if len(batch) > 1 and not isinstance(error, sqlite3.OperationalError):
                self._one_by_one(batch)
                return
            results = [_failure(self._path, error)] * len(batch)
        _answer(batch, results)

    def _again(self, batch: Sequence[Pending], alone: bool) -> None:
        """Another process settled some of this one's reservations meanwhile: look at each before it is settled."""
        self._undo()
        try:
            self._execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            _answer(batch, [unusable(self._path, error)] * len(batch))
        else:
            self._run(batch, alone=alone, careful=True)

    def _committed(self, batch: Sequence[Pending], results: list[Any], commit: "asyncio.Future[Any]") -> None:
        self._commit = None
        if error := commit.exception():
            self._undo()
            results = [_failure(self._path, error)] * len(batch)
        else:
            self._requests.committed()
        _answer(batch, results)
        self._flush()

    def _one_by_one(self, batch: Sequence[Pending]) -> None:
        """A call that cannot be done (not the database's fault) must not fail its neighbours."""
        self._execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}")
        for pending in batch:
            try:
                self._execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                _answer([pending], [unusable(self._path, error)])
            else:
                self._run([pending], alone=True)
        self._execute("PRAGMA busy_timeout = 0")

    def _one(self, call: Call, future: "asyncio.Future[Any]") -> Grant | StoreError | None:
        """Return the answer; a StoreError is one that left nothing."""
        if isinstance(call, Settlement):
            self._requests.settle(call)
            return None
        if future.cancelled():
            return None
        try:
            return self._requests.reserve(call)
        except StoreError as error:
            return error

    def _undo(self) -> None:
        self._requests.rolled_back()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _problem(charges: Sequence[Charge], amounts: Sequence[int], name: str) -> str:
    """Return what is wrong with amounts, before others are bothered with it; empty if nothing is."""
    if len(amounts) != len(charges):
        return f"{name} has {len(amounts)} amounts for {len(charges)} charges; expected one for each"
    for charge, amount in zip(charges, amounts, strict=True):
        if charge.amount >> MAX_AMOUNT_BITS or amount >> MAX_AMOUNT_BITS:
            return f"counter {charge.counter}: expected amounts from 0 to 2**{MAX_AMOUNT_BITS} - 1"
        if charge.slot >> SLOT_BITS:
            return f"counter {charge.counter}: slot {charge.slot}: expected one from 0 to 2**{SLOT_BITS} - 1"
    return ""


def _failure(path: Path, error: BaseException) -> StoreError:
    if isinstance(error, sqlite3.Error):
        return unusable(path, error)
    return StoreError(
        f"store {path}: a value cannot be written ({type(error).__name__}); expected text and whole numbers"
    )


def _answer(batch: Sequence[Pending], results: Sequence[Any]) -> None:
    for (_, future), result in zip(batch, results, strict=True):
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
