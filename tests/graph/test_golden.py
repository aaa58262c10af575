import functools

import pytest

from cli.graph.model import UNKNOWN
from cli.graph.project import environments
from cli.graph.schemas import SchemaSet
from tests.support import golden
from tests.support.recordings import recorded

pytestmark = pytest.mark.xdist_group("recordings")

every_environment = pytest.mark.parametrize("environment", environments(golden.ROOT))
SHARED = golden.ROOT.parent / "shared" / "crds"

WITHOUT_SCHEMA = {"ApigeeBackendService", "APIProduct", "APIOperationSet", "TriggerAuthentication"}
"""Kinds of operators whose CRDs are not among those files."""


@every_environment
def test_inventory_is_the_golden_one(environment: str) -> None:
    difference = golden.difference(environment)
    if difference:
        pytest.fail(f"{difference}\nIf this change is meant, run `{golden.REGENERATE}`", pytrace=False)


@every_environment
def test_preview_declares_the_same_resources(environment: str) -> None:
    update = recorded(environment)
    preview = recorded(environment, preview=True)
    assert preview.preview
    assert not update.preview
    shape = [(resource.key, resource.parent, resource.dependencies, resource.options) for resource in update.resources]
    assert shape == [
        (resource.key, resource.parent, resource.dependencies, resource.options) for resource in preview.resources
    ]
    assert UNKNOWN not in repr([resource.inputs for resource in update.resources])


@every_environment
def test_parents_and_dependencies_stand_before_what_needs_them(environment: str) -> None:
    seen: set[str | None] = {None}
    for resource in recorded(environment).resources:
        assert resource.parent in seen
        assert set(resource.dependencies) <= seen
        seen.add(resource.key)


@functools.cache
def shipped() -> SchemaSet:
    return SchemaSet.load(SHARED)


@every_environment
@pytest.mark.skipif(not SHARED.is_dir(), reason="no CRD files in ../shared/crds")
def test_every_custom_resource_is_valid(environment: str) -> None:
    verdicts = [verdict for verdict in shipped().judge(recorded(environment)) if verdict.status != "skipped"]
    assert verdicts
    for verdict in verdicts:
        expected = "no-schema" if verdict.resource.inputs["kind"] in WITHOUT_SCHEMA else "ok"
        assert (verdict.resource.key, verdict.status, verdict.errors) == (verdict.resource.key, expected, ())
        assert not verdict.not_evaluated


def test_missing_inventory_is_a_difference(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(golden, "FOLDER", tmp_path)
    environment = environments(golden.ROOT)[0]
    assert f"+++ what `{environment}` declares now" in golden.difference(environment)


def test_values_never_hold_secrets() -> None:
    from cli.graph.model import Graph, Resource

    inputs = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": "hush"}}
    graph = Graph("x", False, (Resource("kubernetes:core/v1:Secret", "s", None, True, inputs),))
    assert "hush" not in golden.dump(golden.inventory(graph))
