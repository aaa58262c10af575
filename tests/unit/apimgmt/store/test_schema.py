"""The file: its rights, its migrations, and what is refused."""

import asyncio
import contextlib
import sqlite3
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.apimgmt.domain import Kind
from services.apimgmt.settings import SqliteStore as Settings
from services.apimgmt.store.api import Change, StoreError
from services.apimgmt.store.sqlite import SqliteStore, schema
from tests.contract.apimgmt.store.support import charge, reservation, settlement
from tests.unit.apimgmt.store.conftest import store_at

SECOND: schema.Step = (
    "ALTER TABLE documents ADD COLUMN note TEXT NOT NULL DEFAULT 'none'",
    "CREATE INDEX documents_by_note ON documents (note)",
)


def version(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(path: Path, steps: Sequence[schema.Step]) -> None:
    schema.make_file(path)
    with contextlib.closing(schema.connect(path, "normal")) as connection:
        schema.migrate(connection, path, steps)


async def test_nobody_else_can_read_the_file(store: SqliteStore, path: Path) -> None:
    await store.reserve(reservation(charge()))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_database_of_version_1_is_brought_up_to_date(path: Path) -> None:
    store = store_at(path)
    await store.open()
    await store.change([Change(Kind.PRODUCT, "", "gold", {"name": "gold"})], [])
    await store.close()
    assert version(path) == 1
    migrate(path, (*schema.STEPS, SECOND))
    assert version(path) == 2
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, note FROM documents").fetchall()
    assert rows == [("gold", "none")]


def test_a_step_that_fails_leaves_the_version_before(path: Path) -> None:
    broken = ("CREATE TABLE half (x)", "CREATE TABLE half (x)")
    with pytest.raises(sqlite3.Error):
        migrate(path, (*schema.STEPS, SECOND, broken))
    assert version(path) == 2
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)
    migrate(path, (*schema.STEPS, SECOND, ("CREATE TABLE half (x)",)))
    assert version(path) == 3


def test_many_that_migrate_at_once_do_each_step_once(path: Path) -> None:
    problems: list[Exception] = []
    barrier = threading.Barrier(6)

    def run() -> None:
        try:
            barrier.wait()
            migrate(path, (*schema.STEPS, SECOND))
        except Exception as error:  # noqa: BLE001 - whatever it is
            problems.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert version(path) == 2


async def test_processes_that_come_and_go_do_not_disturb_each_other(path: Path) -> None:
    """Who closes a file looks whether it is the last, and locks the file for that moment."""

    async def come_and_go() -> None:
        for _ in range(25):
            store = store_at(path)
            await store.open()
            await store.settle(settlement("one"))
            await store.close()

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, come_and_go()) for _ in range(4)))


async def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    migrate(path, (*schema.STEPS, SECOND))
    with pytest.raises(StoreError, match="version 2, this release knows up to 1; run the release that wrote it"):
        await store_at(path).open()
    assert version(path) == 2


async def test_another_programs_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StoreError, match="another program's database; name a new file"):
        await store_at(path).open()


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("not a database, " * 100)
    with pytest.raises(StoreError, match="not a database"):
        asyncio.run(store_at(path).open())
    assert path.read_text().startswith("not a database")


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"expected a file that can be read and written .*`store.path`"):
        await store_at(tmp_path / "file" / "store.db").open()


async def test_full_synchronous_is_passed_on(path: Path) -> None:
    store = SqliteStore(Settings(kind="sqlite", path=str(path), synchronous="full"))
    await store.open()
    assert (await store.reserve(reservation(charge()))).granted
    await store.close()
    with contextlib.closing(schema.connect(path, "full")) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
