"""Limits that almost never end: each at its time, none that was called off, and little kept of those."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from services.extproc import alarms


class Loop(asyncio.SelectorEventLoop):
    """A loop whose time passes when told, and at once while it has nothing else to do."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers = 0
        super().__init__()

    def time(self) -> float:
        return self.now

    def call_at(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        self.timers += 1
        return super().call_at(*args, **kwargs)

    async def pass_(self, seconds: float) -> None:
        self.now += seconds
        for _ in range(3):
            await asyncio.sleep(0)


def run(test: Callable[[Loop], object]) -> None:
    loop = Loop()
    try:
        loop.run_until_complete(test(loop))  # type: ignore[arg-type]
    finally:
        loop.close()


def test_each_goes_off_at_its_time_and_in_order() -> None:
    async def test(loop: Loop) -> None:
        seen: list[str] = []
        alarms.after(2, lambda: seen.append("two"))
        alarms.after(1, lambda: seen.append("one"))
        await loop.pass_(0.5)
        alarms.after(1, lambda: seen.append("one and a half"))
        alarms.after(2, lambda: seen.append("two and a half"))
        await loop.pass_(0.499)
        assert seen == []
        for _ in range(4):
            await loop.pass_(0.501)
        assert seen == ["one", "one and a half", "two", "two and a half"]

    run(test)


def test_what_is_called_off_never_goes_off_and_is_let_go_at_once() -> None:
    class Held:
        def call(self) -> None:
            raise AssertionError("called off")

    async def test(loop: Loop) -> None:
        held = Held()
        gone = weakref.ref(held)
        alarm = alarms.after(1, held.call)
        assert alarm.waiting
        alarm.call_off()
        assert not alarm.waiting
        del held
        gc.collect()
        assert gone() is None
        await loop.pass_(2)

    run(test)


def test_many_that_are_called_off_need_few_timers_and_are_not_kept() -> None:
    async def test(loop: Loop) -> None:
        seen: list[int] = []
        kept = [alarms.after(1000, lambda i=i: seen.append(i)) for i in range(10)]  # type: ignore[misc]
        for _ in range(20 * alarms.MAX_CALLED_OFF):
            alarms.after(1000, lambda: seen.append(-1)).call_off()
        [queue] = alarms._local.queues.values()
        assert len(queue._alarms) <= 2 * (alarms.MAX_CALLED_OFF + len(kept))
        assert loop.timers == 1
        await loop.pass_(1001)
        assert seen == list(range(10))
        assert loop.timers <= 2

    run(test)


def test_one_that_goes_off_may_set_the_next() -> None:
    async def test(loop: Loop) -> None:
        seen: list[float] = []

        def again() -> None:
            seen.append(loop.now)
            alarms.after(1, again)

        alarms.after(1, again)
        for _ in range(3):
            await loop.pass_(1)
        assert seen == [1001, 1002, 1003]

    run(test)


def test_one_that_raises_does_not_keep_others_from_going_off() -> None:
    async def test(loop: Loop) -> None:
        said: list[str] = []
        loop.set_exception_handler(lambda _, context: said.append(repr(context["exception"])))
        seen: list[int] = []
        alarms.after(1, lambda: 1 // 0)
        alarms.after(1, lambda: seen.append(1))
        await loop.pass_(1)
        await loop.pass_(0.1)
        assert (seen, said) == ([1], ["ZeroDivisionError('integer division or modulo by zero')"])

    run(test)


@pytest.mark.parametrize("beside", [False, True])
def test_loops_have_their_own(beside: bool) -> None:
    async def test(loop: Loop) -> None:
        seen: list[Loop] = []
        alarms.after(1, lambda: seen.append(loop))
        await loop.pass_(1)
        assert seen == [loop]

    run(test)
    if beside:
        failed: list[BaseException] = []

        def other() -> None:
            try:
                run(test)
            except BaseException as error:  # noqa: BLE001 - told by the test
                failed.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert failed == []
    run(test)
