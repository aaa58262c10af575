"""What tests of the export share: stores, records, and what lies in a target."""

import asyncio
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from services.apimgmt.ledger.export import Export, ExportMetrics
from services.apimgmt.ledger.record import dump
from services.apimgmt.settings import ExportTarget, SqliteStore
from services.apimgmt.store import open_store
from services.apimgmt.store.api import Settlement, Store

NOW = 1_800_000_000
"""2027-01-15 08:00 UTC."""

LEASE_S = 60.0


class Clock:
    """A time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def record(number: int, **fields: Any) -> dict[str, Any]:
    """Return a ledger record whose id sorts by number."""
    verdicts = [{"policy": "script", "verdict": "deny", "code": "x", "shadow": True}] * (number % 3)
    return {
        "id": f"{number:032x}",
        "time": NOW * 1000 + number,
        "organization": "acme",
        "team": "red",
        "user": "ada@example.com",
        "app": "chat",
        "key": "k1",
        "product": "gold",
        "agent": "",
        "credential": "api_key",
        "operation": "/v1/chat/completions",
        "model": "gemma",
        "adapter": "",
        "stream": number % 2 == 0,
        "replica": "10.0.0.1:8000",
        "status": 200,
        "outcome": "ok",
        "promptTokens": number,
        "cachedTokens": 0,
        "completionTokens": 7,
        "reasoningTokens": 0,
        "estimated": False,
        "costMicros": 3 * number,
        "latencyMs": 512,
        "ttftMs": number if number % 2 == 0 else None,
        "overheadMs": 0.25,
        "verdicts": verdicts,
        **fields,
    }


async def settle(store: Store, numbers: Sequence[int], **fields: Any) -> None:
    """Write records of these numbers to the ledger, settled at NOW."""
    for number in numbers:
        body = record(number, **fields)
        await store.settle(Settlement(body["id"], body["organization"], NOW, (), (), dump(body), body))


async def sqlite(path: Path) -> Store:
    """Return an open store in a file."""
    store = open_store(SqliteStore(kind="sqlite", path=str(path)), {})
    await store.open()
    return store


def exporter(store: Store, url: str, clock: Callable[[], float], **settings: Any) -> Export:
    """Return a job with metrics of its own."""
    target = ExportTarget(url=url, **settings)
    return Export(store, target, ExportMetrics(CollectorRegistry()), clock=clock, lease_s=LEASE_S)


async def drain(job: Export, most: int = 100) -> None:
    """Let a job write until nothing is left to do now."""
    for _ in range(most):
        if await job.step() > 0:
            return
    raise AssertionError(f"not done after {most} steps")


async def whole_ledger(store: Store) -> list[dict[str, Any]]:
    """Return all records of the ledger in the order of their ids."""
    after, found = "", list[dict[str, Any]]()
    while True:
        after, page = await store.ledger(after, 500)
        if not page:
            return sorted(found, key=lambda r: str(r["id"]))
        found += [json.loads(text) for text in page]


def back(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ledger record that an exported line was."""
    moment = datetime.fromisoformat(line["time"]) if isinstance(line["time"], str) else line["time"]
    return {**line, "time": round(moment.timestamp() * 1000)}


def read(name: str, data: bytes) -> list[dict[str, Any]]:
    """Return the records of an object."""
    if name.endswith(".parquet"):
        from arro3.io import read_parquet

        return [back(row.as_py()) for row in read_parquet(io.BytesIO(data)).read_all().to_struct_array()]
    return [back(json.loads(line)) for line in data.splitlines()]


def union(objects: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Return all records of objects in the order of their ids: one that is there twice stays twice."""
    found = [one for name, data in objects.items() for one in read(name, data)]
    return sorted(found, key=lambda r: str(r["id"]))


def files(folder: Path) -> dict[str, bytes]:
    """Return the objects in a folder; not what a killed process left unfinished beside them."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "#" not in path.name]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is so, with a deadline."""
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 - it happens in another thread
            await asyncio.sleep(0.01)
