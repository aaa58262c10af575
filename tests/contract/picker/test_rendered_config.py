"""What the component renders, the picker reads."""

from penstock.manifests.picker import config, objectives

from services.extproc.config import parse_config
from services.picker.config import EndpointPickerConfig, PickerConfig, interpret
from services.picker.objectives import Objectives


def read(text: str) -> PickerConfig:
    return interpret(parse_config(text, EndpointPickerConfig))


def test_the_components_default_is_read_without_a_warning() -> None:
    found = read(config({"image": "registry.test/penstock:1"}))
    assert dict(found.scorers) == {
        "prefix-cache-scorer": 3.0,
        "queue-scorer": 2.0,
        "kv-cache-utilization-scorer": 2.0,
        "lora-affinity-scorer": 1.0,
    }
    assert found.picker == "max-score-picker"
    assert found.warnings == ()


def test_scorers_weights_and_parameters_are_read() -> None:
    found = read(
        config(
            {
                "image": "registry.test/penstock:1",
                "scorers": [
                    {"type": "prefix-cache-scorer", "weight": 1.5, "parameters": {"lruCapacityPerServer": 99}},
                    {"type": "running-requests-size-scorer"},
                ],
            }
        )
    )
    assert found.scorers == (("prefix-cache-scorer", 1.5), ("running-requests-size-scorer", 1.0))
    assert found.prefix.lru_capacity_per_server == 99


def test_rendered_objectives_are_read() -> None:
    text = objectives({"objectives": [{"name": "batch", "priority": -1}]})
    assert [(each.name, each.priority) for each in parse_config(text, Objectives).objectives] == [("batch", -1)]
