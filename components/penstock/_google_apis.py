"""Private ways to Google APIs: DNS zones, a route, and endpoints of regional services."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pulumi
import pulumi_gcp as gcp

from ._compute import relative
from .manifests import network as manifests
from .manifests.location import gcp_labels

if TYPE_CHECKING:
    from .network import ProducerNetworkArgs

_TTL_S = 300


class GoogleApis:
    """Declares what makes Google's names resolve to private addresses within one VPC.

    Args:
        name: logical name of the component.
        args: its arguments.
        network: URI of the VPC.
        subnetwork: URI of the subnet that endpoints take their addresses from.
        options: options of children.
    """

    def __init__(
        self,
        name: str,
        args: "ProducerNetworkArgs",
        network: pulumi.Output[str],
        subnetwork: pulumi.Output[str],
        options: pulumi.ResourceOptions,
    ) -> None:
        self._name, self._args, self._options = name, args, options
        self._network, self._subnetwork = network, subnetwork

    def declare(self) -> None:
        """Register zones and records, the route where there is no other, and endpoints of regional services."""
        access = manifests.google_apis(self._args)
        if access != manifests.NO_GOOGLE_APIS:
            block, octets = manifests.GOOGLE_APIS[access]
            addresses = [f"199.36.153.{octet}" for octet in octets]
            self._zone("googleapis-com", "googleapis.com.", f"{access}.googleapis.com.", addresses)
            for domain in manifests.REGISTRY_DOMAINS:
                self._zone(domain.replace(".", "-"), f"{domain}.", f"{domain}.", addresses)
            if "existing" not in self._args and not manifests.has_nat(self._args):
                self._route(block)
        for service in self._args.get("regional_apis", []):
            self._regional(service)

    def _zone(self, role: str, domain: str, target: str, addresses: list[str]) -> None:
        """Declare a zone in which `target` has `addresses` and every other name is an alias of it."""
        zone = self._managed_zone(role, domain)
        self._record(f"{role}-a", zone, target, "A", addresses)
        self._record(f"{role}-cname", zone, f"*.{domain}", "CNAME", [target])

    def _managed_zone(self, role: str, domain: str) -> "gcp.dns.ManagedZone":
        visible = gcp.dns.ManagedZonePrivateVisibilityConfigNetworkArgs(network_url=self._network)
        return gcp.dns.ManagedZone(
            f"{self._name}-{role}",
            name=f"{self._args['name']}-{role}",
            project=self._args["project"],
            dns_name=domain,
            description="Private addresses of Google APIs",
            visibility="private",
            private_visibility_config=gcp.dns.ManagedZonePrivateVisibilityConfigArgs(networks=[visible]),
            labels=gcp_labels(self._args.get("labels")),
            opts=self._options,
        )

    def _record(
        self, role: str, zone: "gcp.dns.ManagedZone", name: str, kind: str, data: Sequence[pulumi.Input[str]]
    ) -> None:
        gcp.dns.RecordSet(
            f"{self._name}-{role}",
            name=name,
            project=self._args["project"],
            managed_zone=zone.name,
            type=kind,
            ttl=_TTL_S,
            rrdatas=data,
            opts=self._options,
        )

    def _route(self, block: str) -> None:
        """Without NAT the VPC has no default route; the virtual addresses are reached by this gateway nonetheless."""
        gcp.compute.Route(
            f"{self._name}-google-apis",
            name=f"{self._args['name']}-google-apis",
            project=self._args["project"],
            network=self._network,
            dest_range=block,
            next_hop_gateway="default-internet-gateway",
            opts=self._options,
        )

    def _regional(self, service: str) -> None:
        """Declare an endpoint of one service; its zone is more specific than `googleapis.com` and therefore wins."""
        region = self._args["region"]
        host = f"{service}.{region}.rep.googleapis.com"
        endpoint = gcp.networkconnectivity.RegionalEndpoint(
            f"{self._name}-{service}",
            name=f"{self._args['name']}-{service}",
            project=self._args["project"],
            location=region,
            target_google_api=host,
            access_type="REGIONAL",
            network=relative(self._network),
            subnetwork=relative(self._subnetwork),
            labels=gcp_labels(self._args.get("labels")),
            opts=self._options,
        )
        zone = self._managed_zone(f"{service}-zone", f"{host}.")
        self._record(f"{service}-a", zone, f"{host}.", "A", [endpoint.address])
