"""The pod of one vLLM process: a single-node replica, or one node of a replica with several."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import chips, rdma, weights
from .common import POD_SECURITY, Manifest, container_security, mebibytes, pod_security, spread
from .vllm import PORT

if TYPE_CHECKING:
    from ..replica_set import ModelReplicaSetArgs

USER = 2000
"""User `vllm` of the image since it can run without root; older images need LOGNAME and HOME, which are set anyway."""

STARTUP_S = 1800
"""Default time that a replica may take to load its weights."""
DRAIN_S = 60
"""Default time that open answers have to finish."""

CACHE_DIR = "/var/cache/vllm"

_PROBE_S = 10
_MARGIN_S = 30

KEEP_ALIVE_VARIABLE = "VLLM_HTTP_TIMEOUT_KEEP_ALIVE"
"""Source: vLLM 0.32, `vllm/envs.py`; default 5 s."""
KEEP_ALIVE_S = 620
"""How long a replica keeps idle connections: longer than the load balancer, which reuses them for 600 s and answers 502
or 503 when one is closed under a request. Source: Cloud Load Balancing, "Backend service timeouts and retries"."""


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
    pod: Manifest = {
        "serviceAccountName": args["name"],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain_s + _MARGIN_S,
        "securityContext": _pod_security(args),
        "tolerations": [chips.toleration(args)],
        "containers": [_container(args, flags, drain_s, serves, extra_env, linked)],
        "volumes": [
            {
                "name": "shm",
                "emptyDir": {"medium": "Memory", "sizeLimit": mebibytes(args.get("shared_memory_mib", 2048))},
            },
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
    node = chips.node_labels(args) | args.get("node_selector", {})
    if node:
        pod["nodeSelector"] = node
    return {"metadata": metadata, "spec": pod}


def user(args: "ModelReplicaSetArgs") -> int:
    """Return the pod's user: root with RDMA and with TPUs.

    RDMA needs a capability, which has no effect for another user; a TPU is a VFIO group, whose device belongs to root
    alone. Sources: Kubernetes, issue 56374: added capabilities are not ambient; Linux, `vfio_devnode`: of VFIO's
    devices only the container `/dev/vfio/vfio` is open to all.
    """
    return 0 if args.get("rdma") or chips.tpu(args) else USER


def pod_security_level(args: "ModelReplicaSetArgs") -> str:
    """Return the strictest Pod Security Standard that admits the pods.

    RDMA mounts libraries of the node and locks memory, which only `privileged` admits; root without any capability is
    what `baseline` admits and `restricted` does not.
    """
    if args.get("rdma"):
        return rdma.POD_SECURITY
    return POD_SECURITY[0] if user(args) else POD_SECURITY[1]


def _rdma(args: "ModelReplicaSetArgs") -> rdma.PodRdma | None:
    wanted = args.get("rdma")
    if not wanted:
        return None
    return rdma.pod_rdma(wanted["mode"], wanted.get("rails", 8), args.get("accelerator", {}).get("type"))


def _pod_security(args: "ModelReplicaSetArgs") -> Manifest:
    if user(args):
        return pod_security(user(args))
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
            "limits": {"memory": memory, chips.resource(args): str(chips.count(args))},
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
        KEEP_ALIVE_VARIABLE: str(KEEP_ALIVE_S),
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
