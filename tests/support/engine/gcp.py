"""Stands in for the provider of `gcp`: `pulumi-resource-gcp`.

It holds inputs to the provider's typed arguments, knows what forces replacement, names what has no name, and keeps a
made-up cloud that refuses what a cloud refuses. What it answers is made up: no quota, no API, no access is checked.
"""

import hashlib
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pulumi.runtime.proto import provider_pb2_grpc

from cli.graph import gcp_types
from cli.graph.model import Resource
from cli.graph.providers import outputs_of
from tests.support.engine import gcp_rules
from tests.support.engine.cloud import Cloud
from tests.support.engine.provider import Changes, Provider, Refused, Values, paths_that_differ, serve

FORWARDING_RULE = "gcp:compute/forwardingRule:ForwardingRule"


class Gcp(Provider):
    """The stand-in. Resources are entries of a `Cloud`."""

    version = version("pulumi-gcp")

    def __init__(self, cloud: Cloud) -> None:
        self._cloud, self._project, self._outputs = cloud, "", outputs_of()

    def configured(self, args: Values) -> None:
        self._project = str(args.get("project", ""))

    def check(self, type_: str, name: str, olds: Values, news: Values, seed: bytes) -> tuple[Values, list[str]]:
        shape = gcp_types.arguments(type_)
        if shape is None:
            return news, [f"the provider has no resource type {type_}"]
        inputs, known = dict(news), gcp_types.fields(shape)
        if "project" in known and "project" not in inputs:
            if not self._project:
                return inputs, ["project: required, and the provider is configured with none"]
            inputs["project"] = self._project
        if "name" in known and "name" not in inputs and "name" not in gcp_types.required(shape):
            suffix = hashlib.sha256(seed).hexdigest()[:7]
            inputs |= {"name": olds.get("name", f"{name}-{suffix}"), "__defaults": ["name"]}
        return inputs, [str(error) for error in gcp_types.check(type_, inputs)]

    def diff(self, type_: str, old: Values, new: Values) -> Changes:
        paths = paths_that_differ(old, new)
        replaces = frozenset(path for path in paths if gcp_rules.forces_new(type_, path))
        # As the provider's bridge: a name that was given leaves no room for the new one beside the old.
        same_name = "name" in new and "name" not in paths and not new.get("__defaults")
        return Changes(paths, replaces, delete_first=bool(replaces) and same_name)

    def create(self, type_: str, name: str, urn: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        if preview:
            return "", inputs
        self._cloud.hold(name, "before")
        gcp_rules.refuse(type_, inputs, self._cloud.entries())
        identifier, outputs = self._made(type_, name, inputs)
        self._cloud.add(identifier, self._entry(type_, inputs, outputs))
        self._cloud.hold(name, "after")
        return identifier, outputs

    def read(self, type_: str, urn: str, identifier: str, inputs: Values) -> tuple[Values, Values] | None:
        entry = self._cloud.entries().get(identifier)
        return (entry["outputs"], entry["inputs"]) if entry else None

    def update(self, type_: str, name: str, urn: str, identifier: str, inputs: Values, preview: bool) -> Values:
        _, outputs = self._made(type_, name, inputs)
        if not preview:
            self._cloud.replace(identifier, self._entry(type_, inputs, outputs))
        return outputs

    def delete(self, type_: str, urn: str, identifier: str, outputs: Values) -> None:
        entry = self._cloud.entries().get(identifier)
        if entry is None:
            return
        gcp_rules.refuse_deletion(type_, entry["inputs"])
        self._cloud.remove(identifier)

    def invoke(self, token: str, args: Values) -> Values:
        if token != "gcp:compute/getForwardingRules:getForwardingRules":
            raise Refused(f"no answer to the function {token}")
        place = f"projects/{args.get('project', self._project)}/regions/{args['region']}/"
        rules = [
            entry["outputs"]
            for identifier, entry in self._cloud.entries().items()
            if entry["type"] == FORWARDING_RULE and identifier.startswith(place)
        ]
        return {"id": place, "project": args.get("project"), "region": args["region"], "rules": rules}

    def _made(self, type_: str, name: str, inputs: Values) -> tuple[str, Values]:
        """Return identifier and outputs, by the same rules as the offline recording of an update."""
        resource = Resource(type=type_, name=name, parent=None, custom=True, inputs=inputs)
        more = dict(self._outputs[type_](resource)) if type_ in self._outputs else {}
        identifier = more.pop("id", None) or gcp_rules.identity(type_, inputs)
        return identifier, {key: value for key, value in inputs.items() if key != "__defaults"} | more

    @staticmethod
    def _entry(type_: str, inputs: Values, outputs: Values) -> dict[str, Any]:
        needs = gcp_rules.refers_to(type_, inputs)
        return {"type": type_, "inputs": inputs, "outputs": outputs, "references": needs}


def main() -> None:
    """Serve the provider; its cloud is in the folder `PENSTOCK_ENGINE_CLOUD`."""
    provider = Gcp(Cloud(Path(os.environ["PENSTOCK_ENGINE_CLOUD"])))
    serve(lambda server: provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server))


if __name__ == "__main__":
    main()
