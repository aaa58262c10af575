"""NetworkPolicies: everything is closed but the paths that a request takes, and the ways out that workloads need.

Probes of the node's own kubelet need no rule: Dataplane V2 lets them through. Traffic of RDMA interfaces never meets a
NetworkPolicy. Source: GKE, "Control communication between Pods and Services using network policies".
"""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .._cidr import parsed
from .._labels import NAME, REPLICA_SET, ROLE, labels, selector
from .._naming import check_label
from ..errors import ConfigError
from . import api_management, audit, body_router, guardrails, management_store, picker, replica_set
from .common import GKE_API, Manifest, check_range, check_word, manifest
from .network import GOOGLE_APIS, HEALTH_CHECK_RANGES

if TYPE_CHECKING:
    from ..security import Egress, NetworkRules, SecurityBaseArgs

CALLOUT_PORTS = (
    *(body_router.GRPC_PORT, body_router.HEALTH_PORT),
    *(api_management.GRPC_PORT, api_management.HEALTH_PORT),
    *(guardrails.GRPC_PORT, guardrails.HEALTH_PORT),
)
PICKER_PORTS = (picker.GRPC_PORT, picker.HEALTH_PORT)
METRICS_PORT = 9090

MONITORING_NAMESPACES = ("gmp-system", "gke-gmp-system")
"""Collectors of managed Prometheus, Standard and Autopilot. Source: Google Cloud, "Managed collection"."""
DNS_RANGES = ("169.254.20.10/32", "169.254.169.254/32")
"""NodeLocal DNSCache; Cloud DNS for GKE. Source: GKE, "Set up NodeLocal DNSCache", "Use Cloud DNS for GKE"."""
METADATA = (("169.254.169.254/32", (80,)), ("169.254.169.252/32", (987, 988)))
"""GKE's metadata server, with and without Dataplane V2: where identities come from.
Source: GKE, "Control communication between Pods and Services using network policies", Workload Identity."""

HUB_HOSTS = (
    *("huggingface.co", "*.huggingface.co", "hf.co", "*.hf.co"),
    *("*.xethub.hf.co", "*.xethub-eu.hf.co", "*.aws.cdn.hf.co", "*.gcp.cdn.hf.co"),
)
"""Hugging Face, its storage and its CDNs; a `*` stands for characters of one label, and never for a dot.
Sources: Hugging Face Hub, "Downloading models", behind a firewall; GKE, "Control Pod egress traffic using FQDN network
policies"."""

STORES = ("valkey", "memorystore", "none")
LISTED = "multi_node", "google_api_clients", "hub_clients"

_HOST = re.compile(r"[a-zA-Z0-9*]([-a-zA-Z0-9_*]*[a-zA-Z0-9*])?(\.[a-zA-Z0-9*]([-a-zA-Z0-9_*]*[a-zA-Z0-9*])?)+")


def cluster_features(args: "SecurityBaseArgs") -> list[str]:
    """Return the names, in the cluster's catalogue, of what the cluster must be new enough for."""
    return ["fqdn-policy"] if args.get("network", {}).get("hub_clients") else []


def policies(rules: "NetworkRules") -> list[Manifest]:
    """Return all policies: closed doors first, then each path."""
    ports = rules.get("replica_ports", [replica_set.PORT])
    balancer = _ranges([rules["proxy_range"], *HEALTH_CHECK_RANGES])
    replicas, pickers = _role("replica"), _role("picker")
    found = [
        _policy(rules, "default-deny", {}, ingress=[], egress=[]),
        _policy(rules, "dns", {}, egress=[_dns()]),
        _policy(rules, "callouts", _role("callout"), ingress=[_in(balancer, CALLOUT_PORTS)]),
        _policy(
            rules, "pickers", pickers, ingress=[_in(balancer, PICKER_PORTS)], egress=[_out(_pods(replicas), ports)]
        ),
        _policy(rules, "replicas", replicas, ingress=[_in([*balancer, *_pods(pickers)], ports)]),
        *_metrics(rules, ports),
        *[_among(rules, name) for name in rules.get("multi_node", [])],
    ]
    if rules.get("api_server_ranges"):
        to = _ranges(rules["api_server_ranges"])
        found.append(_policy(rules, "pickers-api-server", pickers, egress=[_out(to, [443])]))
    if rules.get("google_api_clients"):
        found.append(_google_apis(rules))
    if rules.get("hub_clients"):
        found.append(_hub(rules))
    found += _store(rules)
    return found + [_egress(rules, item) for item in rules.get("egress", [])]


