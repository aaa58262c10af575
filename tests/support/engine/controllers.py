"""Stands in for the controllers that a GKE cluster runs: of Gateways, of other kinds that are awaited, and of
namespaces and volumes that are deleted.

A Gateway becomes programmed once its named address and certificates exist. Its listeners' forwarding rules then appear
in the made-up cloud and in an annotation, and hold address, certificates and networks until the Gateway is deleted.

Source: GKE's documentation of Gateways; the annotation `networking.gke.io/forwarding-rules` as newer
controllers write it, with whole paths.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from cli.graph.providers import FORWARDING_RULES
from tests.support.engine.apiserver import ApiServer
from tests.support.engine.cloud import COMPUTE, Cloud, Entry
from tests.support.engine.gcp import FORWARDING_RULE
from tests.support.engine.provider import Refused

_GATEWAYS = "/apis/gateway.networking.k8s.io/v1/gateways"
_READY: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("leaderworkerset.x-k8s.io", "leaderworkersets", {}),
    ("apim.googleapis.com", "apigeebackendservices", {"currentState": "CREATED"}),
)
"""Group, plural, and status; without one, the condition Available."""
_FINALIZER = "gateway.finalizer.networking.gke.io"
_CERTIFICATES = "networking.gke.io/cert-manager-certs"
_PLACE = "projects/made-up/regions/made-up"
"""Of forwarding rules of a Gateway without a reserved address, about whose network nothing is known."""


@contextlib.contextmanager
def controllers(server: ApiServer, cloud: Cloud) -> Iterator[None]:
    """Run the controllers in a thread until the block ends."""
    ended = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with server.client() as client:
                while not ended.wait(0.1):
                    _namespaces(client)
                    _claims(client)
                    _volumes(client)
                    _workloads(client)
                    _gateways(client, cloud)
        except Exception as error:  # noqa: BLE001 - raised where the block ends
            failed.append(error)

    thread = threading.Thread(target=run, name="controllers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if failed:
        raise failed[0]


def _namespaces(client: httpx.Client) -> None:
    for namespace in client.get("/api/v1/namespaces").raise_for_status().json()["items"]:
        if namespace["status"].get("phase") == "Terminating":
            path = f"/api/v1/namespaces/{namespace['metadata']['name']}/finalize"
            client.put(path, json={**namespace, "spec": {"finalizers": []}})


def _claims(client: httpx.Client) -> None:
    """Let claims go that no workload mounts, as Kubernetes' protection of claims in use does by their pods."""
    for claim in _leaving(client, "/api/v1/persistentvolumeclaims"):
        metadata = claim["metadata"]
        workloads = client.get(f"/apis/apps/v1/namespaces/{metadata['namespace']}/deployments").json()["items"]
        mounts = [volume for item in workloads for volume in item["spec"]["template"]["spec"].get("volumes", [])]
        if not any(mount.get("persistentVolumeClaim", {}).get("claimName") == metadata["name"] for mount in mounts):
            path = f"/api/v1/namespaces/{metadata['namespace']}/persistentvolumeclaims/{metadata['name']}"
            _patch(client, path, {"metadata": {"finalizers": None}})


def _volumes(client: httpx.Client) -> None:
    """Let volumes go that no claim names."""
    claims = client.get("/api/v1/persistentvolumeclaims").json()["items"]
    named = {claim["spec"].get("volumeName") for claim in claims}
    for volume in _leaving(client, "/api/v1/persistentvolumes"):
        if volume["metadata"]["name"] not in named:
            _patch(
                client, f"/api/v1/persistentvolumes/{volume['metadata']['name']}", {"metadata": {"finalizers": None}}
            )


