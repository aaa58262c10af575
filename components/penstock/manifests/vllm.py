"""The arguments of `vllm serve`, and which of them belong to a field."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .body_router import UNIQUE_NAME
from .chips import devices
from .common import check_model_name, check_range
from .weights import load_flags

if TYPE_CHECKING:
    from ..replica_set import ModelReplicaSetArgs

PORT = 8000
"""vLLM's default port. Source: vLLM 0.32, `vllm serve`."""

_SOURCE = re.compile(r"[A-Za-z0-9/][\w./:-]*")

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
    "--tensor-parallel-size": "tensor_parallel",
    "--pipeline-parallel-size": "pipeline_parallel",
    "--nnodes": "nodes",
    "--node-rank": "nodes",
    "--master-addr": "nodes",
    "--headless": "nodes",
    "--distributed-executor-backend": "nodes",
    "--load-format": "weights.method",
    "--api-key": "no field: keys are checked before the replica, and arguments are stored in plain text",
    "--config": "no field: a file could override what is declared here",
    "--hf-token": "hf_token_secret",
    "--root-path": "no field: paths are those of OpenAI's API",
    "--ssl-certfile": "no field: the load balancer reaches replicas in plain text within the VPC",
    "--ssl-keyfile": "no field: the load balancer reaches replicas in plain text within the VPC",
    "--uds": "no field: replicas are reached over TCP",
}
"""Flags that arguments own, with the field that sets them. Source: vLLM 0.32, `vllm serve --help=all`."""


def parallel(args: "ModelReplicaSetArgs") -> tuple[int, int]:
    """Return tensor and pipeline parallel sizes: by default layers are shared within a node, stages between nodes."""
    tensor, pipeline = args.get("tensor_parallel"), args.get("pipeline_parallel")
    world = args.get("nodes", 1) * devices(args)
    if tensor is None and pipeline is None:
        return devices(args), args.get("nodes", 1)
    if tensor is None:
        tensor = world // max(1, pipeline or 0)
    return tensor, world // max(1, tensor) if pipeline is None else pipeline


def serve_args(args: "ModelReplicaSetArgs", *more: str) -> list[str]:
    """Return the arguments of `vllm serve SOURCE`, `more` among them.

    LoRA modules come last: the flag takes all words that follow it.
    """
    flags = [f"--served-model-name={args['model']}", f"--port={PORT}"]
    if args.get("max_model_len"):
        flags.append(f"--max-model-len={args['max_model_len']}")
    tensor, pipeline = parallel(args)
    if tensor > 1:
        flags.append(f"--tensor-parallel-size={tensor}")
    if pipeline > 1:
        flags.append(f"--pipeline-parallel-size={pipeline}")
    flags += [*load_flags(args), *more, *args.get("extra_args", [])]
    adapters = args.get("adapters", [])
    if adapters or args.get("allow_runtime_lora_updates"):
        flags += ["--enable-lora", f"--max-loras={args.get('max_loras', max(1, len(adapters)))}"]
        if args.get("max_lora_rank"):
            flags.append(f"--max-lora-rank={args['max_lora_rank']}")
    if adapters:
        flags += ["--lora-modules", *(f"{adapter['name']}={adapter['source']}" for adapter in adapters)]
    return flags


def problems(args: "ModelReplicaSetArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why the arguments cannot be rendered."""
    source = args.get("source")
    if source is not None and not _SOURCE.fullmatch(source):
        fix = "Write it like `google/gemma-3-12b-it` or `/models/gemma`"
        yield ConfigError(f"{path}.source", source, "a model id or an absolute path", fix)
    max_len, max_loras = args.get("max_model_len"), args.get("max_loras")
    if max_len is not None:
        yield from check_range(f"{path}.max_model_len", max_len, 1, 2**24, "tokens")
    if max_loras is not None:
        yield from check_range(f"{path}.max_loras", max_loras, 1, 1024, "adapters")
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
        if not _SOURCE.fullmatch(adapter["source"]):
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
