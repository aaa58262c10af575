"""What no component can see: whether settings of different components fit together."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import penstock
from penstock import ConfigError, pool_name, pool_object_names, slug
from penstock.errors import did_you_mean
from penstock.manifests import api_management as management
from penstock.manifests import guardrails as screening
from penstock.manifests.management_config import ANY_MODEL

from infra.plan import hardware
from infra.plan.common import is_upstream
from infra.settings import Settings

_KEDA, _HPA = "keda", "hpa"


def problems(settings: Settings) -> Iterator[ConfigError]:
    """Yield everything that does not fit together, by the paths of settings."""
    yield from _stack_problems(settings)
    yield from _name_problems(settings)
    for check in (_objective_problems, _autoscaling_problems, _zero_problems):
        yield from check(settings)
    yield from hardware.problems(settings)
    yield from _model_reference_problems(settings)
    yield from _publication_problems(settings)
    yield from _endpoint_problems(settings)


def sets(settings: Settings) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the path of each replica set, and its settings together with what it inherits from its model."""
    for at, model in enumerate(settings["models"]):
        for number, own in enumerate(model["replica_sets"]):
            yield f"models[{at}].replicaSets[{number}]", {**model, **own}


def _stack_problems(settings: Settings) -> Iterator[ConfigError]:
    if settings["stacks"] not in ("one", "two"):
        fix = did_you_mean(settings["stacks"], ("one", "two"))
        yield ConfigError("stacks", settings["stacks"], "`one` or `two`", fix)
    elif settings["stacks"] == "two" and "cluster" not in settings:
        expected = "`cluster`, which the first of two stacks would make"
        yield ConfigError("stacks", "two", expected, "Set `cluster`, or use one stack")
    if "cluster" in settings and "network" not in settings:
        yield ConfigError("network", None, "the VPC of `cluster`", "Set it; it can name a VPC that exists")
    roce = "rdma" in settings and settings["rdma"]["mode"] == "roce"
    for name, needed in (("acceleratorPools", bool(settings["accelerator_pools"])), ("rdma", roce)):
        if needed and "cluster" not in settings:
            yield ConfigError(name, "...", "`cluster`, of which it is a part", f"Set `cluster`, or remove `{name}`")
    if "cluster" in settings and ("kubeconfig" in settings or settings["kubernetes"]):
        expected = "either `cluster` or a cluster that exists"
        yield ConfigError("kubernetes", "...", expected, "Remove `kubernetes` and `kubeconfig`")


def _name_problems(settings: Settings) -> Iterator[ConfigError]:
    if not settings["models"]:
        yield ConfigError("models", [], "at least one model", "Declare a model with its replica sets")
    slugs: dict[str, str] = {}
    taken = {
        penstock.BodyRouter.SERVICE_NAME: "the body router",
        management.NAME: "API management",
        screening.NAME: "guardrails",
    }
    for at, model in enumerate(settings["models"]):
        where = f"models[{at}].name"
        name = slug(model["name"])
        if name in slugs:
            expected = f"a name that is unique as a DNS label; `{name}` is also {slugs[name]}"
            yield ConfigError(where, model["name"], expected, "Rename one of them")
        slugs.setdefault(name, where)
        for number, replica_set in enumerate(model["replica_sets"]):
            own = f"models[{at}].replicaSets[{number}].name"
            objects = pool_object_names(pool_name(model["name"], replica_set["name"]))
            clash = next((other for other in objects if other in taken), None)
            if clash is not None:
                expected = f"object names of its own; `{clash}` is also made by {taken[clash]}"
                yield ConfigError(own, replica_set["name"], expected, "Rename one of them")
            for other in objects:
                taken.setdefault(other, own)


def _objective_problems(settings: Settings) -> Iterator[ConfigError]:
    defined = settings.get("addons", {}).get("objective_apis", [])
    for at, model in enumerate(settings["models"]):
        values: Any = model
        known = [objective["name"] for objective in values.get("objectives", [])]
        if "objective" in values and values["objective"] not in known:
            fix = "Declare it with a priority in `objectives` of this model"
            yield ConfigError(f"models[{at}].objective", values["objective"], "a declared objective", fix)
        api = values.get("objective_api")
        if api is not None and "addons" in settings and api not in defined:
            fix = "Add it there: GKE never defines InferenceObjective"
            yield ConfigError(f"models[{at}].objectiveApi", api, "an API of `addons.objectiveApis`", fix)


