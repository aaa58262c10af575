"""The component `RdmaNetwork`: what lets the nodes of one replica read each other's GPU memory."""

from typing import NotRequired, TypedDict, cast

import pulumi
import pulumi_gcp as gcp

from ._apply import apply, child_options
from ._compute import made, uri
from ._shape import conform
from .errors import raise_if
from .manifests import nccl
from .manifests import rdma as objects
from .manifests import rdma_network as manifests


class RdmaNetworkArgs(TypedDict):
    """Arguments of `RdmaNetwork`."""

    name: str
    """Base name; resources are called `<name>-<network>`. A DNS label of at most 40 characters."""
    mode: str
    """`roce` (networks of ours, attached to nodes one by one) or `dranet` (networks that GKE manages, claimed as
    devices, from GKE 1.34.1-gke.1829001 on). One node pool cannot mix them."""
    project: NotRequired[str]
    """Project id. Needed in mode `roce`."""
    region: NotRequired[str]
    """Region of the subnets. Needed in mode `roce`."""
    zone: NotRequired[str]
    """Mode `roce`: zone of the nodes; RoCE networks are made for one zone."""
    rails: NotRequired[int]
    """RDMA interfaces of the machine: 8, or 4 for a4x. Needed in mode `roce`, and for `nccl_installer`."""
    cidr: NotRequired[str]
    """Mode `roce`: range, at least /24, that is cut into 16 parts: the first for the second gVNIC, then one for each
    rail. Default `192.168.0.0/16`."""
    other_cidrs: NotRequired[list[str]]
    """Mode `roce`: ranges of the nodes' first network, which `cidr` must not overlap."""
    namespaces: NotRequired[list[str]]
    """Mode `dranet`: namespaces that get the ResourceClaimTemplate `rdma`."""
    nccl_installer: NotRequired[bool]
    """Whether NCCL with Google's plugin is put on the nodes. Default true in mode `roce`, false in mode `dranet`."""
    nccl_image: NotRequired[str]
    """Image of that installer, pinned. Default by `rails`."""


class NodeNetwork(TypedDict):
    """One more network interface of every node."""

    network: str
    """Name of the VPC."""
    subnetwork: str
    """Name of the subnet."""


class RdmaNetwork(pulumi.ComponentResource):
    """Mode `roce`: a gVNIC VPC, a RoCE VPC with a subnet for each rail, and their Kubernetes objects.

    Mode `dranet`: only claim templates, GKE makes the networks. `opts` gives the provider of Kubernetes objects.
    """

    node_networks: pulumi.Output[list[NodeNetwork]]
    """Further interfaces of each node in their order: gVNIC first, then the rails. Empty in mode `dranet`."""

    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""

    def __init__(self, name: str, args: RdmaNetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(RdmaNetworkArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:RdmaNetwork", name, None, opts)
        self._args, self._name = args, name
        self._options = pulumi.ResourceOptions(parent=self)

        networks = self._declare_networks() if args["mode"] == objects.ROCE else []
        self._declare_objects(networks)
        for namespace in args.get("namespaces", []):
            apply(f"{name}-{namespace}-claims", objects.claim_template(namespace), self._options)
        if manifests.installs_nccl(args):
            installer = nccl.daemon_set(args["rails"], args.get("nccl_image"))
            apply(f"{name}-nccl", installer, self._options)

        pairs = [{"network": each["network"], "subnetwork": each["subnetwork"]} for each in networks]
        self.node_networks = pulumi.Output.from_input(cast(list[NodeNetwork], pairs))
        self.register_outputs({"nodeNetworks": self.node_networks})

    def _declare_networks(self) -> list[objects.NodeNetwork]:
        """Declare both VPCs with their subnets; no rule may stand in a RoCE VPC, its profile forbids firewalls."""
        args = self._args
        gvnic = self._network(objects.GVNIC_NETWORK)
        roce = self._network("rdma", manifests.network_profile(args["project"], args["zone"]))
        ranges = manifests.subnets(args.get("cidr", manifests.CIDR), args["rails"])
        self._declare_firewall(gvnic, ranges[objects.GVNIC_NETWORK])
        found: list[objects.NodeNetwork] = []
        for role, cidr in ranges.items():
            vpc = gvnic if role == objects.GVNIC_NETWORK else roce
            found.append({"name": role, "network": vpc.name, "subnetwork": self._subnetwork(role, vpc, cidr).name})
        return found

    def _network(self, role: str, profile: str | None = None) -> "gcp.compute.Network":
        return gcp.compute.Network(
            f"{self._name}-{role}",
            name=f"{self._args['name']}-{role}",
            project=self._args["project"],
            auto_create_subnetworks=False,
            mtu=manifests.MTU,
            network_profile=profile,
            opts=self._options,
        )

    def _subnetwork(self, role: str, vpc: "gcp.compute.Network", cidr: str) -> "gcp.compute.Subnetwork":
        base = objects.GVNIC_NETWORK if role == objects.GVNIC_NETWORK else "rdma"
        return gcp.compute.Subnetwork(
            f"{self._name}-{role}-subnet",
            name=f"{self._args['name']}-{role}",
            project=self._args["project"],
            region=self._args["region"],
            network=made(vpc, uri(self._args["project"], "networks", f"{self._args['name']}-{base}")),
            ip_cidr_range=cidr,
            opts=self._options,
        )

    def _declare_firewall(self, vpc: "gcp.compute.Network", cidr: str) -> None:
        """Let the nodes' second gVNICs reach each other, and nothing else reach them."""
        gcp.compute.Firewall(
            f"{self._name}-gvnic-1-allow-internal",
            name=f"{self._args['name']}-gvnic-1-allow-internal",
            project=self._args["project"],
            network=made(vpc, uri(self._args["project"], "networks", f"{self._args['name']}-gvnic-1")),
            direction="INGRESS",
            source_ranges=[cidr],
            allows=[gcp.compute.FirewallAllowArgs(protocol=protocol) for protocol in ("tcp", "udp", "icmp")],
            opts=self._options,
        )

    def _declare_objects(self, networks: list[objects.NodeNetwork]) -> None:
        for params, network in objects.network_objects(networks):
            role = params["metadata"]["name"]
            made_params = apply(f"{self._name}-{role}-params", params, self._options)
            apply(f"{self._name}-{role}-network", network, child_options(self, [made_params]))
