"""Prometheus metrics of the picker."""

from prometheus_client import Counter, Gauge, Histogram

from services.picker.pool import Pool, Replica
from services.picker.saturation import Detector

MAX_REPLICA_LABELS = 1000
"""Replicas that get a time series of their own; further ones count as `other`. Source: upstream's cap."""

PICK_SECONDS = Histogram(
    "penstock_picker_decision_seconds",
    "Time to pick, from the whole request body to the header",
    buckets=(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
)
PICKS = Counter("penstock_picker_picks", "Picks by replica", ["replica"])
REFUSALS = Counter("penstock_picker_refusals", "Requests without a pick", ["reason"])
SERVED_ELSEWHERE = Counter("penstock_picker_served_elsewhere", "Requests that another replica answered than was picked")
PREFIX_BLOCKS = Counter("penstock_picker_prefix_blocks", "Blocks of prompts, by whether the pick had them", ["found"])
PREFIX_HIT_RATIO = Histogram(
    "penstock_picker_prefix_hit_ratio",
    "Share of a prompt's blocks that its pick is taken to have",
    buckets=(0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1),
)
SCRAPE_ERRORS = Counter("penstock_picker_scrape_errors", "Readings of replicas' metrics that failed", ["reason"])
SOURCE_ERRORS = Counter("penstock_picker_source_errors", "Readings of the list of replicas that failed")

REPLICAS = Gauge("penstock_picker_replicas", "Replicas of the pool")
READY_ENDPOINTS = Gauge("penstock_picker_ready_endpoints", "Replicas with fresh metrics")
QUEUE = Gauge("penstock_picker_average_queue_size", "Mean waiting requests of replicas with fresh metrics")
KV_CACHE = Gauge("penstock_picker_average_kv_cache_utilization", "Mean used share of KV caches, fresh replicas only")
SATURATION = Gauge("penstock_picker_saturation", "Saturation of the pool; from 1 on negative priorities are shed")
OLDEST_S = Gauge("penstock_picker_metrics_age_seconds", "Age of the oldest reading of a replica that answers")
IN_FLIGHT = Gauge("penstock_picker_in_flight", "Requests picked for and not ended")
PREFIX_ENTRIES = Gauge("penstock_picker_prefix_entries", "Distinct blocks in the prefix index")

_FOUND, _MISSED = PREFIX_BLOCKS.labels("yes"), PREFIX_BLOCKS.labels("no")
_labelled: set[str] = set()


def picked(replica: Replica, matched: int, total: int, seconds: float) -> None:
    """Count a pick of `replica`, which has `matched` of the prompt's `total` blocks."""
    PICK_SECONDS.observe(seconds)
    label = replica.endpoint
    if label not in _labelled:
        if len(_labelled) >= MAX_REPLICA_LABELS:
            label = "other"
        else:
            _labelled.add(label)
    PICKS.labels(label).inc()
    if total:
        PREFIX_HIT_RATIO.observe(matched / total)
        _FOUND.inc(matched)
        _MISSED.inc(total - matched)


def gone(replica: Replica) -> None:
    """End the time series of a replica that left the pool."""
    if replica.endpoint in _labelled:
        _labelled.remove(replica.endpoint)
        PICKS.remove(replica.endpoint)


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
