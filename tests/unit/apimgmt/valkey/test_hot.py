"""Reserve and settle on a real server."""

import asyncio
import re
from dataclasses import replace

import orjson
import pytest

from services.apimgmt.store.api import Pace, Settlement, StoreError
from services.apimgmt.store.valkey import ValkeyStore, layout
from services.apimgmt.store.valkey.hot import FIRST_LEASE_S
from tests.support.valkey import Server
from tests.unit.apimgmt.valkey.calls import NOW, concurrent, reservation, rolling, settlement, window


async def records(store: ValkeyStore) -> list[str]:
    """Ids in the ledger."""
    return [orjson.loads(record)["id"] for record in (await store.ledger("", 1000))[1]]


async def test_all_charges_or_none(store: ValkeyStore) -> None:
    first = await store.reserve(reservation([window("a", 6, 10), window("b", 6, 100)]))
    assert (first.granted, list(first.totals)) == (True, [6, 6])
    second = await store.reserve(reservation([window("b", 6, 100), window("a", 6, 10)]))
    assert (second.granted, list(second.totals), list(second.refused)) == (False, [6, 6], [1])
    assert await store.totals([window("a", 0, 0), window("b", 0, 0)]) == [6, 6]


async def test_settle_releases_what_was_not_used(store: ValkeyStore) -> None:
    made = reservation([window("a", 6, 10), concurrent("c", 1)])
    assert (await store.reserve(made)).granted
    assert list((await store.reserve(reservation([concurrent("c", 1)]))).refused) == [0]
    await store.settle(settlement(made, [2, 0]))
    assert await store.totals(made.charges) == [2, 0]
    assert (await store.reserve(reservation([window("a", 8, 10), concurrent("c", 1)]))).granted


async def test_more_may_be_used_than_was_reserved(store: ValkeyStore) -> None:
    made = reservation([window("a", 6, 10)])
    await store.reserve(made)
    await store.settle(settlement(made, [15]))
    assert await store.totals(made.charges) == [15]
    assert not (await store.reserve(reservation([window("a", 1, 10)]))).granted


async def test_settling_twice_has_the_effect_of_once(store: ValkeyStore) -> None:
    made = reservation([window("a", 6, 10), rolling("r", 6, 10)])
    await store.reserve(made)
    ends = [settlement(made, [3, 4]) for _ in range(20)]
    await asyncio.gather(*[store.settle(end) for end in ends])
    await store.settle(settlement(made, [9, 9], now=NOW + 600))
    assert await store.totals(made.charges) == [3, 4]
    assert await records(store) == [made.id]


async def test_an_id_serves_once(store: ValkeyStore) -> None:
    made = reservation([window("a", 6, 100)])
    await store.reserve(made)
    with pytest.raises(StoreError, match="is there already"):
        await store.reserve(replace(made, owner="another"))
    await store.settle(settlement(made, [6]))
    with pytest.raises(StoreError, match="is there already"):
        await store.reserve(made)
    assert await store.totals(made.charges) == [6]


async def test_shadow_limits_count_and_never_refuse(store: ValkeyStore) -> None:
    made = [await store.reserve(reservation([window("a", 6, 10, enforced=False)])) for _ in range(3)]
    assert [(grant.granted, list(grant.totals)) for grant in made] == [(True, [6]), (True, [12]), (True, [18])]


async def test_rolling_windows_slide(store: ValkeyStore) -> None:
    for second in (0, 10, 20):
        assert (await store.reserve(reservation([rolling("r", 4, 12, now=NOW + second)], now=NOW + second))).granted
    assert not (await store.reserve(reservation([rolling("r", 1, 12, now=NOW + 59)], now=NOW + 59))).granted
    assert (await store.reserve(reservation([rolling("r", 4, 12, now=NOW + 60)], now=NOW + 60))).granted
    assert await store.totals([rolling("r", 0, 0, now=NOW + 69), rolling("r", 0, 0, now=NOW + 75)]) == [12, 8]


async def test_a_late_clock_cannot_exceed_a_rolling_window(store: ValkeyStore) -> None:
    assert (await store.reserve(reservation([rolling("r", 10, 12, now=NOW + 10)], now=NOW + 10))).granted
    late = await store.reserve(reservation([rolling("r", 4, 12)]))
    assert not late.granted, "the window that ends 10 seconds later would hold 14"


