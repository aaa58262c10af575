"""Reading the ledger: cursors, sums, pruning."""

import asyncio
import json

import pytest

from services.apimgmt.store.api import DIMENSIONS, SUMS, Settlement, Store, StoreError, UsageQuery, UsageRow
from tests.contract.apimgmt.store.conftest import Opener
from tests.contract.apimgmt.store.support import NOW, charge, encode, ledger, record, reservation, settlement

DAY = 86_400
MIDNIGHT = NOW // DAY * DAY


async def write(store: Store, count: int, first: int = 0, now: int = NOW, **fields: object) -> None:
    await asyncio.gather(
        *(store.settle(settlement(f"l{n:04d}", now=now, **fields)) for n in range(first, first + count))
    )


def rows(found: object) -> list[tuple[int, dict[str, str], int, int]]:
    assert isinstance(found, list | tuple)
    shown = []
    for row in found:
        assert isinstance(row, UsageRow)
        shown.append((row.start, dict(row.group), row.sums["requests"], row.sums["promptTokens"]))
    return sorted(shown, key=lambda r: (r[0], sorted(r[1].items())))


async def test_a_cursor_finds_every_record_once_in_order(store: Store) -> None:
    await write(store, 25)
    after, seen = "", []
    while True:
        following, records = await store.ledger(after, 10)
        if not records:
            break
        assert len(records) <= 10
        seen += [json.loads(r)["id"] for r in records]
        after = following
    assert sorted(seen) == [f"l{n:04d}" for n in range(25)]
    assert (await store.ledger(after, 10))[1] in ([], ())
    await write(store, 3, first=100)
    after, records = await store.ledger(after, 10)
    assert sorted(json.loads(r)["id"] for r in records) == ["l0100", "l0101", "l0102"]


async def test_a_reader_misses_nothing_that_is_written_meanwhile(store: Store, another: Opener) -> None:
    writers = [store, await another()]
    reader = await another()
    done = asyncio.Event()

    async def writing() -> None:
        for n in range(0, 200, 10):
            await asyncio.gather(write(writers[0], 5, first=n), write(writers[1], 5, first=n + 5))
        done.set()

    async def reading() -> list[str]:
        after, seen = "", list[str]()
        while True:
            last = done.is_set()
            after, records = await reader.ledger(after, 7)
            seen += [json.loads(r)["id"] for r in records]
            if last and not records:
                return seen

    _, seen = await asyncio.gather(writing(), reading())
    assert sorted(seen) == [f"l{n:04d}" for n in range(200)]


async def test_pruning_drops_old_records_and_keeps_their_sums(store: Store) -> None:
    await write(store, 10, now=NOW, promptTokens=5)
    after, _ = await store.ledger("", 4)
    await write(store, 4, first=10, now=NOW + 10 * DAY, promptTokens=5)
    assert await store.prune(NOW) == 0
    assert await store.prune(NOW + DAY) == 10
    assert await store.prune(NOW + DAY) == 0
    assert [r["id"] for r in await ledger(store)] == [f"l{n:04d}" for n in range(10, 14)]
    assert len((await store.ledger(after, 100))[1]) == 4
    found = await store.usage(UsageQuery("acme", NOW - DAY, NOW + 30 * DAY, "all"))
    assert rows(found) == [(0, {}, 14, 70)]


async def test_what_lies_between_two_cursors_never_changes(store: Store) -> None:
    await write(store, 6, organization="zen")
    await write(store, 5, first=10)
    start, _ = await store.ledger("", 4)
    end, records = await store.ledger(start, 100)
    await write(store, 3, first=20)  # with the times of those that are there
    await write(store, 3, first=30, organization="mid")
    at, again = start, list[bytes]()
    while True:
        at, part = await store.ledger(at, 2, end)
        if not part:
            break
        again += part
    assert sorted(again) == sorted(records)
    assert len(again) == 7
    assert (await store.ledger("", 100, ""))[1] in ([], ())


async def test_pruning_stops_at_a_cursor(store: Store) -> None:
    await write(store, 6, organization="zen")
    await write(store, 5, first=10)
    end, records = await store.ledger("", 4)
    assert await store.prune(NOW + DAY, "") == 0
    assert await store.prune(NOW - DAY, end) == 0
    assert await store.prune(NOW + DAY, end) == 4
    assert await store.prune(NOW + DAY, end) == 0
    kept = {json.dumps(one) for one in await ledger(store)}
    assert len(kept) == 7
    assert not kept & {json.dumps(json.loads(one)) for one in records}


async def test_cursors_go_on_after_everything_was_pruned(store: Store) -> None:
    await write(store, 5, now=NOW)
    after, records = await store.ledger("", 100)
    assert len(records) == 5
    assert await store.prune(NOW + DAY) == 5
    assert await store.prune(NOW + DAY) == 0
    assert await ledger(store) == []
    await write(store, 2, first=50, now=NOW + DAY)
    _, records = await store.ledger(after, 100)
    assert sorted(json.loads(r)["id"] for r in records) == ["l0050", "l0051"]


