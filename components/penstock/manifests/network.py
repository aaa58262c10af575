"""Names, ranges and checks of the producer's network. Knows nothing of Pulumi."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypedDict

from .._cidr import check_apart, check_cidr, flat
from .._naming import check_label
from ..errors import ConfigError, did_you_mean
from .common import check_range
from .location import check_labels, check_place, check_project

if TYPE_CHECKING:
    from ..network import ProducerNetworkArgs

NODE_CIDR, POD_CIDR, SERVICE_CIDR = "10.0.0.0/20", "10.4.0.0/14", "10.8.0.0/20"
"""Defaults of the reference architecture's sample."""
PROXY_CIDR = "10.9.0.0/23"
"""Default: the recommended size of a proxy-only subnet. Source: Cloud Load Balancing, "Proxy-only subnets"."""
PROXY_LONGEST_PREFIX = 26
"""Prefix of the smallest proxy-only subnet. Source: as above."""
PSC_CIDRS = ("10.10.0.0/24",)
"""Default: one NAT subnet, 252 connected endpoints."""

HEALTH_CHECK_RANGES = ("35.191.0.0/16", "130.211.0.0/22")
"""Where Google's health checks come from. Source: Cloud Load Balancing, "Health checks overview"."""

BACKEND_PORTS = ("8000", "9002-9009")
"""What load balancers reach in pods: replicas on 8000; picker, body router, API management and guardrails with their
health ports on 9002 to 9009."""

GOOGLE_APIS = {"private": ("199.36.153.8/30", range(8, 12)), "restricted": ("199.36.153.4/30", range(4, 8))}
"""Virtual addresses of Google APIs: range, last octets. `restricted` holds only what VPC Service Controls cover.
Source: VPC, "Configure Private Google Access"."""
NO_GOOGLE_APIS = "none"
REGISTRY_DOMAINS = ("gcr.io", "pkg.dev")
"""Domains of image registries, served at the same addresses. Source: VPC Service Controls, "Configure restricted
access for GKE private clusters"."""

MTU = 1460
"""Bytes, the default of Google Cloud; 8896 is the largest. Source: VPC, "Maximum transmission unit"."""

_EMAIL = re.compile(r"[a-z0-9][a-z0-9-]*@[a-z0-9.-]+\.gserviceaccount\.com")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_LONGEST_SUFFIX = "-allow-health-checks"


class Ranges(TypedDict):
    """The network's address ranges, as CIDRs."""

    nodes: str
    pods: str
    services: str
    proxy: str
    """The load balancer's proxies: where requests to pods come from."""
    psc: list[str]
    """Connected endpoints of consumers appear with addresses of these."""


def ranges(args: "ProducerNetworkArgs") -> Ranges:
    """Return all address ranges, so that policies can name them before anything exists."""
    return {
        "nodes": args.get("node_cidr", NODE_CIDR),
        "pods": args.get("pod_cidr", POD_CIDR),
        "services": args.get("service_cidr", SERVICE_CIDR),
        "proxy": args.get("proxy_cidr", PROXY_CIDR),
        "psc": list(args.get("psc_cidrs", PSC_CIDRS)),
    }


def host_project(args: "ProducerNetworkArgs") -> str:
    """Return the project that the VPC lives in: the Shared VPC host, or the own one."""
    return args.get("existing", {}).get("project", args["project"])


def is_shared(args: "ProducerNetworkArgs") -> bool:
    """Return whether the VPC belongs to another project, where nothing is made."""
    return host_project(args) != args["project"]


def has_nat(args: "ProducerNetworkArgs") -> bool:
    """Return whether router and NAT are made; by default with a VPC of our own."""
    return args.get("nat", "existing" not in args)


def has_firewall(args: "ProducerNetworkArgs") -> bool:
    """Return whether firewall rules are made; by default unless the VPC is another project's."""
    return args.get("firewall", not is_shared(args))


def google_apis(args: "ProducerNetworkArgs") -> str:
    """Return by which addresses Google APIs are reached; by default private ones in a VPC of our own."""
    return args.get("google_apis", NO_GOOGLE_APIS if "existing" in args else "private")


def node_tag(args: "ProducerNetworkArgs") -> str:
    """Return the network tag that firewall rules aim at: nodes must carry it."""
    return args.get("node_tag", f"{args['name']}-node")