def problems(args: "SecurityBaseArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be rendered."""
    yield from check_label(f"{path}.name", args["name"], audit.SUFFIX, "a base name")
    if args.get("network") is None and args.get("audit") is None:
        yield ConfigError(path, args["name"], "`network`, `audit` or both", "Set one, or leave the component out")
    if args.get("network") is not None:
        yield from _network_problems(args["network"], f"{path}.network")
    if args.get("audit") is not None:
        yield from audit.problems(args["audit"], f"{path}.audit")


def _policy(rules: "NetworkRules", name: str, pods: Manifest, **directions: list[Manifest]) -> Manifest:
    types = [direction.capitalize() for direction in directions]
    spec = {"podSelector": pods, "policyTypes": types} | {key: found for key, found in directions.items() if found}
    tags = labels(name)
    return manifest("networking.k8s.io/v1", "NetworkPolicy", name, rules["namespace"], tags, spec=spec)


def _role(role: str) -> Manifest:
    return {"matchLabels": {ROLE: role}}


def _named(workloads: Sequence[str]) -> Manifest:
    return {"matchExpressions": [{"key": NAME, "operator": "In", "values": list(workloads)}]}


def _pods(pods: Manifest) -> list[Manifest]:
    return [{"podSelector": pods}]


def _ranges(cidrs: Sequence[str]) -> list[Manifest]:
    return [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]


def _namespaces(names: Sequence[str]) -> list[Manifest]:
    found = [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(names)}]
    return [{"namespaceSelector": {"matchExpressions": found}}]


def _tcp(ports: Sequence[int]) -> list[Manifest]:
    return [{"protocol": "TCP", "port": port} for port in ports]


def _in(peers: list[Manifest], ports: Sequence[int]) -> Manifest:
    return {"from": peers, "ports": _tcp(ports)}


def _out(peers: list[Manifest], ports: Sequence[int]) -> Manifest:
    return {"to": peers, "ports": _tcp(ports)}


def _dns() -> Manifest:
    servers = {"matchExpressions": [{"key": "k8s-app", "operator": "In", "values": ["kube-dns", "node-local-dns"]}]}
    cluster = _namespaces(["kube-system"])[0] | {"podSelector": servers}
    ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return {"to": [cluster, *_ranges(DNS_RANGES)], "ports": ports}


def _metrics(rules: "NetworkRules", ports: Sequence[int]) -> list[Manifest]:
    collectors = _namespaces(rules.get("monitoring_namespaces", MONITORING_NAMESPACES))
    callouts = {"matchExpressions": [{"key": ROLE, "operator": "In", "values": ["callout", "picker"]}]}
    return [
        _policy(rules, "metrics-callouts", callouts, ingress=[_in(collectors, [METRICS_PORT])]),
        _policy(rules, "metrics-replicas", _role("replica"), ingress=[_in(collectors, ports)]),
    ]


def _among(rules: "NetworkRules", name: str) -> Manifest:
    """Return the policy by which the pods of one multi-node set reach each other: ranks choose ports freely."""
    pods = {"matchLabels": {REPLICA_SET: name}}
    return _policy(rules, f"nodes-{name}", pods, ingress=[{"from": _pods(pods)}], egress=[{"to": _pods(pods)}])


def _google_apis(rules: "NetworkRules") -> Manifest:
    vip, _ = GOOGLE_APIS[rules.get("google_apis", "private")]
    apis = _out(_ranges([vip, *rules.get("regional_api_ranges", [])]), [443])
    identity = [_out(_ranges([cidr]), ports) for cidr, ports in METADATA]
    return _policy(rules, "google-apis", _named(rules["google_api_clients"]), egress=[apis, *identity])


def _hub(rules: "NetworkRules") -> Manifest:
    hosts = rules.get("hub_hosts", HUB_HOSTS)
    matches = [{"pattern": host} if "*" in host else {"name": host} for host in hosts]
    rule = {"matches": matches, "ports": [{"protocol": "TCP", "port": 443}]}
    spec = {"podSelector": _named(rules["hub_clients"]), "egress": [rule]}
    return manifest(f"{GKE_API}/v1alpha1", "FQDNNetworkPolicy", "hub", rules["namespace"], labels("hub"), spec=spec)


