"""Settings: everything wrong at once, by its path; and nothing but `ConfigErrors`, whatever is written."""

import ast
import copy
import typing
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock import ConfigErrors

from infra import plan
from infra.settings import DEFAULTS, PREFIX, camel
from infra.settings.marks import fields, split
from infra.settings.types import SHAPE

ROOT = Path(__file__).parents[3]


def _environment(name):
    config = yaml.safe_load((ROOT / f"Pulumi.{name}.yaml").read_text(encoding="utf-8"))["config"]
    return {key.removeprefix(PREFIX): value for key, value in config.items()}


LOCAL, DEV, STAGING, PROD = map(_environment, ("local", "dev", "staging", "prod"))
MINIMAL = {
    "image": "a/services:1",
    "vllmImage": "a/vllm:1",
    "models": [{"name": "m", "source": "a/m", "replicaSets": [{"name": "a"}]}],
}


def errors_of(raw):
    with pytest.raises(ConfigErrors) as caught:
        plan.load(raw)
    return {error.path: error for error in caught.value.errors}


def changed(base, **paths):
    """Return a copy of `base` with values set by dotted paths; `__` separates parts."""
    raw = copy.deepcopy(base)
    for path, value in paths.items():
        *parents, last = [int(part) if part.isdigit() else part for part in path.split("__")]
        target = raw
        for part in parents:
            target = target[part]
        target[last] = value
    return raw


def test_local_is_the_reference_example():
    loaded, made = plan.load(LOCAL)
    routes = {
        route.args["model"]: [(pool["name"], pool.get("weight")) for pool in route.args["pools"]]
        for route in made.routes
    }
    assert routes == {
        "llama-3.1-8b": [("llama-3-1-8b-a", 90), ("llama-3-1-8b-b", 10)],
        "gemma-3-12b": [("gemma-3-12b-a", None)],
    }
    assert [replica_set.args["replicas"] for replica_set in made.replica_sets] == [3, 3, 3]
    adapters = [adapter["name"] for adapter in made.replica_sets[2].args["adapters"]]
    assert adapters == ["LoRA-1-gemma", "LoRA-2-gemma"]
    assert [replica_set.args["source"] for replica_set in made.replica_sets] == [
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.1-8B-Instruct",
        "google/gemma-3-12b-it",
    ]
    assert "tls" in loaded["gateway"]


def test_a_minimal_configuration_is_enough():
    _, made = plan.load(MINIMAL)
    assert made.pools[0].args["name"] == "m-a"
    assert made.gateway.args["namespace"] == "inference"


def test_replica_sets_override_their_model():
    raw = changed(MINIMAL, models__0__replicas=3, models__0__extraArgs=["--dtype=half"])
    raw["models"][0]["replicaSets"] = [{"name": "a", "weight": 9}, {"name": "b", "replicas": 1, "source": "a/m2"}]
    _, made = plan.load(raw)
    assert [(one.args["replicas"], one.args["source"]) for one in made.replica_sets] == [(3, "a/m"), (1, "a/m2")]
    assert made.replica_sets[1].args["extra_args"] == ["--dtype=half"]


def test_shape_and_meaning_are_reported_together_each_once():
    raw = changed(
        LOCAL,
        modles=1,
        zones="3",
        namespace="Foo",
        vllmImage="vllm",
        kubeconfig=7,
        models__0__source=3,
        models__0__replicaSets__0__weigth=4,
        models__0__replicaSets__1__weight=-1,
        models__0__extraArgs=["--port=3", "foo"],
        models__0__objective="x",
        models__1__adapters__1__name="LoRA-1-gemma",
        models__1__timeoutS=0,
        picker__scorers__0__type="prefix",
        gateway__tls__secretNames=[],
    )
    found = errors_of(raw)
    assert set(found) == {
        "modles",
        "zones",
        "namespace",
        "vllmImage",
        "kubeconfig",
        "models[0].source",
        "models[0].replicaSets[0].weigth",
        "models[0].replicaSets[1].weight",
        "models[0].extraArgs[0]",
        "models[0].extraArgs[1]",
        "models[0].objective",
        "models[1].adapters[1].name",
        "models[1].timeoutS",
        "picker.scorers[0].type",
        "gateway.tls",
    }
    assert "`models`" in found["modles"].fix
    assert "`weight`" in found["models[0].replicaSets[0].weigth"].fix
    assert found["kubeconfig"].value == "(hidden)"


