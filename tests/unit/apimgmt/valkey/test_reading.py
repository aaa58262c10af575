"""The ledger and its sums on a real server."""

import asyncio
import contextlib

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.apimgmt.store.api import StoreError, UsageQuery
from services.apimgmt.store.valkey import ValkeyStore
from services.apimgmt.store.valkey.reading import bucket_start, read_cursor, write_cursor
from tests.unit.apimgmt.valkey.calls import NOW, reservation, settlement


async def write(store: ValkeyStore, organization: str, now: float, **usage: object) -> str:
    """Write one record."""
    made = reservation(organization=organization)
    await store.settle(settlement(made, [], now=now, organization=organization, **usage))
    return made.id


async def read(store: ValkeyStore, cursor: str, limit: int) -> tuple[str, list[str]]:
    """Return the ids of a page."""
    after, found = await store.ledger(cursor, limit)
    return after, [orjson.loads(record)["id"] for record in found]


async def test_pages_in_the_order_of_writing(store: ValkeyStore) -> None:
    written = [await write(store, f"org-{i % 3}", NOW + i / 100) for i in range(50)]
    cursor, found = "", []
    while True:
        cursor, page = await read(store, cursor, 7)
        assert len(page) <= 7
        found += page
        if not page:
            break
    assert found == written
    late = await write(store, "org-new", NOW)
    again = await write(store, "org-0", NOW)  # its clock is behind: still after what was read
    assert sorted((await read(store, cursor, 10))[1]) == sorted([late, again])


async def test_readers_miss_nothing_that_writers_write_meanwhile(store: ValkeyStore) -> None:
    written: list[str] = []
    clocks = [0.0, -0.05, 0.05]

    async def writing(which: int) -> None:
        for i in range(60):
            written.append(await write(store, f"org-{i % 4}", NOW + i / 1000 + clocks[which]))

    writers = asyncio.gather(*[writing(which) for which in range(3)])
    cursor, found = "", list[str]()
    while not writers.done():
        cursor, page = await read(store, cursor, 5)
        found += page
    await writers
    while page:
        cursor, page = await read(store, cursor, 5)
        found += page
    assert sorted(found) == sorted(written)


async def test_prune_keeps_the_sums(store: ValkeyStore) -> None:
    for i in range(10):
        await write(store, "acme", NOW + i, outcome="ok", promptTokens=3)
    assert await store.prune(int(NOW) + 4) == 4
    _, left = await read(store, "", 100)
    assert len(left) == 6
    (row,) = await store.usage(UsageQuery("acme", 0, int(NOW) + 7200, "all"))
    assert (row.sums["requests"], row.sums["promptTokens"]) == (10, 30)
    assert len((await read(store, "", 100))[1]) == 6


async def test_usage_groups_filters_and_buckets(store: ValkeyStore) -> None:
    hour = int(NOW) // 3600 * 3600
    for at, model, tokens in ((hour, "a", 1), (hour + 3599, "a", 2), (hour + 3600, "b", 4), (hour + 7200, "a", 8)):
        await write(store, "acme", at, model=model, promptTokens=tokens, costMicros=10**15, estimated=True)
    await write(store, "other", hour, model="a", promptTokens=16)

    async def ask(**query: object) -> list[tuple[int, dict[str, str], int]]:
        given = {"organization": "acme", "since": hour, "until": hour + 7200, "bucket": "all", **query}
        return [(r.start, dict(r.group), r.sums["promptTokens"]) for r in await store.usage(UsageQuery(**given))]  # type: ignore[arg-type]

    assert await ask() == [(0, {}, 7)]
    assert await ask(until=hour + 10_800, group_by=("model",)) == [(0, {"model": "a"}, 11), (0, {"model": "b"}, 4)]
    assert await ask(bucket="hour") == [(hour, {}, 3), (hour + 3600, {}, 4)]
    assert await ask(where={"model": "b"}) == [(0, {}, 4)]
    assert await ask(organization=None, group_by=("organization",)) == [
        (0, {"organization": "acme"}, 7), (0, {"organization": "other"}, 16),
    ]  # fmt: skip
    (row,) = await store.usage(UsageQuery("acme", hour, hour + 3600, "day"))
    assert (row.sums["requests"], row.sums["costMicros"], row.sums["estimated"]) == (2, 2 * 10**15, 2)
    with pytest.raises(StoreError, match="expected hour, day, month or all"):
        await ask(bucket="week")


async def test_lost_requests_are_summed_by_their_record(store: ValkeyStore) -> None:
    await store.reserve(reservation(owner="dead"))
    await store.renew("dead", 1)
    assert await store.sweep(int(NOW)) == 1
    (row,) = await store.usage(UsageQuery("acme", 0, int(NOW) + 3600, "all", ("outcome",)))
    assert (row.group["outcome"], row.sums["promptTokens"]) == ("lost", 7)


def test_buckets() -> None:
    assert bucket_start(1_800_000_000, "month") == 1_798_761_600  # 2027-01-01
    assert bucket_start(1_800_000_000, "day") == 1_799_971_200


@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda b: b.decode("latin-1")))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_any_cursor_is_read_or_refused(text: str) -> None:
    places = {}
    with contextlib.suppress(StoreError):
        places = read_cursor(text)
    assert read_cursor(write_cursor(places)) == places


@pytest.mark.parametrize("text", ["x", "e30", "W10=", "eyJhIjoxfQ==", "eyJhIjpbInYiLDFdfQ==", "\u00e9"])
def test_a_foreign_cursor_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match="expected one that an earlier answer named"):
        read_cursor(text)