async def test_settling_after_the_window_leaves_nothing(store: ValkeyStore, valkey: Server) -> None:
    made = reservation([window("a", 6, 10), rolling("r", 6, 10)])
    await store.reserve(made)
    prefix = layout.prefix_of("acme")
    valkey.command("DEL", f"{prefix}c:acme|a|team:a:{made.charges[0].slot}")  # as if it had expired
    valkey.command("DEL", f"{prefix}r:acme|r|team:a")
    await store.settle(settlement(made, [9, 9], now=NOW + 3600))
    assert await store.totals(made.charges) == [0, 0]
    assert await records(store) == [made.id]


async def test_counters_expire_by_themselves(store: ValkeyStore, valkey: Server) -> None:
    made = reservation([window("a", 6, 10), rolling("r", 6, 10), concurrent("c", 1)], [Pace("acme|p|x", 1e6, 5e6, 2)])
    await store.reserve(made)
    prefix = layout.prefix_of("acme")
    names = [f"c:acme|a|team:a:{made.charges[0].slot}", "r:acme|r|team:a", "c:acme|c|team:a:0", "p:acme|p|x"]
    lives = [int(valkey.command("PTTL", prefix + name)[1:]) for name in names]
    ends = made.charges[0].expires - NOW, made.charges[1].expires - NOW
    for life, span in zip((lives[0], lives[1], lives[3]), (*ends, 2), strict=True):
        assert 0 <= span * 1000 + layout.MARGIN_MS - life < 10_000
    assert lives[2] == -1
    await store.settle(settlement(made, [6, 6, 0]))
    assert valkey.command("EXISTS", prefix + names[2]) == b":0\r\n"
    mark = int(valkey.command("PTTL", f"{prefix}d:{made.id}")[1:])
    assert 0 <= layout.DONE_MS - mark < 10_000


async def test_every_key_of_a_request_has_the_organizations_tag(store: ValkeyStore, valkey: Server) -> None:
    made = reservation([window("a", 6, 10), rolling("r", 6, 10)], [Pace("acme|p|x", 1e6, 5e6, 2)])
    await store.reserve(made)
    await store.settle(settlement(made, [6, 6]))
    names = re.findall(rb"penstock:\S+", valkey.command("KEYS", "*"))
    assert {name.split(b"}")[0] for name in names} == {
        b"penstock:{acme", b"penstock:{:processes", b"penstock:{:directory",
    }  # fmt: skip
    assert sum(name.startswith(b"penstock:{acme}:") for name in names) == 7


async def test_paces(store: ValkeyStore) -> None:
    def pace(amount: int, *, enforced: bool = True) -> Pace:
        return Pace("acme|spike|team:a", 100_000.0, 300_000.0, amount, enforced)

    first = await store.reserve(reservation([], [pace(3)]))
    assert (first.granted, list(first.waits_us)) == (True, [0])
    second = await store.reserve(reservation([window("a", 1, 10)], [pace(2)], now=NOW + 0.05))
    assert (second.granted, list(second.refused)) == (False, [1])
    assert second.waits_us[0] == pytest.approx(150_000, abs=2)
    shadow = await store.reserve(reservation([], [pace(2, enforced=False)], now=NOW + 0.05))
    assert shadow.granted
    assert shadow.waits_us[0] == pytest.approx(150_000, abs=2)
    assert (await store.reserve(reservation([], [pace(2)], now=NOW + 0.2))).granted
    assert await store.totals([window("a", 0, 0)]) == [0]


async def test_amounts_stay_whole_numbers(store: ValkeyStore) -> None:
    great = 2**52
    made = reservation([window("a", great, 2**53), rolling("r", great, 2**53)])
    assert list((await store.reserve(made)).totals) == [great, great]
    await store.settle(settlement(made, [great - 1, great - 3]))
    assert await store.totals(made.charges) == [great - 1, great - 3]
    with pytest.raises(StoreError, match="expected amounts"):
        await store.reserve(reservation([window("a", -1, 10)]))
    with pytest.raises(StoreError, match="2 amounts for 1 charges"):
        await store.settle(Settlement(made.id, "acme", NOW, made.charges[:1], [1, 2], b"{}"))


