import pytest

from services.picker.metrics import ReplicaMetrics
from services.picker.pool import ASSUMED_BATCH, Address, Pool
from tests.unit.picker.support import address, at, pool_of


def test_ipv6_endpoints_have_brackets() -> None:
    assert Address("a", "::1", 80).endpoint == "[::1]:80"


def test_replicas_that_stay_keep_slot_and_state_and_free_slots_are_used_again() -> None:
    pool = pool_of(ReplicaMetrics(), ReplicaMetrics(waiting=4), ReplicaMetrics())
    stays = at(pool, 1)
    come, gone = pool.update([address(1), address(7)])
    assert [replica.endpoint for replica in gone] == [address(0).endpoint, address(2).endpoint]
    assert at(pool, 1) is stays
    assert stays.waiting == 4
    assert come[0].slot == 0
    assert pool.has(come[0])
    assert not any(pool.has(replica) for replica in gone)
    pool.update([address(1), address(7), address(8), address(9)])
    assert sorted(replica.slot for replica in pool) == [0, 1, 2, 3]


def test_a_replica_that_went_is_not_announced_any_more() -> None:
    pool = pool_of(ReplicaMetrics(), ReplicaMetrics())
    gone = at(pool, 0)
    pool.sent(gone)
    changed = pool.subscribe()
    pool.update([address(1), address(5)])
    pool.ended(gone)
    assert not changed


@pytest.mark.parametrize(
    ("reading", "sent", "expected"),
    [
        # waiting, running, outstanding
        (ReplicaMetrics(), 0, (0, 0, 0)),
        (ReplicaMetrics(), ASSUMED_BATCH, (0, ASSUMED_BATCH, ASSUMED_BATCH)),
        (ReplicaMetrics(), ASSUMED_BATCH + 3, (3, ASSUMED_BATCH, ASSUMED_BATCH + 3)),
        (ReplicaMetrics(running=20), 2, (2, 20, 22)),
        (ReplicaMetrics(waiting=1, running=2), 2, (3, 2, 5)),
    ],
)
def test_requests_sent_since_the_reading_are_added(
    reading: ReplicaMetrics, sent: int, expected: tuple[int, int, int]
) -> None:
    pool = pool_of(reading)
    replica = at(pool, 0)
    for _ in range(sent):
        pool.sent(replica)
    assert (replica.waiting, replica.running, replica.outstanding) == expected


def test_requests_that_ended_since_the_reading_let_waiting_ones_in() -> None:
    pool = pool_of(None)
    replica = at(pool, 0)
    for _ in range(5):
        pool.sent(replica)
    pool.observed(replica, ReplicaMetrics(waiting=3, running=4), 5, 1.0)
    for _ in range(2):
        pool.ended(replica)
    assert (replica.waiting, replica.running, replica.outstanding) == (1, 4, 5)


def test_a_reading_that_lags_does_not_hide_what_is_in_flight() -> None:
    pool = pool_of(None)
    replica = at(pool, 0)
    for _ in range(3):
        pool.sent(replica)
    pool.observed(replica, ReplicaMetrics(), 3, 1.0)  # asked for after the three were sent, and does not show them yet
    assert replica.outstanding == 3


def test_batch_size_is_learned() -> None:
    pool = pool_of(ReplicaMetrics(running=30))
    replica = at(pool, 0)
    pool.observed(replica, ReplicaMetrics(running=10), 0, 1.0)
    for _ in range(20):
        pool.sent(replica)
    assert (replica.waiting, replica.running) == (0, 30)


def test_metrics_grow_stale_and_come_back() -> None:
    pool = pool_of(ReplicaMetrics(), None)
    first, second = at(pool, 0), at(pool, 1)
    assert (first.fresh, second.fresh) == (True, False)
    changed = pool.subscribe()
    pool.expire(-1.0)
    assert not changed
    pool.expire(1.0)
    assert changed == {first}
    assert not first.fresh
    pool.refused(second)
    pool.observed(second, ReplicaMetrics(), 0, 2.0)
    assert second.fresh
    assert not second.refused


def test_a_change_of_adapters_is_noticed() -> None:
    pool = Pool()
    pool.update([address(0)])
    before = pool.lora_generation
    pool.observed(at(pool, 0), ReplicaMetrics(waiting=3), 0, 0.0)
    assert pool.lora_generation == before
    pool.observed(at(pool, 0), ReplicaMetrics(max_lora=2), 0, 0.0)
    assert pool.lora_generation > before