def _leaving(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get(path).raise_for_status().json()["items"]
    return [item for item in items if "deletionTimestamp" in item["metadata"] and item["metadata"].get("finalizers")]


def _workloads(client: httpx.Client) -> None:
    """Let everything that programs wait for be ready at once."""
    for group, plural, status in _READY:
        answer = client.get(f"/apis/{group}/v1/{plural}")
        for item in answer.json()["items"] if answer.status_code == 200 else ():
            wanted = status or {"conditions": [_condition("Available", item)]}
            if not wanted.items() <= item.get("status", {}).items():
                metadata = item["metadata"]
                path = f"/apis/{group}/v1/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}/status"
                _patch(client, path, {"status": wanted})


def _gateways(client: httpx.Client, cloud: Cloud) -> None:
    answer = client.get(_GATEWAYS)
    if answer.status_code == 404:  # no definitions were installed
        return
    for gateway in answer.raise_for_status().json()["items"]:
        metadata = gateway["metadata"]
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{metadata['namespace']}/gateways/{metadata['name']}"
        if "deletionTimestamp" in metadata:
            _withdraw(client, path, gateway, cloud)
        elif not _is(gateway, "Programmed"):
            _program(client, path, gateway, cloud)


def _is(item: Mapping[str, Any], type_: str) -> bool:
    conditions = item.get("status", {}).get("conditions", [])
    return any(condition["type"] == type_ and condition["status"] == "True" for condition in conditions)


def _condition(type_: str, item: Mapping[str, Any]) -> dict[str, str]:
    since = item["metadata"]["creationTimestamp"]
    return {"type": type_, "status": "True", "reason": type_, "message": "", "lastTransitionTime": since}


def _program(client: httpx.Client, path: str, gateway: Mapping[str, Any], cloud: Cloud) -> None:
    entries = cloud.entries()
    named = [item["value"] for item in gateway["spec"].get("addresses", []) if item.get("type") == "NamedAddress"]
    address = _find(entries, "addresses", named[0]) if named else None
    certificates = [_find(entries, "certificates", name) for name in _certificates(gateway)]
    if (named and address is None) or None in certificates:
        return
    reserved = entries[address]["inputs"] if address else {}
    ip = entries[address]["outputs"]["address"] if address else "192.0.2.10"
    place = address.partition("/addresses/")[0] if address else _PLACE
    holds = sorted({*filter(None, [address, *certificates]), *_networks(reserved, entries)})
    rules = []
    for listener in gateway["spec"]["listeners"]:
        name = f"gkegw1-{gateway['metadata']['uid'][:4]}-{gateway['metadata']['name']}-{listener['name']}"
        _rule(cloud, f"{place}/forwardingRules/{name}", ip, listener["port"], holds)
        rules.append(f"/{place}/forwardingRules/{name}")
    change = {"finalizers": [_FINALIZER], "annotations": {FORWARDING_RULES: ",".join(rules)}}
    _patch(client, path, {"metadata": change})
    conditions = [_condition(type_, gateway) for type_ in ("Accepted", "Programmed")]
    _patch(client, f"{path}/status", {"status": {"addresses": [{"value": ip}], "conditions": conditions}})


def _rule(cloud: Cloud, identifier: str, ip: str, port: int, holds: list[str]) -> None:
    outputs = {
        "name": identifier.rpartition("/")[2],
        "selfLink": COMPUTE + identifier,
        "ipAddress": ip,
        "portRange": f"{port}-{port}",
        "loadBalancingScheme": "INTERNAL_MANAGED",
    }
    with contextlib.suppress(Refused):  # made in an earlier round
        cloud.add(identifier, {"type": FORWARDING_RULE, "inputs": {}, "outputs": outputs, "references": holds})


def _withdraw(client: httpx.Client, path: str, gateway: Mapping[str, Any], cloud: Cloud) -> None:
    """Delete the rules, then let the Gateway go; while an attachment holds a rule, neither goes."""
    rules = gateway["metadata"].get("annotations", {}).get(FORWARDING_RULES, "")
    try:
        for rule in filter(None, rules.split(",")):
            cloud.remove(rule.removeprefix("/"))
    except Refused:
        return
    _patch(client, path, {"metadata": {"finalizers": None}})


def _networks(reserved: Mapping[str, Any], entries: Mapping[str, Entry]) -> list[str]:
    """Return the subnetwork of an address, and the proxy-only one beside it: both hold the load balancer."""
    own = str(reserved.get("subnetwork", "")).removeprefix(COMPUTE)
    if own not in entries:
        return []
    network = entries[own]["inputs"].get("network")
    proxies = [
        identifier
        for identifier, entry in entries.items()
        if entry["inputs"].get("purpose") == "REGIONAL_MANAGED_PROXY" and entry["inputs"].get("network") == network
    ]
    return [own, *proxies]


def _certificates(gateway: Mapping[str, Any]) -> list[str]:
    options = [listener.get("tls", {}).get("options", {}) for listener in gateway["spec"]["listeners"]]
    return [name.strip() for option in options for name in option.get(_CERTIFICATES, "").split(",") if name.strip()]


def _find(entries: Mapping[str, Entry], collection: str, name: str) -> str | None:
    return next((key for key in entries if key.endswith(f"/{collection}/{name}")), None)


def _patch(client: httpx.Client, path: str, change: Mapping[str, Any]) -> None:
    answer = client.patch(path, json=dict(change), headers={"content-type": "application/merge-patch+json"})
    if answer.status_code not in (404, 409):  # deleted meanwhile, or seen again in the next round
        answer.raise_for_status()
