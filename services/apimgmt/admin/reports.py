"""Reading what was used: usage sums, the month's statement, ledger and audit trail."""

import csv
import datetime
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from services.apimgmt import billing
from services.apimgmt.admin import shapes
from services.apimgmt.admin.access import PREFIX, Access, Guarded, Reach
from services.apimgmt.admin.problems import ProblemError, bad_parameter
from services.apimgmt.admin.shapes import problem_responses
from services.apimgmt.store.api import DIMENSIONS, SUMS, UnknownCursor, UsageQuery, UsageRow

MAX_BUCKETS = 1000
"""Buckets of one answer."""
MAX_ROWS = 50_000
"""Rows of one answer."""
BUCKET_S = {"hour": 3600, "day": 86_400, "month": 28 * 86_400}
"""Length at least, seconds."""
MAX_CURSOR = 64 * 1024
"""Longest cursor of the ledger: on Valkey it has the place in each organization's stream, some 50 characters each."""
MAX_TIME = 253_402_300_799
"""The end of the year 9999, Unix seconds: what dates can say."""

router = APIRouter(prefix=PREFIX, tags=["reports"])

Time = Annotated[
    str | None,
    Query(max_length=40, description="Unix seconds, or a date or time as in ISO 8601 (UTC).", examples=["2026-11-01"]),
]
By = Annotated[
    list[str], Query(description=f"Group by some of {', '.join(DIMENSIONS)}; repeat it or separate by commas.")
]
Organization = Annotated[str | None, Query(max_length=63)]
Filter = Annotated[str | None, Query(max_length=255, description="Only this one.")]


@router.get("/usage", summary="Sum what was used", response_model=dict[str, Any], responses=problem_responses(400))
async def usage(
    request: Request,
    access: Guarded,
    by: By = [],  # noqa: B006 - FastAPI copies it
    organization: Organization = None,
    since: Time = None,
    until: Time = None,
    bucket: Literal["hour", "day", "month", "all"] = "day",
    format: Literal["json", "csv"] = "json",  # noqa: A002 - the parameter's name on the wire
    team: Filter = None,
    user: Filter = None,
    app: Filter = None,
    key: Filter = None,
    product: Filter = None,
    model: Filter = None,
    agent: Filter = None,
    outcome: Filter = None,
) -> Response:
    """Return sums of the ledger; team leads see their team's, developers their own. May lag some seconds.

    Default is the current month until now. Both ends are cut to whole hours. Money in millionths of a US dollar.
    """
    given = {"team": team, "user": user, "app": app, "key": key, "product": product, "model": model, "agent": agent}
    where = {name: value for name, value in {**given, "outcome": outcome}.items() if value is not None}
    begin, end = _window(access, since, until, bucket)
    organization, where = _within(access, organization, where)
    groups = group_names(by)
    rows = await access.context.store.usage(UsageQuery(organization, begin, end, bucket, groups, where))
    if len(rows) > MAX_ROWS:
        raise bad_parameter("by", ",".join(groups), f"expected at most {MAX_ROWS} rows", "ask for less, or filter")
    if format == "csv" or request.headers.get("accept", "").startswith("text/csv"):
        name = f"usage-{begin}-{end}.csv"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(as_csv(rows, groups), media_type="text/csv; charset=utf-8", headers=headers)
    items = [{"start": row.start, **row.group, **row.sums} for row in rows]
    return JSONResponse({"since": begin, "until": end, "bucket": bucket, "items": items, "next": None})


@router.get("/statement", summary="What a month costs", response_model=dict[str, Any], responses=problem_responses(400))
async def statement(
    access: Guarded,
    month: Annotated[str, Query(max_length=7, examples=["2026-11"])],
    by: By = [],  # noqa: B006
    organization: Organization = None,
) -> Response:
    """Return costs, free tokens taken off, and monthly fees, in millionths of a US dollar."""
    store, groups = access.context.store, group_names(by) or ("organization",)
    try:
        query = billing.query(month, groups, organization)
    except ValueError as error:
        raise bad_parameter("month", month, str(error), "correct the parameter") from None
    rows = await store.usage(query)
    _, documents = await store.snapshot()
    terms = billing.Terms.of_documents(documents)
    return JSONResponse(billing.statement(rows, terms, month, groups, organization).as_json())


