"""How long a hook may take, and who cancelled what."""

import asyncio

import pytest

from services.extproc import chain
from services.extproc.api import BodyMode, Ending, Exchange, Filter, FilterStream
from services.extproc.chain import Denied, Link

LONG_S, SHORT_S = 30.0, 0.01


class Waits(Filter):
    """Its hook waits for what it was given."""

    name = "waits"

    def __init__(self, awaitable) -> None:
        self.awaitable = awaitable

    def open(self, exchange):
        outer = self

        class Stream(FilterStream):
            def on_request_headers(self):
                return outer.awaitable

        return Stream()


async def ask(awaitable, limit_s):
    waits, exchange = Waits(awaitable), Exchange()
    link = Link(waits, waits.open(exchange), BodyMode.NONE, BodyMode.NONE)
    await chain.ask([link], "on_request_headers", limit_s, exchange)


async def test_a_hook_that_takes_too_long_ends_the_exchange_and_leaves_no_cancellation_behind():
    with pytest.raises(Denied) as denied:
        await ask(asyncio.get_running_loop().create_future(), SHORT_S)
    assert denied.value.ending is Ending.DEADLINE
    assert denied.value.reply.status == 504
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)


async def test_a_hook_in_time_is_not_cancelled_later():
    async def answer():
        await asyncio.sleep(0)

    await ask(answer(), SHORT_S)
    await asyncio.sleep(2 * SHORT_S)
    assert asyncio.current_task().cancelling() == 0


async def test_a_hooks_own_timeout_is_a_failure_and_no_deadline():
    async def own():
        async with asyncio.timeout(SHORT_S):
            await asyncio.sleep(LONG_S)

    with pytest.raises(Denied) as denied:
        await ask(own(), LONG_S)
    assert denied.value.ending is Ending.ERROR


async def test_a_cancellation_from_outside_passes():
    task = asyncio.create_task(ask(asyncio.get_running_loop().create_future(), LONG_S))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_cancellation_from_outside_passes_also_when_the_deadline_comes_with_it():
    async def stubborn():
        try:
            await asyncio.sleep(LONG_S)
        except asyncio.CancelledError:
            await asyncio.sleep(2 * SHORT_S)  # the deadline passes meanwhile

    task = asyncio.create_task(ask(stubborn(), SHORT_S))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 1


async def test_a_hook_that_swallows_its_deadline_leaves_no_cancellation_behind():
    async def stubborn():
        try:
            await asyncio.sleep(LONG_S)
        except asyncio.CancelledError:
            return

    await ask(stubborn(), SHORT_S)
    assert asyncio.current_task().cancelling() == 0