def _autoscaling_problems(settings: Settings) -> Iterator[ConfigError]:
    """Check that what an autoscaler needs is installed, where this environment says what is installed."""
    addons = settings.get("addons", {})
    if "addons" not in settings and "cluster" not in settings:
        return
    for path, both in sets(settings):
        if "autoscaling" in both:
            by = both["autoscaling"].get("by", _HPA)
            addon, key = ("keda", "keda") if by == _KEDA else ("custom_metrics", "customMetrics")
            if not addons.get(addon):
                fix = f"Set `addons.{key}` to true"
                yield ConfigError(f"{path}.autoscaling.by", by, f"`addons.{key}`, which it needs", fix)
            elif by == _KEDA and addons.get("keda_namespace", settings["namespace"]) != settings["namespace"]:
                expected = f"`{settings['namespace']}`, where the replicas are"
                yield ConfigError("addons.kedaNamespace", addons["keda_namespace"], expected, "Change it")
        if both.get("nodes", 1) > 1 and not addons.get("leader_worker_set"):
            expected = "`addons.leaderWorkerSet`, which replicas of several nodes need"
            yield ConfigError(f"{path}.nodes", both["nodes"], expected, "Set `addons.leaderWorkerSet` to true")


def _zero_problems(settings: Settings) -> Iterator[ConfigError]:
    """Check that something tells of requests for a set without replicas: its picker, which then has to be ready."""
    fix = "Set it, or keep one replica at least"
    for path, both in sets(settings):
        if both.get("autoscaling", {}).get("min") != 0:
            continue
        where = f"{path}.autoscaling.min"
        if not both.get("monitoring"):
            expected = "`monitoring: true`: the picker's metrics start the first replica"
            yield ConfigError(where, 0, expected, fix)
        if not is_upstream(settings) and settings["picker"].get("discovery") != "kubernetes":
            expected = "`picker.discovery: kubernetes`: a picker that asks DNS is not ready without a replica"
            yield ConfigError(where, 0, expected, fix)


def _model_reference_problems(settings: Settings) -> Iterator[ConfigError]:
    """Check that API products, limits and guardrails name models that are served."""
    known = [model["name"] for model in settings["models"]]
    known += [adapter["name"] for model in settings["models"] for adapter in model.get("adapters", [])]
    places: list[tuple[str, Any]] = []
    for name in ("products", "limits"):
        values: Any = settings.get("api_management", {})
        places += [(f"apiManagement.{name}[{at}]", item) for at, item in enumerate(values.get(name, []))]
    templates = settings.get("guardrails", {}).get("templates", [])
    places += [(f"guardrails.templates[{at}]", item) for at, item in enumerate(templates)]
    for path, item in places:
        for at, model in enumerate(item.get("models", [])):
            if model not in known and not (model == ANY_MODEL and path.startswith("apiManagement.products")):
                yield ConfigError(f"{path}.models[{at}]", model, "a model or adapter", did_you_mean(model, known))


def _publication_problems(settings: Settings) -> Iterator[ConfigError]:
    if "publication" not in settings:
        return
    own, gateway = settings["publication"], settings["gateway"]
    if "tls" not in gateway:
        expected = "`gateway.tls`: other networks are served by HTTPS only"
        yield ConfigError("publication", "...", expected, "Give the Gateway certificates")
    elif own.get("port", 443) != 443:
        yield ConfigError("publication.port", own.get("port"), "443, the listener with TLS", "Leave it out")


def _endpoint_problems(settings: Settings) -> Iterator[ConfigError]:
    endpoints = settings["private_endpoints"]
    if endpoints and "publication" not in settings:
        yield ConfigError("privateEndpoints", "...", "`publication`, which they connect to", "Set it")
    accept: Any = settings.get("publication", {}).get("accept", [])
    hostname = settings["gateway"].get("hostname")
    seen: set[str] = set()
    used: Counter[str] = Counter()
    for at, own in enumerate(endpoints):
        path = f"privateEndpoints[{at}]"
        if own["name"] in seen:
            yield ConfigError(f"{path}.name", own["name"], "a name of its own", "Rename one of them")
        seen.add(own["name"])
        if hostname and own.get("hostname", hostname) != hostname:
            expected = f"`{hostname}`, which the Gateway serves and its certificate names"
            yield ConfigError(f"{path}.hostname", own["hostname"], expected, "Leave it out")
        if own.get("global_access", True) and not settings["gateway"].get("allow_global_access", True):
            expected = "false, since `gateway.allowGlobalAccess` is"
            yield ConfigError(f"{path}.globalAccess", True, expected, "Set it to false, or allow it at the Gateway")
        project, network = own.get("project", settings.get("project", "")), str(own["network"])
        entry = next((each for each in accept if _accepts(each, project, network)), None)
        if entry is None and "publication" in settings:
            expected = "a project or network that `publication.accept` names"
            yield ConfigError(f"{path}.network", network, expected, "Add it there; else the endpoint stays pending")
        elif entry is not None:
            key = str(entry.get("project", entry.get("network")))
            used[key] += 1
            if used[key] == entry["limit"] + 1:
                expected = f"at most {entry['limit']} endpoints of {key}, the limit in `publication.accept`"
                yield ConfigError(path, own["name"], expected, "Raise the limit")


def _accepts(entry: Any, project: str, network: str) -> bool:
    if "project" in entry:
        return bool(entry["project"] == project)
    return _path(str(entry.get("network"))) == _path(network)


def _path(uri: str) -> str:
    """Return the part of a URI that names the resource, whatever stands before it."""
    return uri[max(uri.find("projects/"), 0) :]
