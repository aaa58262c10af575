"""CPU that API management costs a request which is in the stream anyway: key, five limits, validation, ledger.

The whole service, on its SQLite store, without gRPC: sessions are driven as Envoy's messages would drive them, several
at a time, so that the store groups what arrives together. The baseline is a filter that takes the same bodies and does
nothing. Everything that the process does counts: transactions, checkpoints, sums of the ledger.

The number of keys in the store is one thing, how many of them are in use at the same time another: each of those has
counters of its own, which share fewer pages of the file the more there are. Both are shown.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import orjson
import uvloop
import yaml

from benchmarks.code import how
from benchmarks.idle_callout import Idle
from benchmarks.session import message_of_answer, message_of_body, message_of_headers
from benchmarks.table import print_table
from cli.graph.program import record_environment
from services.apimgmt import keys
from services.apimgmt.service import ApiManagementService
from services.extproc.chain import Chain
from services.extproc.limits import Limits
from services.extproc.memory import keep_heap
from services.extproc.proto import ext_proc_pb2 as pb
from services.extproc.session import Session

ROOT = Path(__file__).resolve().parent.parent
MODEL = "gemma-3-12b"
PEPPER = "benchmark-" * 4
IN_USE = 10
"""Keys that requests are sent with, however many there are."""
QUIET_S = 5.0
"""How long the store gets to copy new keys from its log, seconds."""
MANY_IN_USE = 500
"""The same in the last row."""
_OWNER = {"organization": "acme", "app": "laptop", "developer": "ada@acme.example"}
_ANSWER = orjson.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok " * 60}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 220, "completion_tokens": 60, "total_tokens": 280},
    }
)


def exchange(key: str) -> list[bytes]:
    """Return the messages of one chat completion of 1 KB."""
    text = "The gate opens when the level rises. " * 24
    body = orjson.dumps({"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": text}]})
    extra = (("authorization", f"Bearer {key}".encode()), ("x-gateway-model-name", MODEL.encode()))
    found = [message_of_headers(extra, pb.FULL_DUPLEX_STREAMED), message_of_body(body), *message_of_answer(_ANSWER)]
    return [message.SerializeToString() for message in found]


async def drive(chain: Chain, exchanges: list[list[bytes]], count: int, at_once: int) -> float:
    """Return the CPU seconds of one exchange, with `at_once` of them at a time."""
    limits, numbers = Limits(), iter(range(count))

    async def work() -> None:
        for number in numbers:
            session = Session(chain, limits)
            for raw in exchanges[number % len(exchanges)]:
                for answer in await session.receive(pb.ProcessingRequest.FromString(raw)):
                    if answer.HasField("immediate_response"):
                        raise RuntimeError(answer.immediate_response.body)
                    answer.SerializeToString()
                await asyncio.sleep(0)
            session.close()

    began = time.process_time()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return (time.process_time() - began) / count


def service(folder: Path) -> ApiManagementService:
    """Return the service of the environment `local`, with its store in `folder`."""
    maps = [m for m in record_environment("local", root=ROOT).manifests() if m["kind"] == "ConfigMap"]
    text = next(m["data"]["config.yaml"] for m in maps if m["metadata"]["name"] == "api-management")
    config = yaml.safe_load(text) | {"store": {"kind": "sqlite", "path": str(folder / "store.db")}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    flags = argparse.Namespace(
        config_file=folder / "config.yaml",
        guardrails_file=None,
        admin_address="127.0.0.1",
        admin_port=0,
        tls_mode="off",
        tls_dir=None,
        processes=1,
        address="127.0.0.1",
    )
    found = ApiManagementService(flags, {**os.environ, "PENSTOCK_KEY_PEPPER": PEPPER})
    found.apply(found.load())
    return found


async def measure(counts: list[int], exchanges: int, at_once: int, runs: int) -> list[tuple[str, float]]:
    """Return CPU microseconds of one exchange: of the baseline, then with each number of keys."""
    idle = Chain([Idle()])
    results: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        managed = service(Path(folder))
        await managed.start()
        keep_heap()
        try:
            chain, plain = Chain(managed.filters), list[str]()
            cases = [(count, min(count, IN_USE)) for count in counts]
            cases += [(count, MANY_IN_USE) for count in counts[-1:] if count > MANY_IN_USE]
            for count, in_use in cases:
                made = [keys.issue(PEPPER.encode(), now=time.time(), **_OWNER) for _ in range(count - len(plain))]
                if made:
                    await managed.store.put_keys([record for _, record in made], [], new=True)
                    await asyncio.sleep(QUIET_S)
                plain += [text for text, _ in made]
                used = [exchange(text) for text in plain[:in_use]]
                await drive(chain, used, len(used) * 4, at_once)
                for _ in range(runs):
                    for name, driven in (("does nothing", idle), (f"{count:,} keys, {in_use} in use", chain)):
                        seconds = await drive(driven, used, exchanges, at_once)
                        results.setdefault(name, []).append(seconds * 1e6)
        finally:
            await managed.stop()
    return [(name, statistics.median(found)) for name, found in results.items()]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, nargs="+", default=[10, 1_000_000])
    parser.add_argument("--exchanges", type=int, default=4_000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    found = uvloop.run(measure(args.keys, args.exchanges, args.at_once, args.runs))
    base = found[0][1]
    rows = [(name, f"{us:.0f}", f"{us - base:+.0f}") for name, us in found]
    print_table(
        f"API management in the stream, {args.at_once} at once, {how()}",
        ("filter", "CPU us/exchange", "added us"),
        rows,
    )


if __name__ == "__main__":
    main()
