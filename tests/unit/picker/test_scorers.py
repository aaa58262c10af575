import pytest

from services.picker.config import DetectorParameters
from services.picker.metrics import ReplicaMetrics
from services.picker.saturation import Detector
from services.picker.scorers import LOAD_SCORERS, lora_score, prefix_score, spread
from tests.unit.picker.support import at, pool_of


@pytest.mark.parametrize(
    ("value", "least", "most", "score"),
    [(0, 0, 10, 1.0), (10, 0, 10, 0.0), (5, 0, 10, 0.5), (4, 2, 6, 0.5), (3, 3, 3, 1.0), (0, 0, 0, 1.0)],
)
def test_spread(value: float, least: float, most: float, score: float) -> None:
    assert spread(value, least, most) == score


@pytest.mark.parametrize(("matched", "total", "score"), [(0, 4, 0.0), (1, 4, 0.25), (4, 4, 1.0), (0, 0, 0.0)])
def test_prefix(matched: int, total: int, score: float) -> None:
    assert prefix_score(matched, total) == score


@pytest.mark.parametrize(
    ("running", "waiting", "max_lora", "score"),
    [
        ("a", "", 1, 1.0),
        ("a,b", "", 2, 1.0),
        ("b", "", 2, 0.8),
        ("", "", 1, 0.8),
        ("b", "a", 3, 0.8),  # upstream: room comes before waiting
        ("b", "a", 2, 0.6),
        ("b,c", "", 2, 0.0),
        ("", "", 0, 0.0),
        ("b", "b", 2, 0.8),  # vLLM 0.32 reports running adapters as waiting too: they are counted once
    ],
)
def test_lora(running: str, waiting: str, max_lora: int, score: float) -> None:
    names = [frozenset(filter(None, text.split(","))) for text in (running, waiting)]
    assert lora_score(ReplicaMetrics(0, 0, 0.0, *names, max_lora), "a") == score


def test_load_figures() -> None:
    replica = at(pool_of(ReplicaMetrics(waiting=3, running=7, kv_cache=0.25)), 0)
    figures = {name: (scorer.figure(replica), scorer.relative) for name, scorer in LOAD_SCORERS.items()}
    assert figures == {
        "queue-scorer": (3, True),
        "running-requests-size-scorer": (7, True),
        "kv-cache-utilization-scorer": (0.75, False),
    }


def test_saturation_is_the_mean_of_the_fuller_resource() -> None:
    detector = Detector(DetectorParameters())
    pool = pool_of(
        ReplicaMetrics(waiting=10, kv_cache=0.1),  # 2.0 by its queue
        ReplicaMetrics(waiting=1, kv_cache=0.4),  # 0.5 by its cache
        ReplicaMetrics(),  # 0.0
        None,  # 1.0: nothing is known
    )
    assert [round(detector.of_replica(replica), 6) for replica in pool] == [2.0, 0.5, 0.0, 1.0]
    assert detector.of_pool(pool) == pytest.approx(0.875)
    assert detector.of_pool([]) == 1.0


@pytest.mark.parametrize(
    ("metrics", "headroom", "room"),
    [
        (ReplicaMetrics(waiting=4, kv_cache=0.79), 0.0, True),
        (ReplicaMetrics(waiting=5), 0.0, False),
        (ReplicaMetrics(kv_cache=0.8), 0.0, False),
        (ReplicaMetrics(waiting=5, kv_cache=0.9), 0.2, True),
        (ReplicaMetrics(waiting=6), 0.2, False),
        (None, 0.0, False),
    ],
)
def test_room(metrics: ReplicaMetrics | None, headroom: float, room: bool) -> None:
    assert Detector(DetectorParameters(headroom=headroom)).has_room(at(pool_of(metrics), 0)) is room


def test_a_burst_takes_the_room_but_does_not_saturate_the_pool() -> None:
    detector = Detector(DetectorParameters())
    pool = pool_of(ReplicaMetrics())
    for _ in range(30):
        pool.sent(at(pool, 0))
    assert not detector.has_room(at(pool, 0))
    assert detector.of_pool(pool) == 0.0
