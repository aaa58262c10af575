"""One uniform set of single-node vLLM replicas."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._labels import REPLICA_SET, labels
from .._naming import REPLICAS_SUFFIX, check_label, slug
from ..errors import ConfigError
from .body_router import UNIQUE_NAME
from .common import (
    WAIT_TIMEOUT,
    Manifest,
    check_image,
    check_model_name,
    check_quantity,
    check_range,
    container_security,
    disruption_budget,
    manifest,
    pod_security,
    service_account,
    spread,
)

if TYPE_CHECKING:
    from ..replica_set import ModelReplicaSetArgs

PORT = 8000
"""vLLM's default port. Source: vLLM 0.32, `vllm serve`."""

USER = 2000
"""User `vllm` of the image since it can run without root; older images need LOGNAME and HOME, which are set anyway."""

STARTUP_S = 1800
"""Default time that a replica may take to load its weights."""
NODE_MARGIN_S = 600
"""What Pulumi's await adds to it: time for a node with GPUs to be added."""

CACHE_DIR = "/var/cache/vllm"
GPU = "nvidia.com/gpu"
"""Resource name and taint of GPU nodes. Source: GKE, "Run GPUs in GKE Standard node pools"."""
GPU_TYPE_LABEL = "cloud.google.com/gke-accelerator"

_DRAIN_S = 60
_PROBE_S = 10
_MARGIN_S = 30

_OWNED_FLAGS = {
    "--model": "source",
    "--served-model-name": "model",
    "--port": "no field: pools and probes expect the default",
    "--host": "no field: the pod's address is the only one",
    "--enable-lora": "adapters",
    "--lora-modules": "adapters",
    "--max-loras": "max_loras",
    "--max-lora-rank": "max_lora_rank",
    "--max-model-len": "max_model_len",
    "--tensor-parallel-size": "accelerator.count",
    "--api-key": "no field: keys are checked before the replica, and arguments are stored in plain text",
    "--config": "no field: a file could override what is declared here",
    "--hf-token": "hf_token_secret",
    "--root-path": "no field: paths are those of OpenAI's API",
    "--ssl-certfile": "no field: the load balancer reaches replicas in plain text within the VPC",
    "--ssl-keyfile": "no field: the load balancer reaches replicas in plain text within the VPC",
    "--uds": "no field: replicas are reached over TCP",
}
"""Flags that arguments own, with the field that sets them. Source: vLLM 0.32, `vllm serve --help=all`."""


def deployment(args: "ModelReplicaSetArgs") -> Manifest:
    """Return the Deployment.

    It replaces one replica at a time without a surge: spare GPUs are rarely at hand. Pulumi awaits it for as long as a
    replica may load its weights, and some more for a node to be added.
    """
    name = args["name"]
    spec = {
        "replicas": args["replicas"],
        "revisionHistoryLimit": 3,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        "selector": {"matchLabels": pool_selector(name)},
        "template": {"metadata": {"labels": _labels(args)}, "spec": _pod(args)},
    }
    wait = {WAIT_TIMEOUT: str(args.get("startup_timeout_s", STARTUP_S) + NODE_MARGIN_S)}
    tags = _labels(args)
    return manifest("apps/v1", "Deployment", name, args["namespace"], tags, annotations=wait, spec=spec)


def account(args: "ModelReplicaSetArgs") -> Manifest:
    """Return the ServiceAccount."""
    return service_account(args["name"], args["namespace"], _labels(args))


def budget(args: "ModelReplicaSetArgs") -> Manifest:
    """Return the PodDisruptionBudget."""
    return disruption_budget(args["name"], args["namespace"], _labels(args), pool_selector(args["name"]))


def pool_selector(name: str) -> dict[str, str]:
    """Return the labels by which a pool, and its Service of replicas, select the replicas of the set `name`."""
    return {REPLICA_SET: name}


def serve_args(args: "ModelReplicaSetArgs") -> list[str]:
    """Return the arguments of `vllm serve SOURCE`. LoRA modules come last: the flag takes all words that follow it."""
    flags = [f"--served-model-name={args['model']}", f"--port={PORT}"]
    if args.get("max_model_len"):
        flags.append(f"--max-model-len={args['max_model_len']}")
    gpus = args.get("accelerator", {}).get("count", 1)
    if gpus > 1:
        flags.append(f"--tensor-parallel-size={gpus}")
    flags += args.get("extra_args", [])
    adapters = args.get("adapters", [])
    if adapters or args.get("allow_runtime_lora_updates"):
        flags += ["--enable-lora", f"--max-loras={args.get('max_loras', max(1, len(adapters)))}"]
        if args.get("max_lora_rank"):
            flags.append(f"--max-lora-rank={args['max_lora_rank']}")
    if adapters:
        flags += ["--lora-modules", *(f"{adapter['name']}={adapter['source']}" for adapter in adapters)]
    return flags


