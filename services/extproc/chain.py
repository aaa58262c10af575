"""A chain of filters, and the calling of their hooks: deadlines, failures, denials."""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from services.extproc import alarms
from services.extproc.api import BodyMode, Ending, Exchange, Filter, FilterStream, Outcome, Reply, deny

logger = logging.getLogger("penstock.extproc")

T = TypeVar("T")


class Denied(Exception):
    """Control flow inside a session: the exchange ends with `reply`."""

    def __init__(self, reply: Reply, ending: Ending = Ending.DENIED) -> None:
        super().__init__(reply.details)
        self.reply, self.ending = reply, ending


class HookDeadline(Exception):
    """A hook did not answer within its limit."""


@dataclass(slots=True)
class Link:
    """One filter in one exchange. `alive` turns False when the filter failed and may be skipped."""

    filter: Filter
    stream: FilterStream
    request_body: BodyMode
    response_body: BodyMode
    alive: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What a chain does with the body of one direction, known before any exchange."""

    wants: bool
    """Some filter wants the body."""
    holds: bool
    """Some filter wants it whole: headers and body are held until the end."""
    first_whole: int
    """Position, in the direction's order, of the first filter that wants it whole: those before see each piece."""

    @classmethod
    def of(cls, modes: Sequence[BodyMode]) -> "Plan":
        """Plan for the modes of all filters, in the direction's order."""
        holds = BodyMode.WHOLE in modes
        wants = holds or BodyMode.CHUNKS in modes
        return cls(wants, holds, modes.index(BodyMode.WHOLE) if holds else len(modes))


class Chain:
    """The filters of a process, in the order of the request; the response passes them in reverse."""

    def __init__(self, filters: Sequence[Filter]) -> None:
        self.filters = tuple(filters)
        self.request = Plan.of([f.request_body for f in self.filters])
        self.response = Plan.of([f.response_body for f in reversed(self.filters)])

    def open(self, exchange: Exchange, links: list[Link]) -> None:
        """Open every filter for `exchange`, adding to `links`. Raises Denied if one fails that must not."""
        for f in self.filters:
            try:
                links.append(Link(f, f.open(exchange), f.request_body, f.response_body))
            except Exception as error:  # noqa: BLE001 - whatever a filter raises must not end the server
                failed(f, exchange, "open", error)


async def ask(links: Sequence[Link], hook: str, limit_s: float, exchange: Exchange) -> None:
    """Call a hook of each live link. Raises Denied when one denies, or fails and must not be skipped."""
    for link in links:
        if not link.alive:
            continue
        try:
            answer = getattr(link.stream, hook)()
            if answer is None:
                continue
            if not isinstance(answer, Reply):
                answer = await _within(answer, limit_s)
            if answer is not None and not isinstance(answer, Reply):
                raise TypeError(f"{hook} gave {type(answer).__name__}, expected None or Reply")
        except Exception as error:  # noqa: BLE001 - as above
            failed(link.filter, exchange, hook, error)
            link.alive = False
            continue
        if answer is not None:
            raise Denied(answer)


async def transform(
    links: Sequence[Link], hook: str, chunk: bytes, last: bool, limit_s: float, exchange: Exchange
) -> bytes:
    """Pass a chunk through the links, which all want chunks. Raises Denied as `ask`."""
    for link in links:
        if not link.alive:
            continue
        try:
            answer = getattr(link.stream, hook)(chunk, last)
            if not isinstance(answer, bytes | Reply):
                answer = await _within(answer, limit_s)
            if not isinstance(answer, bytes | Reply):
                raise TypeError(f"{hook} gave {type(answer).__name__}, expected bytes or Reply")
        except Exception as error:  # noqa: BLE001 - as above
            failed(link.filter, exchange, hook, error)
            link.alive = False
            continue
        if isinstance(answer, Reply):
            raise Denied(answer)
        chunk = answer
    return chunk


def end(links: Sequence[Link], exchange: Exchange, outcome: Outcome) -> None:
    """Tell every opened filter that the exchange is over, also those that failed before."""
    for link in links:
        try:
            link.stream.on_end(outcome)
        except Exception as error:  # noqa: BLE001 - as above; nothing is left to deny
            _log(link.filter, exchange, "on_end", error)


def failed(f: Filter, exchange: Exchange, hook: str, error: Exception) -> None:
    """Log a filter's failure. Returns if the filter may be skipped, else raises Denied."""
    _log(f, exchange, hook, error)
    if f.fail_open:
        return
    if isinstance(error, HookDeadline):
        reply = deny(504, "A gateway policy took too long. Try again.", type="server_error", code="callout_deadline")
        raise Denied(reply, Ending.DEADLINE) from None
    reply = deny(500, "A gateway policy failed. Try again.", type="server_error", code="callout_error")
    raise Denied(reply, Ending.ERROR) from None


async def _within(awaitable: Awaitable[T], limit_s: float) -> T:
    """Wait for a hook, at most for `limit_s` seconds. Raises HookDeadline then.

    As `asyncio.timeout` does in twice the time: a cancellation by somebody else passes, also one that came with ours.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - sessions run in tasks
    before, passed = task.cancelling(), False

    def expire() -> None:
        nonlocal passed
        passed = True
        task.cancel()

    alarm = alarms.after(limit_s, expire)
    try:
        return await awaitable
    except asyncio.CancelledError:
        if passed and task.cancelling() - 1 <= before:
            raise HookDeadline(f"no answer within {limit_s:g} s") from None
        raise
    finally:
        alarm.call_off()
        if passed:
            task.uncancel()


def _log(f: Filter, exchange: Exchange, hook: str, error: Exception) -> None:
    """Say what failed and where. An exception's text may quote a body, so only its type and the frames are logged."""
    frames = traceback.extract_tb(error.__traceback__)[-5:]
    logger.error(
        "filter failed",
        extra={
            "request_id": exchange.request_id,
            "filter": getattr(f, "name", type(f).__name__),
            "hook": hook,
            "error": str(error) if isinstance(error, HookDeadline) else type(error).__name__,
            "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
            "fail_open": f.fail_open,
        },
    )
