"""Upstream's endpoint picker in the place of Penstock's: one profile per release line.

With release 1.5 the picker left the Gateway API Inference Extension for llm-d-router, and image, API groups and
configuration changed their names with it. A profile holds what belongs together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._labels import CONFIG_HASH, config_hash, labels, selector
from .._naming import PICKER_SUFFIX
from ..errors import ConfigError, did_you_mean
from . import picker
from .callout import CONFIG_DIR, DETACH_S, MARGIN_S, TLS_DIR, USER
from .common import (
    INFERENCE_API,
    WAIT_TIMEOUT,
    Manifest,
    container_security,
    manifest,
    pod_security,
    service_account,
)
from .replica_set import NODE_MARGIN_S, STARTUP_S

if TYPE_CHECKING:
    from ..pool import InferencePoolArgs, Picker

METRICS_PORT = 9090


@dataclass(frozen=True, slots=True)
class Profile:
    """What one release line of the picker is called and asks for."""

    image: str
    config_api: str
    """Version of `EndpointPickerConfig`."""
    objective_api: str
    """Version of InferenceObjective that the picker reads."""
    cpu: str
    memory: str
    """Requests of its chart."""
    app_protocol: str | None
    """`appProtocol` of its Service: the load balancer speaks HTTP/2 over TLS in either case."""


PROFILES = {
    "gaie-1.5": Profile(
        image="registry.k8s.io/gateway-api-inference-extension/epp:v1.5.0",
        config_api="inference.networking.x-k8s.io/v1alpha1",
        objective_api="inference.networking.x-k8s.io/v1alpha2",
        cpu="4",
        memory="8Gi",
        app_protocol=None,
    ),
    "llm-d-router-0.10": Profile(
        image="ghcr.io/llm-d/llm-d-router-endpoint-picker:v0.10.0",
        config_api="llm-d.ai/v1alpha1",
        objective_api="llm-d.ai/v1alpha2",
        cpu="8",
        memory="8Gi",
        app_protocol="http2",
    ),
}
"""Source: chart `inferencepool` of Gateway API Inference Extension 1.5.0; chart `llm-d-router-gateway` and
deploy/components/inference-gateway of llm-d-router 0.10.0."""

NAMES = (picker.PENSTOCK, *PROFILES)

_HEALTH = "inference-extension"
"""Health name that both releases' probes ask for: SERVING once the InferencePool has been read."""

_DRAIN_S = 100
"""With detaching and margin the 130 s of both charts."""

_LOG_FLAGS = {
    "debug": "--v=4",
    "info": "--v=2",
    "warning": "--zap-log-level=error",
    "error": "--zap-log-level=error",
}
"""Verbosity 2 is upstream's default level, 4 its debug level. Source: pkg/common/observability/logging, 1.5.0."""


def profile(args: "InferencePoolArgs") -> Profile | None:
    """Return the profile, or None for Penstock's picker."""
    return PROFILES.get(args["picker"].get("profile", picker.PENSTOCK))


def account(args: "InferencePoolArgs") -> Manifest:
    """Return the ServiceAccount."""
    return service_account(_name(args), args["namespace"], _labels(args))


def config_map(args: "InferencePoolArgs") -> Manifest:
    """Return the ConfigMap with the configuration."""
    return manifest("v1", "ConfigMap", _name(args), args["namespace"], _labels(args), data=_files(args))


def service(args: "InferencePoolArgs") -> Manifest:
    """Return the Service that the pool refers to."""
    port: Manifest = {"name": "grpc-ext-proc", "port": picker.GRPC_PORT, "targetPort": picker.GRPC_PORT}
    port["protocol"] = "TCP"
    protocol = _profile(args).app_protocol
    if protocol:
        port["appProtocol"] = protocol
    spec = {"type": "ClusterIP", "selector": selector(_name(args)), "ports": [port]}
    return manifest("v1", "Service", _name(args), args["namespace"], _labels(args), spec=spec)


def deployment(args: "InferencePoolArgs") -> Manifest:
    """Return the Deployment: one pod that is recreated, since prefix index and load are kept in memory."""
    name = _name(args)
    spec = {
        "replicas": 1,
        "revisionHistoryLimit": 3,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": selector(name)},
        "template": {
            "metadata": {"labels": _labels(args), "annotations": {CONFIG_HASH: config_hash(_files(args))}},
            "spec": _pod(args),
        },
    }
    wait = {WAIT_TIMEOUT: str(args.get("startup_timeout_s", STARTUP_S) + NODE_MARGIN_S)}
    return manifest("apps/v1", "Deployment", name, args["namespace"], _labels(args), annotations=wait, spec=spec)


