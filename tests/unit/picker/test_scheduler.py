import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.picker.config import DEFAULT_SCORERS, PickerConfig
from services.picker.metrics import ReplicaMetrics
from services.picker.pool import ASSUMED_BATCH, Pool, Replica
from services.picker.prefix import PrefixIndex, slots_of
from services.picker.scheduler import Decision, Request, Scheduler
from services.picker.scorers import LOAD_SCORERS, lora_score, prefix_score, spread
from services.picker.table import TIE_BREAK, LoadTable
from tests.unit.picker.support import address, at, pool_of

ALL = (*DEFAULT_SCORERS, ("lora-affinity-scorer", 1.0), ("running-requests-size-scorer", 0.5))


def scheduler(pool: Pool, index: PrefixIndex | None = None, config: PickerConfig | None = None) -> Scheduler:
    index = PrefixIndex(1000) if index is None else index  # an empty one is falsy
    return Scheduler(pool, index, config or PickerConfig(), random.Random(1))


def picks(decision: Decision) -> list[str]:
    return [replica.address.name for replica in decision.replicas]


def test_least_load_wins() -> None:
    pool = pool_of(ReplicaMetrics(waiting=3), ReplicaMetrics(waiting=1), ReplicaMetrics(waiting=2))
    assert picks(scheduler(pool).decide(Request())) == ["r1"]


def test_a_prefix_outweighs_a_small_difference_in_load_but_not_saturation() -> None:
    index = PrefixIndex(1000)
    pool = pool_of(ReplicaMetrics(waiting=2), ReplicaMetrics(), index=index)
    index.record(0, [1, 2, 3, 4])
    chooser = scheduler(pool, index)
    request = Request([1, 2, 3, 4])
    decision = chooser.decide(request)
    assert (picks(decision), decision.matched) == (["r0"], 4)
    pool.observed(at(pool, 0), ReplicaMetrics(waiting=5), 0, 0.0)
    decision = chooser.decide(request)
    assert (picks(decision), decision.matched) == (["r1"], 0)
    pool.observed(at(pool, 1), ReplicaMetrics(waiting=6), 0, 0.0)
    assert picks(chooser.decide(request)) == ["r0"], "when all are full the prefix decides again"


