"""The component `ProducerNetwork`: the VPC that the models are served in."""

from typing import NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp

from ._compute import made, uri
from ._google_apis import GoogleApis
from ._shape import conform
from .errors import raise_if
from .manifests import network as manifests


class ExistingNetwork(TypedDict):
    """A VPC that is there already. What is named here is used; of the rest, what the VPC still lacks is made in it."""

    network: str
    """Name of the VPC."""
    project: NotRequired[str]
    """Project of the VPC. Another one than the cluster's is a Shared VPC host: then nothing is made and all must be
    named. Default: the own project."""
    subnetwork: NotRequired[str]
    """Name of the nodes' subnet, with private Google access. Needs both secondary ranges."""
    pods_range: NotRequired[str]
    """Name of its secondary range for pods."""
    services_range: NotRequired[str]
    """Name of its secondary range for Services."""
    proxy_subnetwork: NotRequired[str]
    """Name of the active subnet of purpose REGIONAL_MANAGED_PROXY: a VPC has one in each region."""
    psc_subnetworks: NotRequired[list[str]]
    """Names of subnets of purpose PRIVATE_SERVICE_CONNECT that no attachment uses yet."""


class ProducerNetworkArgs(TypedDict):
    """Arguments of `ProducerNetwork`."""

    name: str
    """Base name; resources are called `<name>-<role>`. A DNS label of at most 43 characters."""
    project: str
    """Project id."""
    region: str
    """Region of all subnets, e.g. `us-central1`."""
    existing: NotRequired[ExistingNetwork]
    """A VPC to use. Default: one is made."""
    node_cidr: NotRequired[str]
    """Range of nodes and load balancers. Default `10.0.0.0/20`."""
    pod_cidr: NotRequired[str]
    """Range of pods. Default `10.4.0.0/14`."""
    service_cidr: NotRequired[str]
    """Range of Services. Default `10.8.0.0/20`."""
    proxy_cidr: NotRequired[str]
    """Range of the load balancer's proxies, at least /26. Default `10.9.0.0/23`, the size that Google recommends."""
    psc_cidrs: NotRequired[list[str]]
    """Ranges that consumers' connections are translated to, one subnet each, one address for each connected endpoint.
    Append to grow. Default one, `10.10.0.0/24`."""
    mtu: NotRequired[int]
    """Largest packet in bytes, 1300 to 8896. Default 1460."""
    flow_log_sampling: NotRequired[float]
    """Share of the nodes' flows that is logged, 0 to 1. Default 0, no logs."""
    nat: NotRequired[bool]
    """Whether router and NAT are made, by which nodes reach the internet. Default: with a VPC that is made here."""
    firewall: NotRequired[bool]
    """Whether firewall rules are made. Default true, false in a Shared VPC."""
    firewall_logs: NotRequired[bool]
    """Whether connections that the rules let in are logged. Default false."""
    backend_ports: NotRequired[list[str]]
    """TCP ports of pods that load balancers and health checks reach. Default `8000` (replicas), `9002-9009` (callouts).
    """
    google_apis: NotRequired[str]
    """Addresses by which Google APIs are reached: `private`, `restricted` (by VPC Service Controls) or `none` (no DNS
    zones: public addresses). Default `private` with a VPC that is made here, else `none`."""
    regional_apis: NotRequired[list[str]]
    """Services whose regional endpoint `<service>.<region>.rep.googleapis.com` is reached from pods, e.g. `modelarmor`:
    each gets a Private Service Connect endpoint, the documented private way to it, and a zone that names it."""
    labels: NotRequired[dict[str, str]]
    """Labels of the resources that take them, beside `part-of: penstock`."""
    node_tag: NotRequired[str]
    """Network tag of the nodes, at which the firewall rules aim. Default `<name>-node`."""
    node_service_accounts: NotRequired[list[str]]
    """Emails of the nodes' service accounts, at which the firewall rules aim instead: who may make instances in the
    project can tag them, but not run them as any account."""


