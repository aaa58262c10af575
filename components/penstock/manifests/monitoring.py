"""PodMonitoring: what managed Prometheus reads, and what it needs to be let in."""

from collections.abc import Mapping

from .._labels import labels
from . import access
from .common import Manifest, manifest

API = "monitoring.googleapis.com/v1"
"""Source: Google Cloud Managed Service for Prometheus, managed collection."""

INTERVAL_S = 15
"""How often metrics are read; an autoscaler sees a change after one to two of these."""

COLLECTOR = ("gmp-system", "collector")
"""Namespace and name of the collectors' ServiceAccount on clusters of mode Standard."""

READER_SUFFIX = "-metrics"


def pod_monitoring(
    name: str,
    namespace: str,
    pods: Mapping[str, str],
    port: str = "metrics",
    *,
    path: str = "/metrics",
    token_secret: str | None = None,
) -> Manifest:
    """Return a PodMonitoring; its name is the label `job` of every series.

    Args:
        name: of the object.
        namespace: of object and pods.
        pods: labels of the pods.
        port: name of the container's port.
        path: of the metrics.
        token_secret: Secret whose key `token` is sent along.
    """
    endpoint: Manifest = {"port": port, "path": path, "interval": f"{INTERVAL_S}s"}
    if token_secret:
        secret = {"name": token_secret, "key": "token"}
        endpoint["authorization"] = {"type": "Bearer", "credentials": {"secret": secret}}
    spec = {"selector": {"matchLabels": dict(pods)}, "endpoints": [endpoint]}
    return manifest(API, "PodMonitoring", name, namespace, labels(name), spec=spec)


def reader(workload: str, namespace: str) -> dict[str, Manifest]:
    """Return, by role, what lets collectors read metrics of `workload` that ask for a token.

    A ServiceAccount that may get `/metrics` and nothing else, a Secret in which Kubernetes puts its token (it is never
    in a manifest), and the permission of the collectors to read that Secret. Source: chart `inferencepool` 1.5, `gke`.
    """
    name = f"{workload}{READER_SUFFIX}"
    tags = labels(workload)  # a label's value has less room than a name
    own = {"kubernetes.io/service-account.name": name}
    secret = manifest(
        "v1", "Secret", name, namespace, tags, annotations=own, type="kubernetes.io/service-account-token"
    )
    get = [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    read = [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": ["get", "list", "watch"]}]
    account = manifest("v1", "ServiceAccount", name, namespace, tags, automountServiceAccountToken=False)
    return {
        "account": account,
        "secret": secret,
        "cluster-role": access.cluster_role(name, namespace, tags, get),
        "cluster-role-binding": access.cluster_role_binding(name, namespace, tags),
        "role": access.role(name, namespace, tags, read),
        "role-binding": access.role_binding(name, namespace, tags, COLLECTOR),
    }
