"""Counters and histograms for hot paths: plain numbers while serving, turned into Prometheus samples when asked.

Those of the Prometheus client take a lock and several calls for each step. These belong to the event loop's thread,
which also answers the scrape.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Distribution:
    """How often a value fell between bounds, and the sum of all values."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds`: upper bounds in ascending order, without infinity."""
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def show(self, family: HistogramMetricFamily, labels: Sequence[str] = ()) -> None:
        """Add the samples to `family`, whose buckets are cumulative."""
        total, buckets = 0, []
        for bound, count in zip([*(str(float(bound)) for bound in self._bounds), "+Inf"], self.counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family.add_metric(labels, buckets, self.sum)


class Meter(Collector):
    """A counter by labels. Who counts bounds what the labels can be."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str] = (), registry: CollectorRegistry = REGISTRY
    ) -> None:
        """`name` without `_total`; `labels` are names."""
        self._name, self._text, self._labels = name, text, labels
        self.counts: Counter[tuple[str, ...]] = Counter()
        """Values of the labels -> how often."""
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return the samples (called by the registry)."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, count in self.counts.items():
            family.add_metric(values, count)
        yield family


class Histogram(Distribution, Collector):
    """A histogram without labels."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], registry: CollectorRegistry = REGISTRY) -> None:
        """`bounds` as of a `Distribution`."""
        super().__init__(bounds)
        self._name, self._text = name, text
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return the samples (called by the registry)."""
        family = HistogramMetricFamily(self._name, self._text)
        self.show(family)
        yield family