REFUSED = [
    ({"models": []}, "models"),
    ({"image": ""}, "image"),
    ({"vllmImage": ""}, "vllmImage"),
    ({"models__0__source": None}, "models[0].source"),
    ({"models__0__replicaSets": []}, "models[0].replicaSets"),
    ({"models__0__replicaSets": [{"name": "a"}, {"name": "a"}]}, "models[0].replicaSets[1].name"),
    ({"models__0__replicaSets": [{"name": "a", "weight": 0}]}, "models[0].replicaSets"),
    ({"models__0__replicaSets": [{"name": "a", "image": "x"}]}, "models[0].replicaSets[0].image"),
    ({"models__0__replicaSets": [{"name": "A"}]}, "models[0].replicaSets[0].name"),
    ({"models__0__replicaSets": [{"name": "a" * 53}]}, "models[0].replicaSets[0].name"),
    ({"models__0__replicaSets": [{}]}, "models[0].replicaSets[0].name"),
    ({"models__0__startupTimeoutS": 5}, "models[0].startupTimeoutS"),
    ({"models__0__image": "x"}, "models[0].image"),
    ({"models__0__accelerator": {"count": 0}}, "models[0].accelerator.count"),
    ({"models__0__hfTokenSecret": {"name": "A"}}, "models[0].hfTokenSecret.name"),
    ({"models__0__adapters": [{"name": "m", "source": "a/l"}]}, "models[0].adapters[0].name"),
    ({"models__0__paths": ["/v1"]}, "models[0].paths[0]"),
    ({"models__0__objectives": [{"name": "a", "priority": 1.5}]}, "models[0].objectives[0].priority"),
    ({"models__0__failureMode": "open"}, "models[0].failureMode"),
    ({"models__0__name": "日本"}, "models[0].name"),
    ({"zones": ["z"] * 51}, "zones"),
    ({"gateway": {"name": "g" * 55}}, "gateway.name"),
    ({"bodyRouter": {"replicas": 0}}, "bodyRouter.replicas"),
    ({"bodyRouter": {"timeoutMs": 5}}, "bodyRouter.timeoutMs"),
    ({"bodyRouter": {"maxBodyByte": 5}}, "bodyRouter.maxBodyByte"),
    ({"picker": {"cpu": "x"}}, "picker.cpu"),
    ({"callouts": [{"name": "x", "events": ["RequestBody"]}]}, "callouts[0]"),
    ({"callouts": [{"name": "x", "events": [], "service": "s", "port": 1}]}, "callouts[0].events"),
    ({"kubernetes": {"contxt": "x"}}, "kubernetes.contxt"),
    ({"models": {"name": "m"}}, "models"),
    ({"models": [5]}, "models[0]"),
]


@pytest.mark.parametrize(("changes", "path"), REFUSED, ids=lambda value: str(value)[:70])
def test_refused_by_its_path(changes, path):
    assert path in errors_of(changed(MINIMAL, **changes))


def test_names_that_meet_in_the_cluster_are_refused():
    model = MINIMAL["models"][0]
    twice = {**MINIMAL, "models": [{**model, "name": "m.1"}, {**model, "name": "m-1"}]}
    assert set(errors_of(twice)) == {"models[1].name", "models[1].replicaSets[0].name"}
    pool = {**MINIMAL, "models": [model, {**model, "name": "m-a", "replicaSets": [{"name": "picker"}]}]}
    assert set(errors_of(pool)) == {"models[1].replicaSets[0].name"}
    router = {**MINIMAL, "models": [{**model, "name": "body", "replicaSets": [{"name": "router"}]}]}
    assert set(errors_of(router)) == {"models[0].replicaSets[0].name"}


