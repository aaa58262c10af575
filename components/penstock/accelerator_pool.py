"""The component `AcceleratorPool`: nodes with GPUs or TPUs, from the capacity that there is."""

from typing import Any, NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp

from ._apply import child_options
from ._shape import conform
from .errors import raise_if
from .manifests import node_pool as manifests
from .manifests import node_pool_checks


class Reservation(TypedDict):
    """Capacity that was reserved beforehand."""

    name: NotRequired[str]
    """Name of the reservation. Default: any matching one of the project."""
    project: NotRequired[str]
    """Project that shares it. Default the pool's."""
    block: NotRequired[str]
    """Block of the reservation."""
    sub_block: NotRequired[str]
    """Sub-block of the block."""


class NodeTaint(TypedDict):
    """A taint of the nodes."""

    key: str
    """Its key."""
    value: NotRequired[str]
    """Its value. Default empty."""
    effect: NotRequired[str]
    """`NO_SCHEDULE`, `PREFER_NO_SCHEDULE` or `NO_EXECUTE`. Default `NO_SCHEDULE`."""


class NodeInterface(TypedDict):
    """A further network interface of each node."""

    name: NotRequired[str]
    """Name of its Network object; of no effect here."""
    network: pulumi.Input[str]
    """VPC of the interface."""
    subnetwork: pulumi.Input[str]
    """Subnet of the interface."""


class AcceleratorPoolArgs(TypedDict):
    """Arguments of `AcceleratorPool`."""

    name: str
    """Base name: the node pool is `<name>-<pool>`, at most 40 characters."""
    pool: str
    """Short name, value of the nodes' label `penstock.dev/pool`."""
    project: str
    """Project id."""
    region: str
    """Region of the cluster."""
    zones: list[str]
    """Zones of the nodes, where the accelerator is to be had."""
    accelerator: str
    """Name in the catalogue, e.g. `l4` or `h200-ultra`."""
    machine_type: NotRequired[str]
    """Machine type of that accelerator. Default the catalogue's first."""
    cluster_version: NotRequired[str]
    """The cluster's minimum version; what the pool needs is checked against it. Default: not checked."""
    nodes: NotRequired[int]
    """Fixed number of nodes over all zones, a multiple of them. Either this or `max_nodes`."""
    min_nodes: NotRequired[int]
    """Fewest nodes that the autoscaler keeps. Default 0."""
    max_nodes: NotRequired[int]
    """Most nodes that the autoscaler adds."""
    per_zone: NotRequired[bool]
    """Whether `min_nodes` and `max_nodes` count in each zone rather than over all of them. Default false."""
    location_policy: NotRequired[str]
    """`ANY` adds nodes in whatever zone has capacity, `BALANCED` evenly. Default `ANY`: accelerators are scarce."""
    spot: NotRequired[bool]
    """Spot machines: cheaper, taken away at any time. Default false."""
    flex_start: NotRequired[bool]
    """Machines when capacity comes, for at most seven days. Default false."""
    queued: NotRequired[bool]
    """Nodes only for ProvisioningRequests, all of one at a time. Default false."""
    max_run_duration_s: NotRequired[int]
    """Seconds that a node lives. Default: no limit, seven days with `flex_start` or `queued`."""
    reservation: NotRequired[Reservation]
    """Reserved capacity to use. Default none."""
    compact: NotRequired[bool]
    """Whether nodes stand physically close, which collective communication wants. Default false."""
    topology: NotRequired[str]
    """TPU slice, e.g. `2x4`; or the NVLink domain of machines that have one, e.g. `1x72`, which is its default."""
    rdma: NotRequired[str]
    """How pods reach the RDMA interfaces: `roce` or `dranet`. Default not at all."""
    driver_version: NotRequired[str]
    """NVIDIA driver that GKE installs: `DEFAULT`, `LATEST`, or `INSTALLATION_DISABLED`. Default `DEFAULT`."""
    local_ssd: NotRequired[bool]
    """Whether the machine's local SSDs are the nodes' ephemeral storage. Default true where a machine has some."""
    disk_gib: NotRequired[int]
    """Boot disk of a node in GiB. Default 200: images of model servers are large."""
    max_pods_per_node: NotRequired[int]
    """Pods per node, 8 to 256. Default 32: a node runs few replicas, and a larger number takes more addresses."""
    secure_boot: NotRequired[bool]
    """Whether nodes boot signed software only. Default true."""
    image_streaming: NotRequired[bool]
    """Whether containers start before their image is whole; Artifact Registry images only. Default false."""
    taints: NotRequired[list[NodeTaint]]
    """Further taints. GKE itself taints nodes with `nvidia.com/gpu` or `google.com/tpu`."""
    node_labels: NotRequired[dict[str, str]]
    """Further Kubernetes labels of the nodes."""
    compute_class: NotRequired[str]
    """ComputeClass that the pool is one of: only pods of the class run here, and the class adds nodes. Default none."""
    labels: NotRequired[dict[str, str]]
    """Labels of the nodes in Google Cloud."""
    cluster: pulumi.Input[str]
    """Name of the cluster."""
    node_service_account: pulumi.Input[str]
    """Email of the nodes' service account."""
    node_networks: NotRequired[pulumi.Input[list[NodeInterface]]]
    """Further interfaces, for mode `roce`: one gVNIC, then every rail in its order."""
    workload_policy: NotRequired[pulumi.Input[str]]
    """Name of a workload policy to use. Default: one of its own where the machines need it."""


