"""What a diagram shows: networks, entry, chain, routes, pools and nodes, read from a recorded graph.

Knows resource types and fields, nothing of drawing. What an environment does not declare is simply absent.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cli.graph.model import Graph, Resource
from cli.graph.wire import redact

GPU_RESOURCES = ("nvidia.com/gpu", "google.com/tpu")
_KIND_LABELS = ("gke-accelerator", "gke-tpu-accelerator", "penstock.dev/pool")
"""Node labels that say which accelerator, or at least which nodes, a replica asks for."""
_REPLICA_SET = "penstock.dev/replica-set"
_LEADER = "LeaderWorkerSet"


@dataclass(frozen=True, slots=True)
class Card:
    """One box: a title, lines below it, and the resource's key as a tooltip."""

    title: str
    lines: tuple[str, ...] = ()
    key: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """An edge between two cards by their titles, with the share of requests where there is a choice."""

    source: str
    target: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything of one environment that a diagram shows, in the order of a request's way."""

    environment: str
    endpoints: tuple[Card, ...]
    attachment: Card | None
    networks: tuple[Card, ...]
    gateway: Card | None
    chain: tuple[Card, ...]
    routes: tuple[Card, ...]
    pools: tuple[Card, ...]
    links: tuple[Link, ...]
    nodes: tuple[Card, ...]


def topology(graph: Graph) -> Topology:
    """Return the topology that `graph` declares; record it with `preview=False`, so that names are known."""
    links = tuple(_links(graph))
    return Topology(
        environment=graph.environment,
        endpoints=tuple(_endpoints(graph)),
        attachment=next(_attachments(graph), None),
        networks=tuple(_networks(graph)),
        gateway=next(_gateways(graph), None),
        chain=tuple(_chain(graph)),
        routes=tuple(_routes(graph)),
        pools=tuple(_pools(graph)),
        links=links,
        nodes=tuple(_nodes(graph)),
    )


def _of(graph: Graph, *types: str) -> Iterator[tuple[Resource, Mapping[str, Any]]]:
    for resource in graph.resources:
        if resource.type in types:
            yield resource, redact(dict(resource.inputs))


def _kinds(graph: Graph, *kinds: str) -> Iterator[tuple[Resource, Mapping[str, Any]]]:
    for resource in graph.resources:
        if resource.type.startswith("kubernetes:") and resource.inputs.get("kind") in kinds:
            yield resource, redact(dict(resource.inputs))


def _last(reference: Any) -> str:
    """Return the last part of a resource's path, as people call it."""
    return str(reference or "").rpartition("/")[2]


def _endpoints(graph: Graph) -> Iterator[Card]:
    hosts = {
        resource.parent: str(inputs.get("name", "")).rstrip(".")
        for resource, inputs in _of(graph, "gcp:dns/recordSet:RecordSet")
        if resource.parent and "PrivateEndpoint" in resource.parent
    }
    for resource, inputs in _of(graph, "gcp:compute/forwardingRule:ForwardingRule"):
        if resource.parent is None or "PrivateEndpoint" not in resource.parent:
            continue
        lines = [f"VPC {_last(inputs.get('network'))}", f"project {inputs.get('project', '')}"]
        lines += [hosts[resource.parent]] if resource.parent in hosts else []
        lines += ["from any region"] if inputs.get("allowPscGlobalAccess") else []
        yield Card(_last(inputs.get("name")) or resource.name, tuple(lines), resource.key)


def _attachments(graph: Graph) -> Iterator[Card]:
    for resource, inputs in _of(graph, "gcp:compute/serviceAttachment:ServiceAttachment"):
        accepted = [
            f"{_last(item.get('projectIdOrNum') or item.get('networkUrl'))} ≤ {item.get('connectionLimit')}"
            for item in inputs.get("consumerAcceptLists", [])
        ]
        yield Card(_last(inputs.get("name")) or resource.name, tuple(accepted or ["any consumer"]), resource.key)


def _networks(graph: Graph) -> Iterator[Card]:
    subnets: dict[str, list[str]] = {}
    for _, inputs in _of(graph, "gcp:compute/subnetwork:Subnetwork"):
        purpose = {"REGIONAL_MANAGED_PROXY": " proxy-only", "PRIVATE_SERVICE_CONNECT": " PSC NAT"}
        text = f"{inputs.get('ipCidrRange', '')}{purpose.get(str(inputs.get('purpose')), '')}"
        subnets.setdefault(_last(inputs.get("network")), []).append(text)
    for resource, inputs in _of(graph, "gcp:compute/network:Network"):
        name = _last(inputs.get("name")) or resource.name
        found = subnets.get(name) or subnets.get(f"{resource.name}-id", [])
        rails = len(found) > 4
        lines = [f"{len(found)} rails from {found[0]} on"] if rails else found
        if inputs.get("networkProfile"):
            lines.insert(0, _last(inputs["networkProfile"]))
        yield Card(name, tuple(lines), resource.key)


def _gateways(graph: Graph) -> Iterator[Card]:
    armor = [
        _last(inputs.get("name")) for _, inputs in _of(graph, "gcp:compute/regionSecurityPolicy:RegionSecurityPolicy")
    ]
    for resource, inputs in _kinds(graph, "Gateway"):
        spec = inputs["spec"]
        listeners = [f"{item['protocol']} {item['port']}" for item in spec.get("listeners", [])]
        lines = [spec["gatewayClassName"], ", ".join(listeners)]
        lines += [_last(address.get("value")) for address in spec.get("addresses", [])]
        lines += [f"Cloud Armor {name}" for name in armor if name]
        yield Card(inputs["metadata"]["name"], tuple(lines), resource.key)


