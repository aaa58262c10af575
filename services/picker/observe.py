"""Prometheus metrics of the picker."""

from prometheus_client import Counter, Gauge

from services.extproc.meters import Histogram, Meter
from services.picker.pool import Pool, Replica
from services.picker.saturation import Detector

MAX_REPLICA_LABELS = 1000
"""Replicas that get a time series of their own; further ones count as `other`. Source: upstream's cap."""

PICK_SECONDS = Histogram(
    "penstock_picker_decision_seconds",
    "Time to pick, from the whole request body to the header",
    (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
)
PICKS = Meter("penstock_picker_picks", "Picks by replica", ["replica"])
REFUSALS = Counter("penstock_picker_refusals", "Requests without a pick", ["reason"])
SERVED_ELSEWHERE = Counter("penstock_picker_served_elsewhere", "Requests that another replica answered than was picked")
PREFIX_BLOCKS = Meter("penstock_picker_prefix_blocks", "Blocks of prompts, by whether the pick had them", ["found"])
PREFIX_HIT_RATIO = Histogram(
    "penstock_picker_prefix_hit_ratio",
    "Share of a prompt's blocks that its pick is taken to have",
    (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1),
)
SCRAPE_ERRORS = Counter("penstock_picker_scrape_errors", "Readings of replicas' metrics that failed", ["reason"])
SOURCE_ERRORS = Counter("penstock_picker_source_errors", "Readings of the list of replicas that failed")
WATCH_RESTARTS = Counter(
    "penstock_picker_watch_restarts",
    "Watches of the Kubernetes API that ended otherwise than agreed",
    ["resource", "reason"],
)

CONNECTED = Gauge(
    "penstock_picker_kubernetes_connected", "1 while InferencePool and Pods are watched, else 0", ["pool"]
)
VIEW_AGE_S = Gauge(
    "penstock_picker_kubernetes_view_age_seconds", "Time since one of the two watches was lost; 0 if none is", ["pool"]
)
REPLICAS = Gauge("penstock_picker_replicas", "Replicas of the pool")
READY_ENDPOINTS = Gauge("penstock_picker_ready_endpoints", "Replicas with fresh metrics")
QUEUE = Gauge("penstock_picker_average_queue_size", "Mean waiting requests of replicas with fresh metrics")
KV_CACHE = Gauge("penstock_picker_average_kv_cache_utilization", "Mean used share of KV caches, fresh replicas only")
SATURATION = Gauge("penstock_picker_saturation", "Saturation of the pool; from 1 on negative priorities are shed")
OLDEST_S = Gauge("penstock_picker_metrics_age_seconds", "Age of the oldest reading of a replica that answers")
IN_FLIGHT = Gauge("penstock_picker_in_flight", "Requests picked for and not ended")
PREFIX_ENTRIES = Gauge("penstock_picker_prefix_entries", "Distinct blocks in the prefix index")

for _reason in ("no_endpoints", "saturated"):
    REFUSALS.labels(_reason)  # from 0 on: the first refusal must be seen to rise, it is what starts a pool at zero

_FOUND, _MISSED = ("yes",), ("no",)
PREFIX_BLOCKS.counts.update({_FOUND: 0, _MISSED: 0})
_OTHER = ("other",)


def picked(replica: Replica, matched: int, total: int, seconds: float) -> None:
    """Count a pick of `replica`, which has `matched` of the prompt's `total` blocks."""
    PICK_SECONDS.add(seconds)
    picks, label = PICKS.counts, (replica.endpoint,)
    if label not in picks and len(picks) >= MAX_REPLICA_LABELS:
        label = _OTHER
    picks[label] += 1
    if total:
        PREFIX_HIT_RATIO.add(matched / total)
        PREFIX_BLOCKS.counts[_FOUND] += matched
        PREFIX_BLOCKS.counts[_MISSED] += total - matched


def gone(replica: Replica) -> None:
    """End the time series of a replica that left the pool."""
    PICKS.counts.pop((replica.endpoint,), None)


def show_pool(pool: Pool, detector: Detector, blocks: int, now: float) -> None:
    """Set the gauges of the pool."""
    fresh = [replica for replica in pool if replica.fresh]
    count = len(fresh) or 1
    REPLICAS.set(len(pool))
    READY_ENDPOINTS.set(len(fresh))
    QUEUE.set(sum(replica.metrics.waiting for replica in fresh) / count)
    KV_CACHE.set(sum(replica.metrics.kv_cache for replica in fresh) / count)
    SATURATION.set(detector.of_pool(pool))
    OLDEST_S.set(max((now - replica.scraped_at for replica in fresh), default=0.0))
    IN_FLIGHT.set(sum(replica.in_flight for replica in pool))
    PREFIX_ENTRIES.set(blocks)
