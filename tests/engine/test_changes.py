"""Changes of a deployed environment touch what they must, and nothing else."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.engine import deployments
from tests.support.engine.definitions import CRDS
from tests.support.engine.workspace import Run, Stack

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not CRDS.is_dir(), reason="schemas of third parties are kept beside the repository, not in it"),
]

ROUTE = "kubernetes:gateway.networking.k8s.io/v1:HTTPRoute"
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
FILE = "Pulumi.local.yaml"
CLUSTER = "projects/p/locations/l/clusters/c"

Change = Callable[[dict[str, Any]], None]
Preview = Callable[..., Run]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The environment `local`, deployed into a cluster that its settings name."""
    with deployments.workspace(tmp_path_factory.mktemp("changes")) as workspace:
        settings = workspace.settings(FILE)
        settings["config"]["penstock:kubernetes"] = {"clusterIdentifier": CLUSTER}
        workspace.write(FILE, settings)
        (stack,) = deployments.stacks(workspace, "local")
        stack.run("up")
        yield stack


@pytest.fixture
def preview(deployed: Stack) -> Iterator[Preview]:
    """Preview a change of the settings, and take it back afterwards."""
    before = (deployed.workspace.project / FILE).read_text()

    def run(change: Change, command: str = "preview") -> Run:
        settings = deployed.workspace.settings(FILE)
        change(settings["config"])
        deployed.workspace.write(FILE, settings)
        return deployed.run(command)

    yield run
    (deployed.workspace.project / FILE).write_text(before)


def test_a_weight_changes_its_route_only(preview: Preview) -> None:
    def change(config: dict[str, Any]) -> None:
        config["penstock:models"][0]["replicaSets"][0]["weight"] = 80

    changed = preview(change)
    assert changed.steps == {f"{ROUTE}::llama-3-1-8b-route": ["update"]}
    (paths,) = changed.differences.values()
    assert paths
    assert all(path.endswith(".backendRefs[0].weight") for path in paths)


def test_a_number_of_replicas_changes_its_deployment_only(preview: Preview) -> None:
    def change(config: dict[str, Any]) -> None:
        config["penstock:models"][1]["replicas"] = 4

    changed = preview(change)
    assert changed.steps == {f"{DEPLOYMENT}::gemma-3-12b-a-deployment": ["update"]}
    assert list(changed.differences.values()) == [{"spec.replicas"}]


def test_a_new_model_leaves_others_alone(preview: Preview) -> None:
    def change(config: dict[str, Any]) -> None:
        model = {**config["penstock:models"][0], "name": "new-model", "source": "example/new-model"}
        config["penstock:models"].append(model | {"replicaSets": [{"name": "a"}]})

    changed = preview(change)
    created = {key for key, steps in changed.steps.items() if steps == ["create"]}
    assert f"{ROUTE}::new-model-route" in created
    assert all(key.partition("::")[2].startswith("new-model") for key in created)
    others = {key: steps for key, steps in changed.steps.items() if key not in created}
    # The body router has to know the model; nobody else does.
    assert f"{CONFIG_MAP}::body-router-config" in others
    assert set(others) <= {f"{CONFIG_MAP}::body-router-config", f"{DEPLOYMENT}::body-router-deployment"}
    assert all(steps == ["update"] for steps in others.values())


def test_a_renamed_replica_set_is_made_anew_and_its_route_follows(preview: Preview) -> None:
    def change(config: dict[str, Any]) -> None:
        config["penstock:models"][0]["replicaSets"][1]["name"] = "c"

    changed = preview(change)
    created = {
        key.replace("::llama-3-1-8b-c", "::llama-3-1-8b-b")
        for key, steps in changed.steps.items()
        if steps == ["create"]
    }
    deleted = {key for key, steps in changed.steps.items() if steps == ["delete"]}
    assert created == deleted
    assert all(key.partition("::")[2].startswith("llama-3-1-8b-b") for key in deleted)
    others = {key: steps for key, steps in changed.steps.items() if steps not in (["create"], ["delete"])}
    assert others == {f"{ROUTE}::llama-3-1-8b-route": ["update"]}


def test_the_provider_of_another_context_replaces_nothing(preview: Preview) -> None:
    """Without the cluster's identifier another kubeconfig would replace every object."""

    def change(config: dict[str, Any]) -> None:
        config["penstock:kubernetes"] = {"clusterIdentifier": CLUSTER, "context": "other"}

    assert preview(change).steps == {"pulumi:providers:kubernetes::kubernetes": ["update"]}


def test_a_config_map_changes_in_place_since_callouts_reload_it(preview: Preview, deployed: Stack) -> None:
    path = "/api/v1/namespaces/inference/configmaps/body-router"

    def identity() -> str:
        with deployed.workspace.server.client() as client:
            return str(client.get(path).raise_for_status().json()["metadata"]["uid"])

    before = identity()

    def change(config: dict[str, Any]) -> None:
        config["penstock:bodyRouter"]["maxBodyBytes"] = 1 << 20

    steps = preview(change, "up").steps
    assert steps[f"{CONFIG_MAP}::body-router-config"] == ["update"]
    assert identity() == before


def test_what_the_api_server_refuses_is_shown_in_the_preview(deployed: Stack) -> None:
    """A weight that our own checks would not let through, forced past them."""
    infra = deployed.workspace.project / "infra"
    code = infra.readlink()
    infra.unlink()
    infra.mkdir()
    (infra / "__main__.py").write_text(FORCED)
    try:
        refused = deployed.run("preview", fails=True)
    finally:
        (infra / "__main__.py").unlink()
        infra.rmdir()
        infra.symlink_to(code)
    assert "weight: Invalid value: 1000001" in " ".join(refused.output.split())
    assert "HTTPRoute (llama-3-1-8b-route)" in refused.output


FORCED = """
from infra.program import main
from penstock import route

render = route.manifests.route

def forced(args):
    made = render(args)
    for rule in made["spec"]["rules"] if args["model"] == "llama-3.1-8b" else ():
        rule["backendRefs"][0]["weight"] = 1_000_001
    return made

route.manifests.route = forced
try:
    main()
finally:
    route.manifests.route = render
"""
