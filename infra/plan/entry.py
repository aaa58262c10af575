"""The arguments of the entry: Gateway, body router, the chain of callouts, and Private Service Connect."""

from typing import Any

import penstock
from penstock.manifests import api_management as management
from penstock.manifests import guardrails as screening
from penstock.manifests import rdma
from penstock.manifests.common import POD_SECURITY

from infra.plan import models
from infra.plan.common import later, moves, place
from infra.plan.planned import LATER, Planned, element, given
from infra.settings import Settings

_CLOUD = ("name", "namespace", "image", "project", "project_number", "region", "labels")


def gateway(settings: Settings) -> Planned[penstock.InferenceGateway]:
    """Return the arguments of the Gateway."""
    cloud = place(settings, "labels") if "project" in settings else {}
    prefix = {"prefix": cloud.pop("name")} if cloud else {}
    args = cloud | prefix | given(settings, only=("namespace", "create_namespace")) | given(settings["gateway"])
    if "network" in settings:
        later(args, "address.subnetwork")
    level = _pod_security(settings)
    if level != POD_SECURITY[0]:
        args.setdefault("pod_security", level)
    found = dict(moves("gateway", "namespace", "project", "region", "labels")) | {".prefix": "prefix"}
    return Planned(penstock.InferenceGateway, "gateway", args, found)


def body_router(settings: Settings) -> Planned[penstock.BodyRouter]:
    """Return the arguments of the body router."""
    own = given(settings["body_router"], without=("timeout_ms",))
    args = {
        "namespace": settings["namespace"],
        "image": settings["image"],
        "models": models.served(settings),
        **own,
    }
    found = dict(moves("bodyRouter", "namespace", "image")) | {".models": "models"}
    return Planned(penstock.BodyRouter, "body-router", args, found, lambda path: element(path, "adapters", "name"))


def guardrails(settings: Settings) -> Planned[penstock.Guardrails] | None:
    """Return the arguments of guardrails; bundled ones are served by bundled API management, in one callout."""
    if "guardrails" not in settings:
        return None
    args = place(settings, "project_number", "labels", "namespace", "image") | given(settings["guardrails"])
    if settings.get("api_management", {}).get("mode") == management.BUNDLED and screening.has_engine(args):  # type: ignore[arg-type]
        args["served_by"] = screening.HOST
    return Planned(penstock.Guardrails, "guardrails", args, moves("guardrails", *_CLOUD))


def api_management(
    settings: Settings, screens: Planned[penstock.Guardrails] | None
) -> Planned[penstock.ApiManagement] | None:
    """Return the arguments of API management; `screens` are those of guardrails."""
    if "api_management" not in settings:
        return None
    args = place(settings, "project_number", "labels", "namespace", "image") | given(settings["api_management"])
    if args["mode"] != management.BUNDLED:
        del args["image"]
    elif "hostname" in settings["gateway"]:
        scheme = "https" if "tls" in settings["gateway"] else "http"
        args["portal"] = {"endpoint": f"{scheme}://{settings['gateway']['hostname']}", **args.get("portal", {})}
    if screens is not None and screens.args.get("served_by") == screening.HOST:
        args["guardrails"] = screens.args
    if "network" in settings:
        later(args, "apigee.network", "apigee.subnetwork", "store.memorystore.network", "store.memorystore.subnetwork")
    if "publication" in settings:
        later(args, "apigee.bridge.service_attachment")
    found = dict(moves("apiManagement", *_CLOUD)) | {".guardrails": "guardrails"}
    return Planned(penstock.ApiManagement, "api-management", args, found)


def extensions(settings: Settings, *handing: Planned[Any] | None) -> Planned[penstock.Extensions]:
    """Return the arguments of the extensions; components in `handing` hand in entries, in the order of requests."""
    service, port = penstock.BodyRouter.SERVICE_NAME, penstock.BodyRouter.SERVICE_PORT
    entries: list[Any] = list(settings["callouts"])
    found = {
        "": "",
        ".gateway": "gateway.name",
        ".namespace": "namespace",
        ".routing": "bodyRouter",
        ".callouts": "callouts",
    }
    for component in handing:
        if component is not None and not any(component.problems()):  # with wrong arguments there are no entries
            for entry in component.component.callouts(component.args):
                found[f".callouts[{len(entries)}]"] = component.moves[""]
                entries.append(entry)
    args = {
        "gateway": settings["gateway"]["name"],
        "namespace": settings["namespace"],
        "routing": {"name": service, "service": service, "port": port}
        | given(settings["body_router"], only=("timeout_ms",)),
        "callouts": entries,
    }
    return Planned(penstock.Extensions, "extensions", args, found)


def publication(settings: Settings) -> Planned[penstock.ServicePublication] | None:
    """Return the arguments of the service attachment."""
    if "publication" not in settings:
        return None
    args = place(settings) | {"gateway_metadata": LATER, "address": LATER} | given(settings["publication"])
    if "network" in settings:
        later(args, "nat_subnetworks")
    return Planned(penstock.ServicePublication, "publication", args, moves("publication", "name", "project", "region"))


def endpoint(settings: Settings, index: int) -> Planned[penstock.PrivateEndpoint]:
    """Return the arguments of a consumer's endpoint; its DNS name is the Gateway's."""
    own = settings["private_endpoints"][index]
    args = given(place(settings, "labels"), without=("name",)) | {"attachment": LATER}
    if "hostname" in settings["gateway"]:
        args["hostname"] = settings["gateway"]["hostname"]
    shared = ["region", "labels"] + ([] if "project" in own else ["project"])
    found = dict(moves(f"privateEndpoints[{index}]", *shared))
    if "hostname" not in own:
        found[".hostname"] = "gateway.hostname"
    return Planned(penstock.PrivateEndpoint, f"endpoint-{own['name']}", args | given(own), found)


def claims(settings: Settings) -> Planned[penstock.RdmaNetwork] | None:
    """Return the arguments of the claims on RDMA interfaces that GKE manages, None in other modes."""
    if "rdma" not in settings or settings["rdma"]["mode"] != rdma.DRANET:
        return None
    args = {"name": settings["prefix"], "namespaces": [settings["namespace"]]} | given(settings["rdma"])
    found = dict(moves("rdma", "name")) | {".namespaces": "namespace"}
    return Planned(penstock.RdmaNetwork, "rdma", args, found)


def _pod_security(settings: Settings) -> str:
    """Return the strictest Pod Security Standard that admits the replicas of every set."""
    sets: list[Any] = [
        models.replica_set(settings, at, number).args
        for at, model in enumerate(settings["models"])
        for number in range(len(model["replica_sets"]))
    ]
    levels = [penstock.ModelReplicaSet.pod_security_level(args) for args in sets]
    return max(levels, key=POD_SECURITY.index, default=POD_SECURITY[0])
