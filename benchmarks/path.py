"""What the data path costs: Envoy alone, with the body router, with body router and picker.

The upstream is `benchmarks.upstream`, so that what is measured is the path and not a simulator. All arms run the same
Envoy configuration, with callouts left out. CPU is the time of each process divided by the number of answers.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import orjson
import uvloop

from benchmarks.cpu import cpu_seconds
from benchmarks.load import LoadResult, http_request, run_load
from benchmarks.stack import Stack, change_replicas, keep, running, without_callout, without_extensions, without_pickers
from benchmarks.table import print_table
from benchmarks.upstream import piece_of
from cli.local.model import Kind, Plan

MODEL = "gemma-3-12b"
POOL = "gemma-3-12b-a"
ROUTER = "body-router"
PICKER = f"{POOL}-picker"


@dataclass(frozen=True)
class Measured:
    """One arm at one body size; CPU in microseconds for each answer, by piece."""

    load: LoadResult
    cpu_us: dict[str, float]


def _only(plan: Plan, *kinds: Kind) -> Plan:
    """Keep one pool, and of the callouts the body router; `benchmarks.management` measures API management."""
    return change_replicas(keep(without_callout(plan, "api-management"), POOL, "replica", *kinds), piece_of)


ARMS: dict[str, Callable[[Plan], Plan]] = {
    "Envoy alone": lambda plan: without_pickers(without_extensions(_only(plan))),
    "with body router": lambda plan: without_pickers(_only(plan, "callout")),
    "with body router and picker": lambda plan: _only(plan, "callout", "picker"),
}


def _body(size: int) -> bytes:
    filler = "The gate opens when the level rises. " * (size // 37 + 1)
    message = {"role": "user", "content": ""}
    empty = len(orjson.dumps({"model": MODEL, "messages": [message]}))
    message["content"] = filler[: max(1, size - empty)]
    return orjson.dumps({"model": MODEL, "messages": [message]})


async def _measure(stack: Stack, size: int, connections: int, seconds: float) -> Measured:
    request = http_request("/v1/chat/completions", _body(size))
    if not stack.plan.traffic.extensions:
        request = request.replace(b"\r\n", f"\r\nx-gateway-model-name: {MODEL}\r\n".encode(), 1)
    await run_load(stack.port, request, connections, seconds / 4)
    pids = {name: pid for name, pid in stack.pids.items() if name in ("envoy", ROUTER, PICKER)}
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    load = await run_load(stack.port, request, connections, seconds)
    cpu_us = {name: (cpu_seconds(pid) - before[name]) / load.requests * 1e6 for name, pid in pids.items()}
    if set(load.statuses) != {200}:
        raise RuntimeError(f"answers other than 200: {load.statuses}")
    return Measured(load, cpu_us)


async def measure(sizes: list[int], connections: int, seconds: float) -> dict[tuple[str, int], Measured]:
    """Measure every arm at every body size."""
    results: dict[tuple[str, int], Measured] = {}
    for arm, change in ARMS.items():
        print(f"running: {arm}", flush=True)
        async with running(change, replicas=3) as stack:
            for size in sizes:
                results[arm, size] = await _measure(stack, size, connections, seconds)
    return results


def report(results: dict[tuple[str, int], Measured], connections: int) -> None:
    """Print the table, each arm's rate as a ratio to Envoy alone in the same run."""
    rows = []
    for (arm, size), measured in results.items():
        load, base = measured.load, results[next(iter(ARMS)), size].load
        cpu = [f"{measured.cpu_us[name]:.0f}" if name in measured.cpu_us else "-" for name in ("envoy", ROUTER, PICKER)]
        rows.append(
            [
                arm,
                f"{size // 1024} KB",
                f"{load.rate:,.0f}",
                f"{load.rate / base.rate:.2f}",
                f"{load.percentile(0.5) * 1e3:.2f}",
                f"{load.percentile(0.99) * 1e3:.2f}",
                *cpu,
            ]
        )
    header = ["path", "body", "req/s", "ratio", "p50 ms", "p99 ms", "Envoy us", "router us", "picker us"]
    print_table(f"Data path, {connections} connections; CPU us for each request", header, rows)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 16 * 1024], help="body sizes in bytes")
    args = parser.parse_args()
    report(uvloop.run(measure(args.sizes, args.connections, args.seconds)), args.connections)


if __name__ == "__main__":
    main()
