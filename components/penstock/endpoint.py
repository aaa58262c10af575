"""The component `PrivateEndpoint`: where clients of one network reach a published service."""

from typing import Any, NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp

from ._shape import conform
from .errors import raise_if
from .manifests import endpoint as manifests
from .manifests.location import gcp_labels


class DnsPeering(TypedDict):
    """Lets networks of another project resolve the hostname as the endpoint's network does."""

    name: str
    """What the zone's name begins with: `<name>-peering`. At most 55 characters, unique in `project`."""
    project: str
    """Project in which the peering zone is made: that of the networks."""
    networks: list[pulumi.Input[str]]
    """URIs of the networks that resolve through it."""


class PrivateEndpointArgs(TypedDict):
    """Arguments of `PrivateEndpoint`."""

    name: str
    """What names of address, rule and zone begin with. At most 54 characters, unique in the project and region."""
    project: str
    """Project of the endpoint: the consumer's, or that of a central services-access network."""
    region: str
    """Region of the endpoint, which must be that of the attachment."""
    hostname: NotRequired[str]
    """DNS name of the service, as in the Gateway's certificate and listener. Default: none, and no DNS."""
    ip_address: NotRequired[str]
    """IPv4 address in the subnetwork. Default: Google chooses."""
    global_access: NotRequired[bool]
    """Whether clients of other regions may connect. Default true; needs a Gateway that had global access before the
    attachment was made."""
    recreate_closed: NotRequired[bool]
    """Whether an endpoint whose attachment is gone is made anew by the next refresh and update. Default true."""
    google_dns: NotRequired[bool]
    """Whether Google makes DNS entries, if the attachment has a domain name. Default false: the zone here does it."""
    zone_domain: NotRequired[str]
    """Domain of the private zone, `hostname` or a parent of it. Default `hostname`, so that nothing else is hidden."""
    zone: NotRequired[str]
    """Name of a private zone in `project` that exists and takes the record. Default: a zone is made here."""
    dns_networks: NotRequired[list[pulumi.Input[str]]]
    """URIs of further networks that see the zone, e.g. those that reach a services-access network by VPN, Interconnect
    or Network Connectivity Center. VPC peering reaches no endpoint."""
    dns_peerings: NotRequired[list[DnsPeering]]
    """The same, for networks of projects that want a zone of their own."""
    labels: NotRequired[dict[str, str]]
    """Labels of all resources, beside `part-of: penstock`."""
    network: pulumi.Input[str]
    """URI of the network whose clients connect."""
    subnetwork: pulumi.Input[str]
    """URI of the subnetwork that the address is taken from, in the region."""
    attachment: pulumi.Input[str]
    """URI of the service attachment: output of `ServicePublication`."""


class PrivateEndpoint(pulumi.ComponentResource):
    """An address of the consumer's network that stands for the service, and the private DNS name for it.

    Another address, network or region is another endpoint: the old one is deleted first, since it holds the names.
    One component per network; several networks in one or many projects take several components, or one in a central
    services-access network whose zone they see (`dns_networks`, `dns_peerings`).
    """

    address: pulumi.Output[str]
    """IPv4 address of the endpoint."""
    status: pulumi.Output[str]
    """Connection status as of the last update or refresh: PENDING, ACCEPTED, REJECTED or CLOSED."""
    connection_id: pulumi.Output[str]
    """Identifier of the connection, as the producer sees it."""

    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""

    def __init__(self, name: str, args: PrivateEndpointArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(PrivateEndpointArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:PrivateEndpoint", name, None, opts)

        address = self._address(name, args)
        rule = self._rule(name, args, address)
        if "hostname" in args:
            self._dns(name, args, address)
        self.address = address.address
        self.status, self.connection_id = rule.psc_connection_status, rule.psc_connection_id
        self.register_outputs({"address": self.address, "status": self.status, "connectionId": self.connection_id})

    def _address(self, name: str, args: PrivateEndpointArgs) -> "gcp.compute.Address":
        return gcp.compute.Address(
            f"{name}-address",
            name=manifests.address_name(args),
            address=args.get("ip_address"),
            address_type="INTERNAL",
            purpose="GCE_ENDPOINT",
            subnetwork=args["subnetwork"],
            description="Private endpoint of the inference gateway",
            labels=gcp_labels(args.get("labels")),
            project=args["project"],
            region=args["region"],
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )

    def _rule(
        self, name: str, args: PrivateEndpointArgs, address: "gcp.compute.Address"
    ) -> "gcp.compute.ForwardingRule":
        return gcp.compute.ForwardingRule(
            f"{name}-rule",
            name=manifests.rule_name(args),
            load_balancing_scheme=manifests.SCHEME,
            target=args["attachment"],
            network=args["network"],
            ip_address=address.name.apply(
                lambda _: manifests.address_uri(args)
            ),  # known in previews, and depends on it
            allow_psc_global_access=args.get("global_access", True),
            no_automate_dns_zone=not args.get("google_dns", False),
            recreate_closed_psc=args.get("recreate_closed", True),
            description="Private endpoint of the inference gateway",
            labels=gcp_labels(args.get("labels")),
            project=args["project"],
            region=args["region"],
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )

    def _dns(self, name: str, args: PrivateEndpointArgs, address: "gcp.compute.Address") -> None:
        zone: pulumi.Input[str] = args.get("zone", "")
        if not zone:
            networks = [args["network"], *args.get("dns_networks", [])]
            zone = self._zone(f"{name}-zone", args["project"], manifests.zone_name(args), networks, args).name
        gcp.dns.RecordSet(
            f"{name}-record",
            project=args["project"],
            managed_zone=zone,
            name=f"{args['hostname']}.",
            type="A",
            ttl=manifests.RECORD_TTL_S,
            rrdatas=[address.address],
            opts=pulumi.ResourceOptions(parent=self),
        )
        for peering in args.get("dns_peerings", []):
            role = f"{name}-peering-{peering['name']}"
            self._zone(role, peering["project"], manifests.peering_name(peering), peering["networks"], args, peer=True)

    def _zone(
        self,
        role: str,
        project: str,
        physical: str,
        networks: "list[pulumi.Input[str]]",
        args: PrivateEndpointArgs,
        *,
        peer: bool = False,
    ) -> "gcp.dns.ManagedZone":
        """Register a private zone for the hostname that `networks` see; a peering zone asks the endpoint's network."""
        target = gcp.dns.ManagedZonePeeringConfigTargetNetworkArgs(network_url=args["network"])
        visible: list[Any] = [
            gcp.dns.ManagedZonePrivateVisibilityConfigNetworkArgs(network_url=one) for one in networks
        ]
        return gcp.dns.ManagedZone(
            role,
            name=physical,
            dns_name=f"{manifests.zone_domain(args)}.",
            visibility="private",
            private_visibility_config=gcp.dns.ManagedZonePrivateVisibilityConfigArgs(networks=visible),
            peering_config=gcp.dns.ManagedZonePeeringConfigArgs(target_network=target) if peer else None,
            description="Private endpoint of the inference gateway",
            labels=gcp_labels(args.get("labels")),
            project=project,
            opts=pulumi.ResourceOptions(parent=self),
        )
