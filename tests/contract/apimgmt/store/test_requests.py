"""Reserve and settle: what is granted, what is held, what is charged."""

import asyncio

import pytest

from services.apimgmt.store.api import Reservation, Store, StoreError
from tests.contract.apimgmt.store.conftest import Opener
from tests.contract.apimgmt.store.support import NOW, charge, ledger, pace, reservation, settlement


async def test_up_to_the_ceiling_and_not_beyond(store: Store) -> None:
    totals = [(await store.reserve(reservation(charge(amount=4, ceiling=10)))) for _ in range(3)]
    assert [(g.granted, list(g.totals), list(g.refused)) for g in totals] == [
        (True, [4], []),
        (True, [8], []),
        (False, [8], [0]),
    ]
    exact = await store.reserve(reservation(charge(amount=2, ceiling=10)))
    assert (exact.granted, list(exact.totals)) == (True, [10])
    assert list(await store.totals([charge()])) == [10]


async def test_all_charges_or_none(store: Store) -> None:
    small, large = charge("small", 1, 1), charge("large", 5, 100)
    assert (await store.reserve(reservation(large, small))).granted
    refused = await store.reserve(reservation(large, small, charge("third", 1, 0)))
    assert (refused.granted, list(refused.totals), list(refused.refused)) == (False, [5, 1, 0], [1, 2])
    assert list(await store.totals([large, small, charge("third")])) == [5, 1, 0]


async def test_settling_releases_what_was_not_used(store: Store) -> None:
    tokens, requests, cost = charge("tokens", 500, 1000), charge("requests", 1, 10), charge("cost", 900, 10_000)
    held = reservation(tokens, requests, cost)
    assert (await store.reserve(held)).granted
    await store.settle(settlement(held, [120, 1, 0]))
    assert list(await store.totals([tokens, requests, cost])) == [120, 1, 0]
    assert [r["id"] for r in await ledger(store)] == [held.id]


async def test_settling_may_charge_more_than_was_held(store: Store) -> None:
    held = reservation(charge("tokens", 10, 100))
    await store.reserve(held)
    await store.settle(settlement(held, [130]))
    assert list(await store.totals([charge("tokens")])) == [130]
    refused = await store.reserve(reservation(charge("tokens", 1, 100)))
    assert (refused.granted, list(refused.totals)) == (False, [130])


async def test_settling_again_does_nothing(store: Store, another: Opener) -> None:
    held = reservation(charge("tokens", 500, 1000))
    await store.reserve(held)
    await store.settle(settlement(held, [100]))
    await store.settle(settlement(held, [300]))
    await (await another()).settle(settlement(held, [200]))
    assert list(await store.totals([charge("tokens")])) == [100]
    assert [(r["id"], r["promptTokens"]) for r in await ledger(store)] == [(held.id, 100)]


async def test_settling_in_one_turn_twice_counts_once(store: Store) -> None:
    held = reservation(charge("tokens", 500, 1000))
    await store.reserve(held)
    await asyncio.gather(*(store.settle(settlement(held, [n])) for n in (100, 200, 300)))
    assert (await store.totals([charge("tokens")]))[0] in (100, 200, 300)
    assert len(await ledger(store)) == 1


async def test_without_a_reservation_only_the_record_is_written(store: Store) -> None:
    await store.settle(settlement("lonely", outcome="refused"))
    await store.settle(settlement("lonely", outcome="ok"))
    assert [(r["id"], r["outcome"]) for r in await ledger(store)] == [("lonely", "refused")]


async def test_a_record_is_kept_byte_for_byte(store: Store) -> None:
    one = settlement("a", model="lläma\u2028🦙")
    await store.settle(one)
    _, records = await store.ledger("", 10)
    assert list(records) == [one.record]


