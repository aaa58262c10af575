from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.picker.metrics import MetricsError, ReplicaMetrics, parse

RECORDED = Path(__file__).parents[4] / "shared" / "vllm"

PAGE = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 3.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a } b"} 1.0 1700000000000
vllm:num_requests_waiting{engine="1",model_name="m"} 4
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 7.5e-01
# TYPE vllm:lora_requests_info gauge
vllm:lora_requests_info{max_lora="2",running_lora_adapters="old",waiting_lora_adapters=""} 1.0e+09
vllm:lora_requests_info{max_lora="2",running_lora_adapters="a, b",waiting_lora_adapters="c"} 1.7e+09
vllm:lora_requests_info{max_lora="2",running_lora_adapters="",waiting_lora_adapters=""} 1.2e+09
vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1.0
vllm:cache_config_info{block_size="16",num_gpu_blocks="None"} 1.0
"""


def test_a_page_of_two_engines() -> None:
    assert parse(PAGE) == ReplicaMetrics(5, 5, 0.5, frozenset({"a", "b"}), frozenset({"c"}), 2, 16_000)


def test_the_order_of_groups_does_not_matter() -> None:
    groups = PAGE.split(b"# TYPE ")
    assert parse(b"# TYPE ".join([groups[0], *reversed(groups[1:])])) == parse(PAGE)


def test_without_labels_comments_or_a_last_newline() -> None:
    page = b"vllm:num_requests_waiting 3\nvllm:num_requests_running 1\nvllm:kv_cache_usage_perc 0.5"
    assert parse(page) == ReplicaMetrics(waiting=3, running=1, kv_cache=0.5)


@pytest.mark.parametrize(
    ("page", "what"),
    [
        (b"", "no sample of vllm:num_requests_waiting"),
        (PAGE.replace(b"\nvllm:kv_cache_usage_perc", b"\nvllm:gpu_cache_usage_perc"), "no sample of vllm:kv_cache"),
        (PAGE.replace(b"} 4\n", b"} NaN\n"), "out of range"),
        (PAGE.replace(b"} 4\n", b"} four\n"), "not a number"),
        (PAGE.replace(b"} 4\n", b"} -40\n"), "negative"),
    ],
)
def test_unusable_pages_name_the_series(page: bytes, what: str) -> None:
    with pytest.raises(MetricsError, match=what):
        parse(page)


@pytest.mark.skipif(not RECORDED.is_dir(), reason="recordings of a real vLLM (../shared/vllm) are not here")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("busy", ReplicaMetrics(6, 2, 0.6456692913385826, frozenset({"lora-a", "lora-b"}), max_lora=2)),
        ("after_busy", ReplicaMetrics(max_lora=2)),
        ("idle_after_load", ReplicaMetrics(max_lora=2)),
        ("idle_fresh", ReplicaMetrics()),
    ],
)
def test_pages_recorded_from_vllm(name: str, expected: ReplicaMetrics) -> None:
    found = parse((RECORDED / f"metrics_{name}.txt").read_bytes())
    assert (found.waiting, found.running, found.kv_cache) == (expected.waiting, expected.running, expected.kv_cache)
    assert (found.lora_running, found.max_lora) == (expected.lora_running, expected.max_lora)
    assert found.kv_cache_tokens == 128 * 32


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.binary(max_size=200), st.integers(0, len(PAGE)), st.integers(0, 40))
def test_any_bytes_are_read_or_refused(noise: bytes, start: int, cut: int) -> None:
    for page in (noise, PAGE[:start] + noise + PAGE[start + cut :], PAGE[:start]):
        try:
            found = parse(page)
        except MetricsError:
            continue
        assert found.waiting >= 0
        assert found.running >= 0
        assert 0 <= found.kv_cache <= 1


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 1))
def test_what_was_written_is_read(waiting: int, running: int, kv_cache: float) -> None:
    page = (
        f'vllm:num_requests_running{{m="x"}} {float(running)}\nvllm:num_requests_waiting_by_reason{{r="q"}} 5.0\n'
        f'vllm:num_requests_waiting{{m="x"}} {float(waiting)}\nvllm:kv_cache_usage_perc{{m="x"}} {kv_cache!r}\n'
    )
    assert parse(page.encode()) == ReplicaMetrics(waiting, running, kv_cache)
