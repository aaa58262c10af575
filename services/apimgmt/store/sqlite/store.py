"""`Store` on SQLite: which connection does what."""

import asyncio
import functools
import itertools
import logging
import sqlite3
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path

from services.apimgmt import settings as settings_
from services.apimgmt.domain import KeyPurpose, KeyRecord, Kind
from services.apimgmt.store.api import (
    AuditEntry,
    Change,
    Charge,
    Document,
    Feed,
    Grant,
    Reservation,
    Settlement,
    Store,
    StoreError,
    UsageQuery,
    UsageRow,
)
from services.apimgmt.store.sqlite import documents, keys, reading, schema
from services.apimgmt.store.sqlite.hot import Hot
from services.apimgmt.store.sqlite.worker import Worker, unusable

CHECKPOINT_S = 1.0
"""How often the log is copied into the database, seconds."""

MAX_LOG_PAGES = 4096
"""Pages (4 KiB) from which on writers are held up for a moment, so that the log can begin anew."""

CHECKPOINT_WAIT_S = 0.02
"""How long that may take at most if somebody is reading: writers wait meanwhile, seconds. It is tried again."""

FORGET_S = 3600
"""How often `sweep` takes their numbers from counters without slots, seconds: all have to look them up again then."""

logger = logging.getLogger("penstock.store")


