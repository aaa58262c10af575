"""The books on one request: one reservation at most, one settlement and one ledger record exactly."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from services.apimgmt.accounting import Accounting
from services.apimgmt.call import Call
from services.apimgmt.charging import CONCURRENT, COST, REQUESTS, TOKENS
from services.apimgmt.ending import End
from services.apimgmt.ledger import record as records
from services.apimgmt.store.api import Charge, Grant, Reservation, Settlement
from services.apimgmt.usage.tokens import Tokens


class Account:
    """Belongs to a call whose caller is known."""

    __slots__ = ("_accounting", "_charges", "_grant", "_part", "call", "closed", "overhead_s", "record")

    def __init__(self, accounting: Accounting, call: Call) -> None:
        self._accounting, self.call = accounting, call
        self._charges: Sequence[Charge] = ()
        self._grant: asyncio.Future[Grant] | None = None
        self._part: records.Part | None = None
        self.closed = False
        self.overhead_s = 0.0
        """Time that the request spent here until it went on."""
        self.record: Mapping[str, Any] = {}
        """The ledger record; complete once closed."""

    @property
    def granted(self) -> bool:
        """Whether a reservation stands."""
        grant = self._grant
        return grant is not None and grant.done() and not _failed(grant) and grant.result().granted

    def open(self, prompt: Tokens) -> "asyncio.Future[Grant]":
        """Ask for all charges of the call. `prompt`: what is charged if this process dies before the end."""
        call, accounting = self.call, self._accounting
        cost = self._cost(prompt)
        self._charges, self._part = call.charges, records.part_of(call)
        reservation = Reservation(
            call.id,
            self._part.fields["organization"],
            accounting.owner,
            accounting.clock(),
            call.charges,
            call.paces,
            records.lost(call, self._part, prompt, cost),
            self._used(prompt.total, cost),
        )
        self._grant = accounting.reserve(reservation)
        accounting.metrics.in_flight += 1
        return self._grant

    def close(self, end: End, first_token_at: float | None = None) -> "asyncio.Future[None] | None":
        """Settle and write the record, once. Return what to wait for; None if it waits for the reservation first.

        `first_token_at`: `time.perf_counter()` when the first content of a stream passed.
        """
        if self.closed:
            return None
        self.closed = True
        call, tokens = self.call, end.tokens
        started = call.started
        cost = self._cost(tokens) if tokens is not None else 0
        record = self.record = records.make(
            call,
            end.outcome,
            status=end.status,
            tokens=tokens,
            cost=cost,
            latency_ms=records.elapsed_ms(started),
            ttft_ms=None if first_token_at is None else int((first_token_at - started) * 1000),
            overhead_ms=round(self.overhead_s * 1000, 3),
            part=self._part,
        )
        used = self._used(tokens.total, cost) if tokens is not None else [0] * len(self._charges)
        accounting = self._accounting
        settlement = Settlement(
            call.id, record["organization"], accounting.clock(), self._charges, used, records.dump(record), record
        )
        accounting.metrics.record(record, end.code)
        grant = self._grant
        if grant is None:
            return accounting.settle(settlement)
        accounting.metrics.in_flight -= 1
        if grant.done():
            return self._settle(grant, settlement)
        accounting.beside(self._settle_later(grant, settlement))
        return None

    def _settle(self, grant: "asyncio.Future[Grant]", settlement: Settlement) -> "asyncio.Future[None]":
        """Settle after the reservation has been decided. A failed one may have been granted: the store knows by id."""
        if not _failed(grant) and not grant.result().granted:
            settlement.charges, settlement.used = (), ()
        return self._accounting.settle(settlement)

    async def _settle_later(self, grant: "asyncio.Future[Grant]", settlement: Settlement) -> None:
        await asyncio.wait([grant])
        await asyncio.wait([self._settle(grant, settlement)])

    def _used(self, tokens: int, cost: int) -> list[int]:
        amounts = {REQUESTS: 1, TOKENS: tokens, COST: cost, CONCURRENT: 0}
        return [amounts[bound.counts] for bound in self.call.limits]

    def _cost(self, tokens: Tokens) -> int:
        call, product = self.call, self.call.product
        if product is None or product.tariff is None:
            return 0
        return product.tariff.cost(call.model, tokens, base=call.base_model)


def _failed(grant: "asyncio.Future[Grant]") -> bool:
    return grant.cancelled() or grant.exception() is not None