async def test_all_sums_are_kept(store: Store) -> None:
    values = {name: 7 * 10**n for n, name in enumerate(SUMS[1:-1])}
    await store.settle(settlement("a", **values, estimated=True))
    await store.settle(settlement("b", **values))
    (row,) = await store.usage(UsageQuery("acme", NOW, NOW + 3600, "all", DIMENSIONS))
    assert dict(row.sums) == {"requests": 2, "estimated": 1, **{name: 2 * v for name, v in values.items()}}
    assert dict(row.group) == {
        "organization": "acme",
        "team": "red",
        "user": "ada",
        "app": "chat",
        "key": "k1",
        "product": "gold",
        "model": "llama",
        "agent": "",
        "outcome": "ok",
    }


async def test_missing_fields_count_as_empty(store: Store) -> None:
    short = {"organization": "acme", "agent": None, "costMicros": None, "latencyMs": 2}
    for n, body in enumerate([short, record("m1", agent=None, costMicros=None)]):
        await store.settle(Settlement(f"m{n}", "acme", NOW, (), (), encode(body), body))
    found = await store.usage(UsageQuery(None, NOW, NOW + 3600, "all", ("agent",)))
    assert [(dict(r.group), r.sums["requests"], r.sums["costMicros"]) for r in found] == [({"agent": ""}, 2, 0)]


async def test_sums_by_time(store: Store) -> None:
    times = [MIDNIGHT, MIDNIGHT + 3599, MIDNIGHT + 3600, MIDNIGHT + DAY - 1, MIDNIGHT + DAY, MIDNIGHT + 20 * DAY]
    for n, time in enumerate(times):
        await write(store, 1, first=n, now=time, promptTokens=10**n)

    async def sums(bucket: str, until: int = MIDNIGHT + 40 * DAY) -> list[tuple[int, int]]:
        found = rows(await store.usage(UsageQuery("acme", MIDNIGHT, until, bucket)))
        return [(start, tokens) for start, _, _, tokens in found]

    hour = MIDNIGHT + 23 * 3600
    assert await sums("hour", MIDNIGHT + DAY) == [(MIDNIGHT, 11), (MIDNIGHT + 3600, 100), (hour, 1000)]
    assert await sums("day") == [(MIDNIGHT, 1111), (MIDNIGHT + DAY, 10_000), (MIDNIGHT + 20 * DAY, 100_000)]
    january, february = 1_798_761_600, 1_801_440_000
    assert await sums("month") == [(january, 11_111), (february, 100_000)]
    assert await sums("all", MIDNIGHT + 3600) == [(0, 11)]


async def test_sums_by_dimension(store: Store) -> None:
    await write(store, 3, first=0, promptTokens=1, user="ada", model="llama")
    await write(store, 2, first=10, promptTokens=10, user="ada", model="gemma")
    await write(store, 4, first=20, promptTokens=100, user="bob", model="gemma", outcome="refused")
    await write(store, 1, first=30, promptTokens=1000, organization="zen", user="ada")

    async def ask(organization: str | None = "acme", group: tuple[str, ...] = (), **where: str) -> object:
        query = UsageQuery(organization, NOW, NOW + 3600, "all", group, where)
        return [row[1:] for row in rows(await store.usage(query))]

    assert await ask() == [({}, 9, 423)]
    assert await ask(None) == [({}, 10, 1423)]
    assert await ask(None, ("organization",)) == [
        ({"organization": "acme"}, 9, 423),
        ({"organization": "zen"}, 1, 1000),
    ]
    assert await ask("acme", ("user",)) == [({"user": "ada"}, 5, 23), ({"user": "bob"}, 4, 400)]
    assert await ask("acme", ("user", "model"), outcome="ok") == [
        ({"user": "ada", "model": "gemma"}, 2, 20),
        ({"user": "ada", "model": "llama"}, 3, 3),
    ]
    assert await ask("acme", (), user="nobody") in ([], [({}, 0, 0)])
    assert await ask("nobody") in ([], [({}, 0, 0)])


async def test_lost_requests_are_summed_from_their_records(store: Store) -> None:
    await store.renew("p1", NOW + 1)
    await store.reserve(reservation(charge("tokens", 50, 100), lost=[20]))
    await store.sweep(NOW + 2)
    found = await store.usage(UsageQuery("acme", NOW, NOW + 3600, "all", ("outcome",)))
    assert rows(found) == [(0, {"outcome": "lost"}, 1, 20)]


async def test_settling_twice_is_summed_once(store: Store) -> None:
    await write(store, 3, promptTokens=5)
    await write(store, 3, promptTokens=5)
    assert rows(await store.usage(UsageQuery("acme", NOW, NOW + 3600, "all"))) == [(0, {}, 3, 15)]


@pytest.mark.parametrize(
    "query",
    [
        UsageQuery(None, 0, 10, "week"),
        UsageQuery(None, 0, 10, "day", ("colour",)),
        UsageQuery(None, 0, 10, "day", (), {"1=1; --": "x"}),
    ],
)
async def test_what_cannot_be_summed_is_refused(store: Store, query: UsageQuery) -> None:
    with pytest.raises(StoreError, match=r"week|colour|1=1"):
        await store.usage(query)
