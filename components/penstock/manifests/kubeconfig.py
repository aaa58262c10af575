"""The kubeconfig of a GKE cluster: by its DNS endpoint and the caller's own Google identity, without any key."""

import json

PLUGIN = "gke-gcloud-auth-plugin"
"""Makes a short-lived token from the caller's Google credentials. Source: GKE, "Install kubectl and configure cluster
access"."""
EXEC_API = "client.authentication.k8s.io/v1beta1"
"""The exec API that the plugin speaks. Source: kubernetes/cloud-provider-gcp, cmd/gke-gcloud-auth-plugin."""

_HINT = f"Install {PLUGIN}: gcloud components install {PLUGIN}"


def kubeconfig_text(name: str, endpoint: str) -> str:
    """Return a kubeconfig, as JSON, which is YAML too.

    Google's public certificate authorities vouch for a DNS endpoint, hence no certificate of the cluster's own; who
    calls is decided by IAM (`container.clusters.connect`) and the cluster's RBAC.

    Args:
        name: of cluster, user and context in the file.
        endpoint: host name of the control plane's DNS endpoint.
    """
    plugin = {
        "apiVersion": EXEC_API,
        "command": PLUGIN,
        "installHint": _HINT,
        "interactiveMode": "Never",
        "provideClusterInfo": True,
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": f"https://{endpoint}"}}],
        "users": [{"name": name, "user": {"exec": plugin}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    return json.dumps(config)