class SqliteStore(Store):
    """See the package's text."""

    _hot: Hot
    _writer: Worker
    _reader: Worker
    _finder: Worker
    _checkpointer: Worker
    _checkpoints: asyncio.Task[None]

    def __init__(self, settings: settings_.SqliteStore) -> None:
        self._path = Path(settings.path)
        self._synchronous = settings.synchronous
        self._rest = ""
        """The pace up to which `sweep` has come."""
        self._forgot = 0
        """When `sweep` looked for counters without slots."""

    async def open(self) -> None:
        """Make or migrate the file, and open the connections."""
        connection = await asyncio.to_thread(self._prepare)
        self._hot = Hot(self._path, connection, slow_commit=self._synchronous == "full")
        self._writer = Worker(self._path, self._synchronous, "writer")
        self._reader = Worker(self._path, self._synchronous, "reader")
        self._finder = Worker(self._path, self._synchronous, "keys")
        self._checkpointer = Worker(self._path, self._synchronous, "checkpoint", wait_s=CHECKPOINT_WAIT_S)
        self._checkpoints = asyncio.create_task(self._keep_log_short())

    async def close(self) -> None:
        """Finish everything that was asked for."""
        await self._hot.close()
        self._checkpoints.cancel()
        await asyncio.gather(self._checkpoints, return_exceptions=True)
        for worker in (self._finder, self._reader, self._writer, self._checkpointer):
            await worker.close()

    # documents

    async def snapshot(self) -> tuple[int, Sequence[Document]]:
        return await self._reader.run(documents.snapshot)

    async def get(self, kind: Kind, organization: str, name: str) -> Document | None:
        return await self._reader.run(lambda c: documents.get(c, kind, organization, name))

    async def page(self, kind: Kind, organization: str | None, after: str, limit: int) -> Sequence[Document]:
        return await self._reader.run(lambda c: documents.page(c, kind, organization, after, limit))

    async def change(self, changes: Sequence[Change], audit: Sequence[AuditEntry]) -> int:
        return await self._writer.write(lambda c: documents.change(c, changes, audit))

    async def feed(self, since: int) -> Feed:
        return await self._finder.run(lambda c: documents.feed(c, since))

    async def audit(self, organization: str | None, before: int, limit: int) -> Sequence[AuditEntry]:
        return await self._reader.run(lambda c: documents.read_audit(c, organization, before, limit))

    # keys

    async def key(self, key_id: str) -> KeyRecord | None:
        return await self._finder.run(lambda c: keys.get(c, key_id))

    async def put_keys(self, records: Sequence[KeyRecord], audit: Sequence[AuditEntry], *, new: bool) -> int:
        return await self._writer.write(lambda c: keys.put(c, records, audit, new))

    async def keys(
        self,
        organization: str,
        *,
        app: str | None = None,
        developer: str | None = None,
        purpose: KeyPurpose | None = None,
        after: str = "",
        limit: int = 100,
    ) -> Sequence[KeyRecord]:
        return await self._reader.run(lambda c: keys.find(c, organization, app, developer, purpose, after, limit))

    async def touch(self, used: Mapping[str, int]) -> None:
        rest = iter(list(used.items()))
        while batch := list(itertools.islice(rest, reading.BATCH)):
            await self._touch(batch)

    async def _touch(self, batch: Sequence[tuple[str, int]]) -> None:
        await self._writer.write(lambda c: keys.touch(c, batch))

    # requests

    def reserve(self, reservation: Reservation) -> Awaitable[Grant]:
        return self._hot.reserve(reservation)

    def settle(self, settlement: Settlement) -> Awaitable[None]:
        return self._hot.settle(settlement)

    async def renew(self, owner: str, until: int) -> None:
        await self._writer.write(lambda c: reading.renew(c, owner, until))

    async def sweep(self, now: int) -> int:
        orphans = await self._writer.run(lambda c: reading.orphans(c, now))
        lost = 0
        for start in range(0, len(orphans), reading.ORPHANED):
            lost += await self._lose(orphans[start : start + reading.ORPHANED], now)
        while await self._writer.write(lambda c: reading.expire(c, now)) == reading.BATCH:
            pass
        self._rest = await self._writer.write(lambda c: reading.expire_paces(c, now, self._rest))
        if now - self._forgot >= FORGET_S:
            self._forgot = now
            await self._forget()
        return lost

    async def _forget(self) -> None:
        after: int | None = 0
        while after is not None:
            after = await self._writer.write(functools.partial(reading.forget, after=after))

    async def _lose(self, rows: Sequence[int], now: int) -> int:
        return await self._writer.write(lambda c: reading.lose(c, rows, now))

    # reading

    async def totals(self, charges: Sequence[Charge]) -> Sequence[int]:
        return await self._finder.run(lambda c: reading.totals(c, charges))

    async def ledger(self, after: str, limit: int, until: str | None = None) -> tuple[str, Sequence[bytes]]:
        return await self._reader.run(lambda c: reading.ledger(c, after, limit, until))

    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        return await self._reader.run(lambda c: reading.usage(c, query))

    async def prune(self, before: int, until: str | None = None) -> int:
        pruned, after, last = 0, 0, reading.sequence_of(until)
        while True:
            count, position = await self._prune(before, after, last)
            pruned += count
            if position is None:
                return pruned
            after = position

    async def _prune(self, before: int, after: int, until: int) -> tuple[int, int | None]:
        return await self._writer.write(lambda c: reading.prune(c, before, after, until))

    async def note(self, name: str) -> tuple[int, bytes]:
        return await self._reader.run(lambda c: reading.note(c, name))

    async def put_note(self, name: str, value: bytes, expected: int) -> int:
        return await self._writer.write(lambda c: reading.put_note(c, name, value, expected))

    # the file

    def _prepare(self) -> sqlite3.Connection:
        """Migrate the file; return the connection for requests."""
        schema.make_file(self._path)
        try:
            connection = schema.connect(self._path, self._synchronous)
            try:
                schema.migrate(connection, self._path)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise unusable(self._path, error) from error
        return connection

    async def _keep_log_short(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_S)
            try:
                await self._checkpointer.run(_checkpoint)
            except StoreError as error:
                logger.warning("the log of the store could not be copied", extra={"error": str(error)})


def _checkpoint(connection: sqlite3.Connection) -> None:
    """Copy the log while others write; if they leave it no end, hold them up for the last piece."""
    _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if pages > MAX_LOG_PAGES:
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
