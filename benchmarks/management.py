"""What API management costs: key, five limits, validation and ledger, by the number of keys, and next to LiteLLM.

All arms but LiteLLM are the environment `local` behind its Envoy, in front of `benchmarks.upstream`: the body router,
and in the place of API management a callout that takes the same bodies and does nothing; then API management itself
with few and with many keys. LiteLLM's proxy (from PyPI, in an environment of its own) checks a key and its request and
token rates in memory, in front of the same upstream. CPU is the time of a process divided by the number of answers.
"""

import argparse
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import orjson
import uvloop

from benchmarks import litellm
from benchmarks.code import how
from benchmarks.cpu import cpu_seconds
from benchmarks.load import LoadResult, http_request, run_load
from benchmarks.stack import Stack, change_replicas, keep, running, without_pickers
from benchmarks.table import print_table
from benchmarks.upstream import piece_of
from cli.local.model import Piece, Plan
from services.apimgmt import keys
from services.apimgmt.settings import SqliteStore
from services.apimgmt.store import open_store

MODEL, POOL = "gemma-3-12b", "gemma-3-12b-a"
ROUTER, MANAGEMENT = "body-router", "api-management"
IN_USE = 10
"""Keys that requests are sent with, out of all that the store has. (`management_session` has many in use, too.)"""
_BATCH = 10_000
_OWNER = {"organization": "acme", "app": "laptop", "developer": "ada@acme.example"}


@dataclass(frozen=True)
class Arm:
    """One line of the table. `keys` None: the idle callout in the place of API management."""

    name: str
    keys: int | None


@dataclass(frozen=True)
class Measured:
    """What an arm took; CPU in microseconds for each answer."""

    load: LoadResult
    cpu_us: dict[str, float]


def _body() -> bytes:
    text = "The gate opens when the level rises. " * 24
    return orjson.dumps({"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": text}]})


def _plan(plan: Plan, arm: Arm) -> Plan:
    plan = without_pickers(change_replicas(keep(plan, POOL, "replica", "callout"), piece_of))
    if arm.keys is not None:
        return plan
    return replace(plan, pieces=tuple(_idle(each) if each.name == MANAGEMENT else each for each in plan.pieces))


def _idle(piece: Piece) -> Piece:
    return replace(piece, command=(piece.command[0], "-m", "benchmarks.idle_callout", *piece.command[3:]))


async def fill(plan: Plan, count: int) -> list[str]:
    """Put `count` keys into the store that `plan` uses; return those that requests are sent with."""
    piece = next(each for each in plan.pieces if each.name == MANAGEMENT)
    folder = next(path for path in plan.folders if path.name == f"{MANAGEMENT}-data")
    pepper = keys.read_pepper(piece.env)
    store = open_store(SqliteStore(kind="sqlite", path=str(folder / f"{MANAGEMENT}.db")), piece.env)
    await store.open()
    plain: list[str] = []
    try:
        for start in range(0, count, _BATCH):
            made = [keys.issue(pepper, now=time.time(), **_OWNER) for _ in range(min(_BATCH, count - start))]
            await store.put_keys([record for _, record in made], [], new=True)
            plain += [text for text, _ in made]
    finally:
        await store.close()
    return random.Random(1).sample(plain, min(IN_USE, count))


async def _measure(port: int, requests: Sequence[bytes], pids: dict[str, int], load: argparse.Namespace) -> Measured:
    await run_load(port, requests, load.connections, load.seconds / 4)
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    seen = await run_load(port, requests, load.connections, load.seconds)
    if set(seen.statuses) != {200}:
        raise RuntimeError(f"answers other than 200: {seen.statuses}")
    return Measured(seen, {name: (cpu_seconds(pid) - before[name]) / seen.requests * 1e6 for name, pid in pids.items()})


@contextlib.asynccontextmanager
async def _serving(arm: Arm) -> AsyncIterator[tuple[Stack, list[bytes]]]:
    used: list[str] = []

    async def prepare(plan: Plan) -> None:
        used.extend(await fill(plan, arm.keys or 0))

    async with running(lambda plan: _plan(plan, arm), replicas=1, prepare=prepare) as stack:
        yield stack, [http_request("/v1/chat/completions", _body(), key=key) for key in used or [""]]


async def measure(arms: Sequence[Arm], load: argparse.Namespace) -> dict[str, Measured]:
    """Measure every arm, and LiteLLM last."""
    results: dict[str, Measured] = {}
    for arm in arms:
        print(f"running: {arm.name}", flush=True)
        async with _serving(arm) as (stack, requests):
            pids = {name: pid for name, pid in stack.pids.items() if name in ("envoy", ROUTER, MANAGEMENT)}
            results[arm.name] = await _measure(stack.port, requests, pids, load)
    if not load.skip_litellm:
        print(f"running: {litellm.NAME}", flush=True)
        async with litellm.running(MODEL) as (port, pid, key):
            request = http_request("/v1/chat/completions", _body(), key=key)
            results[litellm.NAME] = await _measure(port, [request], {litellm.NAME: pid}, load)
    return results


def report(results: dict[str, Measured], connections: int) -> None:
    """Print the table: what API management adds to the idle callout, and the whole chain against LiteLLM."""
    base = next(iter(results.values()))
    proxy = results.get(litellm.NAME)
    rows = []
    for name, found in results.items():
        managed = found.cpu_us.get(MANAGEMENT)
        whole = sum(found.cpu_us.values())
        rows.append(
            [
                name,
                f"{found.load.rate:,.0f}",
                f"{found.load.percentile(0.5) * 1e3:.2f}",
                f"{found.load.percentile(0.99) * 1e3:.2f}",
                "-" if managed is None else f"{managed:.0f}",
                "-" if managed is None else f"{managed - base.cpu_us[MANAGEMENT]:+.0f}",
                f"{whole:.0f}",
                f"{sum(proxy.cpu_us.values()) / whole:.1f}" if proxy else "-",
            ]
        )
    header = ["arm", "req/s", "p50 ms", "p99 ms", "callout us", "added us", "all CPU us", "LiteLLM's CPU / this"]
    print_table(f"API management, {how()}, 1 KB chat, {connections} connections; CPU us for each request", header, rows)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each measurement")
    parser.add_argument("--keys", type=int, nargs="+", default=[10, 1_000_000], help="numbers of keys in the store")
    parser.add_argument("--skip-litellm", action="store_true", help="leave LiteLLM out")
    args = parser.parse_args()
    arms = [Arm("idle callout", None), *(Arm(f"API management, {count:,} keys", count) for count in args.keys)]
    report(uvloop.run(measure(arms, args)), args.connections)


if __name__ == "__main__":
    main()
