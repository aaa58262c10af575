"""A connection with a thread of its own: what may take milliseconds happens there, and the event loop goes on."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

from services.apimgmt.store.api import StoreError
from services.apimgmt.store.sqlite.schema import BUSY_S, connect

T = TypeVar("T")


def unusable(path: Path, error: Exception) -> StoreError:
    """Return what is raised where SQLite fails; its messages name no values."""
    if "locked" in str(error):
        return StoreError(f"store {path}: another process held the lock for too long ({error}); try again")
    return StoreError(f"store {path}: {error}; look after the disk and the file")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Make one transaction of the block: all of it, or nothing if it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class Worker:
    """Runs functions of a connection one after the other, in its thread."""

    def __init__(
        self, path: Path, synchronous: Literal["normal", "full"], name: str, *, wait_s: float = BUSY_S
    ) -> None:
        """`wait_s`: how long it waits for a lock, seconds."""
        self._path = path
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"store-{name}")
        try:
            self._connection = connect(path, synchronous, wait_s=wait_s)
        except sqlite3.Error as error:
            self._executor.shutdown()
            raise unusable(path, error) from None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` returns. Raises StoreError where SQLite fails."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._do, work)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` as one transaction."""
        return await self.run(lambda connection: _within(connection, work))

    async def close(self) -> None:
        """Finish what was asked for, and close the connection."""
        await self.run(lambda connection: connection.close())
        self._executor.shutdown()

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._connection)
        except sqlite3.Error as error:
            raise unusable(self._path, error) from error


def _within(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    with transaction(connection):
        return work(connection)
