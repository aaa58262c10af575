"""Usage: what was asked, in tokens and money, as charts with their tables."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import APIRouter, Response
from markupsafe import Markup

from services.apimgmt.admin import reports
from services.apimgmt.domain import Role
from services.apimgmt.portal import charts, formats, holdings, words
from services.apimgmt.portal.page import BASE, PortalRoute, Signed, Visitor, render
from services.apimgmt.store.api import SUMS

DAY_S, HOUR_S = 86_400, 3_600
RANGES = {"24h": "24 hours", "7d": "7 days", "30d": "30 days", "month": "This month", "90d": "90 days"}
GROUPS = {"model": "Model", "app": "App", "key": "Key", "product": "Product", "outcome": "Outcome", "user": "Person"}
MAX_LINES = 20
"""Lines of the breakdown; the rest is summed up in one."""

Sums = Mapping[str, int]

TOKENS: Mapping[str, Callable[[Sums], int]] = {
    "Prompt": lambda sums: sums["promptTokens"] - sums["cachedTokens"],
    "Cached prompt": lambda sums: sums["cachedTokens"],
    "Completion": lambda sums: sums["completionTokens"] - sums["reasoningTokens"],
    "Reasoning": lambda sums: sums["reasoningTokens"],
}
"""Kinds of tokens that add up to all."""

router = APIRouter(prefix=BASE, route_class=PortalRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its numbers."""

    title: str
    total: str
    svg: Markup
    top: str
    """The end of the axis."""
    first: str
    last: str
    names: Sequence[tuple[str, int]]
    """Series and their tones, for the legend."""
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    """The table: label, then one cell per head."""
    empty: bool