def problems(args: "ModelReplicaSetArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be rendered."""
    yield from check_label(f"{path}.name", args["name"], REPLICAS_SUFFIX, "the replica set's name")
    yield from check_label(f"{path}.namespace", args["namespace"], what="a namespace")
    yield from check_image(f"{path}.image", args["image"])
    yield from check_model_name(f"{path}.model", args["model"])
    yield from check_label(f"{path}.model", slug(args["model"]), what="the model's name as a DNS label")
    if not re.fullmatch(r"[A-Za-z0-9/][\w./:-]*", args["source"]):
        fix = "Write it like `google/gemma-3-12b-it` or `/models/gemma`"
        yield ConfigError(f"{path}.source", args["source"], "a model id or an absolute path", fix)
    yield from check_range(f"{path}.replicas", args["replicas"], 0, 1000, "replicas")
    yield from check_range(f"{path}.drain_timeout_s", args.get("drain_timeout_s", _DRAIN_S), 1, 3600, "seconds")
    yield from check_range(f"{path}.startup_timeout_s", args.get("startup_timeout_s", STARTUP_S), 60, 7200, "seconds")
    yield from check_range(f"{path}.shared_memory_mib", args.get("shared_memory_mib", 2048), 64, 2**20, "MiB")
    yield from check_range(f"{path}.cache_gib", args.get("cache_gib", 100), 1, 2**14, "GiB")
    yield from check_range(f"{path}.accelerator.count", args.get("accelerator", {}).get("count", 1), 1, 16, "GPUs")
    yield from check_quantity(f"{path}.cpu", args.get("cpu", "4"))
    yield from check_quantity(f"{path}.memory", args.get("memory", "24Gi"))
    for field, low, high, unit in (("max_model_len", 1, 2**24, "tokens"), ("max_loras", 1, 1024, "adapters")):
        value: Any = args.get(field)
        if value is not None:
            yield from check_range(f"{path}.{field}", value, low, high, unit)
    secret = args.get("hf_token_secret")
    if secret:
        yield from check_label(f"{path}.hf_token_secret.name", secret["name"], what="a Secret's name")
    yield from _adapter_problems(args, path)
    yield from _extra_problems(args.get("extra_args", []), f"{path}.extra_args")


def _adapter_problems(args: "ModelReplicaSetArgs", path: str) -> Iterator[ConfigError]:
    seen = {args["model"]}
    for index, adapter in enumerate(args.get("adapters", [])):
        where = f"{path}.adapters[{index}]"
        yield from check_model_name(f"{where}.name", adapter["name"])
        if "=" in adapter["name"]:
            yield ConfigError(f"{where}.name", adapter["name"], "a name without `=`", "Rename it")
        if adapter["name"] in seen:
            yield ConfigError(f"{where}.name", adapter["name"], UNIQUE_NAME, "Rename it")
        seen.add(adapter["name"])
        if not re.fullmatch(r"[A-Za-z0-9/][\w./:-]*", adapter["source"]):
            fix = "Write it like `example/lora` or `/models/lora`"
            yield ConfigError(f"{where}.source", adapter["source"], "an adapter's id or an absolute path", fix)


def _extra_problems(extra: list[str], path: str) -> Iterator[ConfigError]:
    seen: set[str] = set()
    for index, argument in enumerate(extra):
        where = f"{path}[{index}]"
        if not re.fullmatch(r"--[a-zA-Z][\w.-]*(=.*)?", argument, re.DOTALL):
            expected = "one flag of `vllm serve` as `--flag` or `--flag=value`"
            yield ConfigError(where, argument, expected, "Write flag and value as one argument with `=`")
            continue
        flag = argument.partition("=")[0].replace("_", "-")
        owner = next((owned for owned in _OWNED_FLAGS if _collides(flag, owned)), None)
        if owner:
            expected = f"a flag other than `{owner}`, which is set from its own field"
            yield ConfigError(where, argument, expected, f"Remove it ({_OWNED_FLAGS[owner]})")
        elif flag in seen:
            yield ConfigError(where, argument, "each flag once", "Remove one of them")
        seen.add(flag)


def _collides(flag: str, owned: str) -> bool:
    """Return whether vLLM would read `flag` as `owned`: itself, an abbreviation, its negation, or a part of it."""
    return owned.startswith(flag) or flag == owned.replace("--", "--no-", 1) or flag.startswith(f"{owned}.")


def _labels(args: "ModelReplicaSetArgs") -> dict[str, str]:
    return labels(args["name"], "replica", model=slug(args["model"]), replica_set=args["name"])


def _pod(args: "ModelReplicaSetArgs") -> Manifest:
    drain_s = args.get("drain_timeout_s", _DRAIN_S)
    accelerator = args.get("accelerator", {})
    pod: Manifest = {
        "serviceAccountName": args["name"],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain_s + _MARGIN_S,
        "securityContext": pod_security(USER),
        "topologySpreadConstraints": spread(pool_selector(args["name"])),
        "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}],
        "containers": [_container(args, drain_s)],
        "volumes": [
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{args.get('shared_memory_mib', 2048)}Mi"}},
            {"name": "cache", "emptyDir": {"sizeLimit": f"{args.get('cache_gib', 100)}Gi"}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    node = ({GPU_TYPE_LABEL: accelerator["type"]} if accelerator.get("type") else {}) | args.get("node_selector", {})
    if node:
        pod["nodeSelector"] = node
    return pod


def _container(args: "ModelReplicaSetArgs", drain_s: int) -> Manifest:
    gpus = str(args.get("accelerator", {}).get("count", 1))
    cpu, memory = args.get("cpu", "4"), args.get("memory", "24Gi")
    startup_s = args.get("startup_timeout_s", STARTUP_S)
    return {
        "name": "vllm",
        "image": args["image"],
        "command": ["vllm", "serve", args["source"]],
        "args": serve_args(args),
        "env": _environment(args),
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory, GPU: gpus}},
        "startupProbe": _probe(_PROBE_S, startup_s // _PROBE_S),
        "readinessProbe": _probe(5, 2),
        "livenessProbe": _probe(_PROBE_S, 6),
        # The replica leaves the pool when its end is decided; open answers have the drain time to finish before
        # SIGTERM, on which vLLM aborts what is running.
        "lifecycle": {"preStop": {"sleep": {"seconds": drain_s}}},
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - NCCL and workers share memory here
            {"name": "cache", "mountPath": CACHE_DIR},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - writable folder of a read-only root
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