def test_a_burst_between_two_readings_spreads() -> None:
    pool = pool_of(*[ReplicaMetrics() for _ in range(5)])
    chooser = scheduler(pool)
    counts: Counter[str] = Counter()
    for sent in range(1, 101):
        replica = chooser.decide(Request()).replicas[0]
        pool.sent(replica)
        counts[replica.address.name] += 1
        assert max(counts.values()) == -(-sent // 5), "never more than an equal share, at any moment"


def test_a_burst_of_one_prefix_stays_until_its_replica_is_full_and_then_moves() -> None:
    index = PrefixIndex(1000)
    pool = pool_of(ReplicaMetrics(), ReplicaMetrics(), index=index)
    chooser = scheduler(pool, index)
    order = []
    for _ in range(ASSUMED_BATCH + 10):
        replica = chooser.decide(Request([1, 2, 3])).replicas[0]
        index.record(replica.slot, [1, 2, 3])
        pool.sent(replica)
        order.append(replica.address.name)
    full = ASSUMED_BATCH + 5  # a full batch, and a queue up to the threshold
    assert set(order[:ASSUMED_BATCH]) == {order[0]}
    assert order.count(order[0]) <= full
    assert len(set(order)) == 2


def test_only_hinted_replicas_are_picked() -> None:
    pool = pool_of(ReplicaMetrics(), ReplicaMetrics(waiting=9), ReplicaMetrics(waiting=8))
    hint = frozenset({address(1).endpoint, address(2).endpoint, "10.9.9.9:1"})
    assert picks(scheduler(pool).decide(Request(subset=hint))) == ["r2"]
    for empty in (frozenset[str](), frozenset({"10.9.9.9:1"})):
        decision = scheduler(pool).decide(Request(subset=empty, priority=-1))
        assert (picks(decision), decision.shed) == ([], False)


def test_the_fallback_list_is_ordered() -> None:
    pool = pool_of(*[ReplicaMetrics(waiting=waiting) for waiting in (3, 0, 2, 1)])
    assert picks(scheduler(pool, config=PickerConfig(max_endpoints=3)).decide(Request())) == ["r1", "r3", "r2"]
    assert len(scheduler(pool, config=PickerConfig(max_endpoints=9)).decide(Request()).replicas) == 4


def test_adapters_go_where_they_are_loaded() -> None:
    config = PickerConfig(scorers=(*DEFAULT_SCORERS, ("lora-affinity-scorer", 1.0)))
    pool = pool_of(ReplicaMetrics(max_lora=2), ReplicaMetrics(lora_running=frozenset({"a"}), max_lora=2))
    chooser = scheduler(pool, config=config)
    assert picks(chooser.decide(Request(adapter="a"))) == ["r1"]
    pool.observed(at(pool, 0), ReplicaMetrics(lora_running=frozenset({"a"}), max_lora=2), 0, 0.0)
    pool.observed(at(pool, 1), ReplicaMetrics(lora_running=frozenset({"b", "c"}), max_lora=2), 0, 0.0)
    assert picks(chooser.decide(Request(adapter="a"))) == ["r0"]


def test_negative_priority_is_shed_from_a_saturated_pool_only() -> None:
    pool = pool_of(ReplicaMetrics(waiting=9), ReplicaMetrics(waiting=1))
    chooser = scheduler(pool)
    assert chooser.saturation() == pytest.approx(1.0)
    assert chooser.decide(Request(priority=-1)) == Decision(shed=True)
    assert picks(chooser.decide(Request(priority=0))) == ["r1"]
    pool.observed(at(pool, 0), ReplicaMetrics(waiting=8), 0, 0.0)
    assert picks(chooser.decide(Request(priority=-1))) == ["r1"]


def test_a_replica_without_metrics_is_the_last_resort() -> None:
    pool = pool_of(ReplicaMetrics(waiting=50, kv_cache=1.0), None)
    chooser = scheduler(pool)
    assert picks(chooser.decide(Request())) == ["r0"]
    pool.refused(at(pool, 0))
    assert picks(chooser.decide(Request())) == ["r1"], "it may serve although it says nothing"
    pool.refused(at(pool, 1))
    assert chooser.decide(Request()) == Decision(), "nothing listens there"
    assert chooser.decide(Request(priority=-1)) == Decision(), "that is not what shedding is for"


def test_an_empty_pool_has_no_pick() -> None:
    assert scheduler(Pool()).decide(Request()) == Decision()


def test_replicas_that_come_and_go_are_noticed() -> None:
    pool = pool_of(ReplicaMetrics(), ReplicaMetrics(waiting=4))
    chooser = scheduler(pool)
    assert picks(chooser.decide(Request())) == ["r0"]
    pool.update([address(1), address(2)])
    assert picks(chooser.decide(Request())) == ["r1"]
    pool.observed(at(pool, 2), ReplicaMetrics(), 0, 0.0)
    assert picks(chooser.decide(Request())) == ["r2"]


def test_random_pickers_reach_every_candidate_and_no_other() -> None:
    pool = pool_of(ReplicaMetrics(), ReplicaMetrics(waiting=4, kv_cache=0.7), None, ReplicaMetrics(waiting=9))
    for kind in ("random-picker", "weighted-random-picker"):
        chooser = scheduler(pool, config=PickerConfig(picker=kind))
        counts = Counter(picks(chooser.decide(Request()))[0] for _ in range(400))
        assert set(counts) == {"r0", "r1"}
        share = counts["r0"] / 400  # scores: r0 = 2 + 2, r1 = 0 + 0.6
        assert (0.4 < share < 0.6) if kind == "random-picker" else (share > 0.8)


def plain_scores(scheduler_: Scheduler, pool: Pool, index: PrefixIndex, request: Request) -> dict[str, float]:
    """The weighted sums, as the formulas read."""
    everyone = [r for r in pool if request.subset is None or r.endpoint in request.subset]
    tiers = [
        [r for r in everyone if scheduler_.detector.has_room(r)],
        [r for r in everyone if r.fresh],
        [r for r in everyone if not r.refused],
    ]
    candidates = next((tier for tier in tiers if tier), [])
    matched = {slot: length for mask, length in index.match(request.hashes) for slot in slots_of(mask)}

    def score(replica: Replica) -> float:
        waiting, running = [r.waiting for r in candidates], [r.running for r in candidates]
        return (
            2 * spread(replica.waiting, min(waiting), max(waiting))
            + 2 * (1 - replica.metrics.kv_cache)
            + 3 * prefix_score(matched.get(replica.slot, 0), len(request.hashes))
            + (lora_score(replica.metrics, request.adapter) if request.adapter else 0.0)
            + 0.5 * spread(replica.running, min(running), max(running))
            - TIE_BREAK * replica.outstanding
        )

    return {replica.endpoint: score(replica) for replica in candidates}


readings = st.builds(
    ReplicaMetrics,
    waiting=st.integers(0, 7),
    running=st.integers(0, 12),
    kv_cache=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.79, 0.8]),
    lora_running=st.sets(st.sampled_from("ab"), max_size=2).map(frozenset),
    lora_waiting=st.sets(st.sampled_from("abc"), max_size=2).map(frozenset),
    max_lora=st.integers(0, 2),
)
numbers = st.sampled_from([0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6])
observe = st.tuples(st.just("observe"), numbers, readings)
events = st.one_of(
    *[observe] * 6,
    st.tuples(st.just("send"), numbers, st.none()),
    st.tuples(st.just("end"), numbers, st.none()),
    st.tuples(st.just("refuse"), numbers, st.none()),
    st.tuples(st.just("expire"), numbers, st.none()),
    st.tuples(st.just("record"), numbers, st.integers(1, 5)),
    st.tuples(st.just("members"), numbers, st.sets(numbers, max_size=7)),
)
requests = st.builds(
    Request,
    hashes=st.integers(0, 5).map(lambda n: list(range(1, n + 1))),
    adapter=st.sampled_from(["", "a", "c"]),
    subset=st.none() | st.sets(numbers, max_size=4).map(lambda some: frozenset(address(n).endpoint for n in some)),
)