def _chain(graph: Graph) -> Iterator[Card]:
    for kind, stage in (("GCPRoutingExtension", "before routing"), ("GCPTrafficExtension", "after routing")):
        for resource, inputs in _kinds(graph, kind):
            for chain in inputs["spec"]["extensionChains"]:
                for extension in chain["extensions"]:
                    backend = extension.get("backendRef", {})
                    called = extension.get("googleAPIServiceName") or f"{backend.get('kind')} {backend.get('name')}"
                    fails = "fails open" if extension.get("failOpen") else "fails closed"
                    yield Card(extension["name"], (called, f"{stage}, {fails}"), resource.key)


def _routes(graph: Graph) -> Iterator[Card]:
    adapters = _adapters(graph)
    for resource, inputs in _model_routes(graph):
        pools = [name for name, _ in _backends(inputs)]
        found = sorted({adapter for pool in pools for adapter in adapters.get(pool, [])})
        lines = [f"+ {adapter}" for adapter in found[:3]] + ([f"+ {len(found) - 3} more"] if len(found) > 3 else [])
        yield Card(inputs["metadata"]["name"], tuple(lines), resource.key)


def _links(graph: Graph) -> Iterator[Link]:
    for _, inputs in _model_routes(graph):
        backends = _backends(inputs)
        total = sum(weight for _, weight in backends) or 1
        for pool, weight in backends:
            label = f"{round(100 * weight / total)} %" if len(backends) > 1 else ""
            yield Link(inputs["metadata"]["name"], pool, label)


def _model_routes(graph: Graph) -> Iterator[tuple[Resource, Mapping[str, Any]]]:
    return ((resource, inputs) for resource, inputs in _kinds(graph, "HTTPRoute") if _backends(inputs))


def _backends(inputs: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return pools and weights; the rules of one route differ in what they match, not in where they lead."""
    found = {
        reference["name"]: int(reference.get("weight", 1))
        for rule in inputs["spec"].get("rules", [])
        for reference in rule.get("backendRefs", [])
    }
    return list(found.items())


def _adapters(graph: Graph) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, _, pod in _replica_sets(graph):
        arguments = [str(argument) for argument in pod["containers"][0].get("args", [])]
        if "--lora-modules" in arguments:
            modules = arguments[arguments.index("--lora-modules") + 1 :]
            found[name] = [module.partition("=")[0] for module in modules if not module.startswith("--")]
    return found


def _replica_sets(graph: Graph) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield name, whole object and (leader's) pod spec of each set of replicas."""
    for _, inputs in _kinds(graph, "Deployment", _LEADER):
        spec = inputs["spec"]
        group = spec.get("leaderWorkerTemplate")
        template = (group.get("leaderTemplate") or group["workerTemplate"]) if group else spec["template"]
        name = template.get("metadata", {}).get("labels", {}).get(_REPLICA_SET)
        if name:
            yield name, inputs, template["spec"]


def _pools(graph: Graph) -> Iterator[Card]:
    sets = {name: (inputs, pod) for name, inputs, pod in _replica_sets(graph)}
    scaled = dict(_scaling(graph))
    for resource, inputs in _kinds(graph, "InferencePool"):
        name = inputs["metadata"]["name"]
        picker = inputs["spec"]["endpointPickerRef"]
        lines = ["picker fails open" if picker.get("failureMode") == "FailOpen" else "picker fails closed"]
        if name in sets:
            lines = [*_capacity(name, *sets[name], scaled.get(name)), *lines]
        yield Card(name, tuple(lines), resource.key)


def _capacity(name: str, inputs: Mapping[str, Any], pod: Mapping[str, Any], scaling: str | None) -> list[str]:
    group = inputs["spec"].get("leaderWorkerTemplate")
    limits = pod["containers"][0].get("resources", {}).get("limits", {})
    chips = next((str(limits[key]) for key in GPU_RESOURCES if key in limits), "no")
    nodes = f"{group['size']} nodes x " if group else ""
    node = pod.get("nodeSelector", {})
    kind = next((str(value) for key, value in node.items() if key.endswith(_KIND_LABELS)), "")
    count = inputs["spec"].get("replicas", 1)
    replicas = scaling or f"{count} replica{'s' * (count != 1)}"
    return [replicas, f"each {nodes}{chips} {kind or 'GPU'}".rstrip()]


def _scaling(graph: Graph) -> Iterator[tuple[str, str]]:
    for _, inputs in _kinds(graph, "HorizontalPodAutoscaler", "ScaledObject"):
        spec = inputs["spec"]
        low = spec.get("minReplicas", spec.get("minReplicaCount", 0))
        high = spec.get("maxReplicas", spec.get("maxReplicaCount", "?"))
        by = "HPA" if inputs["kind"] == "HorizontalPodAutoscaler" else "KEDA"
        yield spec["scaleTargetRef"]["name"], f"{low} to {high} replicas by {by}"


def _nodes(graph: Graph) -> Iterator[Card]:
    for resource, inputs in _of(graph, "gcp:container/nodePool:NodePool"):
        config = inputs.get("nodeConfig", {})
        gpus = [f"{item['count']} x {item['type']}" for item in config.get("guestAccelerators", [])]
        limits = inputs.get("autoscaling", {})
        low = limits.get("totalMinNodeCount", limits.get("minNodeCount", inputs.get("nodeCount", "?")))
        high = limits.get("totalMaxNodeCount", limits.get("maxNodeCount", low))
        traits = [name for field, name in (("spot", "spot"), ("flexStart", "flex-start")) if config.get(field)]
        traits += ["compact"] if inputs.get("placementPolicy") else []
        lines = [str(config.get("machineType", "")), *gpus, ", ".join([f"{low} to {high} nodes", *traits])]
        yield Card(_last(inputs.get("name")) or resource.name, tuple(lines), resource.key)
