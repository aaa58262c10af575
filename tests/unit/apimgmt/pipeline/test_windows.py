"""Windows and durations."""

import calendar
import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.apimgmt.ratelimit import duration
from services.apimgmt.windows import SECONDS, spans

TIMES = st.integers(0, 4_102_444_800)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(TIMES)
def test_calendar_windows_end_where_the_calendar_says(now: int) -> None:
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    found = spans(now)
    assert found["minute", False].expires == (moment.replace(second=0) + datetime.timedelta(minutes=1)).timestamp()
    day = moment.replace(hour=0, minute=0, second=0)
    assert found["day", False].expires == (day + datetime.timedelta(days=1)).timestamp()
    days = calendar.monthrange(moment.year, moment.month)[1]
    assert found["month", False].expires == (day.replace(day=1) + datetime.timedelta(days=days)).timestamp()
    assert found["month", False].slot == moment.year * 12 + moment.month - 1


@settings(max_examples=200, deadline=None, derandomize=True)
@given(TIMES, st.sampled_from(sorted(SECONDS)), st.floats(0, 1))
def test_a_rolling_window_holds_all_of_the_window(now: int, window: str, part: float) -> None:
    used = now + SECONDS[window] + 1
    later = used + int(part * (SECONDS[window] - 1))
    at, then = spans(used)[window, True], spans(later)[window, True]
    assert then.slot - then.slots < at.slot <= then.slot  # still summed
    assert at.expires >= used + SECONDS[window]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0195, "20ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (3600, "1h0m0s"), (90_061, "25h1m1s")],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