async def test_calendar_windows_begin_anew(store: Store) -> None:
    assert (await store.reserve(reservation(charge(amount=10, slot=5)))).granted
    assert not (await store.reserve(reservation(charge(amount=1, slot=5)))).granted
    fresh = await store.reserve(reservation(charge(amount=3, slot=6)))
    assert (fresh.granted, list(fresh.totals)) == (True, [3])
    assert list(await store.totals([charge(slot=5), charge(slot=6), charge(slot=7)])) == [10, 3, 0]


async def test_rolling_windows_sum_their_slots(store: Store) -> None:
    def window(amount: int, slot: int) -> Reservation:
        return reservation(charge("roll", amount, 10, slot, slots=3))

    held = [window(4, 10), window(4, 11), window(2, 12), window(1, 12), window(4, 13), window(1, 13)]
    grants = [await store.reserve(one) for one in held]
    assert [(g.granted, list(g.totals)) for g in grants] == [
        (True, [4]),
        (True, [8]),
        (True, [10]),
        (False, [10]),
        (True, [10]),  # slot 10 has left the window
        (False, [10]),
    ]
    await store.settle(settlement(held[1], [1]))
    assert list(await store.totals([charge("roll", slot=13, slots=3)])) == [7]
    assert list(await store.totals([charge("roll", slot=14, slots=3)])) == [6]


async def test_who_comes_late_cannot_overfill_a_rolling_window(store: Store) -> None:
    """Another process's clock, or a wait for the lock: the slot may be older than the newest that is in use."""
    assert (await store.reserve(reservation(charge("roll", 8, 10, slot=12, slots=3)))).granted
    late = await store.reserve(reservation(charge("roll", 3, 10, slot=11, slots=3)))
    assert (late.granted, list(late.totals)) == (False, [8])
    assert (await store.reserve(reservation(charge("roll", 2, 10, slot=11, slots=3)))).granted
    assert list(await store.totals([charge("roll", slot=12, slots=3)])) == [10]


async def test_concurrent_requests_never_expire(store: Store) -> None:
    one = charge("concurrent", 1, 2, slot=0, expires=0)
    held = [reservation(one) for _ in range(3)]
    assert [(await store.reserve(r)).granted for r in held] == [True, True, False]
    await store.renew("p1", NOW + 10**8)
    await store.sweep(NOW + 10**7)
    assert list(await store.totals([one])) == [2]
    await store.settle(settlement(held[0], [0]))
    assert (await store.reserve(reservation(one))).granted
    assert list(await store.totals([one])) == [2]


async def test_shadow_charges_count_and_never_refuse(store: Store) -> None:
    shadow, real = charge("shadow", 8, 10, enforced=False), charge("real", 1, 10)
    grants = [await store.reserve(reservation(shadow, real)) for _ in range(2)]
    assert [(g.granted, list(g.totals), list(g.refused)) for g in grants] == [(True, [8, 1], []), (True, [16, 2], [])]


async def test_the_same_counter_twice_in_one_request_counts_twice(store: Store) -> None:
    wide, narrow = charge("twice", 3, 100), charge("twice", 3, 5)
    refused = await store.reserve(reservation(wide, narrow))
    assert not refused.granted
    assert list(await store.totals([wide])) == [0]
    assert (await store.reserve(reservation(wide, charge("twice", 3, 6)))).granted
    assert list(await store.totals([wide])) == [6]


async def test_pace_lets_a_burst_through_and_then_the_rate(store: Store) -> None:
    async def ask(after: float, **fields: object) -> tuple[bool, float]:
        grant = await store.reserve(reservation(pace(**fields), now=NOW + after))  # type: ignore[arg-type]
        assert (grant.waits_us[0] == 0) == grant.granted
        return grant.granted, grant.waits_us[0]

    assert (await ask(0))[0]
    assert (await ask(0))[0]
    granted, wait = await ask(0.25)
    assert (granted, wait) == (False, pytest.approx(750_000, abs=10))
    assert (await ask(1.0))[0]
    assert (await ask(1.5))[1] == pytest.approx(500_000, abs=10)
    assert (await ask(10, amount=2))[0]
    assert (await ask(10, amount=2))[1] == pytest.approx(2_000_000, abs=10)
    assert (await ask(12, amount=2))[0]


