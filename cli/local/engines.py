"""How a declared `vllm serve ...` runs here: as the simulator, or as a real vLLM."""

import json
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from cli.local.model import LOOPBACK, PlanError
from cli.local.objects import Object

if TYPE_CHECKING:
    from cli.local.pods import Workshop

_ENTRYPOINTS = (
    ("vllm", "serve"),
    ("python3", "-m", "vllm.entrypoints.openai.api_server"),
    ("python", "-m", "vllm.entrypoints.openai.api_server"),
)


class Engine(Protocol):
    """Makes the local command of a model replica."""

    start_timeout_s: float
    """How long a replica may take to be ready."""
    variables: tuple[str, ...]
    """Prefixes of the caller's variables that a replica gets."""

    def command(self, shop: "Workshop", workload: Object, argv: Sequence[str], name: str, port: int) -> list[str]:
        """Return the command for the replica `name`, that serves on `port`, from the declared `argv`."""
        ...


class Simulator:
    """`python -m services.modelserver` with the declared arguments."""

    start_timeout_s: float = 60
    variables: tuple[str, ...] = ("PENSTOCK_SIM_",)

    def command(self, shop: "Workshop", workload: Object, argv: Sequence[str], name: str, port: int) -> list[str]:
        """See `Engine`. The replica tells its name in the response header `x-penstock-replica`."""
        arguments = _bound(_arguments(argv), port)
        return [shop.python, "-m", "services.modelserver", *arguments, f"--sim-replica-id={name}"]


class Vllm:
    """A real vLLM: the executable of $PENSTOCK_VLLM, else `vllm` on the PATH.

    $PENSTOCK_VLLM_MODEL serves another model (a path or hub name) under the declared names.
    """

    start_timeout_s: float = 900
    variables: tuple[str, ...] = ("VLLM_", "HF_", "TRANSFORMERS_", "CUDA_")

    def command(self, shop: "Workshop", workload: Object, argv: Sequence[str], name: str, port: int) -> list[str]:
        """See `Engine`. Raises `PlanError` where there is no vLLM."""
        wanted = shop.environ.get("PENSTOCK_VLLM") or "vllm"
        executable = shutil.which(wanted, path=shop.environ.get("PATH"))
        if executable is None:
            problem = f"--engine vllm: {wanted!r} is not an executable; install vLLM, or name it in $PENSTOCK_VLLM"
            raise PlanError([problem])
        arguments = _bound(_arguments(argv), port)
        model = shop.environ.get("PENSTOCK_VLLM_MODEL")
        if model:
            arguments = _other_model(arguments, model, model_names(argv)[:1])
        return [executable, "serve", *arguments]


ENGINES: dict[str, Engine] = {"simulator": Simulator(), "vllm": Vllm()}


def is_model_server(argv: Sequence[str]) -> bool:
    """Tell whether a container's command starts a vLLM API server."""
    return any(tuple(argv[: len(entry)]) == entry for entry in _ENTRYPOINTS)


def _arguments(argv: Sequence[str]) -> list[str]:
    """Return what follows the entrypoint; an image's own entrypoint is `vllm serve` already."""
    for entry in _ENTRYPOINTS:
        if tuple(argv[: len(entry)]) == entry:
            return list(argv[len(entry) :])
    return list(argv)


def _bound(arguments: Sequence[str], port: int) -> list[str]:
    """Replace `--host` and `--port`: a local replica listens on the loopback address only."""
    return [*without_flags(arguments, ("--host", "--port")), f"--host={LOOPBACK}", f"--port={port}"]


def without_flags(arguments: Sequence[str], flags: tuple[str, ...]) -> list[str]:
    """Return the arguments without these flags and their values, in either form."""
    kept: list[str] = []
    skip = False
    for arg in arguments:
        if skip:
            skip = False
        elif arg in flags:
            skip = True
        elif not arg.startswith(tuple(flag + "=" for flag in flags)):
            kept.append(arg)
    return kept


def _other_model(arguments: Sequence[str], model: str, served: tuple[str, ...]) -> list[str]:
    rest = without_flags(arguments, ("--model", "--load-format"))
    if rest and not rest[0].startswith("-"):
        rest = rest[1:]
    if not flag_values(rest, "--served-model-name"):
        rest += ["--served-model-name", *served]
    return [model, *rest]


def flag_values(argv: Sequence[str], flag: str) -> list[str]:
    """Return all values of a flag that takes several: `--flag a b` and `--flag=a`."""
    values: list[str] = []
    inside = False
    for arg in argv:
        if arg == flag:
            inside = True
        elif arg.startswith(flag + "="):
            inside = False
            values.append(arg[len(flag) + 1 :])
        elif arg.startswith("-"):
            inside = False
        elif inside:
            values.append(arg)
    return values


def model_names(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the names that requests may use: served names (else the model's), then LoRA adapters."""
    arguments = _arguments(argv)
    tag = arguments[:1] if arguments and not arguments[0].startswith("-") else []
    served = flag_values(arguments, "--served-model-name") or flag_values(arguments, "--model") or tag
    return tuple(served + [_adapter_name(module) for module in flag_values(arguments, "--lora-modules")])


def _adapter_name(module: str) -> str:
    """Return the name in `name=path` or `{"name": ..., "path": ...}`, vLLM's two forms."""
    if module.startswith("{"):
        return str(json.loads(module)["name"])
    return module.partition("=")[0]
