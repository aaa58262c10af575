"""Numbers, money and times for people."""

import datetime
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from services.apimgmt.domain import MICROS

_UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**4, "K"))
"""From ten thousand on; smaller numbers are written out."""

_SPANS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def number(value: float) -> str:
    """Write a whole number: `1,234,567`."""
    return f"{int(value):,}"


def compact(value: float) -> str:
    """Write a number to be read at a glance: `9,876`, `12.3K`, `4.56M`, `2M`. Rounded down."""
    for size, unit in _UNITS:
        if value >= size:
            scale = 1_000 if unit == "K" else size
            places = 2 if value < 10 * scale else 1 if value < 100 * scale else 0
            step = 10**places
            text = f"{int(value * step // scale) / step:.{places}f}"
            return f"{text.rstrip('0').rstrip('.') if places else text}{unit}"
    return number(value)


def money(micros: int) -> str:
    """Write millionths of a US dollar: cents from a dollar on, as many places as it takes below."""
    dollars = micros / MICROS
    if micros % 10_000 == 0 or dollars >= 1:
        return f"${dollars:,.2f}"
    return f"${dollars:.6f}".rstrip("0")


def plural(count: int, word: str) -> str:
    """Write a count with its noun: `1 key`, `2 keys`."""
    return f"{number(count)} {word}{'' if count == 1 else 's'}"


def span(seconds: float) -> str:
    """Write a duration in its largest unit, and the next one where the first is below ten."""
    left = max(0, int(seconds))
    for i, (size, name) in enumerate(_SPANS):
        if left >= size:
            count, rest = divmod(left, size)
            text = plural(count, name)
            if count < 10 and i + 1 < len(_SPANS) and rest >= _SPANS[i + 1][0] and name != "minute":
                text += f" {plural(rest // _SPANS[i + 1][0], _SPANS[i + 1][1])}"
            return text
    return "now"


def ago(then: int | None, now: int) -> str:
    """Write how long ago something was, `in ...` for what is to come, `never` for None."""
    if then is None:
        return "never"
    if then > now:
        return f"in {span(then - now)}"
    return "just now" if now - then < 60 else f"{span(now - then)} ago"


def day(seconds: int) -> str:
    """Write a date (UTC): `21 Nov 2026`."""
    when = _utc(seconds)
    return f"{when.day} {when:%b %Y}"


def minute(seconds: int) -> str:
    """Write date and time (UTC)."""
    return f"{day(seconds)}, {_utc(seconds):%H:%M} UTC"


def moment(seconds: int | None, now: int) -> Markup:
    """Return a `time` element that reads as `ago`, with the exact time in its title."""
    if seconds is None:
        return Markup("never")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        _utc(seconds).isoformat(), minute(seconds), ago(seconds, now)
    )


def date(seconds: int) -> Markup:
    """Return a `time` element that reads as a date, with the exact time in its title."""
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        _utc(seconds).isoformat(), minute(seconds), day(seconds)
    )


def _utc(seconds: int) -> datetime.datetime:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.datetime.max.replace(tzinfo=datetime.UTC)


FILTERS: dict[str, Callable[..., Any]] = {
    f.__name__: f for f in (number, compact, money, plural, span, ago, day, minute, moment, date)
}
"""For templates."""
