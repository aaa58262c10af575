"""What a replica says about itself: the few series of vLLM's `/metrics` that scheduling needs.

Only those lines are looked at: a page has about 650 lines and 54 KB (vLLM 0.32), and many replicas are read many times
a second. Names are matched exactly (`vllm:num_requests_waiting` has a sibling `..._waiting_by_reason`).
"""

import re
from dataclasses import dataclass

WAITING = b"vllm:num_requests_waiting"
RUNNING = b"vllm:num_requests_running"
KV_CACHE = b"vllm:kv_cache_usage_perc"
LORA = b"vllm:lora_requests_info"
CACHE_CONFIG = b"vllm:cache_config_info"
"""Source: Endpoint Picker model server protocol, "vLLM" column (Gateway API Inference Extension v1.5)."""

_LABEL = re.compile(rb'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


class MetricsError(ValueError):
    """A page of metrics lacks what scheduling needs, or has a value that is not a number. The text names the series."""


@dataclass(frozen=True, slots=True)
class ReplicaMetrics:
    """One reading of one replica."""

    waiting: int = 0
    """Requests queued, over all engines of the replica."""
    running: int = 0
    """Requests in the batch, over all engines."""
    kv_cache: float = 0.0
    """Used share of the KV cache, 0 to 1; the mean over the engines."""
    lora_running: frozenset[str] = frozenset()
    lora_waiting: frozenset[str] = frozenset()
    max_lora: int = 0
    """Adapters that fit into one batch; 0 where the replica serves none, or has not said so yet."""
    kv_cache_tokens: int = 0
    """Tokens that the KV cache holds, all engines together; 0 where unknown."""


def parse(page: bytes) -> ReplicaMetrics:
    """Read a page in the Prometheus text format. Raises MetricsError."""
    waiting, running, kv_cache = _values(page, WAITING), _values(page, RUNNING), _values(page, KV_CACHE)
    lora_running, lora_waiting, max_lora = _lora(page)
    return ReplicaMetrics(
        _count(waiting, WAITING),
        _count(running, RUNNING),
        min(1.0, max(0.0, sum(kv_cache) / len(kv_cache))),
        lora_running,
        lora_waiting,
        max_lora,
        _cache_tokens(page),
    )


def _samples(page: bytes, name: bytes) -> list[tuple[bytes, bytes]]:
    """Return labels (without braces) and value of each sample of exactly `name`.

    The samples of a metric stand together (Prometheus text format 0.0.4), so the search ends with the group.
    """
    found: list[tuple[bytes, bytes]] = []
    start = 0 if page.startswith(name) else page.find(b"\n" + name) + 1
    while page.startswith(name, start):
        end = page.find(b"\n", start)
        line = page[start:] if end < 0 else page[start:end]
        rest = line[len(name) :]
        if rest[:1] == b"{":
            labels, brace, value = rest[1:].rpartition(b"}")
            if brace:
                found.append((labels, value))
        elif rest[:1] in (b" ", b"\t"):
            found.append((b"", rest))
        if end < 0:
            break
        start = end + 1
        if not found and not page.startswith(name, start):  # a sibling of longer name came first
            start = page.find(b"\n" + name, end) + 1 or len(page)
    return found


def _values(page: bytes, name: bytes) -> list[float]:
    found = [_number(value, name) for _, value in _samples(page, name)]
    if not found:
        raise MetricsError(f"no sample of {name.decode()}")
    return found


def _number(text: bytes, name: bytes) -> float:
    """Return a sample's value; what follows it (a timestamp) is not looked at."""
    words = text.split(None, 1)
    try:
        number = float(words[0])
    except (ValueError, IndexError):
        raise MetricsError(f"{name.decode()}: {text.strip()[:40]!r} is not a number") from None
    if not -1e15 < number < 1e15:  # also catches NaN
        raise MetricsError(f"{name.decode()}: {number} is out of range")
    return number


def _count(values: list[float], name: bytes) -> int:
    total = sum(values)
    if total < 0:
        raise MetricsError(f"{name.decode()}: {total} is negative")
    return int(total)


def _lora(page: bytes) -> tuple[frozenset[str], frozenset[str], int]:
    """Read the newest series: vLLM keeps every label set that ever was, and its value is when that was the state."""
    samples = _samples(page, LORA)
    if not samples:
        return frozenset(), frozenset(), 0
    labels = dict(_LABEL.findall(max(samples, key=lambda sample: _number(sample[1], LORA))[0]))
    limit = labels.get(b"max_lora", b"0")
    running, waiting = labels.get(b"running_lora_adapters", b""), labels.get(b"waiting_lora_adapters", b"")
    return _names(running), _names(waiting), int(limit) if limit.isdigit() else 0


def _names(text: bytes) -> frozenset[str]:
    decoded = text.decode("utf-8", "replace")
    return frozenset(name for part in decoded.split(",") if (name := part.strip()))


def _cache_tokens(page: bytes) -> int:
    total = 0
    for labels, _ in _samples(page, CACHE_CONFIG):
        known = dict(_LABEL.findall(labels))
        blocks, size = known.get(b"num_gpu_blocks", b""), known.get(b"block_size", b"")
        if blocks.isdigit() and size.isdigit() and len(blocks) < 12 and len(size) < 12:
            total += int(blocks) * int(size)
    return total