def problems(args: "ProducerNetworkArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be declared."""
    yield from check_label(f"{path}.name", args["name"], _LONGEST_SUFFIX, "the network's base name")
    yield from check_place(path, args)
    yield from check_labels(f"{path}.labels", args.get("labels", {}))
    yield from check_label(f"{path}.node_tag", node_tag(args), what="a network tag")
    yield from _range_problems(args, path)
    yield from check_range(f"{path}.mtu", args.get("mtu", MTU), 1300, 8896, "bytes")
    yield from check_range(f"{path}.flow_log_sampling", args.get("flow_log_sampling", 0), 0, 1, "a share of flows")
    known = (*GOOGLE_APIS, NO_GOOGLE_APIS)
    if google_apis(args) not in known:
        fix = did_you_mean(google_apis(args), known)
        yield ConfigError(f"{path}.google_apis", google_apis(args), "`private`, `restricted` or `none`", fix)
    yield from _firewall_problems(args, path)
    for index, service in enumerate(args.get("regional_apis", [])):
        suffix = f"-{args['name']}-zone"  # both name its zone
        yield from check_label(f"{path}.regional_apis[{index}]", service, suffix, "a service of Google's")
        if service in args["regional_apis"][:index]:
            yield ConfigError(f"{path}.regional_apis[{index}]", service, "each service once", "Remove it")
    if "existing" in args:
        yield from _existing_problems(args, f"{path}.existing")
    elif not has_nat(args) and google_apis(args) == NO_GOOGLE_APIS:
        fix = "Set `google_apis: private`, or turn `nat` on"
        yield ConfigError(f"{path}.nat", False, "a way from private nodes to Google APIs", fix)


def _firewall_problems(args: "ProducerNetworkArgs", path: str) -> Iterator[ConfigError]:
    accounts, ports = args.get("node_service_accounts"), args.get("backend_ports", list(BACKEND_PORTS))
    if accounts is not None and "node_tag" in args:
        expected = "no tag beside `node_service_accounts`: a rule aims at one or the other"
        yield ConfigError(f"{path}.node_tag", args["node_tag"], expected, "Remove one of the two")
    if accounts is not None and not 1 <= len(accounts) <= 10:
        yield ConfigError(f"{path}.node_service_accounts", accounts, "1 to 10 service accounts", "Name those of nodes")
    for index, account in enumerate(accounts or []):
        if not _EMAIL.fullmatch(account):
            fix = "Write it like `nodes@my-project.iam.gserviceaccount.com`"
            yield ConfigError(f"{path}.node_service_accounts[{index}]", account, "a service account's email", fix)
    if not ports:
        yield ConfigError(f"{path}.backend_ports", ports, "at least one port", "Name the ports, or remove the field")
    for index, port in enumerate(ports):
        found = _PORTS.fullmatch(port)
        low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= low <= high <= 65_535:
            expected = "a TCP port or a range of them"
            yield ConfigError(f"{path}.backend_ports[{index}]", port, expected, "Write it like `8000` or `9002-9009`")


def _range_problems(args: "ProducerNetworkArgs", path: str) -> Iterator[ConfigError]:
    found = ranges(args)
    yield from check_cidr(f"{path}.node_cidr", found["nodes"], "the nodes' range")
    yield from check_cidr(f"{path}.pod_cidr", found["pods"], "the pods' range", longest=24, shortest=9)
    yield from check_cidr(f"{path}.service_cidr", found["services"], "the services' range", longest=28, shortest=16)
    yield from check_cidr(f"{path}.proxy_cidr", found["proxy"], "the proxies' range", longest=PROXY_LONGEST_PREFIX)
    for index, cidr in enumerate(found["psc"]):
        yield from check_cidr(f"{path}.psc_cidrs[{index}]", cidr, "a NAT range of published services")
    fields = {"nodes": "node_cidr", "pods": "pod_cidr", "services": "service_cidr", "proxy": "proxy_cidr"}
    named = {fields[key]: found[key] for key in ("nodes", "pods", "services", "proxy")}
    yield from check_apart(flat(named | {"psc_cidrs": found["psc"]}, path))


_EXISTING_RANGES = {"subnetwork": ("node_cidr", "pod_cidr", "service_cidr"), "proxy_subnetwork": ("proxy_cidr",)}
"""Ranges that must be told when the subnet is not ours: defaults would be guesses, and policies name them."""


def _existing_problems(args: "ProducerNetworkArgs", path: str) -> Iterator[ConfigError]:
    existing = args["existing"]
    where = path.removesuffix(".existing")
    yield from check_project(f"{path}.project", existing.get("project"))
    for field in ("network", "subnetwork", "proxy_subnetwork"):
        if field in existing:
            yield from check_label(f"{path}.{field}", str(existing.get(field)), what=f"the {field}'s name")
    for subnet, fields in _EXISTING_RANGES.items():
        missing = [field for field in fields if subnet in existing and field not in args]
        for field in missing:
            yield ConfigError(f"{where}.{field}", None, f"the range of `existing.{subnet}`", "Set it to what exists")
    for field in ("pods_range", "services_range"):
        if ("subnetwork" in existing) != (field in existing):
            fix = "Name subnet and both secondary ranges, or none of the three"
            yield ConfigError(f"{path}.{field}", existing.get(field), "the secondary range of `subnetwork`", fix)
    if "psc_cidrs" in args and "psc_subnetworks" in existing:
        fix = "Remove `psc_cidrs`, or `existing.psc_subnetworks`"
        yield ConfigError(f"{where}.psc_cidrs", args["psc_cidrs"], "NAT subnets that are made or exist, not both", fix)
    if "mtu" in args:
        yield ConfigError(f"{where}.mtu", args["mtu"], "no setting of a VPC that is not made here", "Remove it")
    if is_shared(args):
        yield from _shared_problems(args, path)


def _shared_problems(args: "ProducerNetworkArgs", path: str) -> Iterator[ConfigError]:
    """In a Shared VPC host everything exists already: the service project may not make any of it."""
    existing, where = args["existing"], path.removesuffix(".existing")
    for field in ("subnetwork", "proxy_subnetwork", "psc_subnetworks"):
        if field not in existing:
            expected = "what exists in the host project of the Shared VPC, where nothing is made"
            yield ConfigError(f"{path}.{field}", None, expected, "Have it made there, and name it here")
    wanted = {"nat": has_nat(args), "firewall": has_firewall(args), "google_apis": google_apis(args) != NO_GOOGLE_APIS}
    for field, asked in wanted.items():
        if asked:
            expected = "nothing to be made in the host project of the Shared VPC"
            yield ConfigError(f"{where}.{field}", args.get(field), expected, "Have it made there, and remove this")
