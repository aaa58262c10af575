"""The endpoint picker of one pool: what all profiles share, and Penstock's own."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from .._naming import PICKER_SUFFIX, REPLICAS_SUFFIX
from ..errors import ConfigError
from .body_router import check_log_level
from .callout import CONFIG_DIR, Callout
from .common import check_image, check_quantity, check_range, check_word
from .replica_set import NODE_MARGIN_S, STARTUP_S

if TYPE_CHECKING:
    from ..pool import InferencePoolArgs, Picker, Scorer

GRPC_PORT = 9002
HEALTH_PORT = 9003
"""Ports of the upstream picker; GKE probes gRPC health on 9003 by itself. Source: llm-d router chart 0.10."""

CONFIG_API = "inference.networking.x-k8s.io/v1alpha1"
"""Version of `EndpointPickerConfig`. Source: Gateway API Inference Extension 1.5."""

PENSTOCK = "penstock"
"""The profile of Penstock's own picker."""

DNS = "dns"
KUBERNETES = "kubernetes"
DISCOVERIES = (DNS, KUBERNETES)
"""How Penstock's picker finds replicas: names of a headless Service, or pods by the pool's selector."""

SCORERS = {
    "prefix-cache-scorer": 3.0,
    "queue-scorer": 2.0,
    "kv-cache-utilization-scorer": 2.0,
    "lora-affinity-scorer": 1.0,
    "running-requests-size-scorer": 1.0,
}
"""Scorers and the weights used where none is given. The first three are upstream's defaults (1.5)."""

DEFAULT_SCORERS = ("prefix-cache-scorer", "queue-scorer", "kv-cache-utilization-scorer", "lora-affinity-scorer")

_PICKER = "max-score-picker"
_FALLBACKS = 3
"""Length of the endpoint list: a retry goes to the next best replica instead of any. Upstream's default is 1."""
_DRAIN_S = 30


def reads_api(picker: "Picker") -> bool:
    """Return whether the picker reads pool, pods and objectives from the Kubernetes API."""
    return picker.get("profile", PENSTOCK) != PENSTOCK or picker.get("discovery", DNS) == KUBERNETES


def config(picker: "Picker", api: str = CONFIG_API) -> str:
    """Return the `EndpointPickerConfig` (YAML): one profile of weighted scorers and the picker of the best score."""
    scorers: list[Any] = list(picker.get("scorers") or [{"type": kind} for kind in DEFAULT_SCORERS])
    plugins = [
        {"type": scorer["type"], "parameters": scorer["parameters"]}
        if scorer.get("parameters")
        else {"type": scorer["type"]}
        for scorer in scorers
    ]
    weights = [{"pluginRef": scorer["type"], "weight": _weight(scorer)} for scorer in scorers]
    document = {
        "apiVersion": api,
        "kind": "EndpointPickerConfig",
        "plugins": [*plugins, {"type": _PICKER, "parameters": {"maxNumOfEndpoints": _FALLBACKS}}],
        "schedulingProfiles": [{"name": "default", "plugins": [*weights, {"pluginRef": _PICKER}]}],
    }
    return yaml.safe_dump(document, sort_keys=False)


def objectives(args: "InferencePoolArgs") -> str:
    """Return the objectives file (YAML): name and priority of each."""
    found = [{"name": item["name"], "priority": item["priority"]} for item in args.get("objectives", [])]
    return yaml.safe_dump({"objectives": found}, sort_keys=False)


def callout(args: "InferencePoolArgs", replicas_port: int) -> Callout:
    """Return the callout that the picker's objects are made from.

    One pod that is recreated, never two at once: prefix index and load are kept in memory, and of two pickers each
    would see half of the traffic.
    """
    name, namespace, picker = args["name"], args["namespace"], args["picker"]
    files = {"config.yaml": config(picker)}
    by_dns = f"dns:{name}{REPLICAS_SUFFIX}.{namespace}.svc:{replicas_port}"
    flags = [
        f"--pool-name={name}",
        f"--pool-namespace={namespace}",
        f"--replicas={KUBERNETES if reads_api(picker) else by_dns}",
    ]
    if args.get("objectives"):
        files["objectives.yaml"] = objectives(args)
        flags.append(f"--objectives-file={CONFIG_DIR}/objectives.yaml")
    return Callout(
        name=f"{name}{PICKER_SUFFIX}",
        namespace=namespace,
        module="picker",
        role="picker",
        image=picker["image"],
        grpc_port=GRPC_PORT,
        health_port=HEALTH_PORT,
        config=files,
        flags=tuple(flags),
        recreate=True,
        drain_timeout_s=picker.get("drain_timeout_s", _DRAIN_S),
        log_level=picker.get("log_level", "info"),
        tls_secret=picker.get("tls_secret"),
        cpu=picker.get("cpu", "1"),
        memory=picker.get("memory", "1Gi"),
        # by DNS a picker is ready when its name has the first replica; the API answers an empty pool too
        await_s=args.get("startup_timeout_s", STARTUP_S) + NODE_MARGIN_S,
        api_access=reads_api(picker),
    )


def _weight(scorer: "Scorer") -> float:
    weight = scorer.get("weight", SCORERS.get(scorer["type"], 1.0))
    return int(weight) if weight.is_integer() else weight  # earlier releases of upstream take whole numbers only


def problems(picker: "Picker", path: str) -> Iterator[ConfigError]:
    """Yield every reason why the picker cannot be rendered; `upstream.problems` has those of the other profiles."""
    own = picker.get("profile", PENSTOCK) == PENSTOCK
    if picker.get("image") is not None:
        yield from check_image(f"{path}.image", picker["image"])
    elif own:
        yield ConfigError(f"{path}.image", None, "the image of Penstock's services", "Set it, it has no default")
    discovery = picker.get("discovery")
    if discovery is not None:
        yield from check_word(f"{path}.discovery", discovery, DISCOVERIES, "`dns` or `kubernetes`")
    yield from check_quantity(f"{path}.cpu", picker.get("cpu", "1"))
    yield from check_quantity(f"{path}.memory", picker.get("memory", "1Gi"))
    yield from check_range(f"{path}.drain_timeout_s", picker.get("drain_timeout_s", _DRAIN_S), 1, 3600, "seconds")
    yield from check_log_level(f"{path}.log_level", picker.get("log_level", "info"))
    seen: set[str] = set()
    for index, scorer in enumerate(picker.get("scorers", [])):
        kind, where = scorer["type"], f"{path}.scorers[{index}]"
        if own:
            yield from check_word(f"{where}.type", kind, SCORERS, "a scorer of the picker")
        if kind in seen:
            yield ConfigError(f"{where}.type", kind, "each scorer once", "Remove one of them")
        seen.add(kind)
        yield from check_range(f"{where}.weight", scorer.get("weight", 1.0), 0, 1000, "a weight")
