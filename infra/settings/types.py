"""The settings of an environment: what a person writes into `Pulumi.<env>.yaml`, each top-level field one key.

Fields of components are not written down again here: an annotation takes a component's arguments over, and marks say
what the program fills in or wires by itself.
"""

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict

import penstock

from infra.settings.marks import Also, Filled, Secret, Wired

PLATFORM, GATEWAY = "platform", "gateway"
"""The parts of an environment that may be stacks of their own."""

GATEWAY_NAME = "inference-gateway"
"""Default name of the Gateway object."""

Serving = Annotated[
    penstock.ModelReplicaSetArgs,
    Wired("name", "namespace", "model", "adapters"),
    Filled("image", "weights.bucket", "weights.project", "weights.project_number"),
]
"""How replicas serve. Stands at a model, and at a replica set where it differs from its model."""

Pool = Annotated[
    penstock.InferencePoolArgs,
    Wired("name", "namespace", "picker", "selector", "leader_only", "target_ports", "zone_count"),
]
"""What all pools of a model have in common."""

Route = Annotated[penstock.ModelRouteArgs, Wired("model", "namespace", "gateway", "listener", "pools")]
"""What a model's route adds."""


class ReplicaSet(TypedDict):
    """One uniform set of replicas, with a pool of its own, and every serving setting that differs from its model's."""

    name: str
    """Short name within the model, e.g. `a`."""
    weight: NotRequired[int]
    """Share of the model's requests. Default 1."""
    pool: NotRequired[str]
    """Accelerator pool of the replicas, one of `acceleratorPools`. It says GPU type, GPUs per node and RDMA."""


class Model(TypedDict):
    """A model that clients name in requests. Serving settings stand here, or at a replica set where it differs."""

    name: str
    """What clients send as `model`."""
    replica_sets: list[Annotated[ReplicaSet, Also(Serving)]]
    """The sets that share the model's requests by weight, each with a pool of its own."""
    adapters: NotRequired[list[penstock.Adapter]]
    """LoRA adapters; clients send their names as `model` too."""
    pool: NotRequired[str]
    """Accelerator pool of every replica set that names none."""


class RoutingTimeout(TypedDict):
    """The body router's place in the routing extension."""

    timeout_ms: NotRequired[int]
    """Milliseconds per message of the routing extension, 10 to 10,000. Default 1,000."""


class Kubernetes(TypedDict):
    """An existing cluster. Without any field, and without `cluster`, the ambient kubeconfig counts."""

    context: NotRequired[str]
    """Context of the kubeconfig."""
    cluster_identifier: NotRequired[str]
    """`projects/P/locations/L/clusters/C`: keeps objects in place when only the kubeconfig changes."""


