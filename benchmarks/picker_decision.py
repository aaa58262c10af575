"""How long the endpoint picker takes to decide, by number of replicas and size of the prompt.

Measured is all of the picker's work on one request, without gRPC: JSON parse, hashing, scoring, the choice, and the
books (in-flight count, prefix index). Between decisions replicas report new metrics and earlier requests end, so that
what the picker caches is invalidated as in service; taking those in counts where it happens, in the next decision.
Half of the prompts share a system prompt, which every replica holds: the widest match there is.
"""

import random
import time
from collections.abc import Iterator

import orjson

from benchmarks.load import percentile
from benchmarks.table import print_table
from services.extproc.api import Ending, Exchange, FilterStream, Headers, Outcome
from services.picker.config import DEFAULT_SCORERS, PickerConfig
from services.picker.filter import PickerFilter
from services.picker.metrics import ReplicaMetrics
from services.picker.pool import Address, Pool
from services.picker.prefix import PrefixIndex
from services.picker.scheduler import Scheduler

REPLICAS = (10, 100, 1_000)
PROMPT_BYTES = (1_024, 16_384, 220 * 1_024)
DECISIONS = 300
WARM_UP = 60
IN_FLIGHT = 64
READINGS_PER_DECISION = 5
"""New metrics between two decisions: 500 readings a second and 100 requests a second."""

HEADER = ("replicas", "prompt KB", "p50 ms", "p99 ms")
_CONFIG = PickerConfig(scorers=(*DEFAULT_SCORERS, ("lora-affinity-scorer", 1.0)))
_OUTCOME = Outcome(Ending.COMPLETE, 200, 0.1, 0, 0)


def run(decisions: int = DECISIONS) -> list[tuple[str, str, str, str]]:
    """Return a row for each number of replicas and size of prompt."""
    rows = []
    for replicas in REPLICAS:
        for size in PROMPT_BYTES:
            seconds = measure(replicas, size, decisions)
            p50, p99 = percentile(seconds, 0.5) * 1e3, percentile(seconds, 0.99) * 1e3
            rows.append((f"{replicas}", f"{size // 1024}", f"{p50:.3f}", f"{p99:.3f}"))
    return rows


def measure(replicas: int, size: int, decisions: int, seed: int = 7) -> list[float]:
    """Return the time of each decision in seconds."""
    rng = random.Random(seed)
    filter_ = _filter(replicas, rng)
    bodies = list(_bodies(size, rng))
    _teach(filter_, bodies[0], size)
    open_: list[FilterStream] = []
    seconds = []
    for number in range(decisions + WARM_UP):
        exchange = Exchange()
        exchange.request_headers = Headers([(":path", b"/v1/chat/completions"), ("x-gateway-model-name", b"model")])
        exchange.request_body = rng.choice(bodies)
        stream = filter_.open(exchange)
        started = time.perf_counter()
        stream.on_request_body()
        if number >= WARM_UP:
            seconds.append(time.perf_counter() - started)
        open_.append(stream)
        if len(open_) > IN_FLIGHT:
            open_.pop(rng.randrange(len(open_))).on_end(_OUTCOME)
        for replica in rng.sample(list(filter_.pool), READINGS_PER_DECISION):
            filter_.pool.observed(replica, _metrics(rng), replica.in_flight, 0.0)
    return seconds


def _filter(replicas: int, rng: random.Random) -> PickerFilter:
    pool, index = Pool(), PrefixIndex(_CONFIG.prefix.lru_capacity_per_server)
    pool.update(Address(f"r{n}", f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", 8000) for n in range(replicas))
    for replica in pool:
        index.open(replica.slot)
        pool.observed(replica, _metrics(rng), 0, 0.0)
    return PickerFilter(pool, index, Scheduler(pool, index, _CONFIG, rng), _CONFIG.prefix, {})


def _teach(filter_: PickerFilter, shared: bytes, size: int) -> None:
    """Let every replica hold the shared system prompt, the first half of `shared`."""
    exchange = Exchange()
    exchange.request_headers = Headers([("x-gateway-model-name", b"model")])
    exchange.request_body = shared
    blocks = filter_.read(exchange).hashes[: size // 2 // _CONFIG.prefix.block_bytes]
    for replica in filter_.pool:
        filter_.index.record(replica.slot, blocks)


def _metrics(rng: random.Random) -> ReplicaMetrics:
    return ReplicaMetrics(rng.choice((0, 0, 0, 1, 2, 4)), rng.randrange(32), rng.random() * 0.7)


def _bodies(size: int, rng: random.Random) -> Iterator[bytes]:
    system = _text(size // 2, rng)
    for number in range(40):
        shared = number % 2 == 0
        messages = [
            {"role": "system", "content": system if shared else _text(size // 2, rng)},
            {"role": "user", "content": _text(size // 2, rng)},
        ]
        yield orjson.dumps({"model": "model", "messages": messages, "stream": True})


def _text(size: int, rng: random.Random) -> str:
    return " ".join(f"{rng.getrandbits(28):07x}" for _ in range(size // 8))


if __name__ == "__main__":
    print_table("Endpoint picker: time to decide", HEADER, run())
