"""A small declaration for tests of `penstock local`: one Gateway, two pools of one model, one callout each."""

from typing import Any

from cli.graph.model import Graph, Resource

Manifest = dict[str, Any]
NAMESPACE = "ns"


def manifest(kind: str, name: str, api: str = "v1", **fields: Any) -> Manifest:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **fields}


def graph(manifests: list[Manifest], *others: Resource) -> Graph:
    resources = [
        Resource(f"kubernetes:{item['apiVersion']}:{item['kind']}", item["metadata"]["name"], None, True, item)
        for item in manifests
    ]
    return Graph("test", False, (*resources, *others))


def deployment(name: str, role: str, container: Manifest, *, replicas: int = 1, **pod: Any) -> Manifest:
    labels = {"app": name, "penstock.dev/role": role}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", **container}], **pod}}
    return manifest("Deployment", name, "apps/v1", spec={"replicas": replicas, "template": template})


def callout(name: str, role: str = "callout", args: tuple[str, ...] = (), **spec: Any) -> list[Manifest]:
    """Return Deployment, Service and ConfigMap of a callout."""
    ports = ("--grpc-port=9004", "--health-port=9005")
    container = {
        "command": ["python", "-m", f"services.{name}"],
        "args": ["--config-file=/etc/config/config.yaml", "--address=$(POD_IP)", *ports, *args],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": "grpc", "containerPort": 9004}, {"name": "health", "containerPort": 9005}],
        "readinessProbe": {"grpc": {"port": 9005, "service": "readiness"}},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/config"}],
    }
    volumes = [{"name": "config", "configMap": {"name": name}}]
    served = [{"port": 9004, "targetPort": "grpc", "appProtocol": "HTTP2"}]
    return [
        deployment(name, role, container, volumes=volumes, **spec),
        manifest("Service", name, spec={"selector": {"app": name}, "ports": served}),
        manifest("ConfigMap", name, data={"config.yaml": "models: []\n"}),
    ]


def replicas(name: str, count: int = 2) -> Manifest:
    """Return the Deployment of a model replica set."""
    container = {
        "command": ["vllm", "serve"],
        "args": ["org/model", "--served-model-name", "m", "--port=8000", "--lora-modules", "lora=org/lora"],
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}},
    }
    return deployment(name, "replica", container, replicas=count)


def pool(name: str, failure_mode: str = "FailClose") -> list[Manifest]:
    """Return a pool over `replicas(name)`, its picker and its policies."""
    spec = {
        "selector": {"matchLabels": {"app": name}},
        "targetPorts": [{"number": 8000}],
        "endpointPickerRef": {"name": f"{name}-picker", "port": {"number": 9004}, "failureMode": failure_mode},
    }
    target = {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": name}
    check = {"type": "HTTP", "httpHealthCheck": {"requestPath": "/health", "port": 8000}}
    return [
        manifest("InferencePool", name, "inference.networking.k8s.io/v1", spec=spec),
        *callout(f"{name}-picker", "picker", ("--replicas=dns:replicas.ns.svc:8000",)),
        manifest(
            "GCPBackendPolicy", name, "networking.gke.io/v1", spec={"targetRef": target, "default": {"timeoutSec": 77}}
        ),
        manifest(
            "HealthCheckPolicy",
            name,
            "networking.gke.io/v1",
            spec={"targetRef": target, "default": {"checkIntervalSec": 3, "config": check}},
        ),
    ]


def gateway(**listener: Any) -> Manifest:
    entry = {"name": "http", "port": 80, "protocol": "HTTP", **listener}
    return manifest("Gateway", "gw", "gateway.networking.k8s.io/v1", spec={"listeners": [entry]})


def route(name: str = "route", hostnames: tuple[str, ...] = (), **rule: Any) -> Manifest:
    rule = {"backendRefs": [backend("a")], **rule}
    spec = {"parentRefs": [{"name": "gw"}], "hostnames": list(hostnames), "rules": [rule]}
    return manifest("HTTPRoute", name, "gateway.networking.k8s.io/v1", spec=spec)


def backend(name: str, weight: int = 1) -> Manifest:
    return {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": name, "weight": weight}


def extension(kind: str = "GCPTrafficExtension", name: str = "ext", *chains: Manifest) -> Manifest:
    spec = {"targetRefs": [{"kind": "Gateway", "name": "gw"}], "extensionChains": list(chains)}
    return manifest(kind, name, "networking.gke.io/v1", spec=spec)


def chain(name: str, *cel: str, **entry: Any) -> Manifest:
    """Return a chain of one callout to the Service `guard`."""
    callee = {
        "name": name,
        "authority": "guard.example",
        "backendRef": {"kind": "Service", "name": "guard", "port": 9004},
        "supportedEvents": ["RequestHeaders"],
        **entry,
    }
    found: Manifest = {"name": name, "extensions": [callee]}
    if cel:
        found["matchCondition"] = {"celExpressions": [{"celMatcher": expression} for expression in cel]}
    return found


def declaration(*more: Manifest) -> list[Manifest]:
    """Return a complete declaration: Gateway, one route over pool `a`, and what `more` adds."""
    return [gateway(), replicas("a"), *pool("a"), *more]
