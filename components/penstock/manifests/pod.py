"""The pod of one vLLM process: a single-node replica, or one node of a replica with several."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import rdma, weights
from .common import Manifest, container_security, pod_security, spread
from .vllm import PORT, gpus

if TYPE_CHECKING:
    from ..replica_set import ModelReplicaSetArgs

USER = 2000
"""User `vllm` of the image since it can run without root; older images need LOGNAME and HOME, which are set anyway."""

STARTUP_S = 1800
"""Default time that a replica may take to load its weights."""
DRAIN_S = 60
"""Default time that open answers have to finish."""

CACHE_DIR = "/var/cache/vllm"
GPU = "nvidia.com/gpu"
"""Resource name and taint of GPU nodes. Source: GKE, "Run GPUs in GKE Standard node pools"."""
GPU_TYPE_LABEL = "cloud.google.com/gke-accelerator"

_PROBE_S = 10
_MARGIN_S = 30


def template(
    args: "ModelReplicaSetArgs",
    tags: dict[str, str],
    flags: Sequence[str],
    *,
    serves: bool = True,
    spread_by: dict[str, str] | None = None,
    extra_env: Sequence[Manifest] = (),
) -> Manifest:
    """Return a pod template.

    Args:
        args: of the component.
        tags: labels of the pod.
        flags: arguments of `vllm serve SOURCE`.
        serves: whether this process answers HTTP; workers of a multi-node replica do not, hence have no probes.
        spread_by: labels of pods that are spread over zones and nodes; None: they may be anywhere.
        extra_env: further variables.
    """
    metadata: Manifest = {"labels": tags}
    linked = _rdma(args)
    notes = weights.annotations(args) | (linked["annotations"] if linked else {})
    if notes:
        metadata["annotations"] = notes
    drain_s = args.get("drain_timeout_s", DRAIN_S)
    accelerator = args.get("accelerator", {})
    pod: Manifest = {
        "serviceAccountName": args["name"],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain_s + _MARGIN_S,
        "securityContext": _pod_security(linked),
        "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [_container(args, flags, drain_s, serves, extra_env, linked)],
        "volumes": [
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{args.get('shared_memory_mib', 2048)}Mi"}},
            {"name": "cache", "emptyDir": {"sizeLimit": f"{args.get('cache_gib', 100)}Gi"}},
            {"name": "tmp", "emptyDir": {}},
            *weights.volumes(args, user(args)),
            *(linked["volumes"] if linked else []),
        ],
    }
    if spread_by:
        pod["topologySpreadConstraints"] = spread(spread_by)
    if weights.init_containers(args):
        pod["initContainers"] = weights.init_containers(args)
    if linked and linked["resourceClaims"]:
        pod["resourceClaims"] = linked["resourceClaims"]
    node = ({GPU_TYPE_LABEL: accelerator["type"]} if accelerator.get("type") else {}) | args.get("node_selector", {})
    if node:
        pod["nodeSelector"] = node
    return {"metadata": metadata, "spec": pod}


def user(args: "ModelReplicaSetArgs") -> int:
    """Return the pod's user: root with RDMA, since a capability has no effect for another user.

    Source: Kubernetes, issue 56374: added capabilities are not ambient.
    """
    return 0 if args.get("rdma") else USER


def _rdma(args: "ModelReplicaSetArgs") -> rdma.PodRdma | None:
    wanted = args.get("rdma")
    if not wanted:
        return None
    return rdma.pod_rdma(wanted["mode"], wanted.get("rails", 8), args.get("accelerator", {}).get("type"))


def _pod_security(linked: rdma.PodRdma | None) -> Manifest:
    if linked is None:
        return pod_security(USER)
    return {"runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}}


def _container(
    args: "ModelReplicaSetArgs",
    flags: Sequence[str],
    drain_s: int,
    serves: bool,
    extra_env: Sequence[Manifest],
    linked: rdma.PodRdma | None,
) -> Manifest:
    cpu, memory = args.get("cpu", "4"), args.get("memory", "24Gi")
    startup_s = args.get("startup_timeout_s", STARTUP_S)
    security = container_security()
    if linked:
        security["capabilities"] = {"drop": ["ALL"], "add": linked["container"]["capabilities"]}
    probes = {
        "ports": [{"name": "http", "containerPort": PORT}],
        "startupProbe": _probe(_PROBE_S, startup_s // _PROBE_S),
        "readinessProbe": _probe(5, 2),
        "livenessProbe": _probe(_PROBE_S, 6),
    }
    return {
        "name": "vllm",
        "image": args["image"],
        "command": ["vllm", "serve", weights.source(args)],
        "args": list(flags),
        "env": [*_environment(args), *extra_env, *(linked["container"]["env"] if linked else [])],
        "resources": {
            "requests": {"cpu": cpu, "memory": memory},
            "limits": {"memory": memory, GPU: str(gpus(args))},
            **(linked["container"]["resources"] if linked else {}),
        },
        **(probes if serves else {}),
        # The replica leaves the pool when its end is decided; open answers have the drain time to finish before
        # SIGTERM, on which vLLM aborts what is running. Workers stay as long as their leader does.
        "lifecycle": {"preStop": {"sleep": {"seconds": drain_s}}},
        "securityContext": security,
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - NCCL and workers share memory here
            {"name": "cache", "mountPath": CACHE_DIR},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - writable folder of a read-only root
            *weights.mounts(args),
            *(linked["container"]["volumeMounts"] if linked else []),
        ],
    }


def _environment(args: "ModelReplicaSetArgs") -> list[Manifest]:
    fixed = {
        "HOME": CACHE_DIR,
        "HF_HOME": f"{CACHE_DIR}/huggingface",
        "LOGNAME": "vllm",  # torch asks for a user name, which a numeric user does not have
        "VLLM_NO_USAGE_STATS": "1",
    }
    if args.get("allow_runtime_lora_updates"):
        fixed["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    fixed |= weights.environment(args)
    env: list[Manifest] = [{"name": name, "value": value} for name, value in fixed.items()]
    secret = args.get("hf_token_secret")
    if secret:
        ref = {"name": secret["name"], "key": secret.get("key", "token")}
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": ref}})
    return env


def _probe(period_s: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": "/health", "port": "http"},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
