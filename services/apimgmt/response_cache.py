"""Answers kept in memory, least recently used out first, and the names under which they are kept.

Each process has a cache of its own: answers are not shared between processes or pods, and are gone with the process.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

import orjson
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.extproc.meters import Meter

ENTRY_BYTES = 512
"""Counted for each entry beside its body: name, times, places in the tables."""

IGNORED = frozenset(("user", "safety_identifier", "metadata", "prompt_cache_key", "request_id", "priority"))
"""Fields that say who asks and how urgently, not what. An answer's `id` may be another request's in any case."""
_REPEATED = {"/v1/responses": IGNORED - {"priority"}}
"""Operations whose answers repeat some of these: part of the name, so that nobody reads another's."""
_SHAPE = frozenset(("stream", "stream_options"))
"""How the answer is sent: part of the name as `shape`, since the body's may be ours (usage is always asked for)."""

_ERROR_EVENT = re.compile(rb'^data: ?\{\s*"(?:error"|object":\s*"error")', re.MULTILINE)
_LAST_EVENTS = {"/v1/responses": re.compile(rb'"type":\s*"response\.completed"')}
_DONE = b"data: [DONE]"


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer, as the client got it: `id` and `created` in it stay those of the request that brought it."""

    body: bytes
    content_type: str
    stored: float
    """Unix seconds."""
    expires: float


class ResponseCache:
    """Answers by name, bounded in bytes and number."""

    def __init__(self, max_bytes: int, max_entries: int) -> None:
        self.max_bytes, self.max_entries = max_bytes, max_entries
        self.bytes = 0
        """Counted for what is kept."""
        self.evicted = 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: bytes, now: float) -> Entry | None:
        """Return an entry that is still good."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        if entry.expires <= now:
            self._drop(name)
            return None
        self._entries.move_to_end(name)
        return entry

    def put(self, name: bytes, entry: Entry) -> None:
        """Keep an entry; what was used longest ago makes room. One too big for the whole cache is not kept."""
        self._drop(name)
        size = len(entry.body) + ENTRY_BYTES
        if size > self.max_bytes:
            return
        while self._entries and (self.bytes + size > self.max_bytes or len(self._entries) >= self.max_entries):
            self._drop(next(iter(self._entries)))
            self.evicted += 1
        self._entries[name] = entry
        self.bytes += size

    def _drop(self, name: bytes) -> None:
        entry = self._entries.pop(name, None)
        if entry is not None:
            self.bytes -= len(entry.body) + ENTRY_BYTES


def name_of(scope: Sequence[str], operation: str, shape: Sequence[object], body: Mapping[str, Any]) -> bytes | None:
    """Return the name of a request's answer: equal for requests that mean the same. None if it has none (too deep)."""
    ignored = _SHAPE | (IGNORED - _REPEATED.get(operation, frozenset()))
    asked = {key: value for key, value in body.items() if key not in ignored}
    try:
        text = orjson.dumps([scope, operation, shape, asked], option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError):  # deeper than the encoder goes, numbers beyond 64 bits
        return None
    return hashlib.sha256(text).digest()


def is_whole(operation: str, body: bytes, *, stream: bool) -> bool:
    """Whether a stored answer would be all of one, and no error: in mid-stream servers report one with status 200."""
    if not body:
        return False
    if not stream:
        return body.lstrip()[:1] == b"{" and body.rstrip()[-1:] == b"}"
    if _ERROR_EVENT.search(body):
        return False
    last = _LAST_EVENTS.get(operation)
    return bool(last.search(body)) if last else body.rstrip().endswith(_DONE)


class CacheMetrics(Collector):
    """What the caches of this process do."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """`registry`: where the metrics go."""
        self.requests = Meter(
            "penstock_apimgmt_cache_requests",
            "Requests by what the response cache did: hit, miss, refresh (asked for by the client), bypass",
            ["product", "result", "shadow"],
            registry,
        )
        self._caches: WeakSet[ResponseCache] = WeakSet()
        registry.register(self)

    def watch(self, cache: ResponseCache) -> None:
        """Count a cache's size as long as it lives."""
        self._caches.add(cache)

    def collect(self) -> Iterator[Metric]:
        """Return the samples (called by the registry)."""
        caches = list(self._caches)
        for name, text, value in (
            ("bytes", "Bytes that the response cache counts", sum(c.bytes for c in caches)),
            ("entries", "Answers in the response cache", sum(len(c) for c in caches)),
            ("evicted", "Answers dropped for want of room, since the start", sum(c.evicted for c in caches)),
        ):
            yield GaugeMetricFamily(f"penstock_apimgmt_cache_{name}", text, value)


METRICS = CacheMetrics()
