"""The windows that limits count in, as slots of the store.

A calendar window (UTC) is one slot. A rolling window is cut into `STEPS` slots; the sum runs over one more, so that it
always holds all of the window: use counts up to 1/12 longer than the window, never shorter. That is 5 s of a minute,
5 min of an hour, 2 h of a day, 2.5 days of 30 days.
"""

import time
from typing import NamedTuple

from services.apimgmt.domain import Limit

STEPS = 12
"""Slots that a rolling window is cut into."""

SECONDS = {"minute": 60, "hour": 3_600, "day": 86_400, "month": 30 * 86_400}
"""Length of a window, seconds; of `month` where it rolls."""


class Span(NamedTuple):
    """Where a window stands at some time."""

    slot: int
    slots: int
    expires: int
    """When the slot is of no more use, Unix seconds; 0 for never. Use that is booked now counts until then."""
    step: int
    """Seconds per slot of a rolling window; 0 for windows of the calendar."""


ALWAYS = Span(0, 1, 0, 0)
"""The window of what is counted while it lasts (concurrent requests)."""

Spans = dict[tuple[str | None, bool], Span]

_known: tuple[int, Spans] = (-1, {})


def spans(now: float) -> Spans:
    """Return the spans of all windows by (window, rolling). Those of a second are shared."""
    global _known
    second = int(now)
    if _known[0] != second:
        _known = (second, _spans(second))
    return _known[1]


def span(limit: Limit, now: float) -> Span:
    """Return where the window of a limit stands."""
    return spans(now)[limit.window, limit.rolling]


def _spans(now: int) -> Spans:
    found: Spans = {(None, False): ALWAYS, (None, True): ALWAYS}
    for window, seconds in SECONDS.items():
        step = seconds // STEPS
        slot = now // step
        found[window, True] = Span(slot, STEPS + 1, (slot + STEPS + 1) * step, step)
        if window != "month":
            found[window, False] = Span(now // seconds, 1, (now // seconds + 1) * seconds, 0)
    found["month", False] = _month(now)
    return found


def _month(now: int) -> Span:
    day = time.gmtime(now)
    begins = now - (day.tm_mday - 1) * 86_400 - now % 86_400
    after = time.gmtime(begins + 31 * 86_400)  # in the month that follows, on its first to fourth day
    ends = begins + 31 * 86_400 - (after.tm_mday - 1) * 86_400
    return Span(day.tm_year * 12 + day.tm_mon - 1, 1, ends, 0)
