"""What a process holds that is gone: leases and the sweep."""

import asyncio

from services.apimgmt.store.api import Store
from tests.contract.apimgmt.store.conftest import Opener
from tests.contract.apimgmt.store.support import NOW, charge, ledger, pace, reservation, settlement


async def test_an_ended_lease_settles_as_lost(store: Store) -> None:
    tokens, concurrent = charge("tokens", 500, 1000), charge("concurrent", 1, 5, slot=0, expires=0)
    await store.renew("p1", NOW + 30)
    held = reservation(tokens, concurrent, lost=[120, 0])
    await store.reserve(held)
    assert await store.sweep(NOW + 29) == 0
    assert list(await store.totals([tokens, concurrent])) == [500, 1]
    assert await store.sweep(NOW + 31) == 1
    assert list(await store.totals([tokens, concurrent])) == [120, 0]
    assert [(r["id"], r["outcome"], r["promptTokens"]) for r in await ledger(store)] == [(held.id, "lost", 120)]
    assert await store.sweep(NOW + 32) == 0


async def test_a_lost_record_is_written_as_it_is(store: Store) -> None:
    await store.renew("p1", NOW + 30)
    held = reservation(charge())
    await store.reserve(held)
    await store.sweep(NOW + 31)
    assert list((await store.ledger("", 10))[1]) == [held.record]


async def test_a_renewed_lease_keeps_what_it_holds(store: Store) -> None:
    await store.renew("p1", NOW + 30)
    await store.reserve(reservation(charge()))
    await store.renew("p1", NOW + 60)
    assert await store.sweep(NOW + 59) == 0
    assert await store.sweep(NOW + 61) == 1


async def test_only_what_the_ended_owner_holds_is_lost(store: Store) -> None:
    await store.renew("p1", NOW + 30)
    await store.renew("p2", NOW + 300)
    gone, alive = reservation(charge("a")), reservation(charge("b"), owner="p2")
    await asyncio.gather(store.reserve(gone), store.reserve(alive))
    assert await store.sweep(NOW + 100) == 1
    assert [r["id"] for r in await ledger(store)] == [gone.id]
    await store.settle(settlement(alive, [0]))
    assert list(await store.totals([charge("a"), charge("b")])) == [1, 0]


async def test_settling_what_the_sweep_settled_does_nothing(store: Store) -> None:
    await store.renew("p1", NOW + 30)
    held = reservation(charge("tokens", 500, 1000), lost=[120])
    await store.reserve(held)
    await store.sweep(NOW + 31)
    await store.settle(settlement(held, [300]))
    assert list(await store.totals([charge("tokens")])) == [120]
    assert [r["outcome"] for r in await ledger(store)] == ["lost"]


async def test_the_sweep_leaves_what_was_settled(store: Store) -> None:
    await store.renew("p1", NOW + 30)
    held = reservation(charge("tokens", 500, 1000))
    await store.reserve(held)
    await store.settle(settlement(held, [300]))
    assert await store.sweep(NOW + 31) == 0
    assert [r["outcome"] for r in await ledger(store)] == ["ok"]


async def test_a_process_that_comes_back_after_its_lease_is_swept_again(store: Store) -> None:
    await store.renew("p1", NOW + 30)
    await store.reserve(reservation(charge()))
    assert await store.sweep(NOW + 31) == 1
    await store.reserve(reservation(charge(), now=NOW + 32))
    assert await store.sweep(NOW + 33) == 1
    await store.renew("p1", NOW + 60)
    held = reservation(charge(), now=NOW + 34)
    await store.reserve(held)
    assert await store.sweep(NOW + 35) == 0
    await store.settle(settlement(held, [1]))


async def test_the_first_reservation_need_not_wait_for_the_lease(store: Store) -> None:
    held = reservation(charge(), owner="new")
    await store.reserve(held)
    assert await store.sweep(NOW + 1) == 0
    assert await store.sweep(NOW + 3600) == 1


async def test_sweeping_together_loses_each_once(store: Store, another: Opener) -> None:
    stores = [store, await another(), await another()]
    await store.renew("p1", NOW + 30)
    held = [reservation(charge(amount=10, ceiling=10_000), lost=[3]) for _ in range(120)]
    await asyncio.gather(*(store.reserve(one) for one in held))
    counts = await asyncio.gather(*(s.sweep(NOW + 31) for s in stores))
    assert sum(counts) == len(held)
    assert list(await store.totals([charge()])) == [3 * len(held)]
    assert sorted(r["id"] for r in await ledger(store)) == sorted(r.id for r in held)


async def test_sweeping_while_requests_go_on(store: Store, another: Opener) -> None:
    other = await another()
    await store.renew("p1", NOW + 1000)
    await store.renew("dead", NOW + 1)
    dead = [reservation(charge(ceiling=10**6), owner="dead") for _ in range(50)]
    await asyncio.gather(*(store.reserve(one) for one in dead))

    async def request() -> None:
        held = reservation(charge(ceiling=10**6))
        assert (await store.reserve(held)).granted
        await store.settle(settlement(held, [1]))

    results = await asyncio.gather(other.sweep(NOW + 2), *(request() for _ in range(100)), other.sweep(NOW + 2))
    assert results[0] + results[-1] == 50  # type: ignore[operator]
    assert list(await store.totals([charge()])) == [150]
    assert len(await ledger(store)) == 150


async def test_expired_slots_are_dropped_and_others_kept(store: Store) -> None:
    await store.renew("p1", NOW + 10**6)
    old = [charge(f"old{n}", expires=NOW + 60) for n in range(30)]
    kept = [charge("kept", expires=NOW + 7200), charge("forever", slot=0, expires=0)]
    await store.reserve(reservation(*old, *kept, pace("p")))
    await store.sweep(NOW + 3600)
    assert list(await store.totals(kept)) == [1, 1]
    again = await store.reserve(reservation(pace("p", amount=2), now=NOW + 3600))
    assert again.granted