async def test_nothing_is_half_done_when_the_server_refuses_a_write(store: ValkeyStore, valkey: Server) -> None:
    made = reservation([window("a", 6, 10)])
    await store.reserve(made)
    valkey.command("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(StoreError, match="out of memory"):
            await store.settle(settlement(made, [3]))
        with pytest.raises(StoreError, match="out of memory"):
            await store.reserve(reservation([window("a", 1, 10)]))
    finally:
        valkey.command("CONFIG", "SET", "maxmemory", "0")
    assert await store.totals(made.charges) == [6]
    assert await records(store) == []
    await store.settle(settlement(made, [3]))
    assert await store.totals(made.charges) == [3]
    assert await records(store) == [made.id]


async def test_what_an_ended_lease_held_is_lost(store: ValkeyStore) -> None:
    charges = [window("a", 6, 100), concurrent("c", 9)]
    kept = reservation(charges, owner="alive")
    gone = [reservation(charges, owner="dead", lost=[2, 0]) for _ in range(3)]
    for made in (kept, *gone):
        await store.reserve(made)
    await store.renew("alive", int(NOW) + 100)
    await store.renew("dead", int(NOW) + 10)
    assert await store.sweep(int(NOW) + 10) == 0
    counts = await asyncio.gather(*[store.sweep(int(NOW) + 11) for _ in range(8)])
    assert sum(counts) == 3
    assert await store.totals(charges) == [6 + 3 * 2, 1]
    assert sorted(await records(store)) == sorted(made.id for made in gone)
    await store.settle(settlement(gone[0], [50, 0]))
    assert await store.totals(charges) == [12, 1], "it was lost: its late end counts no more"
    assert len(await records(store)) == 3
    assert await store.sweep(int(NOW) + 12) == 0
    late = reservation(charges, owner="dead", now=NOW + 12)
    await store.reserve(late)
    assert await store.sweep(int(NOW) + 13) == 1, "made after its lease ended"


async def test_owners_have_a_lease_before_they_renew(store: ValkeyStore) -> None:
    made = reservation([concurrent("c", 1)], owner="new")
    await store.reserve(made)
    assert await store.sweep(int(NOW) + FIRST_LEASE_S) == 0
    assert await store.sweep(int(NOW) + FIRST_LEASE_S + 1) == 1
    assert await store.totals(made.charges) == [0]


async def test_records_without_reservation(store: ValkeyStore) -> None:
    refused = reservation([])
    await store.settle(Settlement(refused.id, "acme", NOW, [], [], b'{"id":"%s"}' % refused.id.encode()))
    assert await records(store) == [refused.id]


async def test_a_repeated_reservation_is_the_same_one(store: ValkeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply is lost after the server did its work; the call is made again."""
    client = store._client  # type: ignore[attr-defined]
    script, sent = client.script, 0

    async def twice(*args: object) -> object:
        nonlocal sent
        sent += 1
        await script(*args)
        return await script(*args)

    await store.reserve(reservation())  # introduces the owner
    monkeypatch.setattr(client, "script", twice)
    grant = await store.reserve(reservation([window("a", 6, 10), rolling("r", 6, 10)], [Pace("acme|p|x", 1e6, 5e6, 5)]))
    assert sent == 1
    assert (grant.granted, list(grant.totals), list(grant.refused)) == (True, [6, 6], [])
    monkeypatch.undo()
    assert await store.totals([window("a", 0, 0), rolling("r", 0, 0)]) == [6, 6]


async def test_a_reservation_without_reply_is_taken_back(store: ValkeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    hot = store._hot  # type: ignore[attr-defined]
    made = reservation([window("a", 6, 10), concurrent("c", 1)])
    await store.reserve(made)
    await hot._take_back(made)
    assert await store.totals(made.charges) == [0, 0]
    with pytest.raises(StoreError, match="is there already"):
        await store.reserve(replace(made))
    assert await records(store) == []
    await store.settle(settlement(made, [0, 0]))
    assert await records(store) == [made.id], "its record can still be written"
    await hot._take_back(made)
    assert await records(store) == [made.id]


async def test_what_was_ended_before_it_is_taken_back_holds_nothing(store: ValkeyStore) -> None:
    hot = store._hot  # type: ignore[attr-defined]
    made = reservation([window("a", 6, 10), rolling("r", 6, 10), concurrent("c", 1)])
    await store.reserve(made)
    await store.settle(settlement(replace(made, charges=[]), []))
    assert await store.totals(made.charges) == [0, 0, 0]
    await hot._take_back(made)
    assert await store.totals(made.charges) == [0, 0, 0]
    assert await records(store) == [made.id]