class AcceleratorPool(pulumi.ComponentResource):
    """A node pool with one kind of accelerator and, where the machines need one, the workload policy that places them.

    GKE itself taints the nodes by `nvidia.com/gpu` or `google.com/tpu` when the cluster has nodes without accelerators,
    and those of architecture arm64 by `kubernetes.io/arch` too.
    """

    pool_name: pulumi.Output[str]
    """Name of the node pool."""

    problems = staticmethod(node_pool_checks.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""

    def __init__(self, name: str, args: AcceleratorPoolArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(AcceleratorPoolArgs, args, name)
        raise_if(node_pool_checks.problems(args, name))
        super().__init__("penstock:index:AcceleratorPool", name, None, opts)

        policy = self._workload_policy(name, args)
        pool = gcp.container.NodePool(
            f"{name}-pool",
            **manifests.node_pool(args, policy, _interfaces(name, args)),
            # Limits of the autoscaler hold from the first update on; the first number of nodes is history
            opts=pulumi.ResourceOptions.merge(
                child_options(self), pulumi.ResourceOptions(ignore_changes=["initialNodeCount"])
            ),
        )

        self.pool_name = pool.name
        self.register_outputs({"poolName": self.pool_name})

    def _workload_policy(self, name: str, args: AcceleratorPoolArgs) -> pulumi.Input[str] | None:
        """Return the name of the workload policy, of one that is given or of one that is registered here."""
        if not manifests.own_policy(args):
            return args.get("workload_policy")
        return gcp.compute.ResourcePolicy(
            f"{name}-workload-policy", **manifests.workload_policy(args), opts=child_options(self)
        ).name


def _interfaces(name: str, args: AcceleratorPoolArgs) -> Any:
    """Return the interfaces as the provider wants them, without the names of their Network objects.

    A list that is plain stays one, and was checked before: only the names in it may be unknown.
    """
    networks = args.get("node_networks")
    if networks is None or isinstance(networks, list):
        return None if networks is None else _attached(networks)

    def checked(found: list[NodeInterface]) -> list[dict[str, pulumi.Input[str]]]:
        _, machine = manifests.chosen(args)
        raise_if(node_pool_checks.interface_problems(f"{name}.node_networks", len(found), machine))
        return _attached(found)

    resolved: pulumi.Output[list[NodeInterface]] = pulumi.Output.from_input(networks)
    return resolved.apply(checked)


def _attached(networks: list[NodeInterface]) -> list[dict[str, pulumi.Input[str]]]:
    return [{"network": item["network"], "subnetwork": item["subnetwork"]} for item in networks]
