"""Valid arguments of every component, for tests to vary, and a recorder of single components."""

from collections.abc import Callable, Mapping
from typing import Any

import penstock
import pulumi

from cli.graph.model import Graph, Resource
from cli.graph.providers import outputs_of
from cli.graph.recorder import record

IMAGE = "penstock/services:0.1.0"
VLLM = "vllm/vllm-openai:v0.32.0"

VALID: Mapping[str, Mapping[str, Any]] = {
    "InferenceGateway": {"name": "gw", "namespace": "inference", "tls": {"secret_names": ["gw-tls"]}},
    "BodyRouter": {"namespace": "inference", "image": IMAGE, "models": [{"name": "m1", "adapters": ["l1"]}]},
    "ModelReplicaSet": {
        "name": "m1-a",
        "namespace": "inference",
        "model": "m1",
        "source": "example/m1",
        "replicas": 3,
        "image": VLLM,
    },
    "InferencePool": {"name": "m1-a", "namespace": "inference", "picker": {"image": IMAGE}},
    "ModelRoute": {"model": "m1", "namespace": "inference", "gateway": "gw", "pools": [{"name": "m1-a"}]},
    "Extensions": {
        "gateway": "gw",
        "namespace": "inference",
        "routing": {"name": "body-router", "service": "body-router", "port": 9004},
    },
    "ServicePublication": {
        "name": "llm",
        "project": "producer-1",
        "region": "us-central1",
        "accept": [{"project": "consumer-1", "limit": 4}],
        "nat_subnetworks": ["projects/producer-1/regions/us-central1/subnetworks/llm-psc"],
        "gateway_metadata": {"name": "gw", "annotations": {"networking.gke.io/forwarding-rules": "gkegw1-a-b"}},
    },
    "PrivateEndpoint": {
        "name": "llm",
        "project": "consumer-1",
        "region": "us-central1",
        "hostname": "llm.example.com",
        "ip_address": "10.128.0.10",
        "network": "projects/consumer-1/global/networks/main",
        "subnetwork": "projects/consumer-1/regions/us-central1/subnetworks/main",
        "attachment": "projects/producer-1/regions/us-central1/serviceAttachments/llm-attachment",
    },
    "InferenceCluster": {
        "name": "llm",
        "project": "producer-1",
        "region": "us-central1",
        "zones": ["us-central1-a", "us-central1-b"],
        "min_version": "1.35.2-gke.1842000",
        "network": "projects/producer-1/global/networks/llm-vpc",
        "subnetwork": "projects/producer-1/regions/us-central1/subnetworks/llm-nodes",
        "pods_range": "pods",
        "services_range": "services",
    },
    "AcceleratorPool": {
        "name": "llm",
        "pool": "h200",
        "project": "producer-1",
        "region": "us-central1",
        "zones": ["us-central1-a"],
        "accelerator": "h200-ultra",
        "max_nodes": 4,
        "cluster": "llm-cluster",
        "node_service_account": "llm-nodes@producer-1.iam.gserviceaccount.com",
    },
    "ComputeClass": {
        "name": "h100",
        "choices": [{"node_pools": ["llm-h100"]}, {"accelerator": "h100-high", "spot": True}],
    },
    "ProducerNetwork": {"name": "penstock-dev", "project": "producer-1", "region": "us-central1"},
    "RdmaNetwork": {
        "name": "penstock-dev",
        "mode": "roce",
        "project": "producer-1",
        "region": "us-central1",
        "zone": "us-central1-a",
        "rails": 8,
    },
    "ClusterAddons": {
        "leader_worker_set": True,
        "keda": True,
        "custom_metrics": True,
        "objective_apis": ["gaie-1.5"],
        "project": "producer-1",
        "project_number": "123456789012",
    },
    "Guardrails": {
        "mode": "bundled",
        "namespace": "inference",
        "templates": [{"name": "base", "filters": {"prompt_injection": "MEDIUM_AND_ABOVE"}}],
        "image": IMAGE,
    },
    "ApiManagement": {
        "mode": "bundled",
        "namespace": "inference",
        "products": [{"name": "chat", "models": ["m1"], "limits": ["per-key"]}],
        "limits": [{"name": "per-key", "scope": "key", "kind": "requests", "amount": 60, "window": "minute"}],
        "image": IMAGE,
    },
    "SecurityBase": {
        "name": "penstock-dev",
        "network": {"namespace": "inference", "proxy_range": "10.9.0.0/23", "multi_node": ["m1-a"]},
        "audit": {"project": "producer-1", "archive": {"location": "us-central1"}},
    },
    "ModelBucket": {"name": "producer-1-models", "project": "producer-1", "region": "us-central1"},
}

CALLOUT: Mapping[str, Any] = {
    "name": "guardrails",
    "service": "guardrails",
    "port": 9006,
    "events": [f"{side}{part}" for side in ("Request", "Response") for part in ("Headers", "Body", "Trailers")],
    "request_body_mode": "FullDuplexStreamed",
    "response_body_mode": "FullDuplexStreamed",
}


def args_of(component: str, **changes: Any) -> dict[str, Any]:
    """Return valid arguments of `component` with `changes`; a change to None takes the field away."""
    merged = {**VALID[component], **changes}
    return {key: value for key, value in merged.items() if value is not None}


def problems(component: str, **changes: Any) -> list[penstock.ConfigError]:
    """Return what the component says against its valid arguments with `changes`."""
    return list(getattr(penstock, component).problems(args_of(component, **changes), "args"))


def declared(component: str, *, preview: bool = False, **changes: Any) -> Graph:
    """Return the graph of one component, called `it`."""
    cls: Callable[..., pulumi.Resource] = getattr(penstock, component)

    def program() -> None:
        cls("it", args_of(component, **changes))

    return record(program, "test", preview=preview, outputs=outputs_of())


def of_kind(graph: Graph, kind: str, name: str | None = None) -> dict[str, Any]:
    """Return the one manifest of `kind` (and `name`) in `graph`."""
    found = [
        manifest
        for manifest in graph.manifests()
        if manifest["kind"] == kind and name in (None, manifest["metadata"]["name"])
    ]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]


def children(graph: Graph) -> list[Resource]:
    """Return all resources but the component itself."""
    return [resource for resource in graph.resources if resource.custom]


def names_of(graph: Graph, type_: str) -> list[str]:
    """Return the logical names of all resources of a type."""
    return [resource.name for resource in graph.resources if resource.type == type_]


def inputs_of(graph: Graph, name: str) -> dict[str, Any]:
    """Return the inputs of the one resource called `name`."""
    (found,) = [dict(resource.inputs) for resource in graph.resources if resource.name == name]
    return found