@dataclass(frozen=True, slots=True)
class Window:
    """What is asked for."""

    since: int
    until: int
    bucket: str

    @property
    def starts(self) -> list[int]:
        """Begins of the buckets."""
        step = HOUR_S if self.bucket == "hour" else DAY_S
        return list(range(self.since // step * step, self.until, step))

    def label(self, start: int) -> str:
        """Name a bucket."""
        when = datetime.datetime.fromtimestamp(start, datetime.UTC)
        return f"{when:%H:%M}" if self.bucket == "hour" else f"{when.day} {when:%b}"


def window(name: str, now: int) -> Window:
    """Return the time that a range of `RANGES` means. Days are those of UTC."""
    until = (now // HOUR_S + 1) * HOUR_S
    if name == "24h":
        return Window(until - DAY_S, until, "hour")
    today = now // DAY_S * DAY_S
    if name == "month":
        return Window(today - (datetime.datetime.fromtimestamp(now, datetime.UTC).day - 1) * DAY_S, until, "day")
    return Window(today - (int(name.removesuffix("d")) - 1) * DAY_S, until, "day")


async def sums(signed: Visitor, asked: Window, scope: str, bucket: str, by: Sequence[str] = ()) -> list[Any]:
    """Return rows of the admin API's usage report: the same sums, the same rights.

    Args:
        signed: who asks.
        asked: when.
        scope: `mine`, `team` or `organization`.
        bucket: `hour`, `day` or `all`.
        by: dimensions.
    """
    who = signed.principal
    answer = await reports.usage(
        signed.request,
        signed.access("GET /usage"),
        by=list(by),
        organization=who.organization,
        since=str(asked.since),
        until=str(asked.until),
        bucket=bucket,  # type: ignore[arg-type]
        team=who.team if scope == "team" else None,
        user=who.developer if scope == "mine" else None,
    )
    found: list[Any] = orjson.loads(bytes(answer.body))["items"]
    return found


def scopes(signed: Visitor) -> Mapping[str, str]:
    """Return whose usage the person may see."""
    found = {"mine": "Mine"}
    if signed.principal.role is not Role.DEVELOPER:
        found["team"] = "My team's"
    if signed.principal.role is Role.ADMIN:
        found["organization"] = "The organization's"
    return found


def daily(rows: Sequence[Any], asked: Window) -> list[Sums]:
    """Return one row of sums per bucket, empty ones included."""
    empty = dict.fromkeys(SUMS, 0)
    found = {row["start"]: row for row in rows}
    return [found.get(start, empty) for start in asked.starts]


def tokens_chart(rows: Sequence[Sums], asked: Window) -> Chart:
    """Return tokens by kind."""
    series = [
        charts.Series(name, [max(0, part(row)) for row in rows], i) for i, (name, part) in enumerate(TOKENS.items(), 1)
    ]
    return chart("Tokens", series, asked, formats.compact, formats.number)


def requests_chart(rows: Sequence[Sums], asked: Window) -> Chart:
    """Return requests."""
    series = [charts.Series("Requests", [row["requests"] for row in rows])]
    return chart("Requests", series, asked, formats.compact, formats.number)


def cost_chart(rows: Sequence[Sums], asked: Window) -> Chart:
    """Return money."""
    series = [charts.Series("Cost", [row["costMicros"] for row in rows])]
    return chart("Cost", series, asked, formats.money, formats.money)


def chart(title: str, series: Sequence[charts.Series], asked: Window, short: Any, exact: Any) -> Chart:
    """Return a chart of `series` over the buckets of a window."""
    totals = [sum(values) for values in zip(*(one.values for one in series), strict=True)]
    labels = [asked.label(start) for start in asked.starts]
    top = charts.ceiling(max(totals, default=0))
    unit = "hour" if asked.bucket == "hour" else "day"
    name = f"{title} per {unit}, {labels[0]} to {labels[-1]} (UTC): {exact(sum(totals))} in all"
    several = len(series) > 1
    rows = [
        [label, *(exact(one.values[i]) for one in series), *([exact(totals[i])] if several else [])]
        for i, label in enumerate(labels)
    ]
    return Chart(
        title=title,
        total=short(sum(totals)),
        svg=charts.columns(series, labels, [exact(total) for total in totals], name, top),
        top=short(top),
        first=labels[0],
        last=labels[-1],
        names=[(one.name, one.tone) for one in series] if several else [],
        heads=["Hour" if unit == "hour" else "Day", *(one.name for one in series), *(["Total"] if several else [])],
        rows=rows,
        empty=not any(totals),
    )


@router.get("/usage")
async def page(signed: Signed) -> Response:
    """Show what was used."""
    query = signed.request.query_params
    allowed = scopes(signed)
    span = _chosen(query.get("range"), RANGES, "30d")
    by = _chosen(query.get("by"), GROUPS, "model")
    scope = _chosen(query.get("scope"), allowed, "mine")
    asked = window(span, signed.context.now)
    rows = daily(await sums(signed, asked, scope, asked.bucket), asked)
    lines = await _breakdown(signed, asked, scope, by)
    values: dict[str, Any] = {
        "charts": [requests_chart(rows, asked), tokens_chart(rows, asked), cost_chart(rows, asked)],
        "lines": lines,
        "most": max((line["tokens"] for line in lines), default=0),
        "estimated": sum(row["estimated"] for row in rows),
        "ranges": RANGES,
        "groups": {name: text for name, text in GROUPS.items() if name != "user" or scope != "mine"},
        "scopes": allowed,
        "range": span,
        "by": by,
        "scope": scope,
        "bar": charts.bar,
    }
    return render(signed.request, signed, "usage.html", **values)


def _chosen(value: str | None, offered: Mapping[str, str], default: str) -> str:
    return value if value is not None and value in offered else default


async def _breakdown(signed: Visitor, asked: Window, scope: str, by: str) -> list[dict[str, Any]]:
    """Return sums per model, app, ..., the largest first."""
    names: Mapping[str, str] = {}
    if by == "key":
        apps = await holdings.apps(signed)
        names = holdings.labels(await holdings.own_keys(signed, apps), signed.context.now)
    elif by == "outcome":
        names = words.OUTCOMES
    rows = await sums(signed, asked, scope, "all", [by])
    rows.sort(key=lambda row: (-row["promptTokens"] - row["completionTokens"], -row["requests"], row[by]))
    lines = [_line(names.get(row[by], row[by]) or "(none)", row) for row in rows[:MAX_LINES]]
    if rows[MAX_LINES:]:
        rest = {name: sum(row[name] for row in rows[MAX_LINES:]) for name in SUMS}
        lines.append(_line(f"{formats.number(len(rows) - MAX_LINES)} more", rest))
    return lines


def _line(name: str, row: Sums) -> dict[str, Any]:
    seconds = row["latencyMs"] / row["requests"] / 1000 if row["requests"] else 0
    return {
        "name": name,
        "requests": row["requests"],
        "cost": row["costMicros"],
        "prompt": row["promptTokens"],
        "cached": row["cachedTokens"],
        "completion": row["completionTokens"],
        "reasoning": row["reasoningTokens"],
        "tokens": row["promptTokens"] + row["completionTokens"],
        "latency": f"{seconds:.2f} s",
    }
