"""Cloud Monitoring's metrics for HorizontalPodAutoscalers. Knows nothing of Pulumi.

The adapter is Google's; of its objects only those are declared that autoscaling by pods' metrics needs. It may read
pods, nodes, and Cloud Monitoring, the latter as a ServiceAccount without a key. It serves on a high port, so that it
needs no root. Source: GKE, "Optimize Pod autoscaling based on metrics"; GoogleCloudPlatform/k8s-stackdriver.
"""

from collections.abc import Iterator

from .._labels import labels, selector
from .common import Manifest, container_security, disruption_budget, manifest, pod_security

NAMESPACE = "custom-metrics"
NAME = "custom-metrics-stackdriver-adapter"
IMAGE = "gcr.io/gke-release/custom-metrics-stackdriver-adapter:v0.15.1-gke.0"
ROLE = "roles/monitoring.viewer"
"""What the adapter's ServiceAccount needs in the project."""

_PORT = 6443
_USER = 65532
_RBAC = "rbac.authorization.k8s.io"
_RBAC_V1 = f"{_RBAC}/v1"
_READER = f"{NAME}-reader"
_CERTS = "/tmp/certs"  # noqa: S108 - a volume of the pod's own


def objects(image: str | None, external: bool) -> Iterator[tuple[str, Manifest]]:
    """Yield role and manifest of each object, without the namespace.

    Args:
        image: instead of `IMAGE`.
        external: serve external metrics too; a cluster has one server of them, and KEDA is one.
    """
    account = manifest("v1", "ServiceAccount", NAME, NAMESPACE, labels(NAME))
    rules = [{"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}]
    yield "account", account
    yield "reader", manifest(_RBAC_V1, "ClusterRole", _READER, None, labels(NAME), rules=rules)
    yield "reader-binding", _binding("ClusterRoleBinding", _READER, None, "ClusterRole", _READER)
    yield "delegator", _binding("ClusterRoleBinding", f"{NAME}-delegator", None, "ClusterRole", "system:auth-delegator")
    reads = "extension-apiserver-authentication-reader"
    yield "auth-reader", _binding("RoleBinding", f"{NAME}-auth-reader", "kube-system", "Role", reads)
    yield "deployment", _deployment(image or IMAGE)
    yield "budget", disruption_budget(NAME, NAMESPACE, labels(NAME), selector(NAME))
    yield "service", _service()
    for version, priority in (("v1beta1", 100), ("v1beta2", 200)):
        yield f"custom-{version}", _api_service("custom.metrics.k8s.io", version, priority)
    if external:
        yield "external-v1beta1", _api_service("external.metrics.k8s.io", "v1beta1", 100)


def _binding(kind: str, name: str, namespace: str | None, role_kind: str, role: str) -> Manifest:
    ref = {"apiGroup": _RBAC, "kind": role_kind, "name": role}
    subjects = [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}]
    return manifest(_RBAC_V1, kind, name, namespace, labels(NAME), roleRef=ref, subjects=subjects)


def _deployment(image: str) -> Manifest:
    container = {
        "name": "adapter",
        "image": image,
        "command": ["/adapter"],
        "args": ["--use-new-resource-model=true", f"--secure-port={_PORT}", f"--cert-dir={_CERTS}"],
        "ports": [{"name": "https", "containerPort": _PORT}],
        "readinessProbe": {"tcpSocket": {"port": "https"}, "periodSeconds": 10},
        "resources": {"requests": {"cpu": "250m", "memory": "400Mi"}, "limits": {"memory": "400Mi"}},
        "securityContext": container_security(),
        "volumeMounts": [{"name": "certs", "mountPath": _CERTS}],
    }
    pod = {
        "serviceAccountName": NAME,
        "enableServiceLinks": False,
        "securityContext": pod_security(_USER),
        "containers": [container],
        "volumes": [{"name": "certs", "emptyDir": {}}],
    }
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": selector(NAME)},
        "template": {"metadata": {"labels": labels(NAME)}, "spec": pod},
    }
    return manifest("apps/v1", "Deployment", NAME, NAMESPACE, labels(NAME), spec=spec)


def _service() -> Manifest:
    ports = [{"name": "https", "port": 443, "targetPort": "https"}]
    spec = {"type": "ClusterIP", "selector": selector(NAME), "ports": ports}
    return manifest("v1", "Service", NAME, NAMESPACE, labels(NAME), spec=spec)


def _api_service(group: str, version: str, priority: int) -> Manifest:
    """Return the registration; the adapter signs its certificate itself, so the API server cannot verify it."""
    spec = {
        "group": group,
        "version": version,
        "groupPriorityMinimum": 100,
        "versionPriority": priority,
        "insecureSkipTLSVerify": True,
        "service": {"name": NAME, "namespace": NAMESPACE, "port": 443},
    }
    return manifest("apiregistration.k8s.io/v1", "APIService", f"{version}.{group}", None, labels(NAME), spec=spec)
