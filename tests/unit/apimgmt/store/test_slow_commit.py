"""`synchronous: full`: the disk is waited for in a thread, and the event loop goes on."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.apimgmt.settings import SqliteStore as Settings
from services.apimgmt.store.api import StoreError
from services.apimgmt.store.sqlite import SqliteStore
from tests.contract.apimgmt.store.support import charge, ledger, reservation, settlement
from tests.unit.apimgmt.store.conftest import store_at


class Gate:
    """Stands before each COMMIT of a store's requests, in the thread that makes it."""

    def __init__(self, store: SqliteStore) -> None:
        hot = store._hot
        self.execute = hot._execute
        self.threads: list[int] = []
        self.reached, self.open = threading.Event(), threading.Event()
        hot._execute = self  # type: ignore[assignment]

    def __call__(self, statement: str, *args: Any) -> Any:
        if statement == "COMMIT":
            self.threads.append(threading.get_ident())
            self.reached.set()
            assert self.open.wait(10)
        return self.execute(statement, *args)


@pytest.fixture
async def full(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(Settings(kind="sqlite", path=str(path), synchronous="full"))
    await store.open()
    yield store
    await store.close()


async def test_the_loop_goes_on_while_the_disk_is_waited_for(full: SqliteStore) -> None:
    gate = Gate(full)
    first = asyncio.ensure_future(full.reserve(reservation(charge())))
    assert await asyncio.to_thread(gate.reached.wait, 10)
    held = reservation(charge(amount=2))
    later = [asyncio.ensure_future(full.reserve(held)) for _ in range(3)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert not any(future.done() for future in (first, *later))
    assert len(gate.threads) == 1
    gate.open.set()
    assert [list(grant.totals) for grant in await asyncio.gather(first, *later)] == [[1], [3], [3], [3]]
    await full.settle(settlement(held, [0]))
    assert len(gate.threads) == 3, "what came meanwhile shared a transaction"
    assert threading.get_ident() not in gate.threads


async def test_closing_waits_for_the_disk_and_for_what_came_meanwhile(path: Path) -> None:
    store = SqliteStore(Settings(kind="sqlite", path=str(path), synchronous="full"))
    await store.open()
    gate = Gate(store)
    first = asyncio.ensure_future(store.settle(settlement("first")))
    assert await asyncio.to_thread(gate.reached.wait, 10)
    second = asyncio.ensure_future(store.settle(settlement("second")))
    closing = asyncio.create_task(store.close())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not closing.done()
    gate.open.set()
    await closing
    assert first.done()
    assert second.done()
    again = store_at(path)
    await again.open()
    assert [r["id"] for r in await ledger(again)] == ["first", "second"]
    await again.close()


async def test_a_commit_that_fails_fails_all_and_leaves_nothing(full: SqliteStore) -> None:
    kept = reservation(charge("kept"))
    await full.reserve(kept)
    connection = full._hot._connection
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    connection.execute("CREATE TABLE child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
    connection.execute("CREATE TRIGGER spoil AFTER INSERT ON ledger BEGIN INSERT INTO child VALUES (7); END")
    results = await asyncio.gather(
        full.settle(settlement(kept, [0])), full.reserve(reservation(charge())), return_exceptions=True
    )
    assert [type(r) for r in results] == [StoreError, StoreError]
    connection.execute("DROP TRIGGER spoil")
    assert list(await full.totals([charge("kept"), charge()])) == [1, 0]
    assert list((await full.reserve(reservation(charge()))).totals) == [1]
    await full.settle(settlement(kept, [0]))
    assert len(await ledger(full)) == 1
    assert list(await full.totals([charge("kept")])) == [0]
