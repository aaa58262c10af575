"""What the management commands print: tables, bars, JSON."""

import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

CENT = 0.01
"""Smaller amounts of money are shown to the micro-dollar."""
BAR = 30
"""Width of the longest bar, characters."""
_EIGHTHS = " ▏▎▍▌▋▊▉"


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()) -> str:
    """Return aligned columns; those in `right` are numbers. What could move the cursor is shown escaped."""
    cells = [[_cell(value) for value in row] for row in rows]
    lines = [list(header), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def bar(value: float, most: float, width: int = BAR) -> str:
    """Return a bar whose full width stands for `most`; anything above zero shows."""
    if most <= 0 or value <= 0:
        return ""
    eighths = max(1, round(min(value / most, 1) * width * 8))
    if (sys.stdout.encoding or "").lower().replace("-", "") != "utf8":
        return "#" * max(1, eighths // 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def time(seconds: int | None, bucket: str = "minute") -> str:
    """Return Unix seconds as date, and time where the bucket is shorter than a day (UTC)."""
    if not seconds:
        return "-"
    formats = {"month": "%Y-%m", "day": "%Y-%m-%d", "hour": "%Y-%m-%d %H:00"}
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime(formats.get(bucket, "%Y-%m-%d %H:%M"))


def money(micros: int) -> str:
    """Return millionths of a US dollar as dollars."""
    dollars = abs(micros) / 1_000_000
    text = f"{dollars:,.2f}" if dollars >= CENT or not micros else f"{dollars:.6f}"
    return ("-$" if micros < 0 else "$") + text


def count(number: int) -> str:
    """Return a whole number with thousands apart."""
    return f"{number:,}"


def usage(rows: Sequence[Mapping[str, Any]], by: Sequence[str], bucket: str) -> str:
    """Return usage as a table with a bar for tokens (for requests where there are none)."""
    totals = [row["promptTokens"] + row["completionTokens"] for row in rows]
    shown, name = (totals, "TOKENS") if any(totals) else ([row["requests"] for row in rows], "REQUESTS")
    header = ["START"] * (bucket != "all") + [*map(str.upper, by), "REQUESTS", "PROMPT", "COMPLETION", "COST", name]
    most = max(shown, default=0)
    lines = [
        [
            *([time(row["start"], bucket)] * (bucket != "all")),
            *(row.get(dimension) or "-" for dimension in by),
            count(row["requests"]),
            count(row["promptTokens"]),
            count(row["completionTokens"]),
            money(row["costMicros"]),
            bar(value, most),
        ]
        for row, value in zip(rows, shown, strict=True)
    ]
    numbers = len(by) + (bucket != "all")
    return table(header, lines, range(numbers, numbers + 4))


def _cell(value: Any) -> str:
    text = "-" if value in (None, "") else str(value)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
