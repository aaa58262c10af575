"""From settings to the arguments of every component, checked as a whole before anything is registered."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import penstock
from penstock import ConfigError, ConfigErrors, pool_name, pool_object_names, slug
from penstock.errors import raise_if
from pydantic import BaseModel

from infra import settings as config
from infra.shape import validate

_SERVING = tuple(config.Serving.model_fields)
_POOL = ("failure_mode", "timeout_s", "draining_timeout_s", "log_sample_rate", "objectives", "objective_api")


@dataclass(frozen=True)
class Plan:
    """The arguments of every component of one environment; replica sets and pools pair up by position."""

    gateway: penstock.InferenceGatewayArgs
    body_router: penstock.BodyRouterArgs
    extensions: penstock.ExtensionsArgs
    replica_sets: list[penstock.ModelReplicaSetArgs]
    pools: list[penstock.InferencePoolArgs]
    routes: list[penstock.ModelRouteArgs]


def load(raw: Any) -> tuple[config.Settings, Plan]:
    """Return validated settings and their plan.

    Raises:
        ConfigErrors: everything that is wrong with `raw`, in shape and in meaning.
    """
    settings, errors, replaced = validate(raw)
    if settings is None:
        raise ConfigErrors(errors)
    plan = make(settings)
    errors += [error for error in check(settings, plan) if not _touches(error.path, replaced)]
    raise_if(errors)
    return settings, plan


def make(settings: config.Settings) -> Plan:
    """Return the arguments of all components; `check` tells whether they are right."""
    entry = {"namespace": settings.namespace, "create_namespace": settings.create_namespace}
    gateway = cast(penstock.InferenceGatewayArgs, entry | _given(settings.gateway))
    listener = penstock.InferenceGateway.listener_name(gateway)
    router = {"namespace": settings.namespace, "image": settings.image, "models": _served(settings.models)}
    pairs = [(model, replica_set) for model in settings.models for replica_set in model.replica_sets]
    return Plan(
        gateway=gateway,
        body_router=cast(penstock.BodyRouterArgs, router | _given(settings.body_router, without=("timeout_ms",))),
        extensions=_extensions(settings),
        replica_sets=[_replica_set(settings, model, replica_set) for model, replica_set in pairs],
        pools=[_pool(settings, model, replica_set) for model, replica_set in pairs],
        routes=[_route(settings, model, listener) for model in settings.models],
    )


def check(settings: config.Settings, plan: Plan) -> list[ConfigError]:
    """Return everything that is wrong with a plan, by the paths of its settings, each only once."""
    shared = {".namespace": "namespace", ".image": "image"}
    gateway, router = penstock.InferenceGateway.problems, penstock.BodyRouter.problems
    errors = [
        *_moved(gateway(plan.gateway, ""), shared | {"": "gateway"}),
        *_moved(router(plan.body_router, ""), shared | {"": "bodyRouter", ".models": "models"}, _adapter_name),
        *_moved(penstock.Extensions.problems(plan.extensions, ""), _EXTENSION_MOVES),
        *_model_errors(settings, plan),
        *_name_errors(settings),
    ]
    unique = {(error.path, error.expected): error for error in errors}
    return list(unique.values())


def _given(model: BaseModel | None, only: Iterable[str] = (), without: Iterable[str] = ()) -> dict[str, Any]:
    """Return the fields that are set, as arguments: snake_case, without None at any depth."""
    if model is None:
        return {}
    values = model.model_dump(exclude_none=True)
    chosen = set(only or values) - set(without)
    return {key: value for key, value in values.items() if key in chosen}


def _served(models: list[config.Model]) -> list[dict[str, Any]]:
    return [
        {"name": model.name, "adapters": [adapter.name for adapter in model.adapters]}
        if model.adapters
        else {"name": model.name}
        for model in models
    ]


def _replica_set(
    settings: config.Settings, model: config.Model, replica_set: config.ReplicaSet
) -> penstock.ModelReplicaSetArgs:
    args = {
        "name": pool_name(model.name, replica_set.name),
        "namespace": settings.namespace,
        "model": model.name,
        "source": "",
        "replicas": 1,
        "image": settings.vllm_image,
        **_given(model, only=(*_SERVING, "adapters")),
        **_given(replica_set, only=_SERVING),
    }
    return cast(penstock.ModelReplicaSetArgs, args)


def _pool(settings: config.Settings, model: config.Model, replica_set: config.ReplicaSet) -> penstock.InferencePoolArgs:
    args = {
        "name": pool_name(model.name, replica_set.name),
        "namespace": settings.namespace,
        "picker": {"image": settings.image, **_given(settings.picker)},
        "zone_count": settings.zone_count,
        **_given(model, only=(*_POOL, "startup_timeout_s", "security_policy")),
        **_given(replica_set, only=("startup_timeout_s",)),
    }
    return cast(penstock.InferencePoolArgs, args)


def _route(settings: config.Settings, model: config.Model, listener: str) -> penstock.ModelRouteArgs:
    pools = [
        {"name": pool_name(model.name, replica_set.name), **_given(replica_set, only=("weight",))}
        for replica_set in model.replica_sets
    ]
    args = {
        "model": model.name,
        "namespace": settings.namespace,
        "gateway": settings.gateway.name,
        "listener": listener,
        "pools": pools,
        **_given(model, only=("paths", "objective")),
    }
    return cast(penstock.ModelRouteArgs, args)


def _extensions(settings: config.Settings) -> penstock.ExtensionsArgs:
    service, port = penstock.BodyRouter.SERVICE_NAME, penstock.BodyRouter.SERVICE_PORT
    routing = {"name": service, "service": service, "port": port}
    args = {
        "gateway": settings.gateway.name,
        "namespace": settings.namespace,
        "routing": routing | _given(settings.body_router, only=("timeout_ms",)),
        "callouts": [_given(callout) for callout in settings.callouts],
    }
    return cast(penstock.ExtensionsArgs, args)


_EXTENSION_MOVES = {
    "": "",
    ".gateway": "gateway.name",
    ".namespace": "namespace",
    ".routing": "bodyRouter",
    ".callouts": "callouts",
}


def _model_errors(settings: config.Settings, plan: Plan) -> Iterable[ConfigError]:
    at = 0
    for index, model in enumerate(settings.models):
        base = f"models[{index}]"
        moves = {"": base, ".namespace": "namespace", ".gateway": "gateway.name", ".model": f"{base}.name"}
        route = moves | {".pools": f"{base}.replicaSets"}
        yield from _moved(penstock.ModelRoute.problems(plan.routes[index], ""), route)
        for number, replica_set in enumerate(model.replica_sets):
            own = f"{base}.replicaSets[{number}]"
            named = moves | {".name": f"{own}.name"}
            served = named | _serving_moves(model, replica_set, base, own)
            pool = named | {".picker": "picker", ".picker.image": "image", ".zone_count": "zoneCount"}
            pool |= {".target_ports": "zoneCount", ".startup_timeout_s": served[".startup_timeout_s"]}
            yield from _moved(penstock.ModelReplicaSet.problems(plan.replica_sets[at], ""), served)
            yield from _moved(penstock.InferencePool.problems(plan.pools[at], ""), pool)
            at += 1
        known = [objective.name for objective in model.objectives or []]
        if model.objective is not None and model.objective not in known:
            fix = "Declare it with a priority in `objectives` of this model"
            yield ConfigError(f"{base}.objective", model.objective, "a declared objective", fix)


def _serving_moves(model: config.Model, replica_set: config.ReplicaSet, base: str, own: str) -> dict[str, str]:
    """Say where each serving field comes from: the replica set if it has it, else the model, else a default."""
    moves = {".adapters": f"{base}.adapters"}
    for name in _SERVING:
        has_own = getattr(replica_set, name) is not None
        moves[f".{name}"] = f"{own if has_own else base}.{_camel(name)}"
    if model.image is None and replica_set.image is None:
        moves[".image"] = "vllmImage"
    return moves


def _name_errors(settings: config.Settings) -> Iterable[ConfigError]:
    if not settings.models:
        yield ConfigError("models", [], "at least one model", "Declare a model with its replica sets")
    slugs: dict[str, str] = {}
    taken = {penstock.BodyRouter.SERVICE_NAME: "the body router"}
    for index, model in enumerate(settings.models):
        where = f"models[{index}].name"
        name = slug(model.name)
        if name in slugs:
            expected = f"a name that is unique as a DNS label; `{name}` is also {slugs[name]}"
            yield ConfigError(where, model.name, expected, "Rename one of them")
        slugs.setdefault(name, where)
        for number, replica_set in enumerate(model.replica_sets):
            own = f"models[{index}].replicaSets[{number}].name"
            objects = pool_object_names(pool_name(model.name, replica_set.name))
            clash = next((other for other in objects if other in taken), None)
            if clash is not None:
                expected = f"object names of its own; `{clash}` is also made by {taken[clash]}"
                yield ConfigError(own, replica_set.name, expected, "Rename one of them")
            for other in objects:
                taken.setdefault(other, own)


def _moved(
    errors: Iterable[ConfigError], moves: Mapping[str, str], polish: Callable[[str], str] = str
) -> Iterable[ConfigError]:
    """Give errors the paths of settings: the longest known beginning of a path is replaced, the rest made camelCase."""
    for error in errors:
        start = max((old for old in moves if _begins(error.path, old)), key=len)
        path = polish(moves[start] + _camel(error.path[len(start) :]))
        yield ConfigError(path.lstrip("."), error.value, error.expected, error.fix)


def _adapter_name(path: str) -> str:
    """Return the path of an adapter's name: to the body router it is a string, in settings a field."""
    return re.sub(r"(?<=\.)adapters\[[0-9]+\]$", r"\g<0>.name", path)


def _begins(path: str, start: str) -> bool:
    return path.startswith(start) and path[len(start) : len(start) + 1] in ("", ".", "[")


def _touches(path: str, replaced: Iterable[str]) -> bool:
    """Return whether a path lies at, below or above a value that was replaced."""
    return any(_begins(path, other) or _begins(other, path) for other in replaced)


def _camel(path: str) -> str:
    return re.sub(r"(?<=[a-z0-9])_([a-z0-9])", lambda match: match[1].upper(), path)
