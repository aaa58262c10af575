"""Reservations and settlements: the only caller of the store's `reserve` and `settle`.

Which way it fails: closed before the spend (a store that cannot reserve ends the request with 503), open after it (an
answer is not withheld from its client for longer than `HOLD_S`; its settlement is retried until the store takes it).
A reservation whose process dies is settled by another process, or by the next one, when the lease has ended.
"""

import asyncio
import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from services.apimgmt.ledger.record import Ids
from services.apimgmt.metrics import Metrics
from services.apimgmt.store.api import Grant, Reservation, Settlement, Store, StoreError
from services.extproc import alarms

HOLD_S = 2.0
"""How long the end of an answer is held for its settlement, seconds."""

SPOOL = 10_000
"""Settlements that are kept while the store is away. What does not fit is settled as lost when this process ends."""

RETRY_S = 1.0
"""Time between two attempts to write what is spooled, seconds."""

CLOSE_S = 5.0
"""How long a stopping process waits for its settlements, seconds."""

JITTER = 0.2
"""Share by which sweeps of several processes are spread."""

T = TypeVar("T")
logger = logging.getLogger("penstock.apimgmt")


class Accounting:
    """One per process. `start` before the first request, `stop` after the last."""

    def __init__(self, store: Store, metrics: Metrics, lease_s: int, clock: Callable[[], float] = time.time) -> None:
        """`lease_s`: how long reservations outlive this process."""
        self.store, self.metrics, self.clock = store, metrics, clock
        process = secrets.token_hex(6)
        self.owner = process
        """Names this process in reservations."""
        self.ids = Ids(process)
        self._lease_s = lease_s
        self._until = 0
        """When this process's own lease ends, Unix seconds."""
        self._pending: dict[asyncio.Future[None], _Settling] = {}
        self._spool: deque[Settlement] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._beside: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take a lease, and keep it. Raises StoreError."""
        await self.renew()
        self._tasks = [asyncio.create_task(work) for work in (self._keep(), self._sweep(), self._retry())]

    async def stop(self) -> None:
        """Write what is pending; bounded by `CLOSE_S`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._beside:
            await asyncio.wait(self._beside, timeout=CLOSE_S)
        if self._pending:
            await asyncio.wait(self._pending, timeout=CLOSE_S)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._drain()
        except TimeoutError:
            pass
        left = len(self._spool) + len(self._pending)
        if left:
            logger.error("settlements could not be written: they will be settled as lost", extra={"requests": left})

    @property
    def pending(self) -> int:
        """Settlements that have not reached the store yet."""
        return len(self._pending) + len(self._beside) + len(self._spool)

    def reserve(self, reservation: Reservation) -> "asyncio.Future[Grant]":
        """Begin to reserve. The future outlives whoever waits for it: a grant must not be overlooked."""
        return _future(self.store.reserve(reservation))

    def settle(self, settlement: Settlement) -> "asyncio.Future[None]":
        """Begin to settle; failures are retried here. The future is done when the store has it, or when it failed."""
        future = _future(self.store.settle(settlement))
        self._pending[future] = _Settling(settlement)
        future.add_done_callback(self._settled)
        return future

    def hold(self, settled: "asyncio.Future[None]", value: T) -> "asyncio.Future[T]":
        """Return a future of `value`, done when a settlement that `settle` began is, or has taken `HOLD_S`."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        settling = self._pending.get(settled)
        if settling is None:
            future.set_result(value)
        else:
            settling.hold(future, value, self._late)
        return future

    def _late(self) -> None:
        self.metrics.settlements.counts[("late",)] += 1

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what outlives its request."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def _settled(self, future: "asyncio.Future[None]") -> None:
        settling = self._pending.pop(future)
        settling.let_go()
        error = None if future.cancelled() else future.exception()
        if error is None and not future.cancelled():
            self.metrics.settlements.counts[("written",)] += 1
            return
        if len(self._spool) >= SPOOL:
            self.metrics.settlements.counts[("dropped",)] += 1
            return
        if not self._spool:
            logger.error("a settlement failed, it will be retried", extra={"error": _told(error)})
        self.metrics.settlements.counts[("spooled",)] += 1
        self._spool.append(settling.settlement)
        self.metrics.spooled = len(self._spool)

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            await self._drain()

    async def _drain(self) -> None:
        """Write what is spooled, oldest first, until two fail: one that can never be written must not stop others."""
        failed = 0
        while failed < min(2, len(self._spool)):
            settlement = self._spool[0]
            try:
                await self.store.settle(settlement)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next attempt may work
                logger.warning("settlements still fail", extra={"waiting": len(self._spool), "error": _told(error)})
                self._spool.rotate(-1)
                failed += 1
                continue
            self._spool.popleft()  # only now: a cancelled attempt leaves it there, and settling twice does no harm
            self.metrics.spooled = len(self._spool)
            self.metrics.settlements.counts[("retried",)] += 1

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            try:
                await self.renew()
            except StoreError as error:
                logger.error("the lease could not be renewed", extra={"error": str(error)})

    async def renew(self) -> None:
        """Take the lease anew. Raises StoreError."""
        until = int(self.clock()) + self._lease_s
        await self.store.renew(self.owner, until)
        self._until = until

    async def sweep(self) -> int:
        """Settle what died processes held; return how many requests. Raises StoreError.

        Where this process's own lease has ended it stood still, its clock was set, or the store was away: others may
        live and be as late, so they get until the next sweep to renew theirs.
        """
        now = int(self.clock())
        if now >= self._until:
            await self.renew()
            return 0
        return await self.store.sweep(now)

    async def _sweep(self) -> None:
        """Settle what died processes held; begins at once, for this process's predecessor."""
        while True:
            try:
                lost = await self.sweep()
            except StoreError as error:
                logger.error("reservations of other processes could not be looked at", extra={"error": str(error)})
            else:
                if lost:
                    self.metrics.lost.counts[()] += lost
                    logger.warning("requests of a process that died were settled", extra={"requests": lost})
            await asyncio.sleep(self._lease_s / 2 * random.uniform(1 - JITTER, 1 + JITTER))


