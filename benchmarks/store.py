"""CPU that the store costs a request: five charges reserved, settled, and recorded in the ledger.

Requests come in groups that reserve in one turn of the event loop and settle in a later one, as those of a busy process
do: by one, by four, by sixteen. Each is of one of the active keys, at random; the keys share an organization, ten to a
team. Counted is the CPU time of this process: with SQLite all there is, checkpoints too; with Valkey the client's part,
and the server's in a column of its own. Durability is what the settings' defaults give.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import uvloop

from benchmarks.table import print_table
from services.apimgmt.ledger.record import Ids
from services.apimgmt.settings import SqliteStore as SqliteSettings
from services.apimgmt.store.api import Charge, Reservation, Settlement, Store
from services.apimgmt.store.sqlite import SqliteStore
from tests.support.valkey import NoServer, Server, server

BATCHES = (1, 4, 16)
KEYS = (50, 10_000)
NOW = 1_800_000_000.0
TEAM_KEYS = 10
"""Keys that share the counter of a team."""

HEADER = ("store", "active keys", "at once", "CPU us/request", "server us/request")


def run(requests: int, runs: int) -> list[tuple[str, ...]]:
    """Return a row for each store, number of keys and size of a group. Valkey is left out where no server is."""
    rows = []
    for keys in KEYS:
        with tempfile.TemporaryDirectory() as folder:
            store = SqliteStore(SqliteSettings(kind="sqlite", path=f"{folder}/store.db"))
            rows += uvloop.run(_rows("SQLite", store, keys, requests, runs))
    try:
        for keys in KEYS:
            with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as running:
                running.command("CONFIG", "SET", "appendfsync", "everysec")
                rows += uvloop.run(_rows("Valkey", running.store(), keys, requests, runs, running))
    except NoServer as missing:
        print(f"Valkey is left out: {missing}", file=sys.stderr)
    return rows


async def _rows(
    name: str, store: Store, keys: int, requests: int, runs: int, running: Server | None = None
) -> list[tuple[str, ...]]:
    """Measure one store with so many keys: the least of several runs each, since whatever disturbs only adds."""
    await store.open()
    try:
        work = Work(keys)
        await work.drive(store, [work.request(number) for number in range(keys)], 100)  # each counter is there then
        rows = list[tuple[str, ...]]()
        for size in BATCHES:
            least, beside = float("inf"), float("inf")
            for _ in range(runs):
                asked = [work.request() for _ in range(requests)]
                before, started = _server_s(running), time.process_time()
                await work.drive(store, asked, size)
                least = min(least, time.process_time() - started)
                beside = min(beside, _server_s(running) - before)
            cells = [f"{seconds / requests * 1e6:.1f}" for seconds in (least, beside)]
            rows.append((name, f"{keys:,}", f"{size}", cells[0], cells[1] if running else "-"))
        return rows
    finally:
        await store.close()


class Work:
    """Makes requests, and sends them through a store."""

    def __init__(self, keys: int) -> None:
        self._keys, self._dice, self._ids = keys, random.Random(7), Ids(os.urandom(6).hex())

    async def drive(self, store: Store, asked: Sequence[tuple[Reservation, Settlement]], size: int) -> None:
        """Reserve and settle all, `size` of them in one turn."""
        for at in range(0, len(asked), size):
            group = asked[at : at + size]
            for grant in await asyncio.gather(*[store.reserve(reservation) for reservation, _ in group]):
                assert grant.granted
            await asyncio.gather(*[store.settle(settlement) for _, settlement in group])

    def request(self, number: int | None = None) -> tuple[Reservation, Settlement]:
        """Return a request of a key, one at random unless told."""
        key = self._dice.randrange(self._keys) if number is None else number
        id_, team = self._ids.next(NOW), f"team-{key // TEAM_KEYS}"
        charges = list(_charges(f"key:k{key}", f"user:u{key}@acme.example", f"team:{team}"))
        usage = _usage(id_, team, key)
        record = orjson.dumps(usage)
        lost = [charge.amount for charge in charges]
        held = Reservation(id_, "acme", "benchmark", NOW, charges, (), record, lost)
        return held, Settlement(id_, "acme", NOW + 1, charges, [1, 280, 280, 840, 0], record, usage)


def _charges(key: str, user: str, team: str) -> Iterator[Charge]:
    """Yield one charge of each kind: requests, tokens of a rolling and of a calendar window, cost, concurrency."""
    at, much = int(NOW), 2**50
    yield Charge(f"acme|per-minute|{key}", at // 60, 1, at + 60, 1, much)
    yield Charge(f"acme|tokens-rolling|{user}", at // 60, 60, at + 3660, 900, much)
    yield Charge(f"acme|tokens-a-day|{team}", at // 86_400, 1, at + 86_400, 900, much)
    yield Charge("acme|budget|organization:acme", at // 2_592_000, 1, at + 2_592_000, 2700, much)
    yield Charge(f"acme|concurrent|{key}", 0, 1, 0, 1, much)


def _usage(id_: str, team: str, key: int) -> dict[str, object]:
    """Return a ledger record like those of the pipeline."""
    names = {"organization": "acme", "team": team, "user": f"u{key}@acme.example", "app": f"app-{key}"}
    more = {"key": f"k{key:015d}", "product": "gold", "agent": "", "credential": "key", "adapter": ""}
    served = {"operation": "/v1/chat/completions", "model": "gemma-3-12b", "replica": "10.0.0.1:8000"}
    tokens = {"promptTokens": 220, "cachedTokens": 0, "completionTokens": 60, "reasoningTokens": 0}
    end = {
        "status": 200,
        "outcome": "ok",
        "estimated": False,
        "costMicros": 840,
        "stream": False,
        "verdicts": list[str](),
    }
    times = {"time": int(NOW * 1000), "latencyMs": 812, "ttftMs": None, "overheadMs": 0.4}
    return {"id": id_, **names, **more, **served, **tokens, **end, **times}


def _server_s(running: Server | None) -> float:
    """Return the CPU seconds that the server has used."""
    if running is None or running.pid is None:
        return 0.0
    fields = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3_000, help="requests per run")
    parser.add_argument("--runs", type=int, default=5, help="runs, the least of which counts")
    arguments = parser.parse_args()
    print_table("The store: one request", HEADER, run(arguments.requests, arguments.runs))