@settings(max_examples=250, derandomize=True, deadline=None)
@given(st.lists(st.tuples(events, requests), min_size=8, max_size=30))
def test_the_choice_is_that_of_a_plain_scorer(history: list[tuple[tuple[str, int, object], Request]]) -> None:
    index, pool = PrefixIndex(1000), Pool()
    for replica in pool.update(address(number) for number in range(4))[0]:
        index.open(replica.slot)
    chooser = scheduler(pool, index, PickerConfig(scorers=ALL))
    for event, request in history:
        apply(pool, index, *event)
        expected = plain_scores(chooser, pool, index, request)
        decision = chooser.decide(request)
        assert bool(decision.replicas) == bool(expected)
        if expected:
            assert expected[decision.replicas[0].endpoint] == pytest.approx(max(expected.values()), abs=1e-12)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.lists(events, min_size=8, max_size=30))
def test_a_table_kept_up_to_date_equals_a_new_one(history: list[tuple[str, int, object]]) -> None:
    index, pool = PrefixIndex(1000), Pool()
    for replica in pool.update(address(number) for number in range(4))[0]:
        index.open(replica.slot)
    detector = scheduler(pool).detector
    scorers = [(scorer, weight) for scorer, weight in zip(LOAD_SCORERS.values(), (2.0, 0.5, 2.0), strict=True)]
    kept = LoadTable(pool, scorers, detector.has_room)
    for event in history:
        apply(pool, index, *event)
        kept.refresh()
        new = LoadTable(pool, scorers, detector.has_room)
        new.refresh()
        assert (kept.scores, kept.count) == (new.scores, new.count)


def apply(pool: Pool, index: PrefixIndex, kind: str, number: int, value: object) -> None:
    if kind == "members":
        assert isinstance(value, set)
        come, gone = pool.update(address(each) for each in value)
        for replica in gone:
            index.drop(replica.slot)
        for replica in come:
            index.open(replica.slot)
        return
    target = pool.by_endpoint.get(address(number).endpoint)
    if target is None:
        return
    if kind == "observe":
        assert isinstance(value, ReplicaMetrics)
        pool.observed(target, value, target.in_flight, float(number))
    elif kind == "send":
        pool.sent(target)
    elif kind == "end" and target.in_flight:
        pool.ended(target)
    elif kind == "refuse":
        pool.refused(target)
    elif kind == "expire":
        pool.expire(float(number))
    elif kind == "record":
        assert isinstance(value, int)
        index.record(target.slot, list(range(1, value + 1)))
