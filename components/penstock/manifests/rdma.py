"""RDMA between the nodes of one replica: the Kubernetes objects, and what a pod needs to use them.

Two modes, which GKE does not let one node pool mix: `roce`, networks that are declared and attached to nodes one by
one, and `dranet`, where GKE makes the networks and pods claim interfaces as devices. Knows nothing of Pulumi.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from .._labels import PART_OF
from ..errors import ConfigError
from .common import GKE_API, Manifest, check_word, manifest

ROCE = "roce"
"""Mode: multi-networking with `Device` networks, one RoCE subnet for each rail."""
DRANET = "dranet"
"""Mode: GKE managed DRANET, interfaces by dynamic resource allocation."""
MODES = (ROCE, DRANET)

RAILS = (4, 8)
"""RDMA interfaces of a machine: 8 of a3-ultragpu-8g and a4-highgpu-8g, 4 of a4x-highgpu-4g. Source: GKE, "GPUs"."""

DRANET_NODE_LABEL: Mapping[str, str] = {"cloud.google.com/gke-networking-dra-driver": "true"}
"""Label of nodes that run the DRANET driver. Source: GKE, "Allocate network resources by using GKE managed DRANET"."""
DRANET_PROFILE = "auto"
"""`accelerator_network_profile` of a node pool: GKE makes VPC and subnets. Source: as above."""
CLAIM_TEMPLATE = "rdma"
"""Name of the ResourceClaimTemplate in each namespace, and of the claim in each pod."""
DEVICE_CLASS = "mrdma.google.com"
"""Device class of RDMA interfaces. Source: as above."""

GVNIC_NETWORK = "gvnic-1"
"""Name of the Network object of the second gVNIC, which machines with RDMA interfaces have."""

POD_SECURITY = "privileged"
"""Pod Security Standard that a namespace must admit for pods with RDMA: libraries come from a host path, which
`baseline` forbids. Source: Kubernetes, "Pod Security Standards"."""

_GIB_HOST = "/home/kubernetes/bin/gib"
_GIB = "/usr/local/gib"
_NVIDIA_HOST = "/home/kubernetes/bin/nvidia"
_NVIDIA = "/usr/local/nvidia"
_LIBRARIES = f"{_GIB}/lib64:{_NVIDIA}/lib64"

_NCCL: Mapping[str, str] = {
    "NCCL_NET": "gIB",
    "NCCL_CROSS_NIC": "0",
    "NCCL_NET_GDR_LEVEL": "PIX",
    "NCCL_P2P_NET_CHUNKSIZE": "131072",
    "NCCL_NVLS_CHUNKSIZE": "524288",
    "NCCL_IB_ADAPTIVE_ROUTING": "1",
    "NCCL_IB_QPS_PER_CONNECTION": "4",
    "NCCL_IB_TC": "52",
    "NCCL_IB_FIFO_TC": "84",
}
"""What gIB's `set_nccl_env.sh` exports on every machine; the tuner's file, which differs by machine, is
`TUNER_CONFIGS`. Given as environment since replicas start without a shell. Source: GKE, "Maximize GPU network
bandwidth with GPUDirect RDMA"."""

TUNER_CONFIGS: Mapping[str, str] = {"nvidia-h200-141gb": f"{_GIB}/configs/tuner_config_a3u.txtpb"}
"""NCCL_TUNER_CONFIG_PATH by GPU type, for the machines whose file is documented. Source: as above."""


class NodeNetwork(TypedDict):
    """One more network interface of every node: names, or Pulumi outputs of names."""

    name: str
    """Name of the Network object, e.g. `rdma-0`."""
    network: Any
    """Name of the VPC."""
    subnetwork: Any
    """Name of the subnet."""


class ContainerRdma(TypedDict):
    """What is added to the container that talks over RDMA; each list to the list of that name."""

    env: list[Manifest]
    volumeMounts: list[Manifest]
    resources: Manifest
    """`{"claims": [...]}` in mode `dranet`, empty otherwise."""
    capabilities: list[str]
    """To add. IPC_LOCK: memory that a network interface reads is locked."""


class PodRdma(TypedDict):
    """What is added to a pod that talks over RDMA."""

    annotations: dict[str, str]
    resourceClaims: list[Manifest]
    container: ContainerRdma
    volumes: list[Manifest]


def network_name(rail: int) -> str:
    """Return the name of the Network object of one rail, counted from 0."""
    return f"rdma-{rail}"


