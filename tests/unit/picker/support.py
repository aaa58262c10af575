"""Replicas with given metrics, for tests of the picker."""

from services.picker.metrics import ReplicaMetrics
from services.picker.pool import Address, Pool, Replica
from services.picker.prefix import PrefixIndex


def address(number: int) -> Address:
    return Address(f"r{number}", f"10.0.{number >> 8}.{number & 255}", 8000)


def pool_of(*metrics: ReplicaMetrics | None, index: PrefixIndex | None = None) -> Pool:
    """A pool with a replica for each reading; None has not answered yet."""
    pool = Pool()
    come, _ = pool.update(address(number) for number in range(len(metrics)))
    for replica, reading in zip(come, metrics, strict=True):
        if index is not None:
            index.open(replica.slot)
        if reading is not None:
            pool.observed(replica, reading, 0, 0.0)
    return pool


def at(pool: Pool, number: int) -> Replica:
    return pool.by_endpoint[address(number).endpoint]