@router.get("/ledger", summary="Read the ledger, record by record", response_model=dict[str, Any])
async def ledger(
    access: Guarded,
    after: Annotated[str, Query(max_length=MAX_CURSOR, description="`next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=shapes.MAX_PAGE)] = shapes.DEFAULT_PAGE,
) -> Response:
    """Return records in the order in which they were written; `next` is where newer ones will appear."""
    try:
        following, records = await access.context.store.ledger(after, limit)
    except UnknownCursor:
        raise bad_parameter("after", after[:80], "expected `next` of another page", "leave it out to begin") from None
    tail = JSONResponse(following).body
    body = b'{"items":[' + b",".join(records) + b'],"next":' + bytes(tail) + b"}"
    return Response(body, media_type="application/json")


@router.get("/audit", summary="Read who changed what, newest first", response_model=dict[str, Any])
async def audit(
    access: Guarded,
    organization: Organization = None,
    after: Annotated[int, Query(ge=0, le=2**53, description="`next` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=shapes.MAX_PAGE)] = shapes.DEFAULT_PAGE,
) -> Response:
    """Return entries with documents before and after, without secrets."""
    entries = await access.context.store.audit(organization, after, limit)
    following = entries[-1].sequence if len(entries) == limit and entries[-1].sequence > 1 else None
    return JSONResponse({"items": [asdict(entry) for entry in entries], "next": following})


def group_names(by: Sequence[str]) -> tuple[str, ...]:
    """Return the dimensions that a query groups by. Raises ProblemError (400)."""
    names = tuple(dict.fromkeys(name.strip() for text in by for name in text.split(",") if name.strip()))
    for name in names:
        if name not in DIMENSIONS:
            raise bad_parameter("by", name[:80], f"expected some of {', '.join(DIMENSIONS)}", "correct the name")
    return names


def as_csv(rows: Sequence[UsageRow], groups: Sequence[str]) -> str:
    """Return rows as CSV (RFC 4180). What a spreadsheet would take for a formula begins with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["start", *groups, *SUMS])
    for row in rows:
        start = datetime.datetime.fromtimestamp(row.start, datetime.UTC).isoformat() if row.start else ""
        names = [row.group.get(name, "") for name in groups]
        names = ["'" + name if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name for name in names]
        writer.writerow([start, *names, *(row.sums.get(name, 0) for name in SUMS)])
    return out.getvalue()


def _within(access: Access, organization: str | None, where: dict[str, str]) -> tuple[str | None, dict[str, str]]:
    """Return the filters narrowed to what the caller may see. Raises ProblemError (403)."""
    if access.reach is Reach.ALL:
        return organization, where
    who = access.principal
    dimension, own = ("team", who.team) if access.reach is Reach.TEAM else ("user", who.developer)
    if organization not in (None, who.organization) or where.get(dimension, own) != own:
        raise ProblemError(403, "forbidden", f"you see usage of {who.organization}, {dimension} {own}")
    return who.organization, {**where, dimension: own}


def _window(access: Access, since: str | None, until: str | None, bucket: str) -> tuple[int, int]:
    """Return the hours asked for."""
    end = _time("until", until) if until else (access.context.now // 3600 + 1) * 3600
    now = datetime.datetime.fromtimestamp(access.context.now, datetime.UTC)
    begin = (
        _time("since", since)
        if since
        else int(datetime.datetime(now.year, now.month, 1, tzinfo=datetime.UTC).timestamp())
    )
    if begin >= end:
        raise bad_parameter("since", str(since), "expected a time before `until`", "choose an earlier time")
    if bucket in BUCKET_S and (end - begin) / BUCKET_S[bucket] > MAX_BUCKETS:
        raise bad_parameter("bucket", bucket, f"expected at most {MAX_BUCKETS} buckets", "choose a longer bucket")
    return begin, end


def _time(name: str, text: str) -> int:
    """Return Unix seconds."""
    try:
        if text.isascii() and text.isdigit():
            seconds = int(text)
        else:
            parsed = datetime.datetime.fromisoformat(text)
            seconds = int(parsed.replace(tzinfo=parsed.tzinfo or datetime.UTC).timestamp())
    except (ValueError, OverflowError):
        seconds = -1
    if not 0 <= seconds <= MAX_TIME:
        raise bad_parameter(name, text, "expected Unix seconds or an ISO 8601 date or time", "e.g. 2026-11-01")
    return seconds
