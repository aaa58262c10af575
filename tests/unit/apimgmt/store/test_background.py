"""Many keys, long sweeps, the log's length: what must stay cheap when there is much of it."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from services.apimgmt.domain import KeyPurpose, Kind
from services.apimgmt.store.api import Change, UsageQuery
from services.apimgmt.store.sqlite import (
    SqliteStore,
    counters,
    documents,
    keys,
    reading,
    requests,
    reservations,
    schema,
)
from services.apimgmt.store.sqlite import store as store_
from tests.contract.apimgmt.store.support import NOW, charge, key, ledger, pace, reservation, settlement


def rows(path: Path, query: str) -> Any:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


async def test_no_query_of_keys_reads_more_than_it_returns(store: SqliteStore, path: Path) -> None:
    many = [key(n, app=f"app-{n % 500}", developer=f"d{n % 50}@x.io") for n in range(20_000)]
    await store.put_keys(many, [], new=True)
    queries: list[tuple[str, list[Any]]] = [(f"{keys.READ} WHERE id = ?", ["k"])]
    for app in (None, "app-1"):
        for developer in (None, "d1@x.io"):
            query, arguments = keys.query_of("acme", app, developer, None, "")
            queries.append((query, [*arguments, 10]))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for query, arguments in queries:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", arguments)]
            assert len(plan) == 1, plan
            assert plan[0].startswith("SEARCH keys USING"), plan
    assert [k.id for k in await store.keys("acme", app="app-7", limit=2)] == [key(7).id, key(507).id]
    assert await store.keys("acme", purpose=KeyPurpose.PERSONAL) == []
    assert await store.key(key(19_999).id) == many[-1]


def test_hot_statements_search_by_keys(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    schema.make_file(path)
    with contextlib.closing(schema.connect(path, "normal")) as connection:
        schema.migrate(connection, path)
        for query, count in [
            (counters.TOTAL, 2),
            (counters.NAMED, 1),
            (requests._ARRIVAL, 1),
            (requests._NUMBER, 9),
            (reservations._DELETE, 1),
            (requests._SETTLED, 1),
            ("SELECT DISTINCT key FROM changes WHERE revision > ?", 1),
            ("SELECT sequence FROM ledger WHERE sequence > ? AND record IS NOT NULL ORDER BY sequence LIMIT ?", 2),
        ]:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", [0] * count)]
            touched = [line for line in plan if line.startswith(("SCAN", "SEARCH"))]
            assert all(line.startswith(("SEARCH", "SCAN CONSTANT ROW")) for line in touched), plan


async def test_the_feed_forgets_what_is_long_ago(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_FEED", 20)
    start = await store.change([Change(Kind.TEAM, "a", "b", {})], [])
    await store.put_keys([key(n) for n in range(15)], [], new=True)
    feed = await store.feed(start)
    assert (len(feed.keys), feed.everything) == (15, False)
    middle = feed.revision
    await store.put_keys([key(n) for n in range(20, 30)], [], new=True)
    assert (await store.feed(start)).everything
    feed = await store.feed(middle)
    assert (len(feed.keys), feed.documents, feed.everything) == (10, False, False)
    await store.put_keys([key(n) for n in range(50, 80)], [], new=True)
    assert (await store.feed(feed.revision)).everything


async def test_a_long_sweep_goes_by_batches(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCH", 10)
    await store.renew("p1", NOW + 1)
    held = [reservation(charge(f"c{n}", expires=NOW + 60), pace(f"p{n}")) for n in range(45)]
    await asyncio.gather(*(store.reserve(one) for one in held))
    assert await store.sweep(NOW + 2) == 45
    assert rows(path, "SELECT count(*) FROM counters") == [(45,)]
    assert await store.sweep(NOW + 61) == 0
    for _ in range(6):
        await store.sweep(NOW + 61)
    assert rows(path, "SELECT (SELECT count(*) FROM counters), (SELECT count(*) FROM paces)") == [(0, 0)]
    assert rows(path, "SELECT count(*) FROM leases") == [(0,)]


async def test_a_lease_renewed_meanwhile_keeps_what_the_sweep_had_found(store: SqliteStore) -> None:
    await store.renew("p1", NOW + 1)
    await store.reserve(reservation(charge()))
    found = await store._writer.run(lambda c: reading.orphans(c, NOW + 2))
    assert len(found) == 1
    await store.renew("p1", NOW + 30)
    assert await store._lose(found, NOW + 2) == 0
    assert await store._lose(found, NOW + 31) == 1
    assert await store._lose(found, NOW + 31) == 0


async def test_pruning_goes_by_batches(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCH", 10)
    for n in range(64):
        await store.settle(settlement(f"s{n}", now=NOW + n))
    assert await store.prune(NOW + 37) == 37
    assert [r["id"] for r in await ledger(store)] == [f"s{n}" for n in range(37, 64)]


async def test_sums_stay_right_when_the_numbers_of_dimensions_are_forgotten(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_DIMENSIONS", 3)
    for n in range(20):
        await store.settle(settlement(f"s{n}", now=NOW, user=f"u{n % 7}", promptTokens=1))
    found = await store.usage(UsageQuery(None, NOW, NOW + 3600, "all", ("user",)))
    assert [r.sums["promptTokens"] for r in found] == [3] * 6 + [2]


async def test_the_log_begins_anew_when_it_is_long(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_, "MAX_LOG_PAGES", 20)
    log = path.with_name("store.db-wal")
    sizes = []
    for round_ in range(6):
        for n in range(40):
            await store.settle(settlement(f"s{round_}-{n}"))
        await store._checkpointer.run(store_._checkpoint)
        sizes.append(log.stat().st_size)
    assert sizes[-1] < 3 * sizes[0], sizes


async def test_a_reader_does_not_keep_writers_waiting_for_the_log(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_, "MAX_LOG_PAGES", 1)
    await store.settle(settlement("a"))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM ledger").fetchone()
        await store.settle(settlement("b"))
        await store._checkpointer.run(store_._checkpoint)
        await asyncio.wait_for(store.settle(settlement("c")), 2)  # type: ignore[arg-type]
        assert reader.execute("SELECT count(*) FROM ledger").fetchone() == (1,)
        reader.execute("COMMIT")
    assert len(await ledger(store)) == 3
