"""Custom resources of the platform against their CRDs, and definitions of ours against upstream's."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from penstock.manifests import inference_crds

from cli.graph.schemas import SchemaSet
from tests.support.arguments import declared

CRDS = Path(__file__).parents[4] / "shared" / "crds"
UPSTREAM = {
    "inference.networking.x-k8s.io": "gateway-api-inference-extension/inference.networking.x-k8s.io_{}.v1.5.0.yaml",
    "llm-d.ai": "llm-d-router/llm-d.ai_{}.yaml",
}
WORDS = {"description", "format"}
"""What a definition may leave out: texts, and the width of integers that one of upstream's two states."""


@pytest.fixture(scope="module")
def schemas():
    if not CRDS.is_dir():
        pytest.skip(f"no CRDs in {CRDS}")
    return SchemaSet.load(CRDS)


@pytest.mark.parametrize("rails", [4, 8])
def test_networks_of_nodes_are_correct_by_schema(schemas, rails):
    judged = [verdict for verdict in schemas.judge(declared("RdmaNetwork", rails=rails)) if verdict.status != "skipped"]
    assert len(judged) == 2 * (rails + 1)
    for verdict in judged:
        assert verdict.status == "ok", f"{verdict.resource.key}: {verdict.errors}"
        assert not verdict.not_evaluated


def test_the_checker_would_notice(schemas):
    graph = declared("RdmaNetwork")
    params = next(item for item in graph.resources if item.name == "it-rdma-0-params")
    network = next(item for item in graph.resources if item.name == "it-rdma-0-network")
    for item, field, value in ((params, "deviceMode", "Roce"), (params, "vpc", None), (network, "type", "Fast")):
        spec = {key: old for key, old in {**item.inputs["spec"], field: value}.items() if old is not None}
        assert schemas.verdict(replace(item, inputs={**item.inputs, "spec": spec})).status == "invalid", field


@pytest.mark.parametrize("group", UPSTREAM)
def test_definitions_ask_what_upstreams_ask(group):
    if not CRDS.is_dir():
        pytest.skip(f"no CRDs in {CRDS}")
    for ours in inference_crds.definitions(group):
        plural = ours["spec"]["names"]["plural"]
        theirs = yaml.safe_load((CRDS / UPSTREAM[group].format(plural)).read_text(encoding="utf-8"))
        assert ours["metadata"]["name"] == theirs["metadata"]["name"]
        assert ours["spec"]["names"] == theirs["spec"]["names"]
        assert ours["spec"]["scope"] == theirs["spec"]["scope"]
        (version,), (upstream,) = ours["spec"]["versions"], theirs["spec"]["versions"]
        assert (version["name"], version["storage"]) == (upstream["name"], upstream["storage"])
        assert _bare(_spec(version)) == _bare(_spec(upstream))


def _spec(version):
    return version["schema"]["openAPIV3Schema"]["properties"]["spec"]


def _bare(schema):
    """Without texts, and without the patterns of names, which the objects that are referred to enforce anyway."""
    if isinstance(schema, list):
        return [_bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    dropped = WORDS | ({"pattern"} if schema.get("type") == "string" else set())
    properties = {key: _bare(value) for key, value in schema.items() if key not in dropped}
    if "properties" in schema:
        properties["properties"] = {key: _bare(value) for key, value in schema["properties"].items()}
    return properties
