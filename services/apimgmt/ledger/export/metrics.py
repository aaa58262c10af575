"""What the export counts. One per process, whatever its config becomes."""

import time
from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.apimgmt.metrics import PREFIX as _PREFIX
from services.extproc.meters import Meter

PREFIX = f"{_PREFIX}_export"


class ExportMetrics(Collector):
    """Counters belong to the process that wrote; the lag is the same in all."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """`registry`: where the metrics go."""
        self.complete = 0.0
        """When everything was exported last, Unix seconds; 0 while that is not known."""
        self.records = Meter(f"{PREFIX}_records", "Ledger records exported", [], registry)
        self.unfit = Meter(f"{PREFIX}_unfit_records", "Of these, records that do not fit the schema", [], registry)
        self.bytes = Meter(f"{PREFIX}_bytes", "Bytes of exported objects", [], registry)
        self.objects = Meter(f"{PREFIX}_objects", "Objects written", [], registry)
        self.failures = Meter(f"{PREFIX}_failures", "Failed attempts to export", ["reason"], registry)
        registry.register(self)

    def wrote(self, records: int, unfit: int, size: int, objects: int) -> None:
        """Count what was written and noted."""
        self.records.counts[()] += records
        self.unfit.counts[()] += unfit
        self.bytes.counts[()] += size
        self.objects.counts[()] += objects

    def collect(self) -> Iterator[Metric]:
        """Return the samples (called by the registry)."""
        lag = max(0.0, time.time() - self.complete) if self.complete else 0.0
        text = "Seconds since all records were exported; the interval is normal"
        yield GaugeMetricFamily(f"{PREFIX}_lag_seconds", text, lag)