def flags(args: "InferencePoolArgs") -> list[str]:
    """Return the arguments. Source: pkg/epp/server/options.go of both releases."""
    settings = args["picker"]
    tls = [f"--cert-path={TLS_DIR}", "--enable-cert-reload=true"] if settings.get("tls_secret") else []
    return [
        f"--pool-name={args['name']}",
        f"--pool-namespace={args['namespace']}",
        f"--pool-group={INFERENCE_API}",
        f"--config-file={CONFIG_DIR}/config.yaml",
        f"--grpc-port={picker.GRPC_PORT}",
        f"--grpc-health-port={picker.HEALTH_PORT}",
        f"--metrics-port={METRICS_PORT}",
        f"--metrics-endpoint-auth={'true' if settings.get('metrics_auth') else 'false'}",
        "--enable-pprof=false",
        "--tracing=false",
        "--zap-encoder=json",
        _LOG_FLAGS[settings.get("log_level", "info")],
        *tls,
    ]


def problems(settings: "Picker", path: str) -> Iterator[ConfigError]:
    """Yield every reason why the picker's profile does not go with its other settings."""
    chosen = settings.get("profile", picker.PENSTOCK)
    if chosen not in NAMES:
        yield ConfigError(f"{path}.profile", chosen, f"one of {', '.join(NAMES)}", did_you_mean(chosen, NAMES))
    elif chosen != picker.PENSTOCK and settings.get("discovery") is not None:
        expected = "no choice: upstream's picker reads the Kubernetes API"
        yield ConfigError(f"{path}.discovery", settings["discovery"], expected, "Remove it")
    elif chosen == picker.PENSTOCK and settings.get("metrics_auth"):
        expected = "an upstream profile: Penstock's picker asks for no token"
        yield ConfigError(f"{path}.metrics_auth", True, expected, "Remove it; a NetworkPolicy says who may connect")


def _pod(args: "InferencePoolArgs") -> Manifest:
    drain_s = args["picker"].get("drain_timeout_s", _DRAIN_S)
    volumes: list[Manifest] = [{"name": "config", "configMap": {"name": _name(args)}}]
    if args["picker"].get("tls_secret"):
        volumes.append({"name": "tls", "secret": {"secretName": args["picker"]["tls_secret"]}})
    return {
        "serviceAccountName": _name(args),
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DETACH_S + drain_s + MARGIN_S,
        "securityContext": pod_security(USER),
        "containers": [_container(args)],
        "volumes": volumes,
    }


def _container(args: "InferencePoolArgs") -> Manifest:
    settings, made = args["picker"], _profile(args)
    cpu, memory = settings.get("cpu", made.cpu), settings.get("memory", made.memory)
    mounts: list[Manifest] = [{"name": "config", "mountPath": CONFIG_DIR, "readOnly": True}]
    if settings.get("tls_secret"):
        mounts.append({"name": "tls", "mountPath": TLS_DIR, "readOnly": True})
    ports = {"grpc": picker.GRPC_PORT, "health": picker.HEALTH_PORT, "metrics": METRICS_PORT}
    fields = {"NAMESPACE": "metadata.namespace", "POD_NAME": "metadata.name"}
    return {
        "name": "epp",
        "image": settings.get("image", made.image),
        "args": flags(args),
        "env": [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()],
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory}},
        "startupProbe": _probe(1, 60),
        "readinessProbe": _probe(2, 2),
        "livenessProbe": _probe(10, 3),
        "lifecycle": {"preStop": {"sleep": {"seconds": DETACH_S}}},
        "securityContext": container_security(),
        "volumeMounts": mounts,
    }


def _probe(period_s: int, failures: int) -> Manifest:
    return {
        "grpc": {"port": picker.HEALTH_PORT, "service": _HEALTH},
        "periodSeconds": period_s,
        "timeoutSeconds": max(1, period_s // 2),
        "failureThreshold": failures,
    }


def _profile(args: "InferencePoolArgs") -> Profile:
    return PROFILES[args["picker"]["profile"]]


def _files(args: "InferencePoolArgs") -> dict[str, str]:
    return {"config.yaml": picker.config(args["picker"], _profile(args).config_api)}


def _name(args: "InferencePoolArgs") -> str:
    return f"{args['name']}{PICKER_SUFFIX}"


def _labels(args: "InferencePoolArgs") -> dict[str, str]:
    return labels(_name(args), "picker")
