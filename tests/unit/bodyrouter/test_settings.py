"""Config of the body router: shape, and all problems at once."""

import json

import pytest

from services.bodyrouter.settings import Model, Settings
from services.extproc.config import ConfigError, parse_config

GOOD = """
models:
  - name: llama-3.1-8b
  - name: gemma-3-12b
    adapters: [LoRA-1-gemma, LoRA-2-gemma]
maxBodyBytes: 2048
allowClientHeaders: [X-Gateway-Inference-Objective, x-slo-ttft-ms]
"""


def problems(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, Settings)
    return {problem.path: problem.expected for problem in caught.value.problems}


def test_reads_the_documented_shape() -> None:
    settings = parse_config(GOOD, Settings)
    assert [m.name for m in settings.models] == ["llama-3.1-8b", "gemma-3-12b"]
    assert settings.models[1].adapters == ["LoRA-1-gemma", "LoRA-2-gemma"]
    assert settings.max_body_bytes == 2048
    assert settings.allow_client_headers == ["x-gateway-inference-objective", "x-slo-ttft-ms"]


def test_defaults() -> None:
    settings = parse_config("models: [{name: m}]", Settings)
    assert (settings.max_body_bytes, settings.allow_client_headers, settings.models[0].adapters) == (10485760, [], [])


def test_all_problems_at_once() -> None:
    found = problems(
        """
models:
  - {name: a, adapters: [x, x, a, "b c"]}
  - {name: a, adapter: [y]}
  - {name: x}
  - {adapters: {}}
maxBodyBytes: 10
allowClientHeaders: [x-gateway-model-name, authorization]
"""
    )
    assert set(found) == {
        "models[0].adapters[1]",
        "models[0].adapters[2]",
        "models[0].adapters[3]",
        "models[1].name",
        "models[1].adapter",
        "models[2].name",
        "models[3].name",
        "models[3].adapters",
        "maxBodyBytes",
        "allowClientHeaders[0]",
        "allowClientHeaders[1]",
    }
    assert "models[0].name" in found["models[0].adapters[2]"]
    assert "models[0].adapters[0]" in found["models[2].name"]


@pytest.mark.parametrize("text", ["", "models: []", "models: {}", "models: [1]", "[]", "models: null", "7"])
def test_wrong_shapes(text: str) -> None:
    assert problems(text)


@pytest.mark.parametrize("name", ["", "a b", "ä", "a\tb", "a" * 257, "{x"])
def test_model_names_must_fit_a_header(name: str) -> None:
    text = f"models: [{{name: {json.dumps(name)}}}]"
    if name == "{x":  # braces are ugly, but fit
        assert parse_config(text, Settings).models[0].name == name
    else:
        assert "models[0].name" in problems(text)


@pytest.mark.parametrize(
    "header",
    [
        "x-gateway-model-name",
        "X-Gateway-Base-Model-Name",
        "x-gateway-model-name-rewrite",
        "x-llm-d-model-name-rewrite",
        "x_gateway_model_name",
        "x-gateway-destination-endpoint",
        "x-gateway-destination-endpoint-subset",
        "x-llm-d-destination-endpoint",
        "x-prefiller-host-port",
        "x-encoder-hosts-ports",
        "x-data-parallel-host-port",
        "x-data-parallel-rank",
        "x-kv-cache-source-host-port",
        "x-penstock-user",
        "authorization",
        "no good",
        "",
    ],
)
def test_headers_that_no_config_may_allow(header: str) -> None:
    assert "allowClientHeaders[0]" in problems(f"models: [{{name: m}}]\nallowClientHeaders: [{header!r}]")


def test_repeated_names_are_found_without_yaml_too() -> None:
    with pytest.raises(ValueError, match="models"):
        Settings(models=[Model(name="a"), Model(name="a")])
