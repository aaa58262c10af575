"""Stands in for the provider of `kubernetes`: `pulumi-resource-kubernetes`.

Objects go to a real API server by server-side apply, in previews as a dry run; only Helm releases are opaque records.
There are no controllers but those of `controllers.py`: workloads count as rolled out at once.

Source: pulumi-kubernetes 4.34: what forces replacement, errors for objects that exist, field managers, previews
without a dry run where inputs are unknown or kind or namespace are not there yet, `pulumi.com/waitFor`.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from pulumi.runtime.proto import provider_pb2_grpc

from tests.support.engine import definitions
from tests.support.engine.apiserver import ApiServer, object_path, patch
from tests.support.engine.cloud import Cloud
from tests.support.engine.provider import (
    Changes,
    Provider,
    Refused,
    Values,
    has_unknown,
    paths_that_differ,
    serve,
)

RELEASE = "kubernetes:helm.sh/v3:Release"
_PATH = re.compile(r"\{(\.[a-zA-Z]+)+\}")
"""The part of JSONPath that our components use."""
_WAIT_FOR = "pulumi.com/waitFor"
_TIMEOUT = "pulumi.com/timeoutSeconds"

_FORCES_NEW: Mapping[str, tuple[str, ...]] = {
    "ClusterRoleBinding": ("roleRef",),
    "ConfigMap": ("data", "binaryData"),  # unless the provider is told that they are mutable
    "Deployment": ("spec.selector",),
    "Job": ("spec.completions", "spec.selector", "spec.template"),
    "PersistentVolume": ("spec.csi",),
    "PersistentVolumeClaim": ("spec",),
    "RoleBinding": ("roleRef",),
    "Secret": ("data", "stringData", "type"),  # unless the provider is told that they are mutable
    "Service": ("spec.clusterIP",),
    "StatefulSet": ("spec.podManagementPolicy", "spec.selector", "spec.serviceName", "spec.volumeClaimTemplates"),
}
_IDENTITY = ("apiVersion", "kind", "metadata.name", "metadata.namespace")
_OWN_METADATA = ("name", "namespace", "labels", "annotations")
_MUTABLE = {"ConfigMap": "enableConfigMapMutable", "Secret": "enableSecretMutable"}

_DELETE_TIMEOUT_S = 20
"""How long finalizers may take. The provider waits for minutes; nothing here needs a second."""


class Kubernetes(Provider):
    """The stand-in. An object's identifier is `namespace/name`, or `name` outside of namespaces."""

    version = version("pulumi-kubernetes")

    def __init__(self, server: ApiServer, cloud: Cloud) -> None:
        self._server, self._cloud, self._config = server, cloud, Values()

    def configured(self, args: Values) -> None:
        self._config = args

    def diff_config(self, old: Values, new: Values) -> Changes:
        """Another cluster replaces everything; with an identifier it alone tells, else the kubeconfig does."""
        paths = paths_that_differ(old, new)
        decisive = "clusterIdentifier" if "clusterIdentifier" in old else "kubeconfig"
        return Changes(paths, frozenset({decisive} & paths.keys()))

    def check(self, type_: str, name: str, olds: Values, news: Values, seed: bytes) -> tuple[Values, list[str]]:
        inputs = dict(news)
        if type_ == RELEASE:
            suffix = hashlib.sha256(seed).hexdigest()[:8]
            return {"name": olds.get("name", f"{name}-{suffix}"), **inputs}, []
        metadata = dict(inputs.get("metadata", {}))
        if "name" not in metadata:
            before = olds.get("metadata", {}).get("name")
            metadata["name"] = before or f"{name}-{hashlib.sha256(seed).hexdigest()[:8]}"
            metadata["annotations"] = {**metadata.get("annotations", {}), "pulumi.com/autonamed": "true"}
        return {**inputs, "metadata": metadata}, []

    def diff(self, type_: str, old: Values, new: Values) -> Changes:
        paths = paths_that_differ(old, new)
        kind = new.get("kind", "")
        mutable = self._config.get(_MUTABLE.get(kind, ""), "false") == "true"  # configuration arrives as JSON
        fields = () if mutable else _FORCES_NEW.get(kind, ())
        replaces = frozenset(path for path in paths if _at_or_below(path, (*_IDENTITY, *fields)))
        autonamed = "pulumi.com/autonamed" in new.get("metadata", {}).get("annotations", {})
        same_place = not any(_at_or_below(path, _IDENTITY) for path in replaces)
        return Changes(paths, replaces, delete_first=bool(replaces) and same_place and not autonamed)

    def create(self, type_: str, name: str, urn: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        if not preview:
            self._cloud.hold(name, "before")
        if type_ == RELEASE:
            identifier = f"{inputs.get('namespace', 'default')}/{inputs['name']}"
            if not preview:
                self._cloud.add(identifier, {"type": type_, "inputs": inputs, "outputs": inputs, "references": []})
                group = definitions.CHARTS.get(inputs["chart"].rpartition("/")[2])
                if group:
                    with self._server.client() as client:
                        definitions.install(client, group)
            return identifier, inputs
        live = self._apply(urn, inputs, preview, new=True)
        if preview:
            return "", live
        self._cloud.hold(name, "after")
        return _identifier(live), self._await(live)

    def update(self, type_: str, name: str, urn: str, identifier: str, inputs: Values, preview: bool) -> Values:
        if type_ == RELEASE:
            if not preview:
                self._cloud.replace(identifier, {"type": type_, "inputs": inputs, "outputs": inputs, "references": []})
            return inputs
        live = self._apply(urn, inputs, preview, new=False)
        return live if preview else self._await(live)

    def read(self, type_: str, urn: str, identifier: str, inputs: Values) -> tuple[Values, Values] | None:
        if type_ == RELEASE:
            entry = self._cloud.entries().get(identifier)
            return (entry["outputs"], entry["inputs"]) if entry else None
        with self._server.client() as client:
            answer = client.get(object_path(client, inputs or _imported(type_, identifier)))
        if answer.status_code == 404:
            return None
        live = _tidy(answer.raise_for_status().json())
        return live, _overlaid(inputs or _declared(live), live)

    def delete(self, type_: str, urn: str, identifier: str, outputs: Values) -> None:
        if type_ == RELEASE:
            self._cloud.remove(identifier)
            return
        with self._server.client() as client:
            path = object_path(client, outputs)
            answer = client.request("DELETE", path, json={"propagationPolicy": "Background"})
            if answer.status_code == 404:
                return
            _refuse(answer)
            _poll(
                lambda: client.get(path).status_code == 404,
                _DELETE_TIMEOUT_S,
                lambda: f"{path} is not deleted: its finalizers are {_finalizers(client.get(path).json())}",
            )

    def _apply(self, urn: str, inputs: Values, preview: bool, *, new: bool) -> Values:
        manifest = {key: value for key, value in inputs.items() if not key.startswith("__")}
        if preview and has_unknown(manifest):
            return manifest
        with self._server.client() as client:
            try:
                path = object_path(client, manifest)
            except LookupError as error:
                if preview:  # its definition may come with the same update
                    return manifest
                raise Refused(str(error)) from error
            if new and client.get(path).status_code == 200:
                raise Refused(f'resource "{_identifier(manifest)}" was not created: the object exists already')
            # A manager for each resource, and no force: what another one owns is a conflict.
            query = {"fieldManager": f"pulumi-kubernetes-{hashlib.sha256(urn.encode()).hexdigest()[:8]}"}
            try:
                return _tidy(patch(client, path, manifest, query | ({"dryRun": "All"} if preview else {})))
            except httpx.HTTPStatusError as error:
                if preview and error.response.status_code == 404:  # the namespace comes with the same update
                    return manifest
                raise Refused(_reason(error.response)) from error

    def _await(self, live: Values) -> Values:
        """Wait for the conditions of the annotation `pulumi.com/waitFor`, and return the object as it is then."""
        annotations = live["metadata"].get("annotations", {})
        if _WAIT_FOR not in annotations:
            return live
        wanted = annotations[_WAIT_FOR]
        conditions = json.loads(wanted) if wanted.startswith("[") else [wanted]
        seconds = min(float(annotations.get(_TIMEOUT, 600)), 30)
        with self._server.client() as client:
            path = object_path(client, live)

            def met() -> bool:
                nonlocal live
                live = _tidy(client.get(path).raise_for_status().json())
                return all(_holds(condition, live) for condition in conditions)

            _poll(met, seconds, lambda: f"{path}: {wanted} does not hold, its status is {live.get('status')}")
        return live


def _imported(type_: str, identifier: str) -> Values:
    """Return what tells the place of an object of which only type and identifier are known."""
    _, version, kind = type_.split(":")
    namespace, _, name = identifier.rpartition("/")
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": version.removeprefix("core/"), "kind": kind, "metadata": metadata}


def _declared(live: Values) -> Values:
    """Return the part of an object that somebody may have declared."""
    named = {key: live["metadata"][key] for key in _OWN_METADATA if key in live["metadata"]}
    return {**{key: value for key, value in live.items() if key != "status"}, "metadata": named}


def _holds(condition: str, live: Values) -> bool:
    kind, _, expression = condition.partition("=")
    type_, _, wanted = expression.partition("=")
    if kind == "jsonpath" and _PATH.fullmatch(type_):
        value: Any = live
        for key in type_[2:-1].split("."):
            value = value.get(key, {})
        return str(value) == wanted
    if kind != "condition":
        raise Refused(f"the stand-in does not understand `{condition}`")
    found = live.get("status", {}).get("conditions", [])
    return any(item["type"] == type_ and item["status"] == (wanted or "True") for item in found)


def _poll(met: Callable[[], bool], seconds: float, explain: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            raise Refused(f"timed out after {seconds:.0f} s. {explain()}")
        time.sleep(0.05)


def _at_or_below(path: str, places: tuple[str, ...]) -> bool:
    return any(path == place or path.startswith((f"{place}.", f"{place}[")) for place in places)


def _identifier(manifest: Values) -> str:
    metadata = manifest["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))


def _tidy(live: Values) -> Values:
    """Return an object without the record of who set what, which the provider keeps to itself too."""
    metadata = {key: value for key, value in live["metadata"].items() if key != "managedFields"}
    return {**live, "metadata": metadata}


def _overlaid(inputs: Any, live: Any) -> Any:
    """Return inputs with the values that they have now, so that a refresh shows what somebody else changed."""
    if isinstance(inputs, Mapping) and isinstance(live, Mapping):
        kept = {key: _overlaid(value, live[key]) for key, value in inputs.items() if key in live}
        # The API server leaves out what is empty, and has never heard of keys of ours.
        return kept | {key: value for key, value in inputs.items() if not value or key.startswith("__")}
    if isinstance(inputs, list) and isinstance(live, list) and len(inputs) == len(live):
        return [_overlaid(*pair) for pair in zip(inputs, live, strict=True)]
    return inputs if _same(inputs, live) else live


def _same(one: Any, other: Any) -> bool:
    """Tell whether two values mean the same; the API server writes quantities and numbers in its own way."""
    return bool(one == other) or (isinstance(one, (str, int, float)) and str(one) == str(other))


def _finalizers(live: Values) -> Any:
    return live.get("metadata", {}).get("finalizers") or live.get("spec", {}).get("finalizers")


def _refuse(answer: httpx.Response) -> None:
    if answer.is_error:
        raise Refused(_reason(answer))


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError):
        return f"{answer.status_code} {answer.text}"


def main() -> None:
    """Serve the provider for the API server that the environment names."""
    server = ApiServer(
        os.environ["PENSTOCK_ENGINE_API_SERVER"],
        os.environ["PENSTOCK_ENGINE_TOKEN"],
        Path(os.environ["PENSTOCK_ENGINE_CA"]),
    )
    provider = Kubernetes(server, Cloud(Path(os.environ["PENSTOCK_ENGINE_CLOUD"])))
    serve(lambda grpc_server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, grpc_server))


if __name__ == "__main__":
    main()