class _Settling:
    """A settlement on its way to the store, and who waits for it."""

    __slots__ = ("_alarm", "_future", "_value", "settlement")

    def __init__(self, settlement: Settlement) -> None:
        self.settlement = settlement
        self._future: asyncio.Future[Any] | None = None
        self._value: object = None
        self._alarm: alarms.Alarm | None = None

    def hold(self, future: "asyncio.Future[T]", value: T, late: Callable[[], None]) -> None:
        """Give `future` its value when the settlement is done, or with `late` after `HOLD_S`."""

        def expire() -> None:
            late()
            self.let_go()

        self._future, self._value, self._alarm = future, value, alarms.after(HOLD_S, expire)

    def let_go(self) -> None:
        """Let the held value go, if there is one."""
        future, self._future = self._future, None
        if future is None or self._alarm is None:
            return
        self._alarm.call_off()
        if not future.done():
            future.set_result(self._value)


async def until(future: "asyncio.Future[T]", limit_s: float) -> bool:
    """Wait for a future without owning it: neither cancelling nor failing this wait touches it. False: not done."""
    if future.done():
        return True
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    future.add_done_callback(wake)
    timer = loop.call_later(limit_s, wake)
    try:
        await waiter
    finally:
        timer.cancel()
        future.remove_done_callback(wake)
    return future.done()


def _future(awaitable: Awaitable[T]) -> "asyncio.Future[T]":
    """Return what stores that queue requests return anyway, else a task."""
    return awaitable if isinstance(awaitable, asyncio.Future) else asyncio.ensure_future(awaitable)


def _told(error: BaseException | None) -> str:
    return str(error) if isinstance(error, StoreError) else type(error).__name__
