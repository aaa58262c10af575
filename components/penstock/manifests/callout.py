"""The workload of a callout: a pod that Envoy calls over ext_proc. Body router and picker are both one.

Flags, ports and health names are those of `python -m services.<module>`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._labels import Role, labels, selector
from .common import (
    GKE_API,
    WAIT_TIMEOUT,
    Manifest,
    container_security,
    disruption_budget,
    health_check_policy,
    manifest,
    pod_security,
    service_account,
    spread,
    target_ref,
)

CONFIG_DIR = "/etc/penstock/config"
TLS_DIR = "/etc/penstock/tls"
USER = 65532
"""Numeric user of the services' image; any number but 0 does, since nothing is written outside of /tmp."""

DETACH_S = 15
"""Seconds between a pod's end being decided and SIGTERM, in which load balancers stop sending new streams."""
MARGIN_S = 15
"""Seconds that a pod has left after the drain before it is killed."""


@dataclass(frozen=True, kw_only=True)
class Callout:
    """What the objects of one callout are made from.

    `config` maps file names in `CONFIG_DIR` to their text; `flags` are put behind the common ones; `image` may be a
    Pulumi output; `cpu` and `memory` are quantities; `env`, `volumes` and `mounts` come on top of what every callout
    has, as do `extra_ports` (name, number, whether the Service has it); `await_s` is how long Pulumi awaits the rollout
    (None: 10 min); `api_access` mounts the ServiceAccount's token, for a callout that reads the Kubernetes API;
    `monitoring` asks for a PodMonitoring.
    """

    name: str
    namespace: str
    module: str
    role: Role
    image: Any
    grpc_port: int
    health_port: int
    config: Mapping[str, str]
    flags: tuple[str, ...] = ()
    metrics_port: int = 9090
    replicas: int = 1
    recreate: bool = False
    drain_timeout_s: int = 30
    log_level: str = "info"
    tls_secret: str | None = None
    cpu: str = "500m"
    memory: str = "256Mi"
    env: tuple[Manifest, ...] = ()
    volumes: tuple[Manifest, ...] = ()
    mounts: tuple[Manifest, ...] = ()
    extra_ports: tuple[tuple[str, int, bool], ...] = ()
    await_s: int | None = None
    monitoring: bool = False
    api_access: bool = False

    @property
    def labels(self) -> dict[str, str]:
        """Labels of every object of the callout."""
        return labels(self.name, self.role)


def account(callout: Callout) -> Manifest:
    """Return the ServiceAccount."""
    return service_account(callout.name, callout.namespace, callout.labels)


def config_map(callout: Callout) -> Manifest:
    """Return the ConfigMap with the callout's files."""
    return manifest("v1", "ConfigMap", callout.name, callout.namespace, callout.labels, data=dict(callout.config))


def budget(callout: Callout) -> Manifest:
    """Return the PodDisruptionBudget."""
    return disruption_budget(callout.name, callout.namespace, callout.labels, selector(callout.name))


def service(callout: Callout) -> Manifest:
    """Return the Service. `appProtocol: HTTP2` makes GKE speak HTTP/2 over TLS, which callouts in GKE must do.

    Source: GKE, "Configure GKE Service Extensions"; the certificate may be self-signed.
    """
    spec = {
        "type": "ClusterIP",
        "selector": selector(callout.name),
        "ports": [
            {
                "name": "grpc-ext-proc",
                "port": callout.grpc_port,
                "targetPort": callout.grpc_port,
                "protocol": "TCP",
                "appProtocol": "HTTP2",
            },
            *(
                {"name": name, "port": port, "targetPort": port, "protocol": "TCP", "appProtocol": "HTTPS"}
                for name, port, served in callout.extra_ports
                if served
            ),
        ],
    }
    return manifest("v1", "Service", callout.name, callout.namespace, callout.labels, spec=spec)


def health_policy(callout: Callout) -> Manifest:
    """Return the HealthCheckPolicy: gRPC on the plaintext health port, since probes do not speak gRPC over TLS."""
    config = {
        "type": "GRPC",
        "grpcHealthCheck": {"portSpecification": "USE_FIXED_PORT", "port": callout.health_port},
    }
    target = target_ref("", "Service", callout.name)
    return health_check_policy(callout.name, callout.namespace, target, config, interval_s=5)


