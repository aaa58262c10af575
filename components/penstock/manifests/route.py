"""HTTPRoute of one model: header matches, weighted pools."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._labels import labels
from .._naming import check_label, slug
from ..errors import ConfigError
from .common import GATEWAY_API, INFERENCE_API, Manifest, check_model_name, check_range, manifest

if TYPE_CHECKING:
    from ..route import ModelRouteArgs

MODEL_HEADER = "X-Gateway-Model-Name"
BASE_MODEL_HEADER = "X-Gateway-Base-Model-Name"
OBJECTIVE_HEADER = "x-gateway-inference-objective"
"""Set by the body router and by this route; clients cannot. Source: Gateway API Inference Extension 1.5."""

WEIGHT_MAX = 1_000_000
BACKENDS_MAX = 16
MATCHES_MAX = 64
"""Source: gateway.networking.k8s.io/v1 HTTPRoute 1.5."""

PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/responses",
    "/v1/score",
)
"""The operations that the body router lets through, matched exactly: a prefix would reach calls that nobody screens."""

MANAGEMENT_PATHS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
"""Calls that change a replica and stand below `/v1`; no client may reach them. Source: vLLM 0.32."""

_PATH = re.compile(r"/v1(/[A-Za-z0-9._~-]+)+")


def route(args: "ModelRouteArgs") -> Manifest:
    """Return the HTTPRoute.

    It matches the model by its own name or, for an adapter, by that of its base model. It declares no `timeouts`: GKE
    does not take them; the pool's GCPBackendPolicy has the timeout.
    """
    name = slug(args["model"])
    rule: Manifest = {"matches": _matches(args), "backendRefs": _backends(args)}
    if args.get("objective") is not None and not any(pool.get("objective_objects") for pool in args["pools"]):
        rule["filters"] = [_objective(args["objective"])]
    parent: Manifest = {"group": GATEWAY_API, "kind": "Gateway", "name": args["gateway"]}
    if args.get("listener") is not None:
        parent["sectionName"] = args["listener"]
    spec: Manifest = {"parentRefs": [parent], "rules": [rule]}
    if args.get("hostnames"):
        spec["hostnames"] = list(args["hostnames"])
    tags = labels(name, model=name)
    return manifest(f"{GATEWAY_API}/v1", "HTTPRoute", name, args["namespace"], tags, spec=spec)


def problems(args: "ModelRouteArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be rendered."""
    yield from check_model_name(f"{path}.model", args["model"])
    yield from check_label(f"{path}.model", slug(args["model"]), what="the model's name as a DNS label")
    yield from check_label(f"{path}.namespace", args["namespace"], what="a namespace")
    yield from check_label(f"{path}.gateway", args["gateway"], what="the Gateway's name")
    if args.get("objective") is not None:
        yield from check_label(f"{path}.objective", args["objective"], what="an objective's name")
    yield from _path_problems(list(args.get("paths", PATHS)), f"{path}.paths")
    yield from _pool_problems(args, f"{path}.pools")


def _matches(args: "ModelRouteArgs") -> list[Manifest]:
    return [
        {
            "path": {"type": "Exact", "value": path},
            "headers": [{"type": "Exact", "name": header, "value": args["model"]}],
        }
        for header in (MODEL_HEADER, BASE_MODEL_HEADER)
        for path in args.get("paths", PATHS)
    ]


def _backends(args: "ModelRouteArgs") -> list[Manifest]:
    """Return the pools by weight.

    An InferenceObjective belongs to one pool and has the pool's name in its own, so a route to pools that know them by
    these objects names another objective at each of its pools.
    """
    objective, per_pool = args.get("objective"), any(pool.get("objective_objects") for pool in args["pools"])
    found: list[Manifest] = []
    for pool in args["pools"]:
        name = pool["name"]
        entry = {"group": INFERENCE_API, "kind": "InferencePool", "name": name, "weight": pool.get("weight", 1)}
        if objective is not None and per_pool:
            named = f"{name}-{objective}" if pool.get("objective_objects") else objective
            entry["filters"] = [_objective(named)]
        found.append(entry)
    return found


def _objective(name: str) -> Manifest:
    header = {"name": OBJECTIVE_HEADER, "value": name}
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [header]}}


def _path_problems(paths: list[str], where: str) -> Iterator[ConfigError]:
    limit = MATCHES_MAX // 2
    if not 1 <= len(paths) <= limit:
        yield ConfigError(where, paths, f"1 to {limit} paths", "Name the paths that clients may call")
    for index, path in enumerate(paths):
        if path in MANAGEMENT_PATHS:
            expected = "an operation for clients: this call changes a replica, without authentication"
            yield ConfigError(f"{where}[{index}]", path, expected, "Remove it")
        elif not _PATH.fullmatch(path):
            yield ConfigError(f"{where}[{index}]", path, "a path below /v1", "Write it like `/v1/embeddings`")


def _pool_problems(args: "ModelRouteArgs", where: str) -> Iterator[ConfigError]:
    pools = args["pools"]
    if not 1 <= len(pools) <= BACKENDS_MAX:
        fix = "Merge pools" if pools else "Name at least one pool"
        yield ConfigError(where, [pool["name"] for pool in pools], f"1 to {BACKENDS_MAX} pools", fix)
    names = [pool["name"] for pool in pools]
    for index, pool in enumerate(pools):
        yield from check_range(f"{where}[{index}].weight", pool.get("weight", 1), 0, WEIGHT_MAX, "a weight")
        yield from check_label(f"{where}[{index}].name", pool["name"], what="a pool's name")
        if pool["name"] in names[:index]:
            yield ConfigError(f"{where}[{index}].name", pool["name"], "each pool once", "Add up their weights")
    if pools and sum(pool.get("weight", 1) for pool in pools) == 0:
        fix = "Give at least one pool a weight above 0"
        yield ConfigError(where, [0] * len(pools), "weights with a sum above 0", fix)
