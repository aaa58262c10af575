"""One uniform set of vLLM replicas: the workload, its ServiceAccount and its disruption budget."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._labels import LEADER, REPLICA_SET, labels
from .._naming import REPLICAS_SUFFIX, check_label, slug
from ..errors import ConfigError
from . import autoscaling, chips, monitoring, multi_node, pod, vllm, weights
from .common import (
    WAIT_TIMEOUT,
    Manifest,
    check_image,
    check_model_name,
    check_quantity,
    check_range,
    disruption_budget,
    manifest,
    service_account,
)
from .pod import STARTUP_S, pod_security_level
from .vllm import PORT

if TYPE_CHECKING:
    from ..replica_set import ModelReplicaSetArgs

__all__ = ["NODE_MARGIN_S", "PORT", "STARTUP_S", "pod_security_level"]

NODE_MARGIN_S = 600
"""What Pulumi's await adds to the time for loading: time for a node with GPUs to be added."""


def workload(args: "ModelReplicaSetArgs") -> Manifest:
    """Return the Deployment, or the LeaderWorkerSet if a replica has several nodes.

    Pulumi awaits it for as long as a replica may load its weights, and some more for a node to be added.
    """
    await_s = args.get("startup_timeout_s", STARTUP_S) + NODE_MARGIN_S
    if args.get("nodes", 1) > 1:
        return multi_node.leader_worker_set(args, _labels(args), await_s)
    return _deployment(args, await_s)


def autoscaler(args: "ModelReplicaSetArgs") -> list[Manifest]:
    """Return the objects that set the number of replicas; none where it is fixed."""
    made = workload(args)
    return autoscaling.autoscaler(args, made["apiVersion"], made["kind"])


def pod_monitoring(args: "ModelReplicaSetArgs") -> Manifest | None:
    """Return the PodMonitoring of the replicas, or None. An autoscaler sees nothing without."""
    if not args.get("monitoring", args.get("autoscaling") is not None):
        return None
    pods = pool_selector(args["name"], leader_only=args.get("nodes", 1) > 1)
    return monitoring.pod_monitoring(args["name"], args["namespace"], pods, "http")


def account(args: "ModelReplicaSetArgs") -> Manifest:
    """Return the ServiceAccount."""
    return service_account(args["name"], args["namespace"], _labels(args))


def budget(args: "ModelReplicaSetArgs") -> Manifest:
    """Return the PodDisruptionBudget over all pods, workers too.

    One evicted pod takes its whole group along, and the group's leader is not ready until it is back: so the budget
    lets one group at a time go, and never keeps a node from being drained for good.
    """
    return disruption_budget(args["name"], args["namespace"], _labels(args), pool_selector(args["name"]))


def pool_selector(name: str, leader_only: bool = False) -> dict[str, str]:
    """Return the labels by which a pool, and its Service of replicas, select the replicas of the set `name`.

    `leader_only` for replicas of several nodes: the workers have no HTTP server.
    """
    return {REPLICA_SET: name} | ({LEADER: "true"} if leader_only else {})


def problems(args: "ModelReplicaSetArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be rendered."""
    yield from check_label(f"{path}.name", args["name"], REPLICAS_SUFFIX, "the replica set's name")
    yield from check_label(f"{path}.namespace", args["namespace"], what="a namespace")
    yield from check_image(f"{path}.image", args["image"])
    yield from check_model_name(f"{path}.model", args["model"])
    yield from check_label(f"{path}.model", slug(args["model"]), what="the model's name as a DNS label")
    yield from weights.problems(args, path)
    yield from autoscaling.problems(args, path)
    yield from check_range(f"{path}.drain_timeout_s", args.get("drain_timeout_s", pod.DRAIN_S), 1, 3600, "seconds")
    yield from check_range(f"{path}.startup_timeout_s", args.get("startup_timeout_s", STARTUP_S), 60, 7200, "seconds")
    yield from check_range(f"{path}.shared_memory_mib", args.get("shared_memory_mib", 2048), 64, 2**20, "MiB")
    yield from check_range(f"{path}.cache_gib", args.get("cache_gib", 100), 1, 2**14, "GiB")
    yield from chips.problems(args, path)
    yield from check_quantity(f"{path}.cpu", args.get("cpu", "4"))
    yield from check_quantity(f"{path}.memory", args.get("memory", "24Gi"))
    secret = args.get("hf_token_secret")
    if secret:
        yield from check_label(f"{path}.hf_token_secret.name", secret["name"], what="a Secret's name")
    yield from multi_node.problems(args, path)
    yield from vllm.problems(args, path)
    if args.get("autoscaling") and args.get("monitoring") is False:
        fix = "Remove it, or remove `autoscaling`"
        yield ConfigError(f"{path}.monitoring", False, "metrics, which the autoscaler goes by", fix)


def _deployment(args: "ModelReplicaSetArgs", await_s: int) -> Manifest:
    """Return the Deployment. It replaces one replica at a time without a surge: spare GPUs are rarely at hand."""
    name, tags = args["name"], _labels(args)
    spec: Manifest = {
        "revisionHistoryLimit": 3,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        "selector": {"matchLabels": pool_selector(name)},
        "template": pod.template(args, tags, vllm.serve_args(args), spread_by=pool_selector(name)),
    }
    if not args.get("autoscaling"):
        spec = {"replicas": args.get("replicas", 1)} | spec
    wait = {WAIT_TIMEOUT: str(await_s)}
    return manifest("apps/v1", "Deployment", name, args["namespace"], tags, annotations=wait, spec=spec)


def _labels(args: "ModelReplicaSetArgs") -> dict[str, str]:
    return labels(args["name"], "replica", model=slug(args["model"]), replica_set=args["name"])
