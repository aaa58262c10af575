"""What requests do: reserve and settle, one script each; and what makes sure that nothing stays held."""

import asyncio
import logging
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import orjson

from services.apimgmt.store.api import Charge, Grant, Reservation, Settlement, StoreError
from services.apimgmt.store.valkey import layout
from services.apimgmt.store.valkey.client import Client, background
from services.apimgmt.store.valkey.hot_scripts import RESERVE, RETIRE, SETTLE, TOTALS
from services.apimgmt.store.valkey.link import Arg

RESERVE_S = 4.0
"""How long a reservation is tried, seconds: the request waits for it."""

SETTLE_S = 30.0
"""How long a settlement is tried, seconds: a restarting server loses none."""

TAKE_BACK_S = 300.0
"""How long a reservation whose reply never came is tried to be taken back."""

CLOSE_S = 5.0
"""How long closing waits for the server, seconds."""

FIRST_LEASE_S = 60
"""Lease of an owner who reserves before its first `renew`, seconds."""

OWNER_KEPT_S = 3600
"""How long an owner's ended lease is kept: reservations that it makes when it comes back are found."""

MAX_AMOUNT_BITS = 53
"""Amounts below 2**53, as `Limit.amount`: Lua's numbers are exact up to there."""

SCAN = 500
"""Reservations that a sweep reads at once."""

logger = logging.getLogger("penstock.apimgmt")


class Hot:
    """See the module's text."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._organizations: set[str] = set()
        self._owners: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def reserve(self, reservation: Reservation) -> Grant:
        """See `Store.reserve`."""
        organization, owner = reservation.organization, reservation.owner
        _check(reservation.charges, reservation.lost, "lost")
        if organization not in self._organizations or owner not in self._owners:
            await self._introduce(organization, owner, reservation.now)
        keys, args = _reserve_call(reservation)
        try:
            granted, totals, waits, refused = await self._client.script(
                RESERVE, layout.tag_of(organization), keys, args, RESERVE_S
            )
        except (StoreError, asyncio.CancelledError):
            background(self._tasks, lambda: self._take_back(reservation))  # nobody knows whether it was made
            raise
        if granted < 0:
            raise StoreError(f"request {reservation.id} is there already; every request needs an id of its own")
        return Grant(granted == 1, totals, waits, tuple(refused))

    async def settle(self, settlement: Settlement) -> None:
        """See `Store.settle`. Cancelling it once it has begun does not keep it from happening."""
        _check(settlement.charges, settlement.used, "used")
        if settlement.organization not in self._organizations:
            await self._introduce(settlement.organization, "", settlement.now, SETTLE_S)
        try:
            await self._settle(settlement, settlement.usage)
        except asyncio.CancelledError:
            background(self._tasks, lambda: self._finish(settlement))
            raise

    async def _settle(
        self, settlement: Settlement, usage: Any, *, only_held: bool = False, mark_ms: int = layout.DONE_MS
    ) -> bool:
        prefix, now = layout.prefix_of(settlement.organization), settlement.now
        hour = int(now) // layout.HOUR_S
        keys = [f"{prefix}held", f"{prefix}d:{settlement.id}", f"{prefix}ledger", f"{prefix}u:{hour}", f"{prefix}hours"]
        args: list[Arg] = [settlement.id, int(only_held), mark_ms, int(now * 1000), settlement.record]
        args += (layout.dimensions(usage), hour)
        args += layout.sums(usage)
        for charge, used in zip(settlement.charges, settlement.used, strict=True):
            keys.append(_counter(prefix, charge))
            left = _life_ms(charge, now)
            args += (charge.slots, charge.slot, left if left >= 0 else -1, charge.amount, used)
        tag = layout.tag_of(settlement.organization)
        done: int = await self._client.script(SETTLE, tag, keys, args, SETTLE_S)
        return done == 1

    async def _introduce(self, organization: str, owner: str, now: float, patience: float = RESERVE_S) -> None:
        """Make organization and owner known to sweeps and readers, before they hold or write anything."""
        run, tag = self._client.run, layout.PROCESSES
        await run(tag, ("SADD", layout.ORGANIZATIONS, organization), patience)
        self._organizations.add(organization)
        if owner:
            await run(tag, ("ZADD", layout.LEASES, "NX", int(now) + FIRST_LEASE_S, owner), patience)
            self._owners.add(owner)

    async def _take_back(self, reservation: Reservation) -> None:
        """Release what a reservation may hold whose reply did not come, and keep it from coming late."""
        r = reservation
        empty = Settlement(r.id, r.organization, r.now, r.charges, [0] * len(r.charges), b"")
        for _ in range(int(TAKE_BACK_S / SETTLE_S)):
            try:
                await self._settle(empty, {})
                return
            except StoreError:
                continue
        logger.error("a reservation without reply could not be taken back", extra={"request": reservation.id})

    async def _finish(self, settlement: Settlement) -> None:
        """Settle what nobody waits for any more."""
        try:
            await self._settle(settlement, settlement.usage)
        except StoreError as error:
            logger.error("a request could not be settled", extra={"request": settlement.id, "error": str(error)})

    async def renew(self, owner: str, until: int) -> None:
        """See `Store.renew`. Organizations are told again, in case that the server lost them."""
        await self._client.run(layout.PROCESSES, ("ZADD", layout.LEASES, until, owner))
        self._owners.add(owner)
        if self._organizations:
            await self._client.run(layout.PROCESSES, ("SADD", layout.ORGANIZATIONS, *self._organizations))

    async def sweep(self, now: int) -> int:
        """See `Store.sweep`. Expired slots the server drops by itself."""
        ended = await self._client.run(layout.PROCESSES, ("ZRANGEBYSCORE", layout.LEASES, "-inf", f"({now}"))
        if not ended:
            return 0
        names, lost = {name.decode() for name in ended}, 0
        for organization in await self.organizations():
            lost += await self._sweep(organization, names, now)
        await self._client.script(RETIRE, layout.PROCESSES, [layout.LEASES], [now - OWNER_KEPT_S, *sorted(names)])
        return lost

    async def organizations(self) -> list[str]:
        """Return the organizations that hold or wrote something, sorted."""
        found = await self._client.run(layout.PROCESSES, ("SMEMBERS", layout.ORGANIZATIONS))
        return sorted(name.decode() for name in found)

    async def _sweep(self, organization: str, owners: set[str], now: int) -> int:
        """Settle what `owners` hold in one organization."""
        tag, key, lost = layout.tag_of(organization), f"{layout.prefix_of(organization)}held", 0
        cursor = b"0"
        while True:
            cursor, found = await self._client.run(tag, ("HSCAN", key, cursor, "COUNT", SCAN))
            settling = []
            for id_, blob in zip(found[::2], found[1::2], strict=True):
                head, _, record = blob.partition(b"\n")
                owner, charges, used = orjson.loads(head)
                if owner in owners:
                    bound = [Charge(name, slot, slots, ends, held, 0) for name, slot, slots, ends, held in charges]
                    end = Settlement(id_.decode(), organization, now, bound, used, record)
                    usage = layout.usage_of(record)
                    settling.append(self._settle(end, usage, only_held=True, mark_ms=layout.LOST_MS))
            lost += sum(await asyncio.gather(*settling))
            if cursor == b"0":
                return lost

    async def totals(self, charges: Sequence[Charge]) -> list[int]:
        """See `Store.totals`."""
        found = [0] * len(charges)
        order = sorted(range(len(charges)), key=lambda i: _organization(charges[i]))
        for organization, indexes in groupby(order, key=lambda i: _organization(charges[i])):
            prefix, which = layout.prefix_of(organization), list(indexes)
            keys = [_counter(prefix, charges[i]) for i in which]
            args: list[Arg] = [value for i in which for value in (charges[i].slots, charges[i].slot)]
            totals = await self._client.script(TOTALS, layout.tag_of(organization), keys, args)
            for i, total in zip(which, totals, strict=True):
                found[i] = total
        return found

    async def close(self) -> None:
        """Wait for what is being settled or taken back; leases end the rest."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_S)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _check(charges: Sequence[Charge], amounts: Sequence[int], name: str) -> None:
    if len(amounts) != len(charges):
        raise StoreError(f"{name} has {len(amounts)} amounts for {len(charges)} charges; expected one for each")
    for charge, amount in zip(charges, amounts, strict=True):
        if charge.amount >> MAX_AMOUNT_BITS or amount >> MAX_AMOUNT_BITS:
            raise StoreError(f"counter {charge.counter}: expected amounts from 0 to 2**{MAX_AMOUNT_BITS} - 1")


