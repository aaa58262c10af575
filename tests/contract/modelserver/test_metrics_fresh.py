"""What /metrics says before anything has happened."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.modelserver.conftest import RECORDED, Start


def test_fresh_metrics_parse_and_are_zero(start: Start) -> None:
    simulator = start(*RECORDED)
    answer = httpx.get(f"{simulator.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "vllm:lora_requests_info{" not in answer.text
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    config = families["vllm:cache_config_info"].samples[0].labels
    assert (config["block_size"], config["num_gpu_blocks"], config["kv_cache_size_tokens"]) == ("32", "128", "4096")
    for name, family in families.items():
        if name.startswith("vllm:") and not name.endswith(("_created", "_info", "sleep_state")):
            assert all(sample.value == 0 for sample in family.samples), name
    assert "vllm:num_requests_waiting" in families


def test_without_lora_there_is_no_lora_metric(start: Start) -> None:
    simulator = start("m")
    assert "lora_requests_info" not in httpx.get(f"{simulator.url}/metrics").text
