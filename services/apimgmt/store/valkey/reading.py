"""The ledger in order, its sums, and what is dropped of it."""

import asyncio
import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from services.apimgmt.store.api import DIMENSIONS, SUMS, StoreError, UnknownCursor, UsageQuery, UsageRow
from services.apimgmt.store.valkey import layout
from services.apimgmt.store.valkey.client import Client
from services.apimgmt.store.valkey.hot import Hot

PIECE = 64
"""Hours that are summed between two turns of the event loop."""

PRUNE_S = 60.0
"""How long dropping the records of one organization may take."""


Place = tuple[int, int]
"""Of an entry in a stream: milliseconds, and a number among those of the same."""


class Reading:
    """See the module's text."""

    def __init__(self, client: Client, hot: Hot) -> None:
        self._client, self._hot = client, hot

    async def ledger(self, after: str, limit: int, until: str | None = None) -> tuple[str, list[bytes]]:
        """See `Store.ledger`.

        Each organization has a stream that only grows at its end; the cursor has the place in each, so nothing is
        missed. Records of one organization come in writing order, those of several by the time of their settlement
        (milliseconds), then by organization.
        """
        places, found = read_cursor(after), list[bytes]()
        ends = None if until is None else read_cursor(until)
        known = await self._hot.organizations() if ends is None else ends
        going = sorted({*known, *places} if ends is None else ends)
        while going and len(found) < limit:
            count = max(1, -(-(limit - len(found)) // len(going)))
            streams = await asyncio.gather(
                *[self._piece(name, places.get(name), None if ends is None else ends[name], count) for name in going]
            )
            full = [pieces[-1][0] for pieces in streams if len(pieces) == count]
            horizon = min(full, default=None)  # what lies behind it may have to wait for what was not read yet
            merged = sorted(
                (id_, name, record)
                for name, pieces in zip(going, streams, strict=True)
                for id_, record in pieces
                if horizon is None or id_ <= horizon
            )
            for id_, name, record in merged[: limit - len(found)]:
                places[name] = id_
                found.append(record)
            if horizon is None:
                break
        return write_cursor(places), found

    async def _piece(
        self, organization: str, place: Place | None, end: Place | None, count: int
    ) -> list[tuple[Place, bytes]]:
        first = "-" if place is None else f"({place[0]}-{place[1]}"
        last = "+" if end is None else f"{end[0]}-{end[1]}"
        name = f"{layout.prefix_of(organization)}ledger"
        tag = layout.tag_of(organization)
        entries = await self._client.run(tag, ("XRANGE", name, first, last, "COUNT", count))
        return [(_entry_id(id_), fields[1]) for id_, fields in entries]

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """See `Store.usage`. Sums are written with the records: nothing lags."""
        unknown = [name for name in (*query.group_by, *query.where) if name not in DIMENSIONS]
        if unknown:
            raise StoreError(f"usage: {unknown[0]!r}: expected one of {', '.join(DIMENSIONS)}")
        bucket_start(0, query.bucket)
        names = await self._hot.organizations() if query.organization is None else [query.organization]
        rows: dict[tuple[int, tuple[str, ...]], list[float]] = {}
        for name in names:
            await self._sum(name, query, rows)
        return [
            UsageRow(
                start,
                dict(zip(query.group_by, group, strict=True)),
                dict(zip(SUMS, (int(value) for value in values), strict=True)),
            )
            for (start, group), values in sorted(rows.items())
        ]

    async def _sum(
        self, organization: str, query: UsageQuery, rows: dict[tuple[int, tuple[str, ...]], list[float]]
    ) -> None:
        tag, prefix = layout.tag_of(organization), layout.prefix_of(organization)
        where = dict(query.where)
        if query.organization is not None:
            where.setdefault("organization", query.organization)
        first, last = query.since // layout.HOUR_S, query.until // layout.HOUR_S
        hours = await self._client.run(tag, ("ZRANGEBYSCORE", f"{prefix}hours", first, f"({last}"))
        for at in range(0, len(hours), PIECE):
            piece = [int(hour) for hour in hours[at : at + PIECE]]
            tables = await asyncio.gather(*[self._client.run(tag, ("HGETALL", f"{prefix}u:{hour}")) for hour in piece])
            for hour, table in zip(piece, tables, strict=True):
                start = bucket_start(hour * layout.HOUR_S, query.bucket)
                for field, value in zip(table[::2], table[1::2], strict=True):
                    has = layout.split_dimensions(field)
                    if _fits(has, where):
                        group = tuple(has[name] for name in query.group_by)
                        _add(rows.setdefault((start, group), [0.0] * len(SUMS)), value)

    async def prune(self, before: int, until: str | None = None) -> int:
        """See `Store.prune`."""
        dropped, ends = 0, None if until is None else read_cursor(until)
        for name in await self._hot.organizations() if ends is None else ends:
            first = (before * 1000, 0)
            if ends is not None:
                time, sequence = ends[name]
                first = min(first, (time, sequence + 1))
            stream = f"{layout.prefix_of(name)}ledger"
            command = ("XTRIM", stream, "MINID", "=", f"{first[0]}-{first[1]}")
            dropped += await self._client.run(layout.tag_of(name), command, PRUNE_S)
        return dropped


def _fits(has: Mapping[str, str], where: Mapping[str, str]) -> bool:
    return all(has.get(name) == value for name, value in where.items())


def _add(sums: list[float], value: bytes) -> None:
    for i, more in enumerate(layout.read_sums(value)):
        sums[i] += more


def bucket_start(time: int, bucket: str) -> int:
    """Return when the bucket of a time begins (UTC)."""
    if bucket == "all":
        return 0
    if bucket == "month":
        day = datetime.fromtimestamp(time, UTC)
        return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp())
    seconds = {"hour": layout.HOUR_S, "day": 86_400}.get(bucket)
    if seconds is None:
        raise StoreError(f"usage: bucket {bucket!r}: expected hour, day, month or all")
    return time - time % seconds


def _entry_id(text: bytes) -> tuple[int, int]:
    time, _, sequence = text.partition(b"-")
    return int(time), int(sequence)


def write_cursor(places: Mapping[str, tuple[int, int]]) -> str:
    """Write the place in each organization's stream. Grows with the organizations, some 30 characters each."""
    return urlsafe_b64encode(orjson.dumps(places)).decode() if places else ""


def read_cursor(text: str) -> dict[str, tuple[int, int]]:
    """Read what `write_cursor` wrote. Raises UnknownCursor."""
    if not text:
        return {}
    try:
        found: dict[str, Any] = orjson.loads(urlsafe_b64decode(text.encode()))
        return {str(name): (int(time), int(sequence)) for name, (time, sequence) in found.items()}
    except (ValueError, TypeError, AttributeError, binascii.Error):
        raise UnknownCursor(
            f"cursor: {text[:40]!r}: expected one that an earlier answer named; begin without"
        ) from None
