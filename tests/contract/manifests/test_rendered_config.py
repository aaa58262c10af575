"""What components render, read by the services themselves: config files, objectives, flags, `vllm serve` arguments."""

from pathlib import Path

import pytest
import yaml

from services.bodyrouter.settings import Settings as BodyRouterSettings
from services.extproc import flags
from services.extproc.config import parse_config
from services.modelserver import arguments
from services.picker import __main__ as picker
from services.picker import config as picker_config
from services.picker.objectives import Objectives
from tests.support.arguments import IMAGE, declared, of_kind
from tests.support.recordings import recorded

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def local():
    return recorded("local")


def _config(graph, name, file="config.yaml"):
    return of_kind(graph, "ConfigMap", name)["data"][file]


def _args(graph, name):
    container = of_kind(graph, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]
    return [arg.replace("$(POD_IP)", "10.0.0.1") for arg in container["args"]]


def test_body_router_reads_its_config(local):
    settings = parse_config(_config(local, "body-router"), BodyRouterSettings)
    assert [(model.name, list(model.adapters)) for model in settings.models] == [
        ("llama-3.1-8b", []),
        ("gemma-3-12b", ["LoRA-1-gemma", "LoRA-2-gemma"]),
    ]
    assert settings.max_body_bytes == 10 * 1024 * 1024


def test_body_router_reads_every_setting():
    changes = {"max_body_bytes": 4096, "allow_client_headers": ["x-slo-ttft-ms"]}
    settings = parse_config(_config(declared("BodyRouter", **changes), "body-router"), BodyRouterSettings)
    assert settings.max_body_bytes == 4096
    assert settings.allow_client_headers == ["x-slo-ttft-ms"]


def test_body_router_reads_other_names_and_who_chooses_models():
    changes = {
        "models": [{"name": "small"}, {"name": "large"}],
        "aliases": [{"name": "auto", "model": "small"}],
        "prompt_routes": [{"name": "long", "model": "auto", "when": "promptChars > 20000", "to": "large"}],
        "classifiers": [{"model": "auto", "url": "http://judge.tools.svc", "plain_http": True, "timeout_ms": 90}],
    }
    settings = parse_config(_config(declared("BodyRouter", **changes), "body-router"), BodyRouterSettings)
    assert (settings.aliases[0].name, settings.aliases[0].model) == ("auto", "small")
    assert (settings.prompt_routes[0].model, settings.prompt_routes[0].to) == ("auto", "large")
    assert (settings.classifiers[0].timeout_ms, settings.classifiers[0].plain_http) == (90, True)


@pytest.mark.parametrize("limit", [1024, 64 * 1024 * 1024])
def test_body_router_takes_the_extremes_that_the_component_takes(limit):
    graph = declared("BodyRouter", max_body_bytes=limit, models=[{"name": "m" * 256}])
    assert parse_config(_config(graph, "body-router"), BodyRouterSettings).max_body_bytes == limit


@pytest.mark.parametrize("pool", ["llama-3-1-8b-a", "llama-3-1-8b-b", "gemma-3-12b-a"])
def test_pickers_read_their_config_without_a_warning(local, pool):
    file = parse_config(_config(local, f"{pool}-picker"), picker_config.EndpointPickerConfig)
    found = picker_config.interpret(file)
    assert dict(found.scorers) == {
        "prefix-cache-scorer": 3.0,
        "queue-scorer": 2.0,
        "kv-cache-utilization-scorer": 2.0,
        "lora-affinity-scorer": 1.0,
    }
    assert found.warnings == ()


def test_every_scorer_of_the_component_is_one_of_the_picker():
    kinds = sorted(picker_config.SCORERS)
    scorers = [{"type": kind, "weight": 0.5} for kind in kinds]
    graph = declared("InferencePool", picker={"image": IMAGE, "scorers": scorers})
    file = parse_config(_config(graph, "m1-a-picker"), picker_config.EndpointPickerConfig)
    assert dict(picker_config.interpret(file).scorers) == dict.fromkeys(kinds, 0.5)


def test_scorer_parameters_reach_the_picker():
    scorer = {"type": "prefix-cache-scorer", "parameters": {"lruCapacityPerServer": 1000}}
    graph = declared("InferencePool", picker={"image": IMAGE, "scorers": [scorer]})
    file = parse_config(_config(graph, "m1-a-picker"), picker_config.EndpointPickerConfig)
    assert picker_config.interpret(file).prefix.lru_capacity_per_server == 1000


def test_picker_reads_its_objectives():
    objectives = [{"name": "interactive", "priority": 10}, {"name": "batch", "priority": -1}]
    text = _config(declared("InferencePool", objectives=objectives), "m1-a-picker", "objectives.yaml")
    found = parse_config(text, Objectives).objectives
    assert [(item.name, item.priority) for item in found] == [("interactive", 10), ("batch", -1)]


def test_callouts_read_their_flags(local):
    read = flags.parse("body-router", None, {}, _args(local, "body-router"))
    assert (read.grpc_port, read.health_port, read.metrics_port) == (9004, 9005, 9090)
    assert read.address == "10.0.0.1"
    assert read.tls_mode == "self-signed"


def test_pickers_read_their_flags(local):
    read = flags.parse("picker", picker.add_arguments, {}, _args(local, "gemma-3-12b-a-picker"))
    assert (read.grpc_port, read.health_port) == (9002, 9003)
    assert (read.pool_name, read.pool_namespace) == ("gemma-3-12b-a", "inference")
    assert read.replicas == "dns:gemma-3-12b-a-replicas.inference.svc:8000"


@pytest.mark.parametrize("name", ["llama-3-1-8b-a", "gemma-3-12b-a"])
def test_model_server_reads_the_arguments_of_vllm(local, name):
    container = of_kind(local, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]
    settings = arguments.parse([*container["command"][2:], *container["args"]], {})
    shown = repr(settings)
    model = of_kind(local, "Deployment", name)["metadata"]["labels"]["penstock.dev/model"]
    assert {"llama-3-1-8b": "llama-3.1-8b", "gemma-3-12b": "gemma-3-12b"}[model] in shown
    if name == "gemma-3-12b-a":
        assert "LoRA-1-gemma" in shown
        assert "LoRA-2-gemma" in shown


def test_rendered_text_is_yaml_that_a_reader_can_edit(local):
    for manifest in local.manifests():
        if manifest["kind"] == "ConfigMap":
            for text in manifest["data"].values():
                assert "{" not in text
                assert yaml.safe_load(text)
