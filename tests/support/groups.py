"""A replica of several nodes, for tests to vary."""

from typing import Any

from tests.support.arguments import declared, of_kind

H200 = {"type": "nvidia-h200-141gb", "count": 8}
GROUP = {"nodes": 2, "accelerator": H200, "rdma": {"mode": "roce", "rails": 8}}


def group(**changes: Any) -> dict[str, Any]:
    """The LeaderWorkerSet of a replica of two H200 nodes."""
    return of_kind(declared("ModelReplicaSet", **(GROUP | changes)), "LeaderWorkerSet")


def templates(**changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The templates of its leader and its workers."""
    made = group(**changes)["spec"]["leaderWorkerTemplate"]
    return made["leaderTemplate"], made["workerTemplate"]


def container(template: dict[str, Any]) -> dict[str, Any]:
    """The first container of a pod template."""
    found: dict[str, Any] = template["spec"]["containers"][0]
    return found
