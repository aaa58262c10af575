"""How well prompts are estimated, for Prometheus. Computed when asked, from the estimator's state."""

from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.apimgmt.usage.estimator import Estimator

PREFIX = "penstock_apimgmt_estimate"


class EstimatorMetrics(Collector):
    """Ratios, errors and misses per model; at most `estimator.MAX_MODELS` label values."""

    def __init__(self, estimator: Estimator, registry: CollectorRegistry = REGISTRY) -> None:
        self._estimator = estimator
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return the samples (called by the registry)."""
        labels = ["model"]
        mean = GaugeMetricFamily(f"{PREFIX}_tokens_per_byte", "Expected tokens per byte of prompt", labels=labels)
        upper = GaugeMetricFamily(f"{PREFIX}_reserved_per_byte", "Tokens reserved per byte of prompt", labels=labels)
        error = GaugeMetricFamily(
            f"{PREFIX}_error_ratio", "Mean of |estimate - count| / count of prompts", labels=labels
        )
        seen = CounterMetricFamily(f"{PREFIX}_prompts", "Prompts that were learned from", labels=labels)
        exceeded = CounterMetricFamily(
            f"{PREFIX}_exceeded", "Prompts that had more tokens than would be reserved", labels=labels
        )
        for model, ratio, reserved in self._estimator.ratios():
            mean.add_metric([model], ratio.mean)
            upper.add_metric([model], reserved)
            error.add_metric([model], ratio.error)
            seen.add_metric([model], ratio.samples)
            exceeded.add_metric([model], ratio.exceeded)
        yield from (mean, upper, error, seen, exceeded)