def _organization(charge: Charge) -> str:
    return charge.counter.partition("|")[0]


def _counter(prefix: str, charge: Charge) -> str:
    return f"{prefix}c:{charge.counter}:{charge.slot}" if charge.slots == 1 else f"{prefix}r:{charge.counter}"


def _life_ms(charge: Charge, now: float) -> int:
    """How long the charge's slot is kept, milliseconds; 0 for ever, below 0 if it is of no use any more."""
    if not charge.expires:
        return 0
    left = int((charge.expires - now) * 1000)
    return left + layout.MARGIN_MS if left > 0 else -1


def _reserve_call(reservation: Reservation) -> tuple[list[str], list[Arg]]:
    """Return keys and arguments of the script."""
    now, charges = reservation.now, reservation.charges
    prefix = layout.prefix_of(reservation.organization)
    keys = [f"{prefix}held", f"{prefix}d:{reservation.id}"]
    args: list[Arg] = [reservation.id, b"", len(charges), int(now * 1_000_000), layout.MARGIN_MS]
    held = []
    for c in charges:
        keys.append(_counter(prefix, c))
        life = _life_ms(c, now)
        args += (c.slots, c.slot, life if life >= 0 else layout.MARGIN_MS, c.amount, c.ceiling, int(c.enforced))
        held.append((c.counter, c.slot, c.slots, c.expires, c.amount))
    for p in reservation.paces:
        keys.append(f"{prefix}p:{p.counter}")
        args += (p.interval_us, p.burst_us, p.amount, int(p.enforced))
    args[1] = orjson.dumps((reservation.owner, held, list(reservation.lost))) + b"\n" + reservation.record
    return keys, args
