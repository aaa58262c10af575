"""From Gateway API objects to the traffic that Envoy carries: listeners, rules, and the clusters behind them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cli.local.extensions import extensions_of
from cli.local.model import Backend, Cluster, Endpoint, Health, Listener, Picker, Piece, PlanError, Rule, Traffic
from cli.local.objects import Object, Objects
from cli.local.ports import PortAllocator

DEFAULT_TIMEOUT_S = 30.0
"""Timeout of a backend without a GCPBackendPolicy. Source: Google Cloud backend services, `timeoutSec`."""
PICKER_HEALTH_PORT = 9003
"""Where GKE health-checks a picker without a HealthCheckPolicy. Source: llm-d-router 0.10, `--grpc-health-port`."""

_PLAINTEXT_HTTP2 = "kubernetes.io/h2c"
_PROTOCOLS = {"HTTP2": (True, True), "http2": (True, True), "HTTPS": (True, False), _PLAINTEXT_HTTP2: (False, True)}
"""`appProtocol` -> (TLS, HTTP/2). Source: GKE Gateway; Kubernetes' standard application protocols for h2c."""


class TrafficBuilder:
    """Builds the traffic of one Gateway; every problem is collected and raised at the end."""

    def __init__(self, objects: Objects, pieces: Sequence[Piece], ports: PortAllocator, port: int | None) -> None:
        self._objects = objects
        self._pieces = pieces
        self._ports = ports
        self._port = port
        self._clusters: dict[str, Cluster] = {}
        self._problems: list[str] = []

    def build(self) -> Traffic:
        """Return the traffic of the one Gateway. Raises `PlanError` with all problems."""
        gateways = self._objects.of("Gateway")
        if len(gateways) != 1:
            found = ", ".join(gateway.key for gateway in gateways) or "none"
            raise PlanError([f"expected exactly one Gateway to serve, found {found}"])
        gateway = gateways[0]
        listeners = [self._listener(gateway, listener) for listener in _main_first(gateway.spec.get("listeners") or [])]
        if not listeners:
            self._problems.append(f"{gateway}: spec.listeners is empty; declare one")
        try:
            extensions = extensions_of(self._objects, gateway, self.callout)
        except PlanError as error:
            self._problems += error.problems
        if self._problems:
            raise PlanError(self._problems)
        return Traffic(
            listeners=tuple(listeners), clusters=tuple(self._clusters.values()), extensions=tuple(extensions)
        )

    def _listener(self, gateway: Object, listener: Mapping[str, Any]) -> Listener:
        rules = [rule for route in self._objects.of("HTTPRoute") for rule in self._rules(route, gateway, listener)]
        port, self._port = self._port or self._ports.take(), None
        return Listener(name=listener["name"], port=port, hostname=listener.get("hostname") or "*", rules=tuple(rules))

    def _rules(self, route: Object, gateway: Object, listener: Mapping[str, Any]) -> Iterator[Rule]:
        if not any(_attaches(route, ref, gateway, listener) for ref in route.spec.get("parentRefs") or []):
            return
        for index, rule in enumerate(route.spec.get("rules") or []):
            where = f"{route}, rule {index}"
            try:
                backends = tuple(self._backend(route.namespace, ref) for ref in rule.get("backendRefs") or [])
            except PlanError as error:
                self._problems += [f"{where}: {problem}" for problem in error.problems]
                continue
            yield Rule(
                route=route.key,
                hostnames=tuple(route.spec.get("hostnames") or ()),
                matches=tuple(rule.get("matches") or ()),
                filters=tuple(rule.get("filters") or ()),
                backends=backends,
            )

    def _backend(self, namespace: str, ref: Mapping[str, Any]) -> Backend:
        namespace = ref.get("namespace", namespace)
        kind, name = ref.get("kind", "Service"), ref["name"]
        target = self._objects.get(kind, namespace, name)
        if kind not in ("InferencePool", "Service") or target is None:
            raise PlanError(
                [f"backend {kind} {namespace}/{name} is not declared; only InferencePool and Service can be"]
            )
        policy = self._objects.policy("GCPBackendPolicy", target)
        default = (policy.spec.get("default") or {}) if policy else {}
        picker = None
        if kind == "InferencePool":
            cluster, picker = self._pool(target), self._picker(target)
        else:
            cluster = self._service(target, ref.get("port"))
        return Backend(
            cluster=cluster.name,
            weight=int(ref.get("weight", 1)),
            timeout_s=float(default.get("timeoutSec", DEFAULT_TIMEOUT_S)),
            picker=picker,
            filters=tuple(ref.get("filters") or ()),
        )

    def _pool(self, pool: Object) -> Cluster:
        replicas = pool_replicas(self._objects, self._pieces, pool)
        numbers = [int(target["number"]) for target in pool.spec["targetPorts"]]
        missing = [
            f"{piece.name} has no port {number}"
            for piece in replicas
            for number in numbers
            if number not in piece.ports
        ]
        if missing:
            raise PlanError([f"{pool}: {'; '.join(missing)}; targetPorts must be container ports"])
        checked = self._health_port(pool)
        return self._add(
            Cluster(
                name=f"pool/{pool.key}",
                endpoints=tuple(
                    Endpoint(piece.ports[number], piece.ports.get(checked or number))
                    for piece in replicas
                    for number in numbers
                ),
                http2=pool.spec.get("appProtocol") == _PLAINTEXT_HTTP2,
                picked="endpointPickerRef" in pool.spec,
                health=self._health(pool),
            )
        )

    def _picker(self, pool: Object) -> Picker | None:
        ref = pool.spec.get("endpointPickerRef")
        if ref is None:
            return None
        cluster = self.callout(pool.namespace, ref["name"], (ref.get("port") or {}).get("number"), PICKER_HEALTH_PORT)
        return Picker(cluster=cluster.name, fail_open=ref.get("failureMode", "FailClose") == "FailOpen")

    def callout(self, namespace: str, name: str, port: int | None, health_port: int | None = None) -> Cluster:
        """Return the cluster of an ext_proc Service: HTTP/2, and TLS unless its `appProtocol` says clear text."""
        service = self._objects.get("Service", namespace, name)
        if service is None:
            raise PlanError([f"Service {namespace}/{name} is not declared; declare it"])
        protocol = _service_port(service, port).get("appProtocol")
        return self._service(service, port, tls=protocol != _PLAINTEXT_HTTP2, http2=True, health_port=health_port)

    def _service(
        self,
        service: Object,
        port: int | None,
        *,
        tls: bool | None = None,
        http2: bool | None = None,
        health_port: int | None = None,
    ) -> Cluster:
        declared = _service_port(service, port)
        pieces = self._behind(service)
        target = declared.get("targetPort", declared["port"])
        health = self._health(service)
        policy_port = self._health_port(service)
        by_protocol = _PROTOCOLS.get(declared.get("appProtocol", ""), (False, False))
        if health is None and health_port is not None:
            health = Health(kind="grpc", target="inference-extension", interval_s=2, timeout_s=2)
        endpoints = [
            Endpoint(
                _piece_port(self._objects, piece, target, service) + worker,
                _worker_health(piece, policy_port or health_port, worker),
            )
            for piece in pieces
            for worker in range(piece.processes)
        ]
        return self._add(
            Cluster(
                name=f"service/{service.key}:{declared['port']}",
                endpoints=tuple(endpoints),
                tls=by_protocol[0] if tls is None else tls,
                http2=by_protocol[1] if http2 is None else http2,
                health=health,
            )
        )

    def _behind(self, service: Object) -> list[Piece]:
        workloads = self._objects.workloads(service.namespace, service.spec.get("selector") or {})
        keys = {workload.key for workload in workloads}
        pieces = [piece for piece in self._pieces if piece.workload in keys]
        if not pieces:
            raise PlanError([f"{service}: its selector matches no pod that runs here"])
        return pieces

    def _health_config(self, target: Object) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        policy = self._objects.policy("HealthCheckPolicy", target)
        default: Mapping[str, Any] = (policy.spec.get("default") or {}) if policy else {}
        config = default.get("config") or {}
        blocks: list[Mapping[str, Any]] = [value for key, value in config.items() if key.endswith("HealthCheck")]
        return default, blocks[0] if blocks else {}

    def _health(self, target: Object) -> Health | None:
        default, block = self._health_config(target)
        if not default:
            return None
        kind = str((default.get("config") or {}).get("type", "TCP"))
        interval = float(default.get("checkIntervalSec", 5))
        return Health(
            kind="grpc" if kind == "GRPC" else "tcp" if kind == "TCP" else "http",
            target=block.get("grpcServiceName", "") if kind == "GRPC" else block.get("requestPath", "/"),
            interval_s=interval,
            timeout_s=float(default.get("timeoutSec", interval)),
            healthy=int(default.get("healthyThreshold", 2)),
            unhealthy=int(default.get("unhealthyThreshold", 2)),
        )

    def _health_port(self, target: Object) -> int | None:
        port = self._health_config(target)[1].get("port")
        return int(port) if port is not None else None

    def _add(self, cluster: Cluster) -> Cluster:
        return self._clusters.setdefault(cluster.name, cluster)


