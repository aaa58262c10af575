"""Clusters and stacks for tests of environments and examples."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.engine import definitions
from tests.support.engine.apiserver import running
from tests.support.engine.build import require
from tests.support.engine.cloud import references
from tests.support.engine.controllers import controllers
from tests.support.engine.workspace import ROOT, Stack, Workspace

ENVIRONMENTS = sorted(file.stem.removeprefix("Pulumi.") for file in ROOT.glob("Pulumi.*.yaml"))


@contextlib.contextmanager
def workspace(folder: Path, project: Path = ROOT) -> Iterator[Workspace]:
    """Run a cluster as GKE makes it, beside a made-up cloud, and yield a workspace for a project.

    Args:
        folder: an empty folder.
        project: this repository or one of its examples.
    """
    require("pulumi")
    for name in ("api-server", "workspace"):
        (folder / name).mkdir()
    with running(folder / "api-server", install=definitions.install_gkes) as server:
        made = Workspace(folder / "workspace", server, project)
        with controllers(server, made.cloud):
            yield made


def stacks(workspace: Workspace, environment: str) -> list[Stack]:
    """Make the stacks of an environment, in the order of their updates; networks that its file names exist before."""
    file = f"Pulumi.{environment}.yaml"
    settings = workspace.settings(file)
    workspace.cloud.seed(references(settings))
    two = settings["config"].get("penstock:stacks") == "two"
    names = [f"{environment}-platform", f"{environment}-gateway"] if two else [environment]
    return [workspace.stack(name, file) for name in names]


def remains(workspace: Workspace) -> dict[str, Any]:
    """Return what is left of a deployment: resources of the cloud, and objects that bear our label."""
    found: dict[str, Any] = {key: entry for key, entry in workspace.cloud.entries().items() if entry["type"]}
    with workspace.server.client() as client:
        for root in ("/api/v1", *_groups(client)):
            for resource in client.get(root).json()["resources"]:
                if "list" in resource["verbs"] and "/" not in resource["name"]:
                    query = {"labelSelector": "app.kubernetes.io/part-of=penstock"}
                    items = client.get(f"{root}/{resource['name']}", params=query).json().get("items") or []
                    found |= {f"{resource['kind']} {item['metadata']['name']}": item for item in items}
    return found


def _groups(client: Any) -> list[str]:
    groups = client.get("/apis").raise_for_status().json()["groups"]
    return [f"/apis/{version['groupVersion']}" for group in groups for version in group["versions"]]
