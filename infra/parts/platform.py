"""The part `platform`: networks, cluster, node pools, addons, bucket; and what the part `gateway` needs of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import penstock
import pulumi
import pulumi_kubernetes as k8s

from infra.plan import PlatformPlan
from infra.plan.planned import Planned
from infra.settings import Settings


@dataclass(frozen=True)
class Platform:
    """What the part `gateway` is put on.

    Attributes:
        provider: of the cluster; None without one, until `existing` gives it.
        outputs: what is wired by name: `network`, `subnetwork`, `pscSubnetworks`.
        needed: what must exist before anything that is put on it, if it is in the same stack.
    """

    provider: pulumi.ProviderResource | None = None
    outputs: Mapping[str, pulumi.Output[Any]] = field(default_factory=dict)
    needed: list[pulumi.Resource] = field(default_factory=list)


def declare(plan: PlatformPlan) -> Platform:
    """Declare the platform, as far as there is one."""
    network = plan.network.declare(pulumi.ResourceOptions()) if plan.network else None
    cluster = _cluster(plan.cluster, network) if plan.cluster and network else None
    on_cluster = pulumi.ResourceOptions(providers=[cluster.provider()] if cluster else None)
    rdma = plan.rdma.declare(on_cluster) if plan.rdma else None
    addons = plan.addons.declare(on_cluster) if plan.addons else None
    bucket = plan.bucket.declare(pulumi.ResourceOptions()) if plan.bucket else None
    node_pools = [_node_pool(planned, cluster, rdma) for planned in plan.node_pools if cluster]
    account = {"node_service_account": cluster.node_service_account} if cluster else {}
    classes = [planned.declare(on_cluster, account) for planned in plan.compute_classes]

    outputs: dict[str, pulumi.Output[Any]] = {}
    if network:
        outputs |= {
            "network": network.network,
            "subnetwork": network.subnetwork,
            "pscSubnetworks": network.psc_subnetworks,
        }
    if cluster:
        outputs |= {"clusterId": cluster.cluster_id, "kubeconfig": cluster.kubeconfig}
    if bucket:
        outputs["bucket"] = bucket.bucket_name
    needed: list[pulumi.Resource | None] = [network, rdma, addons, bucket, *node_pools, *classes]
    return Platform(
        provider=cluster.provider() if cluster else None,
        outputs=outputs,
        needed=[resource for resource in needed if resource is not None],
    )


def reference(cluster_id: str, stack: str) -> Platform:
    """Return the platform that another stack declares.

    Args:
        cluster_id: the cluster's id as a plain value: objects stay in place while the kubeconfig is unknown.
        stack: the other stack's full name, `<organization>/<project>/<stack>`.
    """
    other = pulumi.StackReference("platform", stack)
    outputs = {name: _output(other, stack, name) for name in ("network", "subnetwork", "pscSubnetworks")}
    kubeconfig = _output(other, stack, "kubeconfig")
    return Platform(penstock.kubernetes_provider("kubernetes", kubeconfig, cluster_id), outputs)


def _output(other: pulumi.StackReference, stack: str, name: str) -> pulumi.Output[Any]:
    """Return an output of another stack; a stack that was never updated has none, and says so without a traceback."""

    def there(value: Any) -> Any:
        if value is None:
            raise pulumi.RunError(f"the stack {stack} has no output `{name}` yet. Run `pulumi up` of it first")
        return value

    return other.get_output(name).apply(there)


def existing(settings: Settings) -> pulumi.ProviderResource:
    """Return a provider for a cluster that exists: the one of the ambient kubeconfig, unless settings name another."""
    cluster, kubeconfig = settings["kubernetes"], settings.get("kubeconfig")
    return k8s.Provider(
        "kubernetes",
        kubeconfig=pulumi.Output.secret(kubeconfig) if kubeconfig else None,
        context=cluster.get("context"),
        cluster_identifier=cluster.get("cluster_identifier"),
        enable_config_map_mutable=True,  # as `kubernetes_provider` says
    )


def _cluster(
    planned: Planned[penstock.InferenceCluster], network: penstock.ProducerNetwork
) -> penstock.InferenceCluster:
    wired = {
        "network": network.network,
        "subnetwork": network.subnetwork,
        "pods_range": network.pods_range,
        "services_range": network.services_range,
    }
    return planned.declare(pulumi.ResourceOptions(depends_on=[network]), wired)


def _node_pool(
    planned: Planned[penstock.AcceleratorPool],
    cluster: penstock.InferenceCluster,
    rdma: penstock.RdmaNetwork | None,
) -> penstock.AcceleratorPool:
    wired: dict[str, Any] = {
        "cluster": cluster.cluster_name,
        "node_service_account": cluster.node_service_account,
        "node_networks": rdma.node_networks if rdma else None,
    }
    return planned.declare(pulumi.ResourceOptions(), wired)
