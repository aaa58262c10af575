"""Reservations of one transaction share a row, which lasts as long as the last of them."""

import asyncio
import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.apimgmt.settings import SqliteStore as Settings
from services.apimgmt.store.api import Reservation, StoreError
from services.apimgmt.store.sqlite import SqliteStore
from services.apimgmt.store.sqlite.reservations import _ENTRY, entries_of
from tests.contract.apimgmt.store.support import NOW, charge, ledger, reservation, settlement


def rows(path: Path) -> list[tuple[str, list[str]]]:
    """Owner and requests of each row."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT owner, body FROM reservations ORDER BY number").fetchall()
    return [(owner, [entry[0] for entry in entries_of(body)]) for owner, body in found]


async def ids(store: SqliteStore) -> list[str]:
    return [record["id"] for record in await ledger(store)]


async def together(store: SqliteStore, *held: Reservation) -> None:
    """Reserve in one transaction."""
    assert all(grant.granted for grant in await asyncio.gather(*(store.reserve(one) for one in held)))


async def test_a_row_lasts_until_the_last_is_settled(store: SqliteStore, path: Path) -> None:
    held = [reservation(charge(ceiling=100)) for _ in range(3)]
    await together(store, *held)
    assert rows(path) == [("p1", [one.id for one in held])]
    for one in held[:2]:
        await store.settle(settlement(one, [1]))
        assert len(rows(path)) == 1
    await store.settle(settlement(held[2], [1]))
    assert rows(path) == []


async def test_owners_have_rows_of_their_own(store: SqliteStore, path: Path) -> None:
    one, two = reservation(charge(), owner="p1"), reservation(charge(), owner="p2")
    await together(store, one, two)
    assert rows(path) == [("p1", [one.id]), ("p2", [two.id])]
    await store.settle(settlement(one, [0]))
    assert rows(path) == [("p2", [two.id])]


async def test_what_is_settled_in_the_turn_of_its_reservation_leaves_no_row(store: SqliteStore, path: Path) -> None:
    held, kept = reservation(charge(ceiling=100)), reservation(charge(ceiling=100))
    await asyncio.gather(store.reserve(held), store.settle(settlement(held, [2])), store.reserve(kept))
    assert rows(path) == [("p1", [kept.id])]
    assert list(await store.totals([charge()])) == [3]
    assert await ids(store) == [held.id]


async def test_a_sweep_loses_only_what_is_open_in_a_row(store: SqliteStore, path: Path) -> None:
    await store.renew("p1", NOW + 1)
    held = [reservation(charge(amount=10, ceiling=100), lost=[3]) for _ in range(3)]
    await together(store, *held)
    await store.settle(settlement(held[1], [5]))
    assert await store.sweep(NOW + 2) == 2
    assert rows(path) == []
    assert list(await store.totals([charge()])) == [3 + 5 + 3]


async def test_who_settles_what_others_swept_counts_nothing_twice(store: SqliteStore, path: Path) -> None:
    """A process that stood still comes back: one request of its transaction was swept, another is new."""
    await store.renew("p1", NOW + 1)
    swept = [reservation(charge(amount=10, ceiling=100), lost=[3]) for _ in range(2)]
    await together(store, *swept)
    other = SqliteStore(Settings(kind="sqlite", path=str(path)))
    await other.open()
    try:
        assert await other.sweep(NOW + 2) == 2
        await store.renew("p1", NOW + 60)
        fresh, next_ = reservation(charge(amount=10, ceiling=100)), reservation(charge(amount=1, ceiling=100))
        await together(store, fresh)
        await asyncio.gather(
            *(store.settle(settlement(one, [7])) for one in (swept[0], fresh, swept[1])), store.reserve(next_)
        )
        assert list(await other.totals([charge()])) == [3 + 3 + 7 + 1]
        assert rows(path) == [("p1", [next_.id])]
        await store.settle(settlement(next_, [1]))
    finally:
        await other.close()
    assert sorted(await ids(store)) == sorted([*(one.id for one in swept), fresh.id, next_.id])


async def test_a_settled_id_cannot_be_reserved_beside_others_that_can(store: SqliteStore, path: Path) -> None:
    old, new = reservation(charge(ceiling=100)), reservation(charge(ceiling=100))
    await store.reserve(old)
    await store.settle(settlement(old, [1]))
    first, second = await asyncio.gather(store.reserve(old), store.reserve(new), return_exceptions=True)
    assert isinstance(first, StoreError)
    assert f"request {old.id} is there already" in str(first)
    assert not isinstance(second, BaseException)
    assert second.granted
    assert list(await store.totals([charge()])) == [2]
    assert rows(path) == [("p1", [new.id])]


async def test_a_transaction_that_fails_leaves_rows_as_they_were(store: SqliteStore, path: Path) -> None:
    held = [reservation(charge(ceiling=100)) for _ in range(2)]
    await together(store, *held)
    await store.settle(settlement(held[0], [1]))
    broken = replace(settlement("broken", outcome="ok"), id="\ud800")  # cannot be written
    done = await asyncio.gather(store.settle(settlement(held[1], [1])), store.settle(broken), return_exceptions=True)
    assert done[0] is None
    assert isinstance(done[1], StoreError)
    assert rows(path) == []
    assert list(await store.totals([charge()])) == [2]


@given(st.lists(st.tuples(st.text(max_size=40), st.binary(max_size=70), st.binary(max_size=70))))
def test_rows_are_read_back(entries: list[tuple[str, bytes, bytes]]) -> None:
    body = b""
    for id_, packed, record in entries:
        name = id_.encode("utf-8", "surrogatepass") if id_.isascii() else id_.encode("utf-8", "replace")
        body += _ENTRY.pack(len(name), len(packed), len(record)) + name + packed + record
    assert [entry[1:] for entry in entries_of(body)] == [entry[1:] for entry in entries]


@pytest.mark.parametrize("count", [1, 127])
async def test_a_restart_finds_what_was_left(tmp_path: Path, count: int) -> None:
    settings = Settings(kind="sqlite", path=str(tmp_path / "store.db"))
    first = SqliteStore(settings)
    await first.open()
    held = [reservation(charge(ceiling=10**6), lost=[2]) for _ in range(count)]
    await together(first, *held)
    await first.close()
    second = SqliteStore(settings)
    await second.open()
    try:
        assert await second.sweep(NOW + 100) == count
        assert list(await second.totals([charge()])) == [2 * count]
        assert sorted(await ids(second)) == sorted(one.id for one in held)
    finally:
        await second.close()
