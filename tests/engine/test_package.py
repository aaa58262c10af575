"""Components in other stacks: the component package by the plain CLI, and every example that can run here."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.component_schema import provider
from tests.support.engine import deployments
from tests.support.engine.apiserver import ApiServer
from tests.support.engine.definitions import CRDS
from tests.support.engine.workspace import ROOT, Workspace

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not CRDS.is_dir(), reason="schemas of third parties are kept beside the repository, not in it"),
]

EXAMPLES = {
    "gateway-only": {"Gateway inference-gateway", "GCPGatewayPolicy inference-gateway", "Namespace inference"},
    "pools-and-routes": {"HTTPRoute llama-3-1-8b", "InferencePool llama-3-1-8b-a", "Deployment llama-3-1-8b-b"},
    "callouts-only": {"GCPRoutingExtension inference-gateway-routing", "GCPTrafficExtension inference-gateway-traffic"},
    "python": {"HTTPRoute llama-3-1-8b", "HTTPRoute gemma-3-4b", "InferencePool gemma-3-4b"},
}
"""Example -> some of what is in the cluster afterwards."""


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_comes_up_stays_as_it_is_and_goes(tmp_path: Path, example: str) -> None:
    with deployments.workspace(tmp_path, ROOT / "examples" / example) as workspace:
        if example != "gateway-only":
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "inference"}}
            workspace.server.apply(namespace)
        stack = workspace.stack("dev")
        assert set(stack.run("up").counts()) == {"create"}
        assert deployments.remains(workspace).keys() >= EXAMPLES[example]
        assert not stack.run("up").steps
        assert set(stack.run("destroy").counts()) == {"delete"}
        assert not deployments.remains(workspace)


def test_every_example_but_the_one_in_typescript_is_deployed() -> None:
    found = {file.parent.name for file in (ROOT / "examples").glob("*/Pulumi.yaml")}
    assert found == {*EXAMPLES, "typescript"}


def test_wrong_arguments_of_another_language_are_refused_with_path_and_fix(tmp_path: Path) -> None:
    with deployments.workspace(tmp_path, ROOT / "examples" / "gateway-only") as workspace:
        program = workspace.project / "Pulumi.yaml"
        program.write_text(program.read_text().replace("name: inference-gateway\n", "name: Inference_Gateway\n"))
        refused = workspace.stack("dev").run("preview", fails=True)
    assert "gateway.name: got 'Inference_Gateway'" in " ".join(refused.output.split())


def test_the_cli_prints_the_schema_of_the_package(tmp_path: Path, api_server: ApiServer) -> None:
    workspace = Workspace(tmp_path, api_server)
    plugin = str(workspace.folder / "bin" / "pulumi-resource-penstock")
    printed = workspace.run("package", "get-schema", plugin)
    schema = json.loads(printed[printed.index("{") :])
    expected = json.loads(provider().schema)
    assert inputs(schema) == inputs(expected)


def inputs(schema: dict[str, Any]) -> dict[str, dict[str, bool]]:
    """Return the inputs of every component and type, and whether each is required."""
    return {
        token: {
            name: name in made.get("requiredInputs", made.get("required", []))
            for name in made.get("inputProperties", made.get("properties", {}))
        }
        for token, made in [*schema["resources"].items(), *schema["types"].items()]
    }
