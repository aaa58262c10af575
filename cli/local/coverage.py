"""Names everything declared that has no effect on this machine.

`_REALIZED` lists, per kind, the fields that `penstock local` acts on; whatever else an object holds is reported, so
that a field nobody thought of is named rather than dropped.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cli.graph.model import Graph
from cli.local.bypass import bypasses
from cli.local.model import Unrealized
from cli.local.objects import ROLE_LABEL, WORKLOADS, Object, Objects

_KINDS_WITHOUT_EFFECT = {
    "Namespace": "there are no namespaces on this machine",
    "ServiceAccount": "processes run as the calling user",
    "PodDisruptionBudget": "nothing evicts local processes",
    "NetworkPolicy": "everything listens on 127.0.0.1 only",
    "GCPGatewayPolicy": "there is no Google Cloud load balancer",
    "PodMonitoring": "no metrics are collected; every process still serves /metrics",
    "HorizontalPodAutoscaler": "replica counts are fixed; use --replicas",
    "ScaledObject": "replica counts are fixed; use --replicas",
    "Role": "no process calls the Kubernetes API",
    "RoleBinding": "no process calls the Kubernetes API",
    "ClusterRole": "no process calls the Kubernetes API",
    "ClusterRoleBinding": "no process calls the Kubernetes API",
    "Secret": "a variable from a Secret takes the caller's variable of that name; of callouts, else a value made here",
    "PersistentVolumeClaim": "a folder in the environment's folder, which outlives the run",
    "ApigeeBackendService": "Penstock's API management stands in for it",
    "APIProduct": "a product of the API management that stands in",
    "APIOperationSet": "operations and quota of the API management that stands in",
    "StatefulSet": "a server of this machine, or a file, stands in for it",
    "ResourceClaimTemplate": "there are no devices to claim",
    "TriggerAuthentication": "replica counts are fixed; use --replicas",
    "FQDNNetworkPolicy": "everything listens on 127.0.0.1 only",
    "Network": "there is one network",
    "GKENetworkParamSet": "there is one network",
    "DaemonSet": "there are no nodes to prepare",
    "ComputeClass": "there are no nodes to add",
}

_EXTENSION = "spec.extensionChains[]."


def _workload(template: str, *more: str) -> tuple[str, ...]:
    """Return the fields of a workload that its process gets, of the pod template at `template`."""
    return (*more, "spec.replicas", *(f"{template}.{field}" for field in _TEMPLATE))


_POD = "spec."
_CONTAINER = _POD + "containers[]."
_TEMPLATE = (
    "metadata",
    _CONTAINER + "name",
    _CONTAINER + "command",
    _CONTAINER + "args",
    _CONTAINER + "env[].name",
    _CONTAINER + "env[].value",
    _CONTAINER + "env[].valueFrom.fieldRef",
    _CONTAINER + "env[].valueFrom.configMapKeyRef",
    _CONTAINER + "ports",
    _CONTAINER + "readinessProbe.grpc",
    _CONTAINER + "readinessProbe.httpGet.path",
    _CONTAINER + "readinessProbe.httpGet.port",
    _CONTAINER + "readinessProbe.tcpSocket",
    _CONTAINER + "volumeMounts",
    _POD + "volumes[].name",
    _POD + "volumes[].configMap",
    _POD + "volumes[].emptyDir",
    _POD + "volumes[].persistentVolumeClaim",
)
_REALIZED: dict[str, tuple[str, ...]] = {
    "ConfigMap": ("data",),
    "Deployment": _workload("spec.template", "spec.selector"),
    "LeaderWorkerSet": _workload("spec.leaderWorkerTemplate.leaderTemplate"),
    "InferenceObjective": ("spec.poolRef", "spec.priority"),
    "Service": ("spec.selector", "spec.ports", "spec.type", "spec.clusterIP", "spec.publishNotReadyAddresses"),
    "Gateway": (
        "spec.listeners[].name",
        "spec.listeners[].port",
        "spec.listeners[].protocol",
        "spec.listeners[].hostname",
    ),
    "HTTPRoute": (
        "spec.parentRefs",
        "spec.hostnames",
        "spec.rules[].name",
        "spec.rules[].matches",
        "spec.rules[].backendRefs",
        "spec.rules[].filters[].type",
        "spec.rules[].filters[].requestHeaderModifier",
        "spec.rules[].filters[].responseHeaderModifier",
        "spec.rules[].filters[].urlRewrite",
        "spec.rules[].filters[].requestRedirect",
    ),
    "InferencePool": ("spec.selector", "spec.targetPorts", "spec.appProtocol", "spec.endpointPickerRef"),
    "GCPBackendPolicy": ("spec.targetRef", "spec.default.timeoutSec"),
    "HealthCheckPolicy": (
        "spec.targetRef",
        "spec.default.checkIntervalSec",
        "spec.default.timeoutSec",
        "spec.default.healthyThreshold",
        "spec.default.unhealthyThreshold",
        "spec.default.config",
    ),
    "GCPRoutingExtension": ("spec.targetRefs", _EXTENSION),
    "GCPTrafficExtension": ("spec.targetRefs", _EXTENSION),
}

_REASONS = (
    ("secretKeyRef", "the caller's variable of that name is used; of callouts, else a value made here"),
    ("resources", "no CPU, memory or GPU limits are enforced"),
    ("securityContext", "processes run as the calling user"),
    ("serviceAccountName", "processes run as the calling user"),
    ("automountServiceAccountToken", "no process gets a token"),
    ("image", "processes run from this checkout"),
    ("livenessProbe", "a process is restarted when it exits"),
    ("startupProbe", "the readiness probe alone is awaited"),
    ("readinessProbe", "readiness is polled while starting"),
    ("lifecycle", "hooks are not run"),
    ("terminationGracePeriodSeconds", "`down` waits a few seconds at most"),
    ("initContainers", "what they wait for or prepare is there already"),
    ("containers", "only the first container of a pod is run"),
    ("nodeSelector", "there is one node"),
    ("tolerations", "there is one node"),
    ("affinity", "there is one node"),
    ("topologySpreadConstraints", "there is one node"),
    ("workerTemplate", "a replica is one process here, its leader; workers are not simulated"),
    ("size", "a replica is one process here, its leader; workers are not simulated"),
    ("restartPolicy", "a process is restarted when it exits"),
    ("startupPolicy", "there are no workers to wait for"),
    ("rolloutStrategy", "nothing is rolled out"),
    ("resourceClaims", "there are no devices to claim"),
    ("volumes", "only ConfigMap, emptyDir and claimed volumes are mounted"),
    ("strategy", "nothing is rolled out"),
    ("tls", "the listener is served in clear text on 127.0.0.1"),
    ("addresses", "the listener is on 127.0.0.1"),
    ("gatewayClassName", "Envoy stands in for the load balancer"),
    ("allowedRoutes", "routes attach as their parentRefs say"),
    ("timeouts", "GKE does not take them either; timeouts come from GCPBackendPolicy"),
    ("logging", "Envoy logs every request to logs/access.log"),
    ("logConfig", "health checks are not logged"),
)


def unrealized(graph: Graph, objects: Objects) -> tuple[Unrealized, ...]:
    """Return what of `graph` has no effect here, grouped by kind or field, in the order of declaration.

    What requests pass by comes first.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for resource in graph.resources:
        if resource.custom and not resource.type.startswith("pulumi:") and "kind" not in resource.inputs:
            groups.setdefault((resource.type, "only Kubernetes objects are realized"), []).append(resource.name)
    for item in objects:
        for what, reason in _of_object(item):
            groups.setdefault((what, reason), []).append(item.name)
    found = (Unrealized(what, reason, tuple(dict.fromkeys(names))) for (what, reason), names in groups.items())
    return (*bypasses(objects), *found)


