"""What the program fills in from other settings, and cannot where those are missing: reported, with stand-ins.

A stand-in lets the components be asked what else is wrong; what they say of it is passed over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infra.settings import Report, Settings, camel

_IN_CLOUD = ("network", "cluster", "accelerator_pools", "model_bucket", "publication", "private_endpoints")
"""Settings that declare resources in a project and region, which therefore have to be named."""
_PROJECT, _REGION, _NUMBER = "some-project", "us-central1", "1"
_URI = f"projects/{_PROJECT}/regions/{_REGION}/subnetworks/some-subnetwork"


@dataclass(frozen=True)
class _Need:
    """A value that is missing: in which map, where that stands, what it is for, and what stands in for it."""

    target: Any
    key: str
    path: str
    expected: str
    stand_in: Any
    fix: str = "Set it"


def fill(settings: Settings, report: Report) -> None:
    """Report every value that is missing and put its stand-in into `settings`."""
    needs = [*_place_needs(settings), *_model_needs(settings), *_network_needs(settings)]
    for need in needs:
        if need.key not in need.target:
            if need.path not in report.replaced:
                report.wrong(need.path, None, need.expected, need.fix)
            need.target[need.key] = need.stand_in


def _place_needs(settings: Settings) -> Iterator[_Need]:
    values: Any = settings
    reason = next((name for name in _IN_CLOUD if values.get(name) not in (None, [])), None)
    if reason:
        for key, stand_in in (("project", _PROJECT), ("region", _REGION)):
            yield _Need(settings, key, key, f"a {key}, in which `{camel(reason)}` is declared", stand_in)
    if settings.get("security", {}).get("audit") is not None:
        yield _Need(settings, "project", "project", "a project, whose audit logs are set up", _PROJECT)
    for at, pool in enumerate(settings["accelerator_pools"]):
        if not settings["zones"]:
            yield _Need(pool, "zones", f"acceleratorPools[{at}].zones", "zones of the nodes", [f"{_REGION}-a"])


def _model_needs(settings: Settings) -> Iterator[_Need]:
    for at, model in enumerate(settings["models"]):
        places: list[tuple[str, Any]] = [(f"models[{at}]", model)]
        places += [(f"models[{at}].replicaSets[{number}]", own) for number, own in enumerate(model["replica_sets"])]
        for path, values in places:
            weights: Any = values.get("weights")
            if weights is None:
                continue
            if "model_bucket" not in settings:
                fix = "Name the bucket, or set `modelBucket`"
                yield _Need(
                    weights, "bucket", f"{path}.weights.bucket", "the bucket of the weights", "some-bucket", fix
                )
            for key, stand_in in (("project", _PROJECT), ("project_number", _NUMBER)):
                if key not in weights:
                    expected = f"a value: {path}.weights are read by an identity of the project"
                    yield _Need(settings, key, camel(key), expected, stand_in)


def _network_needs(settings: Settings) -> Iterator[_Need]:
    if "network" not in settings:
        fix = "Set it, or declare `network`"
        gateway: Any = settings["gateway"]
        if "address" in gateway:
            expected = "the URI of the subnetwork that the address is taken from"
            yield _Need(gateway["address"], "subnetwork", "gateway.address.subnetwork", expected, _URI, fix)
        if "publication" in settings:
            expected = "URIs of subnetworks of purpose PRIVATE_SERVICE_CONNECT"
            where = "publication.natSubnetworks"
            yield _Need(settings["publication"], "nat_subnetworks", where, expected, [_URI], fix)
        rules = settings.get("security", {}).get("network")
        if rules is not None:
            expected = "the range of the proxy-only subnet"
            yield _Need(rules, "proxy_range", "security.network.proxyRange", expected, "10.0.0.0/24", fix)
        store: Any = settings.get("api_management", {}).get("store", {}).get("memorystore")
        if store is not None:
            where = "apiManagement.store.memorystore.network"
            yield _Need(
                store, "network", where, "the URI of the network", f"projects/{_PROJECT}/global/networks/n", fix
            )
    bridge: Any = settings.get("api_management", {}).get("apigee", {}).get("bridge")
    if bridge is not None and "publication" not in settings:
        where = "apiManagement.apigee.bridge.serviceAttachment"
        uri = f"projects/{_PROJECT}/regions/{_REGION}/serviceAttachments/a"
        fix = "Set it, or `publication`"
        yield _Need(bridge, "service_attachment", where, "the URI of the Gateway's service attachment", uri, fix)
