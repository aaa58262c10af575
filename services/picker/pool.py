"""The replicas of a pool and what is known of them now.

A replica's own metrics are up to one scrape old. Between scrapes its load is estimated from the requests that this
picker has sent and seen ended, so that a burst does not herd onto the replica that looked best at the last scrape.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from services.picker.metrics import ReplicaMetrics

NEVER = float("-inf")
"""`scraped_at` of a replica that has not answered yet."""

ASSUMED_BATCH = 8
"""Requests that a replica is taken to run at once until it has been seen running more. It only says where requests sent
since the last scrape are counted: up to here as running, beyond as waiting."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where one replica serves, both requests and metrics."""

    name: str
    host: str
    """IP address."""
    port: int

    @property
    def endpoint(self) -> str:
        """`ip:port`, with brackets for IPv6, as the endpoint picker protocol writes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Replica:
    """One replica. `waiting`, `running` and `outstanding` are estimates for now; `metrics` is the last reading."""

    __slots__ = (
        "_in_flight_seen",
        "_most_running",
        "address",
        "endpoint",
        "fresh",
        "in_flight",
        "metrics",
        "outstanding",
        "refused",
        "running",
        "scraped_at",
        "slot",
        "waiting",
    )

    def __init__(self, address: Address, slot: int) -> None:
        self.address, self.endpoint, self.slot = address, address.endpoint, slot
        self.metrics = ReplicaMetrics()
        self.scraped_at = NEVER
        self.fresh = False
        """The metrics are young enough to be believed."""
        self.refused = False
        """The last attempt to connect was refused: nothing listens there."""
        self.in_flight = 0
        """Requests of this picker that have not ended."""
        self.waiting = self.running = self.outstanding = 0
        self._in_flight_seen = 0
        self._most_running = ASSUMED_BATCH

    def estimate(self) -> None:
        """Bring the estimates up to date: the last reading, plus what was sent and less what ended since.

        A reading lags (vLLM publishes once per engine step), so what this picker has in flight is a lower bound.
        """
        metrics = self.metrics
        seen = metrics.waiting + metrics.running
        self.outstanding = max(seen + self.in_flight - self._in_flight_seen, self.in_flight)
        change = self.outstanding - seen
        if change < 0:
            self.waiting = max(0, metrics.waiting + change)
            self.running = self.outstanding - self.waiting
            return
        room = 0 if metrics.waiting else max(0, self._most_running - metrics.running)
        started = min(change, room)
        self.running, self.waiting = metrics.running + started, metrics.waiting + change - started

    def observe(self, metrics: ReplicaMetrics, in_flight: int, now: float) -> None:
        """Take a reading; `in_flight` is what was in flight when it was asked for."""
        self.metrics, self._in_flight_seen, self.scraped_at = metrics, in_flight, now
        self.fresh, self.refused = True, False
        self._most_running = max(self._most_running, metrics.running)
        self.estimate()


class Pool:
    """All replicas. Slots are small numbers that stay with a replica as long as it is here; they index flat lists."""

    def __init__(self) -> None:
        self.by_endpoint: dict[str, Replica] = {}
        self.slots: list[Replica | None] = []
        self.generation = 0
        """Grows when replicas come or go."""
        self.lora_generation = 0
        """Grows when some replica's adapters change, or replicas come or go."""
        self._changed: list[set[Replica]] = []

    def __iter__(self) -> Iterator[Replica]:
        return iter(self.by_endpoint.values())

    def __len__(self) -> int:
        return len(self.by_endpoint)

    def subscribe(self) -> set[Replica]:
        """Return a set that every replica is added to when it changes; the subscriber clears it."""
        changed: set[Replica] = set()
        self._changed.append(changed)
        return changed

    def unsubscribe(self, sets: Iterable[set[Replica]]) -> None:
        """Take back what `subscribe` returned; the subscriber is gone."""
        gone = {id(changed) for changed in sets}
        self._changed = [changed for changed in self._changed if id(changed) not in gone]

    def update(self, addresses: Iterable[Address]) -> tuple[list[Replica], list[Replica]]:
        """Make the pool those replicas; return the ones that came and the ones that went.

        A replica is its endpoint: under another name it is the same, with what is known of it.
        """
        wanted = {address.endpoint: address for address in addresses}
        gone = [replica for endpoint, replica in self.by_endpoint.items() if endpoint not in wanted]
        for replica in gone:
            del self.by_endpoint[replica.endpoint]
            self.slots[replica.slot] = None
        free = iter([slot for slot, replica in enumerate(self.slots) if replica is None])
        come = []
        for endpoint, address in wanted.items():
            if endpoint in self.by_endpoint:
                self.by_endpoint[endpoint].address = address
                continue
            slot = next(free, len(self.slots))
            replica = Replica(address, slot)
            self.slots[slot : slot + 1] = [replica]
            self.by_endpoint[endpoint] = replica
            come.append(replica)
        if come or gone:
            self.generation += 1
            self.lora_generation += 1
            for changed in self._changed:  # subscribers start over with a new generation
                changed.clear()
        return come, gone

    def sent(self, replica: Replica) -> None:
        """A request goes to `replica`."""
        replica.in_flight += 1
        replica.estimate()
        self._touch(replica)

    def ended(self, replica: Replica) -> None:
        """A request that went to `replica` is over."""
        replica.in_flight -= 1
        replica.estimate()
        self._touch(replica)

    def observed(self, replica: Replica, metrics: ReplicaMetrics, in_flight: int, now: float) -> None:
        """A reading of `replica` arrived; `in_flight` is what was in flight when it was asked for."""
        before = replica.metrics
        replica.observe(metrics, in_flight, now)
        if (before.lora_running, before.lora_waiting, before.max_lora) != (
            metrics.lora_running,
            metrics.lora_waiting,
            metrics.max_lora,
        ):
            self.lora_generation += 1
        self._touch(replica)

    def refused(self, replica: Replica) -> None:
        """Nothing listens at `replica`: it is out at once, not when its metrics grow old."""
        replica.refused, replica.fresh = True, False
        self._touch(replica)

    def expire(self, before: float) -> None:
        """Mark replicas whose last reading is older than `before` as no longer fresh."""
        for replica in self.by_endpoint.values():
            if replica.fresh and replica.scraped_at < before:
                replica.fresh = False
                self._touch(replica)

    def has(self, replica: Replica) -> bool:
        """Tell whether this very replica is still here: requests and readings may outlive it."""
        return self.slots[replica.slot] is replica

    def _touch(self, replica: Replica) -> None:
        if self.slots[replica.slot] is replica:
            for changed in self._changed:
                changed.add(replica)