def network_names(rails: int) -> list[str]:
    """Return the names of a node's further networks in the order of its interfaces: gVNIC, then the rails."""
    return [GVNIC_NETWORK, *(network_name(rail) for rail in range(rails))]


def pod_rdma(mode: str, rails: int, gpu_type: str | None = None) -> PodRdma:
    """Return what a pod needs to reach other nodes over all rails of its node.

    Args:
        mode: `roce` or `dranet`.
        rails: RDMA interfaces of the node, one of `RAILS`; without effect in mode `dranet`, which claims all.
        gpu_type: GPU type as GKE labels its nodes; chooses NCCL's tuner file where one is known.
    """
    env = dict(_NCCL) | {"LD_LIBRARY_PATH": _LIBRARIES}
    tuner = TUNER_CONFIGS.get(gpu_type or "")
    if tuner:
        env["NCCL_TUNER_CONFIG_PATH"] = tuner
    paths = {"gib": (_GIB_HOST, _GIB), "nvidia": (_NVIDIA_HOST, _NVIDIA)}
    claims = [{"name": CLAIM_TEMPLATE}] if mode == DRANET else []
    return {
        "annotations": _interfaces(rails) if mode == ROCE else {},
        "resourceClaims": [claim | {"resourceClaimTemplateName": CLAIM_TEMPLATE} for claim in claims],
        "container": {
            "env": [{"name": name, "value": value} for name, value in env.items()],
            "volumeMounts": [
                {"name": name, "mountPath": inside, "readOnly": True} for name, (_, inside) in paths.items()
            ],
            "resources": {"claims": claims} if claims else {},
            "capabilities": ["IPC_LOCK"],
        },
        "volumes": [
            {"name": name, "hostPath": {"path": host, "type": "Directory"}} for name, (host, _) in paths.items()
        ],
    }


def claim_template(namespace: str) -> Manifest:
    """Return the ResourceClaimTemplate of a namespace: every RDMA interface of the node that the pod lands on.

    Source: resource.k8s.io/v1, generally available since Kubernetes 1.34.
    """
    request = {"name": "interfaces", "exactly": {"deviceClassName": DEVICE_CLASS, "allocationMode": "All"}}
    spec = {"spec": {"devices": {"requests": [request]}}}
    return manifest("resource.k8s.io/v1", "ResourceClaimTemplate", CLAIM_TEMPLATE, namespace, _tags(), spec=spec)


def network_objects(networks: Sequence[NodeNetwork]) -> Iterator[tuple[Manifest, Manifest]]:
    """Yield for each network its GKENetworkParamSet and the Network that refers to it; both are cluster-scoped.

    Interfaces of the RoCE networks are handed to pods in mode RDMA, the gVNIC as a plain device. Source: GKE, "Set up
    multi-network support for Pods", networking.gke.io/v1.
    """
    for network in networks:
        name = network["name"]
        device = "NetDevice" if name == GVNIC_NETWORK else "RDMA"
        params = {"vpc": network["network"], "vpcSubnet": network["subnetwork"], "deviceMode": device}
        ref = {"group": GKE_API, "kind": "GKENetworkParamSet", "name": name}
        yield (
            manifest(f"{GKE_API}/v1", "GKENetworkParamSet", name, None, _tags(), spec=params),
            manifest(f"{GKE_API}/v1", "Network", name, None, _tags(), spec={"type": "Device", "parametersRef": ref}),
        )


def check_mode(path: str, mode: str) -> Iterator[ConfigError]:
    """Yield an error unless `mode` is one of `MODES`."""
    yield from check_word(path, mode, MODES, "`roce` or `dranet`")


def check_rails(path: str, rails: int) -> Iterator[ConfigError]:
    """Yield an error unless a machine with that many RDMA interfaces exists."""
    if rails not in RAILS:
        fix = "Use 8 for a3-ultragpu-8g and a4-highgpu-8g, 4 for a4x-highgpu-4g"
        yield ConfigError(path, rails, "the RDMA interfaces of the machine, 4 or 8", fix)


def _interfaces(rails: int) -> dict[str, str]:
    networks = ["default", *network_names(rails)]
    interfaces = [{"interfaceName": f"eth{index}", "network": name} for index, name in enumerate(networks)]
    return {
        f"{GKE_API}/default-interface": "eth0",
        f"{GKE_API}/interfaces": json.dumps(interfaces, separators=(",", ":")),
    }


def _tags() -> dict[str, str]:
    return {PART_OF: "penstock"}
