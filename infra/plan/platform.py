"""The arguments of what stands under Kubernetes' objects: networks, cluster, node pools, addons, bucket."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import penstock
from penstock.manifests import rdma
from penstock.manifests.cluster import node_account

from infra.plan.common import moves, place
from infra.plan.planned import LATER, Planned, given
from infra.settings import Settings


@dataclass(frozen=True)
class PlatformPlan:
    """The components of the part `platform`."""

    network: Planned[penstock.ProducerNetwork] | None = None
    cluster: Planned[penstock.InferenceCluster] | None = None
    rdma: Planned[penstock.RdmaNetwork] | None = None
    addons: Planned[penstock.ClusterAddons] | None = None
    node_pools: list[Planned[penstock.AcceleratorPool]] = field(default_factory=list)
    compute_classes: list[Planned[penstock.ComputeClass]] = field(default_factory=list)
    bucket: Planned[penstock.ModelBucket] | None = None

    def components(self) -> Iterator[Planned[Any]]:
        """Yield each component."""
        single = (self.network, self.cluster, self.rdma, self.addons, self.bucket)
        yield from (one for one in single if one is not None)
        yield from self.node_pools
        yield from self.compute_classes


def make(settings: Settings) -> PlatformPlan:
    """Return the arguments of all components of the platform."""
    return PlatformPlan(
        network=_network(settings) if "network" in settings else None,
        cluster=_cluster(settings) if "cluster" in settings else None,
        rdma=_rdma(settings) if is_roce(settings) else None,
        addons=_addons(settings) if "addons" in settings else None,
        node_pools=[_node_pool(settings, index) for index in range(len(settings["accelerator_pools"]))],
        compute_classes=[_compute_class(settings, index) for index in range(len(settings["compute_classes"]))],
        bucket=_bucket(settings) if "model_bucket" in settings else None,
    )


def is_roce(settings: Settings) -> bool:
    """Tell whether networks between nodes are declared here; in mode `dranet` GKE makes them."""
    return "rdma" in settings and settings["rdma"]["mode"] != rdma.DRANET


def cluster_name(settings: Settings) -> str | None:
    """Return the name of the cluster that is declared here, None without one: series of metrics carry it."""
    if "cluster" not in settings:
        return None
    named: Any = {"name": settings["prefix"]}
    return penstock.InferenceCluster.name_of(named)


def bucket_name(settings: Settings) -> str | None:
    """Return the name of the bucket of weights that is declared here, None without one."""
    if "model_bucket" not in settings:
        return None
    default = f"{settings.get('project', '')}-{settings['prefix']}-models"
    return settings["model_bucket"].get("name", default)


def features(settings: Settings) -> list[str]:
    """Return what the cluster is wanted for, by what the settings use: its version is checked against that."""
    found = ["inference-pool"]
    if "rdma" in settings and settings["rdma"]["mode"] == rdma.DRANET:
        found.append("dranet")
    if settings.get("api_management", {}).get("mode") == "apigee":
        found.append("apigee")
    if settings.get("security", {}).get("network") is not None:
        found.append("fqdn-policy")
    return found


def _network(settings: Settings) -> Planned[penstock.ProducerNetwork]:
    args = place(settings, "labels") | given(settings["network"])
    if "cluster" in settings and not {"node_tag", "node_service_accounts"} & args.keys():
        cluster: Any = place(settings)
        args["node_service_accounts"] = [node_account(cluster)]
    return Planned(penstock.ProducerNetwork, "network", args, moves("network", "name", "project", "region", "labels"))


def _cluster(settings: Settings) -> Planned[penstock.InferenceCluster]:
    own = settings["cluster"]
    args = place(settings, "labels") | {
        "accelerators": sorted({pool["accelerator"] for pool in settings["accelerator_pools"]}),
        "multi_networking": is_roce(settings),
        "network": LATER,
        "subnetwork": LATER,
        "pods_range": LATER,
        "services_range": LATER,
        **given(own),
        "features": sorted({*own.get("features", []), *features(settings)}),
    }
    if settings["zones"]:
        args["zones"] = settings["zones"]
    shared = ("name", "project", "region", "zones", "labels")
    return Planned(penstock.InferenceCluster, "cluster", args, moves("cluster", *shared))


def _rdma(settings: Settings) -> Planned[penstock.RdmaNetwork]:
    args = place(settings) | given(settings["rdma"])
    if "network" in settings:
        network: Any = place(settings) | given(settings["network"])
        ranges = penstock.ProducerNetwork.ranges(network)
        args.setdefault("other_cidrs", [ranges[name] for name in ("nodes", "pods", "services")])
    return Planned(penstock.RdmaNetwork, "rdma", args, moves("rdma", "name", "project", "region"))


def _addons(settings: Settings) -> Planned[penstock.ClusterAddons]:
    identity = given(place(settings, "project_number"), only=("project", "project_number"))
    found = moves("addons", "project", "project_number")
    return Planned(penstock.ClusterAddons, "addons", identity | given(settings["addons"]), found)


def _compute_class(settings: Settings, index: int) -> Planned[penstock.ComputeClass]:
    args = given(settings["compute_classes"][index])
    if "cluster" in settings:
        args.setdefault("node_service_account", LATER)
    return Planned(penstock.ComputeClass, f"{args['name']}-class", args, moves(f"computeClasses[{index}]"))


def _node_pool(settings: Settings, index: int) -> Planned[penstock.AcceleratorPool]:
    own = settings["accelerator_pools"][index]
    args = place(settings, "labels") | {
        "zones": settings["zones"],
        "cluster": LATER,
        "node_service_account": LATER,
        **given(own),
    }
    if "cluster" in settings:
        args["cluster_version"] = settings["cluster"]["min_version"]
    if own.get("rdma") == rdma.ROCE and is_roce(settings):
        args["node_networks"] = LATER
    shared = ("name", "project", "region", "labels") + (() if "zones" in own else ("zones",))
    base = f"acceleratorPools[{index}]"
    found = dict(moves(base, *shared)) | {".cluster_version": "cluster.minVersion", ".node_networks": "rdma"}
    return Planned(penstock.AcceleratorPool, f"{own['pool']}-nodes", args, found)


def _bucket(settings: Settings) -> Planned[penstock.ModelBucket]:
    args = place(settings, "labels") | {**given(settings["model_bucket"]), "name": bucket_name(settings)}
    return Planned(penstock.ModelBucket, "model-bucket", args, moves("modelBucket", "project", "region", "labels"))