async def test_a_refusal_by_one_holds_none_of_charges_and_paces(store: Store) -> None:
    full = charge("full", 1, 0)
    refused = await store.reserve(reservation(charge("free"), full, pace("p"), pace("q", amount=3)))
    assert (refused.granted, list(refused.refused)) == (False, [1, 3])
    assert [w > 0 for w in refused.waits_us] == [False, True]
    assert list(await store.totals([charge("free"), full])) == [0, 0]
    assert (await store.reserve(reservation(pace("p", amount=2)))).granted


async def test_a_shadow_pace_refuses_nobody_and_goes_on_at_its_rate(store: Store) -> None:
    shadow = pace("shadow", enforced=False)
    grants = [await store.reserve(reservation(shadow, charge(ceiling=100))) for _ in range(20)]
    assert all(g.granted and not g.refused for g in grants)
    assert [g.waits_us[0] > 0 for g in grants] == [False] * 2 + [True] * 18
    later = await store.reserve(reservation(pace("shadow"), now=NOW + 1))
    assert later.granted


async def test_a_reservation_of_nothing_is_granted_and_settled(store: Store) -> None:
    held = reservation()
    grant = await store.reserve(held)
    assert (grant.granted, list(grant.totals), list(grant.waits_us), list(grant.refused)) == (True, [], [], [])
    await store.settle(settlement(held))
    assert len(await ledger(store)) == 1


async def test_what_is_asked_in_one_turn_is_decided_one_after_the_other(store: Store) -> None:
    held = [reservation(charge("one", 1, 25), charge("two", n, 200)) for n in range(40)]
    grants = await asyncio.gather(*(store.reserve(one) for one in held))
    granted = [i for i, g in enumerate(grants) if g.granted]
    used = sum(granted)
    assert used <= 200
    assert list(await store.totals([charge("one"), charge("two")])) == [len(granted), used]
    refused = [i for i in range(40) if i not in granted]
    assert len(granted) <= 25
    assert min(refused) + used > 200 or len(granted) == 25
    await asyncio.gather(*(store.settle(settlement(held[i], [0, 0])) for i in granted))
    assert list(await store.totals([charge("one"), charge("two")])) == [0, 0]
    assert sorted(r["id"] for r in await ledger(store)) == sorted(held[i].id for i in granted)


async def test_an_amount_that_cannot_be_counted_fails_alone(store: Store) -> None:
    async def ask(amount: int) -> object:
        try:
            return (await store.reserve(reservation(charge("huge", amount, 10, enforced=False)))).granted
        except StoreError:
            return "refused"

    assert await asyncio.gather(ask(1), ask(2**70), ask(-(2**70)), ask(2)) == [True, "refused", "refused", True]
    assert list(await store.totals([charge("huge")])) == [3]


async def test_totals_change_nothing(store: Store) -> None:
    assert list(await store.totals([])) == []
    asked = [charge("never"), charge("never", slots=5)]
    assert list(await store.totals(asked)) == [0, 0]
    assert list(await store.totals(asked)) == [0, 0]


async def test_other_processes_see_it_at_once(store: Store, another: Opener) -> None:
    other = await another()
    held = reservation(charge(amount=9))
    await store.reserve(held)
    assert not (await other.reserve(reservation(charge(amount=2)))).granted
    await other.settle(settlement(held, [3]))
    assert list(await store.totals([charge()])) == [3]
    assert (await store.reserve(reservation(charge(amount=7)))).granted


async def test_names_of_counters_may_hold_odd_characters(store: Store) -> None:
    odd = charge("lim {x} %s ' \" ; --|ü")
    held = reservation(odd)
    assert (await store.reserve(held)).granted
    await store.settle(settlement(held, [1]))
    assert list(await store.totals([odd])) == [1]
