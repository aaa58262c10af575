"""Names and checks of a private endpoint. Knows nothing of Pulumi."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._naming import LABEL_MAX, check_label
from ..errors import ConfigError
from .location import (
    check_ipv4,
    check_labels,
    check_name,
    check_network,
    check_own_project,
    check_place,
    check_subnetwork,
)

if TYPE_CHECKING:
    from ..endpoint import DnsPeering, PrivateEndpointArgs

SCHEME = ""
"""The scheme of endpoints: empty, and really sent, since the provider's default is EXTERNAL.

Source: Compute API v1, ForwardingRule; pulumi-gcp 10.2.
"""

RECORD_TTL_S = 300
"""Seconds. The address stays the same while the endpoint lives."""

ADDRESS_SUFFIX, RULE_SUFFIX, ZONE_SUFFIX, PEERING_SUFFIX = "-address", "-endpoint", "-zone", "-peering"

_HOSTNAME = re.compile(r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ATTACHMENT = re.compile(r"(https://[^ ]+/)?projects/[^/ ]+/regions/([^/ ]+)/serviceAttachments/[a-z][-a-z0-9]*")
_DNS_FIELDS = ("zone", "zone_domain", "dns_networks", "dns_peerings")


def address_name(args: "PrivateEndpointArgs") -> str:
    """Return the address's name."""
    return f"{args['name']}{ADDRESS_SUFFIX}"


def address_uri(args: "PrivateEndpointArgs") -> str:
    """Return the address's URI."""
    return f"projects/{args['project']}/regions/{args['region']}/addresses/{address_name(args)}"


def rule_name(args: "PrivateEndpointArgs") -> str:
    """Return the forwarding rule's name."""
    return f"{args['name']}{RULE_SUFFIX}"


def zone_name(args: "PrivateEndpointArgs") -> str:
    """Return the name of the private zone."""
    return f"{args['name']}{ZONE_SUFFIX}"


def peering_name(peering: "DnsPeering") -> str:
    """Return the name of a peering zone."""
    return f"{peering['name']}{PEERING_SUFFIX}"


def zone_domain(args: "PrivateEndpointArgs") -> str:
    """Return the zone's domain, without the final dot."""
    return args.get("zone_domain", args.get("hostname", ""))


def problems(args: "PrivateEndpointArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why the endpoint is refused."""
    room = LABEL_MAX - len(RULE_SUFFIX)
    yield from check_name(f"{path}.name", args["name"], room, f"`{RULE_SUFFIX}` is put behind it")
    yield from check_place(path, args)
    yield from check_labels(f"{path}.labels", args.get("labels", {}))
    yield from check_network(f"{path}.network", args["network"])
    yield from check_subnetwork(f"{path}.subnetwork", args["subnetwork"], args["region"])
    if "ip_address" in args:
        yield from check_ipv4(f"{path}.ip_address", args["ip_address"])
    yield from _attachment_problems(args, path)
    yield from _dns_problems(args, path)


def _attachment_problems(args: "PrivateEndpointArgs", path: str) -> Iterator[ConfigError]:
    attachment: Any = args["attachment"]
    if not isinstance(attachment, str):
        return
    found = _ATTACHMENT.fullmatch(attachment)
    if not found:
        fix = "Write it like `projects/my-project/regions/us-central1/serviceAttachments/my-service`"
        yield ConfigError(f"{path}.attachment", attachment, "the URI of a service attachment", fix)
    elif found[2] != args["region"]:
        fix = f"Put the endpoint into {found[2]}; `global_access` lets clients of other regions in"
        yield ConfigError(f"{path}.region", args["region"], f"the attachment's region {found[2]}", fix)


def _dns_problems(args: "PrivateEndpointArgs", path: str) -> Iterator[ConfigError]:
    hostname, domain = args.get("hostname"), args.get("zone_domain")
    if hostname is None:
        for field in _DNS_FIELDS:
            if args.get(field):
                expected = "`hostname`: without it nothing is put into DNS"
                yield ConfigError(f"{path}.{field}", args.get(field), expected, "Set it, or remove this")
        return
    if not (_HOSTNAME.fullmatch(hostname) and len(hostname) <= 253):
        expected = "a DNS name in lower case with at least two labels"
        yield ConfigError(f"{path}.hostname", hostname, expected, "Write it like `llm.example.com`")
    if domain is not None and f".{hostname}".removesuffix(f".{domain}") == f".{hostname}":
        fix = "Shorten the hostname from the left"
        yield ConfigError(f"{path}.zone_domain", domain, f"{hostname} or a parent of it", fix)
    if args.get("zone"):
        yield from check_label(f"{path}.zone", args["zone"], what="a managed zone's name")
        for field in ("zone_domain", "dns_networks"):
            if args.get(field):
                fix = "Set it at that zone, and remove it here"
                yield ConfigError(f"{path}.{field}", args.get(field), "no setting of a zone that exists", fix)
    for at, network in enumerate(args.get("dns_networks", [])):
        yield from check_network(f"{path}.dns_networks[{at}]", network)
        if isinstance(network, str) and network in (args["network"], *args.get("dns_networks", [])[:at]):
            yield ConfigError(f"{path}.dns_networks[{at}]", network, "each network once", "Remove it")
    yield from _peering_problems(args, path)


def _peering_problems(args: "PrivateEndpointArgs", path: str) -> Iterator[ConfigError]:
    names: list[str] = []
    for at, peering in enumerate(args.get("dns_peerings", [])):
        where, room = f"{path}.dns_peerings[{at}]", LABEL_MAX - len(PEERING_SUFFIX)
        yield from check_name(f"{where}.name", peering["name"], room, f"`{PEERING_SUFFIX}` is put behind it")
        if peering["name"] in names:
            yield ConfigError(f"{where}.name", peering["name"], "names that are all different", "Rename one of them")
        names.append(peering["name"])
        yield from check_own_project(f"{where}.project", peering["project"])
        if not peering["networks"]:
            yield ConfigError(
                f"{where}.networks", [], "at least one network", "Name the networks that resolve through it"
            )
        for number, network in enumerate(peering["networks"]):
            yield from check_network(f"{where}.networks[{number}]", network)
