"""Time limits that almost never end: many of them, at the price of one.

A timer of the event loop for each hook that waits costs more than what most hooks do. Limits come in few lengths, and
those of one length end in the order in which they were set: they wait in one queue, and only its head has a timer.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable

MAX_CALLED_OFF = 4096
"""Alarms of a queue that may be called off and still wait for their turn, before they are looked for."""


class Alarm:
    """Calls back after its time, unless it is called off before."""

    __slots__ = ("_call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self._call: Callable[[], None] | None = call

    def call_off(self) -> None:
        """Never call. What it would have called is let go at once."""
        self._call = None

    @property
    def waiting(self) -> bool:
        """Neither called off nor gone off."""
        return self._call is not None

    def go_off(self) -> None:
        """Call, once."""
        call, self._call = self._call, None
        if call is not None:
            call()


class _Queue:
    """The alarms of one length, in the order in which they end."""

    __slots__ = ("_alarms", "_clock", "_length_s", "_looked", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, length_s: float) -> None:
        self._loop, self._length_s, self._clock = loop, length_s, loop.time
        self._alarms: deque[Alarm] = deque()
        self._looked = MAX_CALLED_OFF
        self._timer: asyncio.TimerHandle | None = None

    def set(self, call: Callable[[], None]) -> Alarm:
        alarm = Alarm(self._clock() + self._length_s, call)
        self._alarms.append(alarm)
        if self._timer is None:
            self._timer = self._loop.call_at(alarm.due, self._ring)
        elif len(self._alarms) > self._looked:
            self._clear()
        return alarm

    def _ring(self) -> None:
        """Let go off what is due, and wait for the next that is not called off."""
        alarms, now = self._alarms, self._clock()
        self._timer = None
        try:
            while alarms and (not alarms[0].waiting or alarms[0].due <= now):
                alarms.popleft().go_off()
        finally:
            if alarms and self._timer is None:
                self._timer = self._loop.call_at(alarms[0].due, self._ring)

    def _clear(self) -> None:
        """Drop what is called off: a long limit set very often would keep much of it."""
        self._alarms = deque(alarm for alarm in self._alarms if alarm.waiting)
        self._looked = 2 * len(self._alarms) + MAX_CALLED_OFF


_local = threading.local()
"""`loop` and its `queues`: a thread runs one event loop at a time."""


def after(length_s: float, call: Callable[[], None]) -> Alarm:
    """Have the running loop call back after so many seconds, as its `call_later` does."""
    loop = asyncio.get_running_loop()
    if getattr(_local, "loop", None) is not loop:
        _local.loop, _local.queues = loop, {}
    queues: dict[float, _Queue] = _local.queues
    queue = queues.get(length_s)
    if queue is None:
        queue = queues[length_s] = _Queue(loop, length_s)
    return queue.set(call)
