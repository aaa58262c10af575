"""Runs the engine on the event loop's clock with one timer, and hands tokens to the requests that wait for them."""

import asyncio
from collections.abc import Sequence as Many

from services.modelserver.engine import Engine
from services.modelserver.sequence import Sequence, Status


class Delivery:
    """What the engine has produced for one request of one or several sequences.

    With `every_token` a waiting request is woken by every token, otherwise only when all sequences have ended.
    """

    __slots__ = ("_every_token", "_waiter", "events", "gone", "pending")

    def __init__(self, every_token: bool) -> None:
        self.pending = 0
        """Sequences that have not ended."""
        self.gone = False
        """The client has left; nothing more will come."""
        self.events: list[tuple[Sequence, int]] = []
        self._every_token = every_token
        self._waiter: asyncio.Future[None] | None = None

    def on_tokens(self, sequence: Sequence, count: int) -> None:
        """Be the listener of a sequence."""
        if self._every_token:
            self.events.append((sequence, count))
        if sequence.status is Status.FINISHED:
            self.pending -= 1
        if self._every_token or not self.pending:
            self._wake()

    def give_up(self) -> None:
        """Tell the waiting request that its client has gone."""
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> bool:
        """Wait for tokens, or for the end; False when the client has gone."""
        if not self.gone and not self.events and self.pending:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return not self.gone

    def take(self) -> list[tuple[Sequence, int]]:
        """Return the tokens that arrived since the last call: (sequence, count)."""
        events, self.events = self.events, []
        return events


class Driver:
    """Owns the timer. All methods are called on the event loop."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._handle: asyncio.TimerHandle | asyncio.Handle | None = None
        self._due: float | None = None

    def submit(self, sequences: Many[Sequence]) -> None:
        """Queue `sequences` now."""
        now = asyncio.get_running_loop().time()
        for sequence in sequences:
            self.engine.add(sequence, now)
        self._arm()

    def abort(self, sequences: Many[Sequence]) -> None:
        """Forget `sequences`; those that have ended already are left alone."""
        for sequence in sequences:
            self.engine.abort(sequence)

    def _arm(self) -> None:
        due = self.engine.next_event()
        if due == self._due:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._due = due
        if due is None:
            self._handle = None
            return
        loop = asyncio.get_running_loop()
        self._handle = loop.call_soon(self._fire) if due <= loop.time() else loop.call_at(due, self._fire)

    def _fire(self) -> None:
        self._handle = self._due = None
        self.engine.poll(asyncio.get_running_loop().time())
        self._arm()