def test_adapters_are_unique_across_models():
    first = {**MINIMAL["models"][0], "adapters": [{"name": "l", "source": "a/l"}]}
    second = {**first, "name": "n"}
    assert set(errors_of({**MINIMAL, "models": [first, second]})) == {"models[1].adapters[0].name"}


def test_an_inherited_value_is_reported_once_where_it_stands():
    raw = changed(MINIMAL, models__0__extraArgs=["--port=1"])
    raw["models"][0]["replicaSets"] = [{"name": "a"}, {"name": "b"}]
    assert set(errors_of(raw)) == {"models[0].extraArgs[0]"}


def test_kubeconfig_never_shows():
    secret = "apiVersion: v1 # top-secret"
    loaded, _ = plan.load({**MINIMAL, "kubeconfig": secret})
    assert "top-secret" not in repr(loaded)
    with pytest.raises(ConfigErrors) as caught:
        plan.load({**MINIMAL, "kubeconfig": {"top-secret": 1}, "image": ""})
    assert "top-secret" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=12,
)


def _keys(shape, found):
    base, _ = split(shape)
    for inner in typing.get_args(base):
        _keys(inner, found)
    if typing.is_typeddict(base):
        for name, field in fields(shape).items():
            found.add(camel(name))
            _keys(field.shape, found)
    return found


KNOWN = sorted(_keys(SHAPE, set()))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(json_values)
def test_any_data_is_accepted_or_refused_with_config_errors(raw):
    _survives(raw)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from(KNOWN), json_values, max_size=6))
def test_known_keys_with_any_values_are_accepted_or_refused(raw):
    _survives(raw)


@pytest.mark.parametrize("good", [LOCAL, DEV, STAGING, PROD], ids=["local", "dev", "staging", "prod"])
@settings(derandomize=True, deadline=None, max_examples=150)
@given(data=st.data())
def test_one_broken_place_in_a_good_configuration_is_accepted_or_refused(good, data):
    raw = copy.deepcopy(good)
    target, key = data.draw(st.sampled_from(list(_places(raw))))
    if data.draw(st.booleans()):
        target[key] = data.draw(json_values)
    elif isinstance(target, dict):
        target[data.draw(st.sampled_from(KNOWN))] = data.draw(json_values)
    _survives(raw)


def _places(value):
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def _survives(raw):
    before = repr(raw)
    found = ()
    try:
        plan.load(raw)
    except ConfigErrors as errors:
        found = errors.errors
    assert all(error.path and error.expected and error.fix for error in found)
    assert repr(raw) == before


def test_only_settings_reads_configuration():
    for path in sorted((ROOT / "infra").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        names = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
        reads = {"Config", "get_config_env", "CONFIG"} & names
        assert bool(reads) == (path.name == "read.py"), path


def test_entry_point_is_small():
    assert len((ROOT / "infra" / "__main__.py").read_text(encoding="utf-8").splitlines()) <= 60


def test_project_file_describes_settings_that_exist():
    project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))
    assert (project["name"], project["main"]) == ("penstock", "infra/")
    known = {camel(name): name for name in fields(SHAPE)}
    for key, declared in project["config"].items():
        assert key in known
        assert declared["description"]
        if "default" in declared:
            assert declared["default"] == DEFAULTS[known[key]]


def test_the_documented_refusal_is_what_is_printed():
    raw = changed(LOCAL, models__1__timeoutS=0, models__0__replicaSets=[{"name": "a", "weigth": 90}])
    with pytest.raises(ConfigErrors) as caught:
        plan.load(raw)
    assert f"```\n{caught.value}\n```" in (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
