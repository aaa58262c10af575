"""Thousands of random calls against a model that keeps everything in plain dictionaries."""

import random
from dataclasses import dataclass, field

import pytest

from services.apimgmt.store.api import Charge, Grant, Reservation
from services.apimgmt.store.sqlite import SqliteStore
from tests.contract.apimgmt.store.support import NOW, charge, ledger, pace, reservation, settlement

OWNERS = ("p1", "p2")
CEILING = 40


@dataclass
class Model:
    """What a store does, in the plainest way."""

    used: dict[tuple[str, int], int] = field(default_factory=dict)
    arrivals: dict[str, float] = field(default_factory=dict)
    held: dict[str, Reservation] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)

    def total(self, one: Charge) -> int:
        def within(slot: int) -> bool:
            return slot == one.slot if one.slots == 1 else slot > one.slot - one.slots

        return sum(used for (counter, slot), used in self.used.items() if counter == one.counter and within(slot))

    def add(self, one: Charge, amount: int) -> None:
        place = (one.counter, one.slot)
        self.used[place] = self.used.get(place, 0) + amount

    def reserve(self, asked: Reservation) -> bool:
        before = dict(self.used)
        for one in asked.charges:
            self.add(one, one.amount)
        fits = all(not one.enforced or self.total(one) <= one.ceiling for one in asked.charges)
        arrivals = {}
        for one in asked.paces:
            arrival = max(self.arrivals.get(one.counter, 0), asked.now * 1e6) + one.amount * one.interval_us
            if arrival - asked.now * 1e6 <= one.burst_us:
                arrivals[one.counter] = arrival
            elif one.enforced:
                fits = False
        if not fits:
            self.used = before
            return False
        self.arrivals.update(arrivals)
        self.held[asked.id] = asked
        return True

    def settle(self, asked: Reservation, used: list[int]) -> None:
        if asked.id in self.records:
            return
        self.records[asked.id] = sum(used)
        if self.held.pop(asked.id, None):
            for one, amount in zip(asked.charges, used, strict=True):
                self.add(one, amount - one.amount)

    def lose(self, owner: str) -> int:
        lost = [asked for asked in self.held.values() if asked.owner == owner]
        for asked in lost:
            self.settle(asked, list(asked.lost))
        return len(lost)


def draw(dice: random.Random, now: float) -> Reservation:
    """Return a reservation of a few windows and paces, sometimes the same one twice."""
    charges = [
        charge(
            dice.choice("abc") if slots == 1 else dice.choice("xy"),
            dice.choice([0, 1, 3, 7]),
            CEILING,
            slot=dice.randint(1, 4),
            slots=slots,
            enforced=dice.random() < 0.9,
        )
        for slots in (dice.choice([1, 3]) for _ in range(dice.randint(0, 4)))
    ]
    names = [name for name in "pq" if dice.random() < 0.3]
    paces = [pace(name, 1e5, 5e5, dice.choice([1, 2]), enforced=dice.random() < 0.8) for name in names]
    lost = [dice.randint(0, one.amount) for one in charges]
    return reservation(*charges, *paces, owner=dice.choice(OWNERS), now=now, lost=lost)


@pytest.mark.parametrize("seed", range(5))
async def test_the_store_does_what_the_model_does(store: SqliteStore, seed: int) -> None:
    dice, model = random.Random(seed), Model()
    seen: list[Reservation] = []
    granted = refused = 0
    for owner in OWNERS:
        await store.renew(owner, NOW + 10**6)
    for step in range(600):
        now = NOW + step * 0.05
        action = dice.random()
        if action < 0.55:
            asked = draw(dice, now)
            grant: Grant = await store.reserve(asked)
            assert grant.granted == model.reserve(asked), (step, asked, grant)
            assert list(grant.totals) == [model.total(one) for one in asked.charges] or _twins(asked)
            seen.append(asked)
            granted, refused = granted + grant.granted, refused + (not grant.granted)
        elif action < 0.97 and seen:
            asked = dice.choice(seen[-30:])
            used = [dice.randint(0, one.amount) for one in asked.charges]
            await store.settle(settlement(asked, used))
            model.settle(asked, used)
        elif action >= 0.99:
            owner = dice.choice(OWNERS)
            await store.renew(owner, NOW - 1)
            assert await store.sweep(NOW) == model.lose(owner)
            await store.renew(owner, NOW + 10**6)
    for name, slots in [("a", 1), ("b", 1), ("c", 1), ("x", 3), ("y", 3)]:
        asked_for = [charge(name, slot=slot, slots=slots) for slot in range(6)]
        assert list(await store.totals(asked_for)) == [model.total(one) for one in asked_for]
    assert {r["id"]: r["promptTokens"] for r in await ledger(store)} == model.records
    assert granted > 50
    assert refused > 50


def _twins(asked: Reservation) -> bool:
    """Whether a counter is in it twice: totals then depend on the order."""
    return len({one.counter for one in asked.charges}) < len(asked.charges)
