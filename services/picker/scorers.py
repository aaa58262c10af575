"""The scorers: how good a replica is for a request, 0 to 1 each, weighted and summed by the scheduler.

Names and formulas are those of llm-d-router v0.10. Two kinds: load scorers look at a replica alone or against the other
candidates and change with its load; request scorers depend on the request's prompt or adapter.
"""

from collections.abc import Callable
from dataclasses import dataclass

from services.picker.metrics import ReplicaMetrics
from services.picker.pool import Replica

LORA_ACTIVE, LORA_ROOM, LORA_WAITING, LORA_FULL = 1.0, 0.8, 0.6, 0.0
"""`lora-affinity-scorer`: the adapter is loaded; there is room for it; it waits to be loaded; neither."""


@dataclass(frozen=True, slots=True)
class LoadScorer:
    """Scores a replica by one figure of its load."""

    figure: Callable[[Replica], float]
    relative: bool
    """True: the figure is held against the other candidates (`spread`). False: the figure is the score."""


def spread(value: float, least: float, most: float) -> float:
    """Return 1 for the least loaded candidate, 0 for the most loaded, 1 for all if they are equal."""
    return (most - value) / (most - least) if most > least else 1.0


def prefix_score(matched: int, total: int) -> float:
    """Return the share of the prompt's blocks that a replica has."""
    return matched / total if total else 0.0


def lora_score(metrics: ReplicaMetrics, adapter: str) -> float:
    """Return how well a replica is placed to serve `adapter`."""
    if adapter in metrics.lora_running:
        return LORA_ACTIVE
    if len(metrics.lora_running | metrics.lora_waiting) < metrics.max_lora:
        return LORA_ROOM
    return LORA_WAITING if adapter in metrics.lora_waiting else LORA_FULL


LOAD_SCORERS = {
    "queue-scorer": LoadScorer(lambda replica: replica.waiting, relative=True),
    "running-requests-size-scorer": LoadScorer(lambda replica: replica.running, relative=True),
    "kv-cache-utilization-scorer": LoadScorer(lambda replica: 1.0 - replica.metrics.kv_cache, relative=False),
}
PREFIX, LORA = "prefix-cache-scorer", "lora-affinity-scorer"