def pool_replicas(objects: Objects, pieces: Sequence[Piece], pool: Object) -> list[Piece]:
    """Return the pieces that the selector of an InferencePool finds."""
    labels = (pool.spec.get("selector") or {}).get("matchLabels") or {}
    keys = {workload.key for workload in objects.workloads(pool.namespace, labels)}
    return [piece for piece in pieces if piece.workload in keys]


def _main_first(listeners: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Put an HTTPS listener first: beside it, an HTTP listener only redirects."""
    return sorted(listeners, key=lambda listener: listener.get("protocol") != "HTTPS")


def _attaches(route: Object, ref: Mapping[str, Any], gateway: Object, listener: Mapping[str, Any]) -> bool:
    return bool(
        ref.get("kind", "Gateway") == "Gateway"
        and ref.get("namespace", route.namespace) == gateway.namespace
        and ref["name"] == gateway.name
        and ref.get("sectionName", listener["name"]) == listener["name"]
        and ref.get("port", listener["port"]) == listener["port"]
    )


def _service_port(service: Object, port: int | None) -> Mapping[str, Any]:
    for declared in service.spec.get("ports") or []:
        if port is None or declared["port"] == port:
            found: Mapping[str, Any] = declared
            return found
    raise PlanError([f"{service}: has no port {port}; refer to one of its spec.ports"])


def _piece_port(objects: Objects, piece: Piece, target: int | str, service: Object) -> int:
    """Return the local port of `targetPort`, by number or by the container port's name."""
    workload = objects.workload(piece.workload)
    containers = workload.pod_template["spec"]["containers"] if workload else []
    for declared in (port for container in containers for port in container.get("ports") or []):
        if target in (declared["containerPort"], declared.get("name")) and declared["containerPort"] in piece.ports:
            return piece.ports[declared["containerPort"]]
    raise PlanError([f"{service}: targetPort {target!r} is not a container port of {piece.workload}; declare it there"])


def _worker_health(piece: Piece, port: int | None, worker: int) -> int | None:
    if port is None:
        return None
    if port in piece.ports:
        return piece.ports[port] + worker
    return piece.check.port + worker if piece.check.kind == "grpc" else None
