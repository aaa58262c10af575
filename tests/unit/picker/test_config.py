import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.extproc.config import ConfigError, parse_config
from services.picker.config import (
    API_VERSIONS,
    DEFAULT_SCORERS,
    DetectorParameters,
    EndpointPickerConfig,
    PickerConfig,
    interpret,
    parse_duration,
)
from services.picker.objectives import Objectives

HEAD = "apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\n"

FULL = (
    HEAD
    + """
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
  name: prefix
  parameters: {blockSizeTokens: 16, maxPrefixTokensToMatch: 1024, lruCapacityPerServer: 100}
- type: lora-affinity-scorer
- type: max-score-picker
  parameters: {maxNumOfEndpoints: 3}
- type: single-profile-handler
- type: utilization-detector
  parameters: {queueDepthThreshold: 7, metricsStalenessThreshold: 200ms, headroom: 0.2}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: prefix, weight: 3.5}
  - {pluginRef: lora-affinity-scorer}
  - {pluginRef: max-score-picker}
"""
)


def read(text: str) -> PickerConfig:
    return interpret(parse_config(text, EndpointPickerConfig))


def problems(text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return {problem.path: f"{problem.expected}; {problem.fix}" for problem in caught.value.problems}


def test_all_parts_of_a_file_are_read() -> None:
    config = read(FULL)
    assert config.scorers == (("queue-scorer", 2.0), ("prefix-cache-scorer", 3.5), ("lora-affinity-scorer", 1.0))
    assert (config.picker, config.max_endpoints) == ("max-score-picker", 3)
    assert (config.prefix.block_bytes, config.prefix.max_blocks, config.prefix.lru_capacity_per_server) == (64, 64, 100)
    assert config.detector.queue_depth_threshold == 7
    assert config.detector.kv_cache_util_threshold == 0.8
    assert config.detector.metrics_staleness_threshold == pytest.approx(0.2)
    assert config.warnings == ()


@pytest.mark.parametrize("version", API_VERSIONS)
def test_a_file_without_plugins_gives_upstreams_default_profile(version: str) -> None:
    config = read(f"apiVersion: {version}\nkind: EndpointPickerConfig\n")
    assert config.scorers == DEFAULT_SCORERS == PickerConfig().scorers
    assert (config.picker, config.max_endpoints) == ("max-score-picker", 1)
    assert config.prefix.block_bytes == 256
    assert config.prefix.max_blocks == 2048


def test_plugins_without_a_profile_all_take_part_with_weight_one() -> None:
    assert read(HEAD + "plugins: [{type: queue-scorer}, {type: random-picker}]").scorers == (("queue-scorer", 1.0),)


def test_what_is_left_out_is_named() -> None:
    config = read(HEAD + "featureGates: [flowControl]\nflowControl: {maxRequests: 10}\ndataLayer: {sources: []}\n")
    assert [warning.split()[0] for warning in config.warnings] == ["featureGates:", "dataLayer", "flowControl"]
    assert "flowControl" in config.warnings[0]


@pytest.mark.parametrize(
    "section",
    [
        "saturationDetector: {queueDepthThreshold: 9}",
        "plugins: [{type: utilization-detector, parameters: {queueDepthThreshold: 9}}]",
        "plugins: [{type: utilization-detector, name: d, parameters: {queueDepthThreshold: 9}}]\n"
        "saturationDetector: {pluginRef: d}",
        "plugins: [{type: utilization-detector, name: d, parameters: {queueDepthThreshold: 9}}]\n"
        "flowControl: {saturationDetector: {pluginRef: d}}",
    ],
)
def test_the_detector_is_read_wherever_upstream_puts_it(section: str) -> None:
    config = read(HEAD + section)
    assert config.detector.queue_depth_threshold == 9
    assert config.warnings == ()


def test_prefix_parameters_may_belong_to_the_producer() -> None:
    text = "plugins: [{type: approx-prefix-cache-producer, parameters: {blockSize: 100}}, {type: prefix-cache-scorer}]"
    assert read(HEAD + text).prefix.block_bytes == 100


def test_every_problem_is_reported_at_once() -> None:
    found = problems(
        """
apiVersion: v2
kind: Config
plugins:
- {type: queue-scorr}
- {type: queue-scorer, parameters: {x: 1}}
- {type: queue-scorer}
- {type: max-score-picker, parameters: {maxNumOfEndpoints: 0}}
- {type: concurrency-detector, name: c}
- {type: random-picker}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: nope}, {pluginRef: max-score-picker}, {pluginRef: random-picker}]
saturationDetector: {pluginRef: c}
"""
    )
    assert set(found) == {
        "apiVersion",
        "kind",
        "plugins[0].type",
        "plugins[1].parameters.x",
        "plugins[2].name",
        "plugins[3].parameters.maxNumOfEndpoints",
        "plugins[4].type",
        "schedulingProfiles[0].plugins[0].pluginRef",
        "schedulingProfiles[0].plugins",
        "saturationDetector.pluginRef",
    }
    assert "did you mean 'queue-scorer'?" in found["plugins[0].type"]


def test_two_profiles_are_refused() -> None:
    assert "schedulingProfiles" in problems(HEAD + "schedulingProfiles: [{name: prefill}, {name: decode}]")


@pytest.mark.parametrize(
    ("text", "seconds"), [("200ms", 0.2), ("1.5s", 1.5), ("1m30s", 90), ("100us", 0.0001), ("1h", 3600)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "-1s", "1 s", "ms", 5, None])
def test_not_durations(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


def test_a_staleness_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError):
        DetectorParameters.model_validate({"metricsStalenessThreshold": "0s"})


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
plugin = st.fixed_dictionaries(
    {"type": st.sampled_from(["queue-scorer", "max-score-picker", "utilization-detector", "prefix-cache-scorer", "x"])},
    optional={"name": st.text(max_size=3), "parameters": st.dictionaries(st.text(max_size=5), json_like, max_size=2)},
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    plugins=st.lists(plugin, max_size=4),
    refs=st.lists(st.fixed_dictionaries({"pluginRef": st.sampled_from(["queue-scorer", "", "x"])}), max_size=3),
    detector=json_like,
    other=json_like,
)
def test_any_file_is_read_or_refused_with_named_problems(
    plugins: list[object], refs: list[object], detector: object, other: object
) -> None:
    document = {
        "apiVersion": API_VERSIONS[0],
        "kind": "EndpointPickerConfig",
        "plugins": plugins,
        "schedulingProfiles": [{"name": "default", "plugins": refs}],
        "saturationDetector": detector,
        "flowControl": other,
    }
    try:
        file = EndpointPickerConfig.model_validate(document)
    except ValueError:
        return
    try:
        config = interpret(file)
    except ConfigError:
        return
    assert config.max_endpoints >= 1
    assert all(weight >= 0 for _, weight in config.scorers)


def test_objectives() -> None:
    found = parse_config("objectives: [{name: a, priority: 10}, {name: b, priority: -1}, {name: c}]", Objectives)
    assert [(each.name, each.priority) for each in found.objectives] == [("a", 10), ("b", -1), ("c", 0)]
    with pytest.raises(ConfigError, match="twice: a"):
        parse_config("objectives: [{name: a}, {name: a}]", Objectives)
