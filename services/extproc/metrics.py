"""Metrics of a callout process: plain numbers while serving, turned into Prometheus samples when asked."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector

from services.extproc.api import Ending, Outcome, Reply
from services.extproc.meters import Distribution

PREFIX = "penstock_extproc"
PHASES = tuple(f"{side}_{part}" for side in ("request", "response") for part in ("headers", "body", "trailers"))
BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the time histogram, seconds."""


class Tally(Collector):
    """All numbers of this process. Used from the event loop's thread only."""

    def __init__(self) -> None:
        self.streams = 0
        self.in_flight = 0
        self.sent = 0
        self.phases = {phase: Distribution(BUCKETS) for phase in PHASES}
        """How long answering messages of each kind took, seconds."""
        self._endings: Counter[Ending] = Counter(dict.fromkeys(Ending, 0))
        self._denials: Counter[str] = Counter()
        self._bytes = {"request": 0, "response": 0}

    def end(self, outcome: Outcome, reply: Reply | None) -> None:
        """Count an exchange that is over."""
        self._endings[outcome.ending] += 1
        self._bytes["request"] += outcome.request_bytes
        self._bytes["response"] += outcome.response_bytes
        if reply is not None:
            self._denials[reply.details or str(reply.status)] += 1

    def collect(self) -> Iterator[Metric]:
        """Return the samples (called by the registry)."""
        yield CounterMetricFamily(f"{PREFIX}_streams", "Exchanges that a callout took part in", self.streams)
        yield GaugeMetricFamily(f"{PREFIX}_streams_in_flight", "Exchanges that are open now", self.in_flight)
        yield CounterMetricFamily(f"{PREFIX}_messages_sent", "Messages to the proxy", self.sent)
        yield _counter(
            "endings", "Exchanges by how they ended", "outcome", {e.value: n for e, n in self._endings.items()}
        )
        yield _counter("denials", "Replies given in place of the upstream", "code", self._denials)
        yield _counter("body_bytes", "Body bytes that came through", "direction", self._bytes)
        received = {name: sum(phase.counts) for name, phase in self.phases.items()}
        yield _counter("messages_received", "Messages from the proxy", "phase", received)
        text = "Time to answer one message: filters included, the wait for the proxy not"
        histogram = HistogramMetricFamily(f"{PREFIX}_phase_seconds", text, labels=["phase"])
        for name, phase in self.phases.items():
            phase.show(histogram, [name])
        yield histogram


def _counter(name: str, text: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


TALLY = Tally()
REGISTRY.register(TALLY)