class Settings(TypedDict):
    """Everything that an environment configures, each field a key `penstock:<field>` of `Pulumi.<env>.yaml`."""

    image: str
    """Image of Penstock's services, pinned by tag or digest; required."""
    vllm_image: str
    """vLLM image, pinned by tag or digest; required unless every model or replica set names its own."""
    namespace: str
    """Namespace of the Gateway, its extensions, all callouts and replicas. Default `inference`."""
    create_namespace: bool
    """Whether the namespace is declared here, with a Pod Security Standard enforced. Default true."""
    stacks: str
    """`one` stack for all, or `two`: `<env>-platform` (networks, cluster, node pools, addons, bucket) and
    `<env>-gateway` (all else). A provider from an unknown cluster output makes previews blind, so two is better where
    `cluster` is declared. Default `one`."""
    project: NotRequired[str]
    """Project id. Needed by everything outside of a cluster that exists."""
    project_number: NotRequired[str]
    """Number of the project, by which IAM names workloads: `gcloud projects describe`."""
    region: NotRequired[str]
    """Region of the load balancer, the cluster and all subnets, e.g. `us-central1`."""
    zones: list[str]
    """Zones of the nodes. A pool makes one network endpoint group per port and zone, at most 50. Default: none named,
    counted as one."""
    prefix: str
    """What names in Google Cloud begin with, unique in the project; at most 24 characters. Default `penstock`."""
    labels: NotRequired[dict[str, str]]
    """Labels of everything in Google Cloud that takes labels, beside `part-of: penstock`."""
    network: NotRequired[Annotated[penstock.ProducerNetworkArgs, Wired("name", "project", "region", "labels")]]
    """The VPC that the models are served in: made, or an existing one. Default: none is declared."""
    rdma: NotRequired[Annotated[penstock.RdmaNetworkArgs, Wired("name", "project", "region", "namespaces")]]
    """RDMA between the nodes of one replica. Default none."""
    cluster: NotRequired[
        Annotated[
            penstock.InferenceClusterArgs,
            Wired("name", "project", "region", "zones", "accelerators", "multi_networking", "labels"),
            Wired("network", "subnetwork", "pods_range", "services_range"),
        ]
    ]
    """The cluster; needs `network`. Default: one that exists, see `kubernetes`."""
    accelerator_pools: list[
        Annotated[
            penstock.AcceleratorPoolArgs,
            Wired("name", "project", "region", "cluster_version", "labels"),
            Wired("cluster", "node_service_account", "node_networks"),
            Filled("zones"),
        ]
    ]
    """Node pools with GPUs or TPUs; need `cluster`."""
    compute_classes: list[Annotated[penstock.ComputeClassArgs, Filled("node_service_account")]]
    """Ways to get nodes, tried in an order; a replica set chooses one by `nodeSelector`."""
    addons: NotRequired[Annotated[penstock.ClusterAddonsArgs, Wired("project", "project_number")]]
    """Controllers that GKE does not bring. Default none."""
    model_bucket: NotRequired[Annotated[penstock.ModelBucketArgs, Wired("project", "region", "labels"), Filled("name")]]
    """The bucket of the models' weights, called `<project>-<prefix>-models` by default. Default: none is declared."""
    gateway: Annotated[
        penstock.InferenceGatewayArgs,
        Wired("namespace", "create_namespace", "project", "region", "prefix", "labels"),
        Filled("name", "address.subnetwork"),
    ]
    """The entry."""
    publication: NotRequired[
        Annotated[
            penstock.ServicePublicationArgs,
            Wired("name", "project", "region", "gateway_metadata", "address"),
            Filled("nat_subnetworks"),
        ]
    ]
    """The Gateway, published to other networks by Private Service Connect. Default: not published."""
    private_endpoints: list[
        Annotated[penstock.PrivateEndpointArgs, Wired("region", "attachment", "labels"), Filled("project", "hostname")]
    ]
    """Where clients of other networks reach the published Gateway; needs `publication`."""
    body_router: Annotated[penstock.BodyRouterArgs, Wired("namespace", "models", "image"), Also(RoutingTimeout)]
    """The callout that reads the model's name."""
    picker: Annotated[penstock.Picker, Filled("image")]
    """The endpoint pickers, one per pool, all alike."""
    api_management: NotRequired[
        Annotated[
            penstock.ApiManagementArgs,
            Wired("namespace", "guardrails", "name", "project", "project_number", "region", "labels", "image"),
            Filled("apigee.bridge.service_attachment", "store.memorystore.network"),
        ]
    ]
    """Keys, products, limits and policies in front of the models. Default: none."""
    guardrails: NotRequired[
        Annotated[
            penstock.GuardrailsArgs,
            Wired("namespace", "served_by", "name", "project", "project_number", "region", "labels", "image"),
        ]
    ]
    """Who screens prompts and answers. Default: nobody."""
    security: NotRequired[
        Annotated[
            penstock.SecurityBaseArgs,
            Wired("name", "network.namespace"),
            Filled("network.proxy_range", "audit.project"),
        ]
    ]
    """Who may talk to whom in the namespace, and what is logged. What `network` leaves out follows from the rest;
    `network: {}` closes every path but those of requests. Default: nothing is closed or logged."""
    models: list[Annotated[Model, Also(Serving), Also(Pool), Also(Route)]]
    """The models; at least one."""
    callouts: list[penstock.ExtensionCallout]
    """Further callouts of the traffic extension, in the order of requests, before guardrails."""
    kubernetes: Kubernetes
    """A cluster that is not declared here."""
    kubeconfig: NotRequired[Annotated[str, Secret()]]
    """Kubeconfig of that cluster, set with `pulumi config set --secret`."""


DEFAULTS: Mapping[str, Any] = {
    "image": "",
    "vllm_image": "",
    "namespace": "inference",
    "create_namespace": True,
    "stacks": "one",
    "zones": [],
    "prefix": "penstock",
    "accelerator_pools": [],
    "compute_classes": [],
    "gateway": {},
    "private_endpoints": [],
    "body_router": {},
    "picker": {},
    "models": [],
    "callouts": [],
    "kubernetes": {},
}
"""What fields of `Settings` are where an environment leaves them out."""

SHAPE = Annotated[Settings, Filled(*DEFAULTS)]
"""What an environment's file has to look like."""
