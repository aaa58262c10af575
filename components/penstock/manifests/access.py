"""Roles and their bindings. Cluster-wide names carry the namespace, since several stacks may share a cluster."""

from collections.abc import Mapping, Sequence

from .common import INFERENCE_API, Manifest, manifest

RBAC = "rbac.authorization.k8s.io"
_API = f"{RBAC}/v1"
_WATCH = ["get", "list", "watch"]

OBJECTIVE_GROUPS = ("inference.networking.x-k8s.io", "llm-d.ai")
"""API groups of InferenceObjective and InferenceModelRewrite: until release 1.5, and since llm-d-router 0.9."""

PICKER_RULES: Sequence[Manifest] = (
    {"apiGroups": [""], "resources": ["pods"], "verbs": _WATCH},
    {"apiGroups": [INFERENCE_API], "resources": ["inferencepools"], "verbs": _WATCH},
    {"apiGroups": list(OBJECTIVE_GROUPS), "resources": ["inferenceobjectives"], "verbs": _WATCH},
)
"""What a picker reads in its namespace to know its pool, the pool's replicas and objectives."""

UPSTREAM_RULES: Sequence[Manifest] = (
    *PICKER_RULES,
    {"apiGroups": list(OBJECTIVE_GROUPS), "resources": ["inferencemodelrewrites"], "verbs": _WATCH},
)
"""What upstream's picker reads. Source: charts `inferencepool` 1.5 and `llm-d-router-gateway` 0.10."""

REVIEW_RULES: Sequence[Manifest] = (
    {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
    {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
)
"""What a workload asks the API server to tell who reads its metrics, and whether they may."""


def role(name: str, namespace: str, tags: Mapping[str, str], rules: Sequence[Manifest]) -> Manifest:
    """Return a Role."""
    return manifest(_API, "Role", name, namespace, tags, rules=list(rules))


def role_binding(
    name: str, namespace: str, tags: Mapping[str, str], account: tuple[str, str] | None = None
) -> Manifest:
    """Return the binding of the Role `name` to `account`, namespace and name; default the ServiceAccount `name`."""
    where, who = account or (namespace, name)
    return manifest(
        _API,
        "RoleBinding",
        name,
        namespace,
        tags,
        roleRef={"apiGroup": RBAC, "kind": "Role", "name": name},
        subjects=[{"kind": "ServiceAccount", "name": who, "namespace": where}],
    )


def cluster_role(name: str, namespace: str, tags: Mapping[str, str], rules: Sequence[Manifest]) -> Manifest:
    """Return a ClusterRole for the workload `name` of `namespace`."""
    return manifest(_API, "ClusterRole", f"{namespace}:{name}", None, tags, rules=list(rules))


def cluster_role_binding(name: str, namespace: str, tags: Mapping[str, str]) -> Manifest:
    """Return the binding of that ClusterRole to the ServiceAccount `name`."""
    full = f"{namespace}:{name}"
    return manifest(
        _API,
        "ClusterRoleBinding",
        full,
        None,
        tags,
        roleRef={"apiGroup": RBAC, "kind": "ClusterRole", "name": full},
        subjects=[{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    )
