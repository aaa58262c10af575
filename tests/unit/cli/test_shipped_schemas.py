"""The CRD files that the project is checked against: they load, can be checked whole, and find mistakes."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.graph.model import Resource
from cli.graph.schemas import SchemaSet

SHARED = Path(__file__).parents[3].parent / "shared" / "crds"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no CRD files in ../shared/crds")


@pytest.fixture(scope="module")
def shipped() -> SchemaSet:
    return SchemaSet.load(SHARED)


@needs_shared
def test_every_shipped_crd_loads(shipped: SchemaSet) -> None:
    files = list(SHARED.rglob("*.yaml"))
    assert len(shipped) == len(files)


@needs_shared
def test_every_shipped_pattern_and_rule_can_be_checked(shipped: SchemaSet) -> None:
    """Patterns must compile; rules must parse and call only functions that exist here."""
    import cel

    from cli.graph.formats import go_pattern
    from cli.graph.rules import _FUNCTIONS

    functions: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("pattern"), str):
                go_pattern(node["pattern"])
            for rule in node.get("x-kubernetes-validations", []):
                functions.update(cel.compile(rule["rule"]).functions())
            for item in node.values():
                visit(item)
        elif isinstance(node, list):
            for item in node:
                visit(item)

    for path in SHARED.rglob("*.yaml"):
        for document in yaml.load_all(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            visit(document)
    built_in = {"size", "matches", "contains", "startsWith", "endsWith", "duration"}
    named = {name for name in functions if name.isidentifier() and not name.startswith("_")}
    assert named <= built_in | set(_FUNCTIONS)


ROUTE: dict[str, Any] = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "r", "namespace": "n"},
    "spec": {
        "parentRefs": [{"name": "gw"}],
        "rules": [
            {
                "matches": [{"headers": [{"name": "X-Gateway-Model-Name", "value": "m"}]}],
                "backendRefs": [{"name": "svc", "port": 80, "weight": 90}],
            }
        ],
    },
}


@needs_shared
@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda rule: rule["backendRefs"][0].update(weight=-1), "spec.rules[0].backendRefs[0].weight"),
        (lambda rule: rule["backendRefs"][0].pop("port"), "spec.rules[0].backendRefs[0]"),  # by rule, after defaults
        (lambda rule: rule["backendRefs"][0].update(wieght=1), "spec.rules[0].backendRefs[0].wieght"),
        (lambda rule: rule["matches"][0]["headers"][0].update(name="a b"), "spec.rules[0].matches[0].headers[0].name"),
        (lambda rule: rule["matches"][0].update(path={"value": "x"}), "spec.rules[0].matches[0].path"),
        (lambda rule: rule.update(timeouts={"request": "1s", "backendRequest": "2s"}), "spec.rules[0].timeouts"),
        (lambda rule: rule.update(timeouts={"request": "1 s"}), "spec.rules[0].timeouts.request"),
    ],
)
def test_mistakes_in_a_route_are_found(shipped: SchemaSet, change: Any, path: str) -> None:
    manifest = copy.deepcopy(ROUTE)
    resource = Resource("kubernetes:gateway.networking.k8s.io/v1:HTTPRoute", "r", None, True, manifest)
    assert shipped.verdict(resource).status == "ok"
    change(manifest["spec"]["rules"][0])
    assert {error.path for error in shipped.verdict(resource).errors} == {path}
