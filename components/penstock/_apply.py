"""Turns manifests into Pulumi resources: the only module that knows both."""

import re
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

_TYPED: Mapping[tuple[str, str], Any] = {
    ("apps/v1", "DaemonSet"): k8s.apps.v1.DaemonSet,
    ("apps/v1", "Deployment"): k8s.apps.v1.Deployment,
    ("apps/v1", "StatefulSet"): k8s.apps.v1.StatefulSet,
    ("autoscaling/v2", "HorizontalPodAutoscaler"): k8s.autoscaling.v2.HorizontalPodAutoscaler,
    ("networking.k8s.io/v1", "NetworkPolicy"): k8s.networking.v1.NetworkPolicy,
    ("policy/v1", "PodDisruptionBudget"): k8s.policy.v1.PodDisruptionBudget,
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): k8s.rbac.v1.ClusterRole,
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): k8s.rbac.v1.ClusterRoleBinding,
    ("rbac.authorization.k8s.io/v1", "Role"): k8s.rbac.v1.Role,
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): k8s.rbac.v1.RoleBinding,
    ("v1", "ConfigMap"): k8s.core.v1.ConfigMap,
    ("v1", "Namespace"): k8s.core.v1.Namespace,
    ("v1", "PersistentVolume"): k8s.core.v1.PersistentVolume,
    ("v1", "PersistentVolumeClaim"): k8s.core.v1.PersistentVolumeClaim,
    ("v1", "Secret"): k8s.core.v1.Secret,
    ("v1", "Service"): k8s.core.v1.Service,
    ("v1", "ServiceAccount"): k8s.core.v1.ServiceAccount,
}
"""Built-in kinds have classes of their own, with await logic; every other kind is a CustomResource."""


def apply(name: str, manifest: Mapping[str, Any], opts: pulumi.ResourceOptions) -> pulumi.CustomResource:
    """Register `manifest` under the logical name `name`.

    Args:
        name: logical name, `<component>-<role>`.
        manifest: a whole Kubernetes object in camelCase; values may be Pulumi outputs.
        opts: with `parent=`; dependencies are merged by the caller.

    Returns:
        The resource, with the type token of its kind, e.g. `kubernetes:core/v1:Service`.
    """
    fields = dict(manifest)
    api_version, kind = fields.pop("apiVersion"), fields.pop("kind")
    typed = _TYPED.get((api_version, kind))
    if typed is None:
        return k8s.apiextensions.CustomResource(name, api_version=api_version, kind=kind, opts=opts, **fields)
    resource: pulumi.CustomResource = typed(name, opts=opts, **{_snake(key): value for key, value in fields.items()})
    return resource


def child_options(parent: pulumi.Resource, depends_on: "list[pulumi.Resource] | None" = None) -> pulumi.ResourceOptions:
    """Return the options of a child: its parent, from which it inherits the provider, and what it waits for."""
    return pulumi.ResourceOptions(parent=parent, depends_on=depends_on or None)


def _snake(key: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", lambda match: f"_{match[1].lower()}", key)
