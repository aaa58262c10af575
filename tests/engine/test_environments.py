"""Every environment, by the plain CLI on its own settings: it comes up, stays as it is, and goes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import deployments
from tests.support.engine.definitions import CRDS
from tests.support.engine.workspace import Workspace

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not CRDS.is_dir(), reason="schemas of third parties are kept beside the repository, not in it"),
]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with deployments.workspace(tmp_path) as made:
        yield made


@pytest.mark.parametrize("environment", deployments.ENVIRONMENTS)
def test_an_environment_comes_up_stays_as_it_is_and_goes(workspace: Workspace, environment: str) -> None:
    settings = workspace.settings(f"Pulumi.{environment}.yaml")
    # What keeps a cluster from being deleted is a setting; here the deletion is what is tested.
    settings["config"].get("penstock:cluster", {})["deletionProtection"] = False
    workspace.write(f"Pulumi.{environment}.yaml", settings)
    stacks = deployments.stacks(workspace, environment)

    for stack in stacks:
        assert set(stack.run("up").counts()) == {"create"}
    for stack in stacks:
        assert not stack.run("up").steps
    for stack in stacks:
        refreshed = stack.run("refresh")
        assert not refreshed.steps, refreshed.differences

    for stack in reversed(stacks):
        stack.unprotect()
        assert set(stack.run("destroy").counts()) <= {"delete", "discard"}
    assert not deployments.remains(workspace)


def test_a_protected_cluster_outlives_a_destroy(workspace: Workspace) -> None:
    settings = workspace.settings("Pulumi.dev.yaml")
    settings["config"]["penstock:cluster"]["deletionProtection"] = True
    workspace.write("Pulumi.dev.yaml", settings)
    platform, _ = deployments.stacks(workspace, "dev")
    platform.run("up")
    refused = platform.run("destroy", fails=True)
    assert "deletion_protection" in refused.output
    assert any("/clusters/" in identifier for identifier in workspace.cloud.entries())


def test_a_gateway_without_its_platform_says_what_to_do_first(workspace: Workspace) -> None:
    platform, gateway = deployments.stacks(workspace, "dev")
    refused = gateway.run("preview", fails=True)
    assert f"{platform.name} has no output" in refused.output
    assert "Run `pulumi up` of it first" in refused.output
    assert "Traceback" not in refused.output
