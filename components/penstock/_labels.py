"""Labels and annotations that all objects carry. Knows nothing of Pulumi."""

import hashlib
from collections.abc import Mapping
from typing import Literal

NAME = "app.kubernetes.io/name"
PART_OF = "app.kubernetes.io/part-of"
"""Recommended labels. Source: Kubernetes documentation, "Recommended Labels"."""

ROLE = "penstock.dev/role"
MODEL = "penstock.dev/model"
REPLICA_SET = "penstock.dev/replica-set"
LEADER = "penstock.dev/leader"
"""`true` on the one pod of a multi-node replica that serves requests."""
CONFIG_HASH = "penstock.dev/config-hash"

Role = Literal["callout", "picker", "replica"]


def labels(name: str, role: Role | None = None, **extra: str) -> dict[str, str]:
    """Return the labels of an object called `name`; `extra` maps `model` and `replica_set` to their values."""
    known = {"model": MODEL, "replica_set": REPLICA_SET}
    found = {NAME: name, PART_OF: "penstock"}
    if role:
        found[ROLE] = role
    return found | {known[key]: value for key, value in extra.items()}


def selector(name: str) -> dict[str, str]:
    """Return the labels that select the pods of the workload `name`, and only them."""
    return {NAME: name, PART_OF: "penstock"}


def config_hash(files: Mapping[str, str]) -> str:
    """Return a digest of a ConfigMap's data; callouts export the same of what they run by (`config_version`).

    In the pod template of a workload that does not reload its files it rolls the pods when the data changes.
    """
    joined = "\0".join(f"{name}\0{text}" for name, text in sorted(files.items()))
    return hashlib.sha256(joined.encode()).hexdigest()[:16]