def _store(rules: "NetworkRules") -> list[Manifest]:
    kind, ports = rules.get("store", "none"), [management_store.PORT]
    clients = {"matchLabels": selector(api_management.NAME)}
    if kind == "memorystore":
        to = _ranges(rules["store_ranges"])
        return [_policy(rules, "store", clients, egress=[_out(to, ports)])]
    if kind == "valkey":
        server = {"matchLabels": selector(management_store.VALKEY_NAME)}
        return [
            _policy(rules, "store", clients, egress=[_out(_pods(server), ports)]),
            _policy(rules, "store-clients", server, ingress=[_in(_pods(clients), ports)]),
        ]
    return []


def _egress(rules: "NetworkRules", item: "Egress") -> Manifest:
    to = _namespaces([item["namespace"]]) if item.get("namespace") else _ranges([item["range"]])
    return _policy(rules, f"egress-{item['name']}", _named(item["workloads"]), egress=[_out(to, item["ports"])])


def _network_problems(rules: "NetworkRules", path: str) -> Iterator[ConfigError]:
    given: Any = rules
    yield from check_label(f"{path}.namespace", rules["namespace"], what="a namespace")
    yield from _range_problems(f"{path}.proxy_range", rules["proxy_range"])
    for field in ("api_server_ranges", "regional_api_ranges", "store_ranges"):
        for index, cidr in enumerate(given.get(field, [])):
            yield from _range_problems(f"{path}.{field}[{index}]", cidr)
    for field in LISTED:
        prefix = "nodes-" if field == "multi_node" else ""
        for index, name in enumerate(given.get(field, [])):
            yield from check_label(f"{path}.{field}[{index}]", name, prefix, "a workload's name")
            if name in given[field][:index]:
                yield ConfigError(f"{path}.{field}[{index}]", name, "each name once", "Remove one of them")
    for index, port in enumerate(rules.get("replica_ports", [])):
        yield from check_range(f"{path}.replica_ports[{index}]", port, 1, 65535, "a port")
    yield from check_word(f"{path}.google_apis", rules.get("google_apis", "private"), tuple(GOOGLE_APIS))
    for index, host in enumerate(rules.get("hub_hosts", [])):
        if not _HOST.fullmatch(host):
            fix = "Write it like `*.example.com`"
            yield ConfigError(f"{path}.hub_hosts[{index}]", host, "a host name, `*` for a part of it", fix)
    yield from _store_problems(rules, path)
    for index, item in enumerate(rules.get("egress", [])):
        yield from _egress_problems(item, f"{path}.egress[{index}]")


def _store_problems(rules: "NetworkRules", path: str) -> Iterator[ConfigError]:
    kind = rules.get("store", "none")
    yield from check_word(f"{path}.store", kind, STORES)
    if (kind == "memorystore") != bool(rules.get("store_ranges")):
        expected = "the range of Memorystore's endpoint" if kind == "memorystore" else "no ranges: no Memorystore"
        yield ConfigError(f"{path}.store_ranges", rules.get("store_ranges"), expected, "Make both agree")


def _egress_problems(item: "Egress", path: str) -> Iterator[ConfigError]:
    yield from check_label(f"{path}.name", item["name"], "egress-", "a way out's name")
    if (item.get("namespace") is None) == (item.get("range") is None):
        yield ConfigError(path, item["name"], "exactly one of namespace, range", "Name where it leads")
    if item.get("range") is not None:
        yield from _range_problems(f"{path}.range", item["range"])
    if not item["workloads"]:
        yield ConfigError(f"{path}.workloads", [], "at least one workload", "Name who may go there")
    if not item["ports"]:
        yield ConfigError(f"{path}.ports", [], "at least one port", "Name the ports")
    for index, port in enumerate(item["ports"]):
        yield from check_range(f"{path}.ports[{index}]", port, 1, 65535, "a port")


def _range_problems(path: str, cidr: str) -> Iterator[ConfigError]:
    network = parsed(cidr)
    if network is None:
        yield ConfigError(path, cidr, "an IPv4 range in CIDR notation", "Write it like `10.9.0.0/23`")
    elif network.prefixlen < 8:
        yield ConfigError(path, cidr, "a prefix of at least 8 bits: this opens most of the internet", "Narrow it")
