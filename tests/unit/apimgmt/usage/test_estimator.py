import json
import math
import random

import pytest
from prometheus_client import CollectorRegistry

from services.apimgmt.settings import Estimation
from services.apimgmt.usage.estimator import MAX_MODELS, Estimator
from services.apimgmt.usage.metrics import EstimatorMetrics


def taught(mean, spread, count=2000, seed=1):
    source, estimator = random.Random(seed), Estimator()
    for _ in range(count):
        size = source.randint(200, 5000)
        estimator.observe("m", size, round(size * source.gauss(mean, spread)))
    return estimator, source


def test_it_starts_as_stated():
    estimator = Estimator()
    assert estimator.upper("m", 3000) == 1000
    assert estimator.mean("m", 4000) == 1000
    assert estimator.of_events("m", 30) == 30
    assert estimator.upper("m", 0) == 0


@pytest.mark.parametrize(("mean", "spread"), [(0.2, 0.01), (0.25, 0.04), (0.6, 0.05)])
def test_it_learns_the_mean_and_a_bound_that_few_exceed(mean, spread):
    estimator, source = taught(mean, spread)
    assert estimator.mean("m", 10_000) == pytest.approx(mean * 10_000, rel=0.08)
    bound = estimator.upper("m", 10_000)
    above = sum(source.gauss(mean, spread) * 10_000 > bound for _ in range(2000))
    assert above <= 2000 * 0.04
    assert bound <= (mean + 3.5 * spread) * 10_000


def test_the_start_is_not_undercut_by_a_few_prompts():
    estimator = Estimator()
    for _ in range(10):
        estimator.observe("m", 1000, 10)
    assert estimator.upper("m", 3000) == 1000
    for _ in range(10):
        estimator.observe("m", 1000, 10)
    assert estimator.upper("m", 3000) == 600, "text with hardly a token does not let the next reserve hardly any"
    assert estimator.mean("m", 3000) == 30


def test_a_model_that_changes_is_followed():
    estimator, _ = taught(0.2, 0.01)
    for _ in range(300):
        estimator.observe("m", 1000, 500)
    assert estimator.mean("m", 1000) == pytest.approx(500, rel=0.05)


def test_never_more_than_a_token_per_byte():
    estimator = Estimator()
    for _ in range(40):
        estimator.observe("m", 10, 10_000)
    assert estimator.upper("m", 100) == 100


def test_a_bound_that_no_text_exceeds_can_be_set():
    estimator, _ = taught(0.2, 0.01)
    strict = Estimator(Estimation(reserve="bytes"))
    strict.load(estimator.export())
    assert strict.upper("m", 1000) == 1000
    assert strict.mean("m", 1000) == estimator.mean("m", 1000)


def test_models_are_apart_and_their_number_is_bounded():
    estimator = Estimator()
    for number in range(MAX_MODELS + 10):
        estimator.observe(f"m{number}", 1000, 100)
        estimator.observe("kept", 1000, 700)
    known = {model: ratio.samples for model, ratio, _ in estimator.ratios()}
    assert len(known) == MAX_MODELS
    assert known["kept"] == MAX_MODELS + 10
    assert "m0" not in known


def test_state_survives_a_restart():
    estimator, _ = taught(0.3, 0.05)
    estimator.observe_events("m", 10, 40)
    other = Estimator()
    other.load(json.loads(json.dumps(estimator.export())))
    assert other.upper("m", 999) == estimator.upper("m", 999)
    assert other.of_events("m", 10) == 40
    assert other.export() == estimator.export()


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"bytes": 1},
        {"bytes": {"m": 1}},
        {"bytes": {"m": {"mean": 0.1}}},
        {"bytes": {"m": {"mean": math.nan, "variance": 0, "samples": 1, "error": 0, "exceeded": 0}}},
        {"bytes": {"m": {"mean": "x", "variance": 0, "samples": 1, "error": 0, "exceeded": 0}}},
        {"bytes": {"m": {"mean": 0.1, "variance": -1, "samples": 1, "error": 0, "exceeded": 0}}},
    ],
)
def test_state_that_cannot_be_read_is_left_out(state):
    estimator = Estimator()
    estimator.load(state)
    assert estimator.upper("m", 3000) == 1000


def test_errors_show_in_metrics():
    estimator, registry = Estimator(), CollectorRegistry()
    EstimatorMetrics(estimator, registry)
    estimator.observe("m", 1000, 250)
    estimator.observe("m", 1000, 900)
    name = "penstock_apimgmt_estimate"
    values = {
        part: registry.get_sample_value(f"{name}_{part}", {"model": "m"})
        for part in ("tokens_per_byte", "prompts_total", "exceeded_total", "error_ratio", "reserved_per_byte")
    }
    assert values["prompts_total"] == 2
    assert values["exceeded_total"] == 1
    assert values["tokens_per_byte"] == pytest.approx(0.575)
    assert values["error_ratio"] == pytest.approx((0 + 650 / 900) / 2)
    assert values["reserved_per_byte"] == 1.0
