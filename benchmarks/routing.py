"""The endpoint picker against round robin on multi-turn conversations with shared system prompts.

Both arms play the same conversations through the same Envoy to fresh simulated replicas; the only difference is whether
the pool's picker is asked. A replica's KV cache holds a part of all system prompts, as it does in production.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import uvloop

from benchmarks.conversations import DriveResult, Workload, drive
from benchmarks.path import MODEL, POOL
from benchmarks.stack import Stack, change_replicas, keep, running, without_pickers
from benchmarks.table import print_table
from cli.local.health import get
from cli.local.model import Piece, Plan

_QUERIES, _HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"


@dataclass(frozen=True)
class Arm:
    """What one way of routing gave; `hit_ratio` is the share of prompt tokens that replicas had cached."""

    result: DriveResult
    hit_ratio: float


def _configured(kv_blocks: int) -> Callable[[Plan], Plan]:
    def change(piece: Piece) -> Piece:
        return replace(piece, env={**piece.env, "PENSTOCK_SIM_KV_BLOCKS": str(kv_blocks)})

    return lambda plan: change_replicas(keep(plan, POOL, "callout", "picker", "replica"), change)


async def _hit_ratio(stack: Stack) -> float:
    totals = dict.fromkeys((_QUERIES, _HITS), 0.0)
    for piece in stack.plan.pieces:
        if piece.kind == "replica":
            _, body = await get(piece.port, "/metrics")
            for line in body.decode().splitlines():
                name = line.partition("{")[0]
                if name in totals:
                    totals[name] += float(line.rpartition(" ")[2])
    return totals[_HITS] / totals[_QUERIES]


async def measure(load: Workload, replicas: int, kv_blocks: int) -> dict[str, Arm]:
    """Play `load` in both arms."""
    configured = _configured(kv_blocks)
    arms: dict[str, Callable[[Plan], Plan]] = {
        "round robin": lambda plan: without_pickers(configured(plan)),
        "picker": configured,
    }
    results = {}
    for name, change in arms.items():
        print(f"running: {name}", flush=True)
        async with running(change, replicas=replicas) as stack:
            result = await drive(stack.plan.endpoint, MODEL, load)
            results[name] = Arm(result, await _hit_ratio(stack))
    return results


def report(results: dict[str, Arm], load: Workload, replicas: int) -> None:
    """Print the table, and the ratios to round robin in the same run."""
    base = results["round robin"].result
    rows = [
        [
            name,
            str(len(arm.result.ttft_s)),
            *(f"{arm.result.ttft(q) * 1e3:,.0f}" for q in (0.5, 0.9, 0.99)),
            f"{arm.result.ttft(0.9) / base.ttft(0.9):.2f}",
            f"{arm.result.tokens_per_second:,.0f}",
            f"{arm.result.tokens_per_second / base.tokens_per_second:.2f}",
            f"{arm.hit_ratio:.0%}",
        ]
        for name, arm in results.items()
    ]
    header = ["routing", "turns", "TTFT p50 ms", "p90 ms", "p99 ms", "p90 ratio", "tokens/s", "ratio", "cached"]
    title = (
        f"Conversations: {load.users} users, {load.system_prompts} system prompts of {load.system_size:,} characters, "
        f"{load.turns} turns, {replicas} replicas"
    )
    print_table(title, header, rows)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--kv-blocks", type=int, default=1536, help="KV blocks of 16 tokens in each replica")
    for name in ("conversations", "turns", "users", "system_prompts", "system_size", "user_size", "max_tokens", "seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(Workload, name))
    args = parser.parse_args()
    load = Workload(**{name: getattr(args, name) for name in Workload.__dataclass_fields__})
    report(uvloop.run(measure(load, args.replicas, args.kv_blocks)), load, args.replicas)


if __name__ == "__main__":
    main()
