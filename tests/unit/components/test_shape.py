"""`conform`: the shape of arguments, from Python and from other languages."""

import pulumi
import pytest
from penstock import ConfigErrors, InferenceGatewayArgs, InferencePoolArgs, ModelReplicaSetArgs
from penstock._shape import conform

from tests.support.arguments import args_of


def _errors(shape, args):
    with pytest.raises(ConfigErrors) as caught:
        conform(shape, args, "it")
    return {error.path: error for error in caught.value.errors}


def test_whole_floats_become_integers_as_other_languages_send_them():
    args = conform(ModelReplicaSetArgs, args_of("ModelReplicaSet", replicas=3.0, accelerator={"count": 2.0}), "it")
    assert repr(args["replicas"]) == "3"
    assert repr(args["accelerator"]["count"]) == "2"


def test_whole_numbers_become_floats_where_a_float_is_declared():
    args = conform(InferencePoolArgs, args_of("InferencePool", log_sample_rate=1), "it")
    assert repr(args["log_sample_rate"]) == "1.0"


def test_none_counts_as_absent():
    args = conform(InferenceGatewayArgs, {**args_of("InferenceGateway"), "hostname": None}, "it")
    assert "hostname" not in args


def test_everything_wrong_is_reported_at_once():
    found = _errors(
        InferencePoolArgs,
        {"name": 1, "picker": {"imagee": "x", "scorers": "no"}, "target_ports": [8000, "8001"], "zone_count": True},
    )
    assert set(found) == {
        "it.name",
        "it.namespace",
        "it.picker.imagee",
        "it.picker.scorers",
        "it.target_ports[1]",
        "it.zone_count",
    }
    assert "Did you mean `image`?" in found["it.picker.imagee"].fix


async def test_outputs_are_taken_only_where_inputs_are_declared():
    image = pulumi.Output.from_input("a/b:1")
    assert conform(ModelReplicaSetArgs, args_of("ModelReplicaSet", image=image), "it")["image"] is image
    found = _errors(ModelReplicaSetArgs, args_of("ModelReplicaSet", model=pulumi.Output.from_input("m")))
    assert "known before the update" in found["it.model"].expected


async def test_parameters_of_plugins_are_json():
    scorer = {"type": "prefix-cache-scorer", "parameters": {"blockSize": 16.0, "x": [None, True]}}
    args = conform(InferencePoolArgs, args_of("InferencePool", picker={"image": "a/b:1", "scorers": [scorer]}), "it")
    assert args["picker"]["scorers"][0]["parameters"] == {"blockSize": 16, "x": [None, True]}
    scorer["parameters"]["y"] = pulumi.Output.from_input(3)
    found = _errors(InferencePoolArgs, args_of("InferencePool", picker={"image": "a/b:1", "scorers": [scorer]}))
    assert set(found) == {"it.picker.scorers[0].parameters.y"}


@pytest.mark.parametrize("value", ["text", 3, [], None])
def test_arguments_that_are_no_map_are_refused(value):
    assert set(_errors(InferenceGatewayArgs, value)) == {"it"}