class ProducerNetwork(pulumi.ComponentResource):
    """VPC, node subnet, proxy-only subnet, PSC NAT subnets, NAT, firewall rules and DNS for Google APIs."""

    network: pulumi.Output[str]
    """URI of the VPC."""
    network_name: pulumi.Output[str]
    """Name of the VPC."""
    subnetwork: pulumi.Output[str]
    """URI of the nodes' subnet."""
    subnetwork_name: pulumi.Output[str]
    """Name of the nodes' subnet."""
    pods_range: pulumi.Output[str]
    """Name of the secondary range of pods."""
    services_range: pulumi.Output[str]
    """Name of the secondary range of Services."""
    psc_subnetworks: pulumi.Output[list[str]]
    """URIs of the NAT subnets that a service attachment may use."""
    node_tag: pulumi.Output[str]
    """Network tag that nodes must carry for the firewall rules to let load balancers in."""

    ranges = staticmethod(manifests.ranges)
    """Returns all address ranges by the arguments alone."""
    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""

    def __init__(self, name: str, args: ProducerNetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(ProducerNetworkArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:ProducerNetwork", name, None, opts)
        self._args, self._name = args, name
        self._options = pulumi.ResourceOptions(parent=self)
        self._ranges = manifests.ranges(args)

        self._declare_network()
        self._declare_nodes()
        self._declare_proxies()
        self._declare_nat_subnetworks()
        if manifests.has_nat(args):
            self._declare_nat()
        if manifests.has_firewall(args):
            self._declare_firewall()
        GoogleApis(name, args, self.network, self.subnetwork, self._options).declare()
        self.node_tag = pulumi.Output.from_input(manifests.node_tag(args))
        self.register_outputs(
            {
                "network": self.network,
                "networkName": self.network_name,
                "subnetwork": self.subnetwork,
                "subnetworkName": self.subnetwork_name,
                "podsRange": self.pods_range,
                "servicesRange": self.services_range,
                "pscSubnetworks": self.psc_subnetworks,
                "nodeTag": self.node_tag,
            }
        )

    def _declare_network(self) -> None:
        args, host = self._args, manifests.host_project(self._args)
        if "existing" in args:
            self.network_name = pulumi.Output.from_input(args["existing"]["network"])
            self.network = pulumi.Output.from_input(uri(host, "networks", args["existing"]["network"]))
            return
        vpc = gcp.compute.Network(
            f"{self._name}-vpc",
            name=f"{args['name']}-vpc",
            project=args["project"],
            auto_create_subnetworks=False,
            delete_default_routes_on_create=not manifests.has_nat(args),
            mtu=args.get("mtu", manifests.MTU),
            routing_mode="REGIONAL",
            opts=self._options,
        )
        self.network_name = vpc.name
        self.network = made(vpc, uri(args["project"], "networks", f"{args['name']}-vpc"))

    def _declare_nodes(self) -> None:
        args, existing = self._args, self._args.get("existing")
        if existing is not None and "subnetwork" in existing:
            subnetwork = existing["subnetwork"]
            self.subnetwork_name = pulumi.Output.from_input(subnetwork)
            place = uri(manifests.host_project(args), "subnetworks", subnetwork, args["region"])
            self.subnetwork = pulumi.Output.from_input(place)
            self.pods_range = pulumi.Output.from_input(existing["pods_range"])
            self.services_range = pulumi.Output.from_input(existing["services_range"])
            return
        pods, services = f"{args['name']}-pods", f"{args['name']}-services"
        sampling = args.get("flow_log_sampling", 0)
        logs = gcp.compute.SubnetworkLogConfigArgs(flow_sampling=sampling, metadata="INCLUDE_ALL_METADATA")
        nodes = gcp.compute.Subnetwork(
            f"{self._name}-nodes",
            name=f"{args['name']}-nodes",
            project=args["project"],
            region=args["region"],
            network=self.network,
            ip_cidr_range=self._ranges["nodes"],
            secondary_ip_ranges=[
                gcp.compute.SubnetworkSecondaryIpRangeArgs(range_name=pods, ip_cidr_range=self._ranges["pods"]),
                gcp.compute.SubnetworkSecondaryIpRangeArgs(range_name=services, ip_cidr_range=self._ranges["services"]),
            ],
            private_ip_google_access=True,
            log_config=logs if sampling else None,
            opts=self._options,
        )
        self.subnetwork_name = nodes.name
        self.subnetwork = made(nodes, uri(args["project"], "subnetworks", f"{args['name']}-nodes", args["region"]))
        self.pods_range, self.services_range = made(nodes, pods), made(nodes, services)

    def _declare_proxies(self) -> None:
        """The load balancer needs it before the Gateway; nothing refers to it, the region has just one."""
        if "proxy_subnetwork" not in self._args.get("existing", {}):
            self._subnetwork("proxies", self._ranges["proxy"], purpose="REGIONAL_MANAGED_PROXY", role="ACTIVE")

    def _declare_nat_subnetworks(self) -> None:
        """Declare a subnet for each range: a NAT subnet serves one attachment, which may have several."""
        args, existing = self._args, self._args.get("existing", {})
        if "psc_subnetworks" in existing:
            host = manifests.host_project(args)
            found = [uri(host, "subnetworks", each, args["region"]) for each in existing["psc_subnetworks"]]
            self.psc_subnetworks = pulumi.Output.from_input(found)
            return
        uris = [
            made(
                self._subnetwork(f"psc-{index}", cidr, purpose="PRIVATE_SERVICE_CONNECT"),
                uri(args["project"], "subnetworks", f"{args['name']}-psc-{index}", args["region"]),
            )
            for index, cidr in enumerate(self._ranges["psc"])
        ]
        self.psc_subnetworks = pulumi.Output.all(*uris)

    def _subnetwork(self, suffix: str, cidr: str, purpose: str, role: str | None = None) -> "gcp.compute.Subnetwork":
        return gcp.compute.Subnetwork(
            f"{self._name}-{suffix}",
            name=f"{self._args['name']}-{suffix}",
            project=self._args["project"],
            region=self._args["region"],
            network=self.network,
            ip_cidr_range=cidr,
            purpose=purpose,
            role=role,
            opts=self._options,
        )

    def _declare_nat(self) -> None:
        args = self._args
        router = gcp.compute.Router(
            f"{self._name}-router",
            name=f"{args['name']}-router",
            project=args["project"],
            region=args["region"],
            network=self.network,
            opts=self._options,
        )
        pods_too = ["ALL_IP_RANGES"]
        nodes = gcp.compute.RouterNatSubnetworkArgs(name=self.subnetwork, source_ip_ranges_to_nats=pods_too)
        gcp.compute.RouterNat(
            f"{self._name}-nat",
            name=f"{args['name']}-nat",
            project=args["project"],
            region=args["region"],
            router=router.name,
            nat_ip_allocate_option="AUTO_ONLY",
            source_subnetwork_ip_ranges_to_nat="LIST_OF_SUBNETWORKS",
            subnetworks=[nodes],
            log_config=gcp.compute.RouterNatLogConfigArgs(enable=True, filter="ERRORS_ONLY"),
            opts=self._options,
        )

    def _declare_firewall(self) -> None:
        """Only load balancers and their health checks come in; within the VPC nothing else is let in by us."""
        sources = {"proxies": [self._ranges["proxy"]], "health-checks": list(manifests.HEALTH_CHECK_RANGES)}
        ports = self._args.get("backend_ports", list(manifests.BACKEND_PORTS))
        accounts = self._args.get("node_service_accounts")
        logs = gcp.compute.FirewallLogConfigArgs(metadata="INCLUDE_ALL_METADATA")
        for role, ranges in sources.items():
            gcp.compute.Firewall(
                f"{self._name}-allow-{role}",
                name=f"{self._args['name']}-allow-{role}",
                project=self._args["project"],
                network=self.network,
                direction="INGRESS",
                source_ranges=ranges,
                target_tags=None if accounts else [manifests.node_tag(self._args)],
                target_service_accounts=accounts,
                allows=[gcp.compute.FirewallAllowArgs(protocol="tcp", ports=ports)],
                log_config=logs if self._args.get("firewall_logs") else None,
                opts=self._options,
            )
