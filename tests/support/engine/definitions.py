"""Custom resource definitions of the API server: which ones there are, and who brings them to a cluster.

GKE installs some by itself, Helm charts install others, and a program declares the rest. Tests that care start with
GKE's alone, so that an object that comes before its definition is refused as in a cluster.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

CRDS = Path(__file__).resolve().parents[4] / "shared" / "crds"
"""Schemas of third parties, kept beside the repository; without them the API server knows built-in kinds only."""

CHARTS = {
    "lws": "leaderworkerset.x-k8s.io",
    "keda": "keda.sh",
    "apigee-apim-operator-crds": "apim.googleapis.com",
}
"""Chart -> API group whose definitions it installs."""

DECLARED = (
    "inferenceobjectives.inference.networking.x-k8s.io",
    "inferencemodelrewrites.inference.networking.x-k8s.io",
    "inferenceobjectives.llm-d.ai",
    "inferencemodelrewrites.llm-d.ai",
)
"""What neither GKE nor a chart installs: programs declare it."""

_UNCHECKED = {
    "apigeebackendservices.apim.googleapis.com": ("v1", "ApigeeBackendService", "Namespaced"),
    "apimtemplaterules.apim.googleapis.com": ("v1", "ApimTemplateRule", "Namespaced"),
    "apimtemplates.apim.googleapis.com": ("v1", "ApimTemplate", "Namespaced"),
    "apioperationsets.apim.googleapis.com": ("v1", "APIOperationSet", "Namespaced"),
    "apiproducts.apim.googleapis.com": ("v1", "APIProduct", "Namespaced"),
    "computeclasses.cloud.google.com": ("v1", "ComputeClass", "Cluster"),
    "triggerauthentications.keda.sh": ("v1alpha1", "TriggerAuthentication", "Namespaced"),
}
"""Definitions whose schemas we do not have: objects of these kinds are stored unchecked."""

_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def install(client: httpx.Client, group: str | None = None) -> None:
    """Install every definition there is, or those of one API group, and wait until they are served."""
    _install(client, [item for item in _definitions() if group in (None, item["spec"]["group"])])


def install_gkes(client: httpx.Client) -> None:
    """Install what a cluster of GKE has by itself: nothing that charts install or programs declare."""
    groups = set(CHARTS.values())
    own = [item for item in _definitions() if item["spec"]["group"] not in groups]
    _install(client, [item for item in own if item["metadata"]["name"] not in DECLARED])


def _install(client: httpx.Client, wanted: list[dict[str, Any]]) -> None:
    names = {definition["metadata"]["name"] for definition in wanted}
    for definition in wanted:
        query = {"fieldManager": "test", "force": "true"}
        headers = {"content-type": "application/apply-patch+yaml"}
        path = f"{_PATH}/{definition['metadata']['name']}"
        client.patch(path, params=query, json=definition, headers=headers).raise_for_status()
    deadline = time.monotonic() + 60
    while missing := names - _established(client):
        assert time.monotonic() < deadline, f"definitions are not served: {sorted(missing)}"
        time.sleep(0.05)


def _definitions() -> Iterator[dict[str, Any]]:
    for file in sorted(CRDS.rglob("*.yaml")):
        for document in yaml.load_all(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if document and document.get("kind") == "CustomResourceDefinition":
                yield document
    for name, (version, kind, scope) in _UNCHECKED.items():
        plural, _, group = name.partition(".")
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        served = {"name": version, "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
        names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
        yield {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": name},
            "spec": {"group": group, "scope": scope, "names": names, "versions": [served]},
        }


def _established(client: httpx.Client) -> set[str]:
    return {
        item["metadata"]["name"]
        for item in client.get(_PATH).raise_for_status().json()["items"]
        for condition in item.get("status", {}).get("conditions") or ()
        if condition["type"] == "Established" and condition["status"] == "True"
    }
