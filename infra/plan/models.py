"""The arguments of the models: replica sets, their pools, and routes."""

from typing import Any

import penstock
from penstock import pool_name
from penstock.manifests.accelerators import CATALOGUE, POOL_LABEL

from infra.plan.common import is_upstream, moves
from infra.plan.planned import LATER, Planned, given
from infra.plan.platform import bucket_name, cluster_name
from infra.settings import Settings, camel
from infra.settings.marks import fields
from infra.settings.types import Model, Pool, ReplicaSet, Route, Serving

SERVING = tuple(fields(Serving))
_POOL = tuple(fields(Pool))
_ROUTE = tuple(fields(Route))
_EITHER = (("replicas", "autoscaling"), ("source", "weights"))
"""Serving settings of which a replica set has one: its own takes the place of its model's other one."""


def replica_set(settings: Settings, at: int, number: int) -> Planned[penstock.ModelReplicaSet]:
    """Return the arguments of a replica set."""
    model = settings["models"][at]
    own = model["replica_sets"][number]
    inherited = given(model, only=(*SERVING, "adapters"))
    for pair in _EITHER:
        for field, other in (pair, pair[::-1]):
            if field in own and other not in own:
                inherited.pop(other, None)
    args: dict[str, Any] = {
        "name": pool_name(model["name"], own["name"]),
        "namespace": settings["namespace"],
        "model": model["name"],
        "image": settings["vllm_image"],
        **inherited,
        **given(own, only=SERVING),
    }
    _place(args, settings, own.get("pool", model.get("pool")))
    _fill(args, settings)
    if is_upstream(settings) and args.get("autoscaling", {}).get("min") == 0:
        woken = {"activation_query": _activity(settings, args)}
        args["autoscaling"] = woken | args["autoscaling"]
    found = _paths(at, number) | _serving_paths(model, own, at, number)
    return Planned(penstock.ModelReplicaSet, args["name"], args, found)


def pool(settings: Settings, at: int, number: int, gateway: Any) -> Planned[penstock.InferencePool]:
    """Return the arguments of a replica set's pool; `gateway` are those of the Gateway."""
    model = settings["models"][at]
    own = model["replica_sets"][number]
    both: dict[str, Any] = {**model, **own}
    picker = settings["picker"]
    default = {} if is_upstream(settings) else {"image": settings["image"]}
    args: dict[str, Any] = {
        "name": pool_name(model["name"], own["name"]),
        "namespace": settings["namespace"],
        "picker": default | given(picker),
        "zone_count": max(1, len(settings["zones"])),
        **penstock.InferenceGateway.pool_settings(gateway),
        **given(both, only=_POOL),
    }
    if "armor" in gateway:
        args.setdefault("security_policy", LATER)
    if both.get("nodes", 1) > 1:
        args["leader_only"] = True
    found = _paths(at, number) | {
        ".picker": "picker",
        ".picker.image": "picker.image" if "image" in picker else "image",
        ".zone_count": "zones",
        ".target_ports": "zones",
        ".startup_timeout_s": _home("startup_timeout_s", model, own, at, number),
    }
    if "log_sample_rate" not in model:
        found[".log_sample_rate"] = "gateway.logSampleRate"
    return Planned(penstock.InferencePool, args["name"], args, found)


def route(settings: Settings, at: int, listener: str) -> Planned[penstock.ModelRoute]:
    """Return the arguments of a model's route to its pools by weight; `listener` is the Gateway's."""
    model = settings["models"][at]
    objects = {"objective_objects": True} if is_upstream(settings) else {}
    pools = [
        {"name": pool_name(model["name"], own["name"]), **given(own, only=("weight",)), **objects}
        for own in model["replica_sets"]
    ]
    args = {
        "model": model["name"],
        "namespace": settings["namespace"],
        "gateway": settings["gateway"]["name"],
        "listener": listener,
        "pools": pools,
        **given(model, only=_ROUTE),
    }
    base = f"models[{at}]"
    found = dict(moves(base, "namespace")) | {".gateway": "gateway.name", ".model": f"{base}.name"}
    return Planned(penstock.ModelRoute, penstock.slug(model["name"]), args, found | {".pools": f"{base}.replicaSets"})


def served(settings: Settings) -> list[dict[str, Any]]:
    """Return the models as the body router knows them."""
    return [
        {"name": model["name"], "adapters": [adapter["name"] for adapter in model["adapters"]]}
        if model.get("adapters")
        else {"name": model["name"]}
        for model in settings["models"]
    ]


def _place(args: dict[str, Any], settings: Settings, chosen: str | None) -> None:
    """Take accelerator and RDMA of the replicas' nodes from the pool that is chosen, where nothing else is said."""
    pools = {own["pool"]: own for own in settings["accelerator_pools"]}
    if chosen is None:
        return
    args["node_selector"] = {POOL_LABEL: chosen} | args.get("node_selector", {})
    accelerator = CATALOGUE.get(pools[chosen]["accelerator"]) if chosen in pools else None
    machine = accelerator.machine(pools[chosen].get("machine_type")) if accelerator else None
    if accelerator is None or machine is None:
        return
    args.setdefault("accelerator", {"type": accelerator.type, "count": machine.chips})
    mode = pools[chosen].get("rdma")
    if mode is not None and args.get("nodes", 1) > 1:
        args.setdefault("rdma", {"mode": mode, "rails": machine.rdma_nics} if machine.rdma_nics else {"mode": mode})


def _fill(args: dict[str, Any], settings: Settings) -> None:
    """Say in which bucket and project weights are, and whose metrics an autoscaler asks."""
    values: Any = settings
    identity = {key: values[key] for key in ("project", "project_number") if key in values}
    bucket = bucket_name(settings)
    if "weights" in args:
        args["weights"] = identity | ({"bucket": bucket} if bucket else {}) | args["weights"]
    if args.get("autoscaling", {}).get("by") == "keda" and "prometheus" not in args["autoscaling"]:
        cluster = cluster_name(settings)
        whose = given(identity, only=("project",)) | ({"cluster": cluster} if cluster else {})
        args["autoscaling"] = whose | args["autoscaling"]


def _activity(settings: Settings, args: dict[str, Any]) -> str:
    """Return what tells KEDA that requests for a set without replicas reach its pool's picker."""
    asked: Any = {"name": args["name"], "namespace": settings["namespace"], "picker": settings["picker"]}
    return penstock.InferencePool.activity_query(asked, cluster_name(settings))


def _paths(at: int, number: int) -> dict[str, str]:
    base = f"models[{at}]"
    named = {".name": f"{base}.replicaSets[{number}].name", ".model": f"{base}.name"}
    return dict(moves(base, "namespace")) | named


def _serving_paths(model: Model, own: ReplicaSet, at: int, number: int) -> dict[str, str]:
    """Say where each serving field comes from: the replica set if it has it, else the model, else a default."""
    found = {".adapters": f"models[{at}].adapters"}
    found |= {f".{name}": _home(name, model, own, at, number) for name in SERVING}
    if "image" not in model and "image" not in own:
        found[".image"] = "vllmImage"
    for name in ("project", "project_number"):
        found[f".weights.{name}"] = camel(name)
    if "accelerator" not in model and "accelerator" not in own and ("pool" in own or "pool" in model):
        found[".accelerator"] = _home("pool", model, own, at, number)
    return found


def _home(name: str, model: Model, own: ReplicaSet, at: int, number: int) -> str:
    base = f"models[{at}]"
    return f"{base}.replicaSets[{number}].{camel(name)}" if name in own else f"{base}.{camel(name)}"
