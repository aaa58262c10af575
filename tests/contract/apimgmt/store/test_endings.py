"""What happens to a request that is repeated, cancelled, or ended by somebody who does not know what it holds."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from services.apimgmt.store.api import Charge, Grant, Reservation, Settlement, Store, StoreError
from tests.contract.apimgmt.store.support import NOW, charge, ledger, pace, reservation, settlement

KINDS = [charge("calendar", 4, 10), charge("rolling", 4, 10, slot=100, slots=60), charge("now", slot=0, expires=0)]


def settled_blindly(held: Reservation) -> Settlement:
    """Return the end of a request that does not know of its reservation: no charges."""
    return settlement(held.id, outcome="error")


async def ids(store: Store) -> list[str]:
    return [record["id"] for record in await ledger(store)]


async def released(store: Store) -> bool:
    """Wait until nothing is held: what is taken back may take a moment."""
    for _ in range(500):
        if list(await store.totals(KINDS)) == [0, 0, 0]:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_a_repeated_reservation_has_its_grant_and_holds_no_more(store: Store) -> None:
    held = reservation(*KINDS, pace(amount=2))
    grants = [await store.reserve(held), await store.reserve(replace(held)), await store.reserve(held)]
    assert grants[0].granted
    assert [(g.granted, list(g.totals), list(g.waits_us), list(g.refused)) for g in grants] == [
        (True, [4, 4, 1], [0], [])
    ] * 3
    await store.settle(settlement(held, [1, 1, 0]))
    assert list(await store.totals(KINDS)) == [1, 1, 0]


async def test_a_repetition_is_granted_when_nothing_more_would_fit(store: Store) -> None:
    held = reservation(charge(amount=6, ceiling=6))
    first, second = await asyncio.gather(store.reserve(held), store.reserve(held))
    assert first.granted
    assert second.granted
    assert list(await store.totals([charge()])) == [6]


async def test_an_id_serves_one_request(store: Store) -> None:
    held = reservation(charge(), id_="same")
    await store.reserve(held)
    with pytest.raises(StoreError, match="same is there already"):
        await store.reserve(reservation(charge(amount=2), id_="same"))
    with pytest.raises(StoreError, match="same is there already"):
        await store.reserve(reservation(charge(), id_="same", owner="p2"))
    await store.settle(settlement(held, [1]))
    with pytest.raises(StoreError, match="same is there already"):
        await store.reserve(held)
    assert list(await store.totals([charge()])) == [1]


async def test_who_settles_without_charges_releases_all_and_is_charged_nothing(store: Store) -> None:
    held = reservation(*KINDS)
    await store.reserve(held)
    await store.settle(settled_blindly(held))
    assert list(await store.totals(KINDS)) == [0, 0, 0]
    await store.settle(settlement(held, [4, 4, 1]))
    assert list(await store.totals(KINDS)) == [0, 0, 0]
    assert [r["outcome"] for r in await ledger(store)] == ["error"]


async def test_without_a_reservation_nothing_is_charged(store: Store) -> None:
    never = reservation(*KINDS)
    await store.settle(settlement(never, [4, 4, 1]))
    assert list(await store.totals(KINDS)) == [0, 0, 0]
    assert await ids(store) == [never.id]


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_reservation_holds_nothing_and_still_has_its_record(store: Store, turns: int) -> None:
    await store.reserve(reservation())  # whatever is done once per process is done
    held = reservation(*KINDS)

    async def ask() -> Grant:
        return await store.reserve(held)

    task = asyncio.create_task(ask())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await store.settle(settled_blindly(held))
    assert await released(store)
    assert await ids(store) == [held.id]


@pytest.mark.parametrize("amount", [-1, 2**53, 2**70])
@pytest.mark.parametrize("where", ["amount", "lost", "used"])
async def test_amounts_out_of_range_are_refused(store: Store, amount: int, where: str) -> None:
    one: Charge = charge("huge", 1, 2**60, enforced=False)
    held = reservation(one)
    await store.reserve(held)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "amount": lambda: store.reserve(reservation(replace(one, amount=amount), lost=[0])),
        "lost": lambda: store.reserve(reservation(one, lost=[amount])),
        "used": lambda: store.settle(settlement(held, [amount])),
    }
    with pytest.raises(StoreError, match=r"acme\|huge\|user:ada: expected amounts from 0 to 2\*\*53 - 1"):
        await calls[where]()
    assert list(await store.totals([one])) == [1]
    assert await ids(store) == []
    await store.settle(settlement(held, [2**53 - 1]))
    assert list(await store.totals([one])) == [2**53 - 1]


@pytest.mark.parametrize("amounts", [[], [1, 1]])
async def test_amounts_are_as_many_as_charges(store: Store, amounts: list[int]) -> None:
    with pytest.raises(StoreError, match=f"lost has {len(amounts)} amounts for 1 charges"):
        await store.reserve(reservation(charge(), lost=amounts))
    with pytest.raises(StoreError, match=f"used has {len(amounts)} amounts for 1 charges"):
        await store.settle(settlement(reservation(charge()), amounts))


async def test_a_lost_request_releases_what_it_held_and_no_more(store: Store) -> None:
    await store.renew("p1", NOW + 1)
    held = reservation(*KINDS, lost=[1, 2, 0])
    await store.reserve(held)
    assert await store.sweep(NOW + 2) == 1
    await store.settle(settled_blindly(held))
    assert list(await store.totals(KINDS)) == [1, 2, 0]
    assert [r["outcome"] for r in await ledger(store)] == ["lost"]
