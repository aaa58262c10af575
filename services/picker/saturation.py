"""When a replica, and when the pool, has no room: upstream's `utilization-detector`.

A replica's saturation is the fuller of its queue and its KV cache, each against its threshold; the pool's is the mean
over its replicas; a replica without fresh metrics counts as 1. Source: llm-d-router v0.10.
"""

from collections.abc import Iterable

from services.picker.config import DetectorParameters
from services.picker.pool import Replica

SATURATED = 1.0
"""Pool saturation from which on requests of negative priority are shed."""


class Detector:
    """Judges replicas by the thresholds of its parameters."""

    def __init__(self, parameters: DetectorParameters) -> None:
        self.staleness_s = parameters.metrics_staleness_threshold
        self._queue, self._kv = parameters.queue_depth_threshold, parameters.kv_cache_util_threshold
        self._queue_limit = self._queue * (1 + parameters.headroom)
        self._kv_limit = self._kv * (1 + parameters.headroom)

    def has_room(self, replica: Replica) -> bool:
        """Tell whether `replica` may take more: by the estimate of now, with the headroom of a burst."""
        return replica.fresh and replica.waiting < self._queue_limit and replica.metrics.kv_cache < self._kv_limit

    def of_replica(self, replica: Replica) -> float:
        """Return a replica's saturation, by its own last reading: a burst of this moment sheds nothing."""
        if not replica.fresh:
            return SATURATED
        metrics = replica.metrics
        return max(metrics.waiting / self._queue, metrics.kv_cache / self._kv)

    def of_pool(self, replicas: Iterable[Replica]) -> float:
        """Return the mean saturation; that of no replicas is 1."""
        scores = [self.of_replica(replica) for replica in replicas]
        return sum(scores) / len(scores) if scores else SATURATED