def _of_object(item: Object) -> Iterator[tuple[str, str]]:
    if item.kind not in _REALIZED:
        yield item.kind, _KINDS_WITHOUT_EFFECT.get(item.kind, "this kind is not realized")
        return
    raw = {key: value for key, value in item.raw.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    for path in dict.fromkeys(_leaves(_first_container_only(item.kind, raw), _REALIZED[item.kind])):
        yield f"{item.kind} {path}", _reason(path)
    if item.kind == "Deployment" and item.labels.get(ROLE_LABEL) == "picker" and _has_no_command(item):
        yield "Deployment of upstream's picker", "Penstock's picker stands in for it, with the same configuration"
    if item.kind == "Gateway" and any(entry.get("protocol") == "HTTPS" for entry in item.spec.get("listeners") or []):
        yield "Gateway HTTPS listener", "served in clear text on 127.0.0.1"
    if item.kind == "HTTPRoute" and any(_to_https(rule) for rule in item.spec.get("rules") or []):
        yield "HTTPRoute redirect to https", "its target is not served here: every listener is in clear text"


def _has_no_command(item: Object) -> bool:
    containers = (item.pod_template.get("spec") or {}).get("containers") or [{}]
    return not containers[0].get("command")


def _to_https(rule: Mapping[str, Any]) -> bool:
    redirects = (entry.get("requestRedirect") or {} for entry in rule.get("filters") or [])
    return any(redirect.get("scheme") == "https" for redirect in redirects)


def _first_container_only(kind: str, raw: dict[str, Any]) -> dict[str, Any]:
    """Show containers after the first, of which nothing is run, under a path that no realized field has."""
    if kind not in WORKLOADS:
        return raw
    keys = ("spec", "template") if kind == "Deployment" else ("spec", "leaderWorkerTemplate", "leaderTemplate")
    spec = _at(raw, keys).get("spec") or {}
    containers = spec.get("containers") or []
    if len(containers) < 2:
        return raw
    others = {f"containers[{entry.get('name', index)}]": "not run" for index, entry in enumerate(containers) if index}
    return _put(raw, (*keys, "spec"), {**spec, "containers": containers[:1], **others})


def _at(value: Mapping[str, Any], keys: tuple[str, ...]) -> Mapping[str, Any]:
    for key in keys:
        value = value.get(key) or {}
    return value


def _put(value: Mapping[str, Any], keys: tuple[str, ...], new: Any) -> dict[str, Any]:
    """Return a copy of `value` with `new` at the path `keys`."""
    first, *rest = keys
    return {**value, first: _put(value[first], tuple(rest), new) if rest else new}


def _leaves(value: Any, realized: Iterable[str], path: str = "") -> Iterator[str]:
    """Yield the topmost paths below which nothing is realized."""
    if any(path == known or path.startswith((known.rstrip(".") + ".", known.rstrip(".") + "[")) for known in realized):
        return
    leads_on = not path or any(known.startswith((path + ".", path + "[")) for known in realized)
    if leads_on and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, realized, f"{path}.{key}" if path else str(key))
    elif leads_on and isinstance(value, list):
        for item in value:
            yield from _leaves(item, realized, f"{path}[]")
    else:
        yield path


def _reason(path: str) -> str:
    parts = path.replace("[]", "").split(".")
    for part in reversed(parts):
        for name, reason in _REASONS:
            if part == name or part.startswith(name + "["):
                return reason
    return "has no effect on this machine"
