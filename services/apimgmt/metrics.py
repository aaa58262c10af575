"""What API management counts. One per process, whatever its config becomes."""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.extproc.meters import Histogram, Meter

PREFIX = "penstock_apimgmt"
OVERHEAD_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Upper bounds, seconds."""

MAX_CODES = 256
"""Codes per policy that are counted by name: scripts and external services may make up any number."""
OTHER = "other"

UNKNOWN = "unknown"
"""Organization of requests whose caller is not known."""


class Tally:
    """What one policy did. `passed` and `seconds` are counted for each request, so they are plain attributes."""

    __slots__ = ("_codes", "passed", "seconds", "verdicts")

    def __init__(self) -> None:
        self.passed = 0
        self.seconds = 0.0
        """Time in `check`, waiting included."""
        self.verdicts: dict[tuple[str, str, bool], int] = {}
        """(verdict, code, shadow) -> how often; without passes."""
        self._codes: set[str] = set()

    def count(self, verdict: str, code: str, shadow: bool) -> None:
        """Count what is no pass."""
        if code not in self._codes:
            if len(self._codes) < MAX_CODES:
                self._codes.add(code)
            else:
                code = OTHER
        key = (verdict, code, shadow)
        self.verdicts[key] = self.verdicts.get(key, 0) + 1


class Metrics(Collector):
    """All numbers of API management's data path. Used from the event loop's thread only."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """`registry`: where the metrics go."""
        self.tallies: dict[str, Tally] = {}
        """By policy."""
        self.in_flight = 0
        """Requests between reservation and settlement."""
        self.spooled = 0
        """Settlements that wait for the store."""
        self.requests = Meter(
            f"{PREFIX}_requests", "Requests by what became of them", ["organization", "outcome", "code"], registry
        )
        self.tokens = Meter(
            f"{PREFIX}_tokens", "Tokens charged, by kind", ["organization", "model", "kind", "estimated"], registry
        )
        self.cost = Meter(f"{PREFIX}_cost_micros", "Cost in millionths of a US dollar", ["organization"], registry)
        self.settlements = Meter(
            f"{PREFIX}_settlements", "Ends of requests by how they reached the store", ["result"], registry
        )
        self.lost = Meter(f"{PREFIX}_lost", "Requests of processes that died, settled by this one", [], registry)
        text = "Time that API management took until the request went on, seconds"
        self.overhead = Histogram(f"{PREFIX}_overhead_seconds", text, OVERHEAD_BUCKETS, registry)
        registry.register(self)

    def tally(self, policy: str) -> Tally:
        """Return the tally of a policy."""
        return self.tallies.setdefault(policy, Tally())

    def record(self, record: Mapping[str, Any], code: str) -> None:
        """Count a request by its ledger record."""
        organization = record["organization"]
        self.requests.counts[organization, record["outcome"], code] += 1
        prompt, completion = record["promptTokens"], record["completionTokens"]
        if prompt or completion:
            model, estimated = record["adapter"] or record["model"], "true" if record["estimated"] else "false"
            self.tokens.counts[organization, model, "prompt", estimated] += prompt
            self.tokens.counts[organization, model, "completion", estimated] += completion
        if record["costMicros"]:
            self.cost.counts[(organization,)] += record["costMicros"]

    def collect(self) -> Iterator[Metric]:
        """Return the samples (called by the registry)."""
        checks = CounterMetricFamily(
            f"{PREFIX}_policy_checks", "Checks by policies", labels=["policy", "verdict", "code", "shadow"]
        )
        seconds = CounterMetricFamily(f"{PREFIX}_policy_seconds", "Time in policies", labels=["policy"])
        for name, tally in self.tallies.items():
            checks.add_metric([name, "pass", "", "false"], tally.passed)
            for (verdict, code, shadow), count in tally.verdicts.items():
                checks.add_metric([name, verdict, code, "true" if shadow else "false"], count)
            seconds.add_metric([name], tally.seconds)
        yield checks
        yield seconds
        yield GaugeMetricFamily(f"{PREFIX}_in_flight", "Requests between reservation and settlement", self.in_flight)
        yield GaugeMetricFamily(f"{PREFIX}_settlements_waiting", "Settlements that wait for the store", self.spooled)
