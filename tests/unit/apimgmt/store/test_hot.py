"""Grouped transactions: one per turn, whole or not at all, and never in the way of the event loop."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.apimgmt.store.api import Grant, StoreError
from services.apimgmt.store.sqlite import SqliteStore, hot
from tests.contract.apimgmt.store.support import NOW, charge, ledger, pace, reservation, settlement
from tests.unit.apimgmt.store.conftest import store_at


@contextlib.contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Hold the write lock, as another process would."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def statements(store: SqliteStore) -> list[str]:
    seen: list[str] = []
    store._hot._connection.set_trace_callback(seen.append)
    return seen


async def test_calls_of_one_turn_share_a_transaction(store: SqliteStore) -> None:
    seen = statements(store)
    held = [reservation(charge(ceiling=100)) for _ in range(20)]
    await asyncio.gather(*(store.reserve(one) for one in held))
    await asyncio.gather(*(store.settle(settlement(one, [1])) for one in held))
    assert (seen.count("BEGIN IMMEDIATE"), seen.count("COMMIT")) == (2, 2)


async def test_a_long_queue_is_done_in_several_transactions(store: SqliteStore) -> None:
    seen = statements(store)
    held = [reservation(charge(ceiling=10**6)) for _ in range(2 * hot.MAX_BATCH + 1)]
    grants = await asyncio.gather(*(store.reserve(one) for one in held))
    assert [g.totals[0] for g in grants] == list(range(1, len(held) + 1))
    assert seen.count("COMMIT") == 3


async def test_a_request_takes_few_statements(store: SqliteStore) -> None:
    charges = [charge(f"c{n}", slots=60 if n else 1) for n in range(5)]
    warm = reservation(*charges, pace())
    await store.reserve(warm)
    await store.settle(settlement(warm, [0] * 5))
    seen = statements(store)
    held = reservation(*charges)
    await store.reserve(held)
    assert [text.split(" ")[0] for text in seen] == ["BEGIN", "PRAGMA", "SELECT", *["INSERT"] * 6, "COMMIT"], seen
    seen.clear()
    await store.settle(settlement(held, [1, 0, 0, 0, 0]))
    assert [text.split(" ")[0] for text in seen] == [
        "BEGIN", "PRAGMA", "INSERT", "DELETE", *["INSERT"] * 5, "COMMIT",
    ], seen  # fmt: skip


async def test_requests_of_one_transaction_write_what_they_share_once(store: SqliteStore) -> None:
    held = [reservation(charge("all", 3, 10**6), charge(f"own{n}")) for n in range(10)]
    await store.renew("p1", NOW + 60)
    await store.reserve(reservation(charge("all", 1, 10**6)))
    seen = statements(store)
    grants = await asyncio.gather(*(store.reserve(one) for one in held))
    assert [g.totals[0] for g in grants] == [4 + 3 * n for n in range(10)]
    assert len([text for text in seen if text.startswith("INSERT INTO counters")]) == 11
    seen.clear()
    await asyncio.gather(*(store.settle(settlement(one, [1, 1])) for one in held))
    assert len([text for text in seen if text.startswith(("INSERT INTO counters", "INSERT INTO rollups"))]) == 2


async def test_while_another_process_writes_the_loop_goes_on(store: SqliteStore, path: Path) -> None:
    with locked(path) as other:
        waiting = [store.reserve(reservation(charge())) for _ in range(3)]
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not any(future.done() for future in waiting)  # type: ignore[attr-defined]
        other.execute("ROLLBACK")
        assert [list((await one).totals) for one in waiting] == [[1], [2], [3]]


async def test_a_lock_that_is_never_given_back_is_waited_for_only_so_long(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "BUSY_S", 0.05)
    with locked(path):
        results = await asyncio.gather(
            *(store.reserve(reservation(charge())) for _ in range(3)),
            store.settle(settlement("x")),
            return_exceptions=True,
        )
        assert [type(r) for r in results] == [StoreError] * 4
        assert "another process held the lock" in str(results[0])
    assert list(await store.totals([charge()])) == [0]
    assert (await store.reserve(reservation(charge()))).granted


async def test_a_full_disk_fails_all_and_leaves_nothing_half_done(store: SqliteStore) -> None:
    kept = reservation(charge("kept"))
    await store.reserve(kept)
    connection = store._hot._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    large = [reservation(charge()) for _ in range(30)]
    for one in large:
        one.record = b"x" * 4096
    results = await asyncio.gather(
        store.settle(settlement(kept, [0])), *(store.reserve(one) for one in large), return_exceptions=True
    )
    assert {type(r) for r in results} == {StoreError}
    assert "full" in str(results[0])
    connection.execute("PRAGMA max_page_count = 1000000")
    assert list(await store.totals([charge("kept"), charge()])) == [1, 0]
    assert await ledger(store) == []
    await store.settle(settlement(kept, [0]))
    assert list(await store.totals([charge("kept")])) == [0]


async def test_a_call_that_cannot_be_written_fails_alone(store: SqliteStore) -> None:
    bad = settlement("bad")
    bad.usage = {"model": "\ud800"}
    results = await asyncio.gather(
        store.settle(settlement("one")), store.settle(bad), store.settle(settlement("two")), return_exceptions=True
    )
    assert results[0] is results[2] is None
    assert isinstance(results[1], StoreError)
    assert [r["id"] for r in await ledger(store)] == ["one", "two"]


async def test_an_id_that_is_taken_fails_alone(store: SqliteStore) -> None:
    results = await asyncio.gather(
        *(store.reserve(reservation(charge(amount=n), id_="same")) for n in (1, 2)),
        store.reserve(reservation(charge())),
        return_exceptions=True,
    )
    assert [type(r) for r in results] == [Grant, StoreError, Grant]
    assert list(await store.totals([charge()])) == [2]


@pytest.mark.parametrize("slot", [-1, 2**32])
async def test_slots_are_checked_before_anything_else(store: SqliteStore, slot: int) -> None:
    with pytest.raises(StoreError, match="expected one from 0 to 2"):
        await store.reserve(reservation(charge(slot=slot)))


async def test_what_another_connection_wrote_is_read_again(store: SqliteStore, path: Path) -> None:
    """Sums and numbers of counters are remembered, as long as nobody else writes."""
    short = charge(expires=NOW + 60)
    await store.reserve(reservation(short, charge("kept", expires=NOW + 7200)))
    seen = statements(store)
    assert list((await store.reserve(reservation(short))).totals) == [2]
    assert not [text for text in seen if text.startswith("SELECT sum")]
    await store.sweep(NOW + 3600)  # the slot expires, and its counter has no number any more
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM names").fetchone() == (1,)
    grant = await store.reserve(reservation(charge(amount=2, expires=NOW + 7200), charge("kept")))
    assert list(grant.totals) == [2, 2]
    other_store = store_at(path)
    await other_store.open()
    assert list((await other_store.reserve(reservation(charge(), charge("kept")))).totals) == [3, 3]
    await other_store.close()
    assert list((await store.reserve(reservation(charge(), charge("kept")))).totals) == [4, 4]


@pytest.mark.parametrize(("amount", "lost"), [(2**53, 0), (-1, 0), (1, 2**53), (1, -1)])
async def test_amounts_are_checked_before_anything_else(store: SqliteStore, amount: int, lost: int) -> None:
    with pytest.raises(StoreError, match="expected amounts from 0"):
        await store.reserve(reservation(charge(amount=amount), lost=[lost]))


async def test_amounts_are_as_many_as_charges(store: SqliteStore) -> None:
    held = reservation(charge())
    with pytest.raises(StoreError, match="used has 0 amounts for 1 charges"):
        await store.settle(settlement(held, []))


async def test_who_leaves_before_the_turn_holds_nothing(store: SqliteStore) -> None:
    async def ask() -> Any:
        return await store.reserve(reservation(charge()))

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)  # the reservation waits for the end of this turn
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held = reservation(charge())
    assert list((await store.reserve(held)).totals) == [1]
    future = store.settle(settlement(held, [1]))
    future.cancel()  # type: ignore[attr-defined]
    assert [r["id"] for r in await _until(store, 1)] == [held.id]


async def _until(store: SqliteStore, count: int) -> list[dict[str, Any]]:
    for _ in range(500):
        if len(found := await ledger(store)) >= count:
            return found
    raise AssertionError("the record does not come")


async def test_closing_does_what_is_pending(path: Path) -> None:
    store = store_at(path)
    await store.open()
    pending = [store.settle(settlement(f"s{n}")) for n in range(3 * hot.MAX_BATCH)]
    await store.close()
    assert all(future.done() for future in pending)  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match="closed"):
        await store.settle(settlement("late"))
    again = store_at(path)
    await again.open()
    assert len(await ledger(again)) == 3 * hot.MAX_BATCH
    await again.close()
