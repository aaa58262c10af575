"""The arguments of the security base: which paths are open follows from what is declared."""

from collections.abc import Iterator, Sequence
from typing import Any

import penstock
from penstock.manifests import management_store

from infra.plan.common import moves, place
from infra.plan.planned import Planned, given
from infra.settings import Settings


def security(
    settings: Settings,
    replica_sets: "Sequence[Planned[penstock.ModelReplicaSet]]",
    api_management: Planned[penstock.ApiManagement] | None,
    guardrails: Planned[penstock.Guardrails] | None,
) -> Planned[penstock.SecurityBase] | None:
    """Return the arguments of NetworkPolicies and audit logs, None without `security`."""
    if "security" not in settings:
        return None
    own = settings["security"]
    args: dict[str, Any] = {"name": settings["prefix"], **given(own)}
    if "network" in own:
        derived = _network(settings, replica_sets, api_management, guardrails)
        args["network"] = {"namespace": settings["namespace"], **derived, **own["network"]}
    if "audit" in own:
        args["audit"] = given(place(settings), only=("project",)) | given(own["audit"])
    found = dict(moves("security", "name")) | {".network.namespace": "namespace", ".audit.project": "project"}
    return Planned(penstock.SecurityBase, "security", args, found)


def _network(
    settings: Settings,
    replica_sets: "Sequence[Planned[penstock.ModelReplicaSet]]",
    api_management: Planned[penstock.ApiManagement] | None,
    guardrails: Planned[penstock.Guardrails] | None,
) -> dict[str, Any]:
    """Return what follows from the other settings; each can be said otherwise."""
    found: dict[str, Any] = {
        "multi_node": [each.name for each in replica_sets if each.args.get("nodes", 1) > 1],
        "hub_clients": [each.name for each in replica_sets if any(_hub_sources(each.args))],
        "google_api_clients": [each.name for each in replica_sets if "weights" in each.args],
    }
    for callout in (api_management, guardrails):
        if callout is not None and not any(callout.problems()) and _calls_google_apis(callout):
            found["google_api_clients"].append(callout.component.SERVICE_NAME)
    if api_management is not None and api_management.args["mode"] == "bundled":
        kind = management_store.kind(api_management.args)  # type: ignore[arg-type]
        found["store"] = "none" if kind == management_store.SQLITE else kind
    if "network" in settings:
        found |= _ranges(settings, found.get("store"))
    return {key: value for key, value in found.items() if value}


def _ranges(settings: Settings, store: str | None) -> dict[str, Any]:
    """Return addresses as the declared network cuts them."""
    network: Any = place(settings) | given(settings["network"])
    ranges = penstock.ProducerNetwork.ranges(network)
    found: dict[str, Any] = {"proxy_range": ranges["proxy"]}
    if network.get("google_apis", "none") != "none":
        found["google_apis"] = network["google_apis"]
    if network.get("regional_apis"):
        found["regional_api_ranges"] = [ranges["nodes"]]
    if (
        settings["picker"].get("discovery") == "kubernetes"
        or settings["picker"].get("profile", "penstock") != "penstock"
    ):
        found["api_server_ranges"] = [ranges["nodes"]]
    if store == management_store.MEMORYSTORE:
        found["store_ranges"] = [ranges["nodes"]]
    return found


def _calls_google_apis(callout: Planned[Any]) -> bool:
    """Tell whether a workload of its own calls Google APIs; guardrails inside API management count there."""
    own: bool = callout.component.calls_google_apis(callout.args)
    return own and callout.args.get("served_by", "own") == "own"


def _hub_sources(args: dict[str, Any]) -> Iterator[str]:
    """Yield what a replica set loads from the hub: every source that is no path in the container."""
    sources = [args.get("source", "/"), *(adapter["source"] for adapter in args.get("adapters", []))]
    return (source for source in sources if not source.startswith("/"))