def backend_policy(callout: Callout, stream_timeout_s: int) -> Manifest:
    """Return the GCPBackendPolicy. One ext_proc stream lasts as long as its request; GKE's 30 s would cut slow ones."""
    spec = {"default": {"timeoutSec": stream_timeout_s}, "targetRef": target_ref("", "Service", callout.name)}
    kind, api = "GCPBackendPolicy", f"{GKE_API}/v1"
    return manifest(api, kind, callout.name, callout.namespace, callout.labels, spec=spec)


def deployment(callout: Callout) -> Manifest:
    """Return the Deployment. A change of the ConfigMap does not roll the pods: callouts reload it (docs/reload.md)."""
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    spec = {
        "replicas": callout.replicas,
        "revisionHistoryLimit": 3,
        "strategy": {"type": "Recreate"} if callout.recreate else rolling,
        "selector": {"matchLabels": selector(callout.name)},
        "template": {"metadata": {"labels": callout.labels}, "spec": _pod(callout)},
    }
    wait = {WAIT_TIMEOUT: str(callout.await_s)} if callout.await_s else None
    name, namespace = callout.name, callout.namespace
    return manifest("apps/v1", "Deployment", name, namespace, callout.labels, annotations=wait, spec=spec)


def _pod(callout: Callout) -> Manifest:
    volumes: list[Manifest] = [
        {"name": "config", "configMap": {"name": callout.name}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    if callout.tls_secret:
        volumes.append({"name": "tls", "secret": {"secretName": callout.tls_secret}})
    volumes += callout.volumes
    return {
        "serviceAccountName": callout.name,
        "automountServiceAccountToken": callout.api_access,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DETACH_S + callout.drain_timeout_s + MARGIN_S,
        "securityContext": pod_security(USER),
        "topologySpreadConstraints": spread(selector(callout.name)),
        "containers": [_container(callout)],
        "volumes": volumes,
    }


def _container(callout: Callout) -> Manifest:
    mounts: list[Manifest] = [
        {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the one writable folder of a read-only root
    ]
    if callout.tls_secret:
        mounts.append({"name": "tls", "mountPath": TLS_DIR, "readOnly": True})
    mounts += callout.mounts
    ports = {"grpc": callout.grpc_port, "health": callout.health_port, "metrics": callout.metrics_port}
    ports |= {name: port for name, port, _ in callout.extra_ports}
    return {
        "name": callout.module,
        "image": callout.image,
        "command": ["python", "-m", f"services.{callout.module}"],
        "args": _flags(callout),
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}, *callout.env],
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "resources": {
            "requests": {"cpu": callout.cpu, "memory": callout.memory},
            "limits": {"memory": callout.memory},  # no CPU limit: throttling would delay every request
        },
        "startupProbe": _probe(callout, "liveness", 1, 60),
        "readinessProbe": _probe(callout, "readiness", 5, 2),
        "livenessProbe": _probe(callout, "liveness", 10, 3),
        "lifecycle": {"preStop": {"sleep": {"seconds": DETACH_S}}},
        "securityContext": container_security(),
        "volumeMounts": mounts,
    }


def _flags(callout: Callout) -> list[str]:
    tls = ["--tls-mode=files", f"--tls-dir={TLS_DIR}"] if callout.tls_secret else ["--tls-mode=self-signed"]
    return [
        f"--config-file={CONFIG_DIR}/config.yaml",
        "--address=$(POD_IP)",
        f"--grpc-port={callout.grpc_port}",
        f"--health-port={callout.health_port}",
        f"--metrics-port={callout.metrics_port}",
        *tls,
        f"--drain-timeout={callout.drain_timeout_s}",
        f"--log-level={callout.log_level}",
        *callout.flags,
    ]


def _probe(callout: Callout, health_name: str, period_s: int, failures: int) -> Manifest:
    return {
        "grpc": {"port": callout.health_port, "service": health_name},
        "periodSeconds": period_s,
        "timeoutSeconds": max(1, period_s // 2),
        "failureThreshold": failures,
    }
