"""A resource monitor that keeps every registration instead of performing it.

Stands where the engine's monitor stands in a deployment. It answers as a preview or an update would, as far as that
can be known without providers: inputs come back as outputs, identifiers are made up from names.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.mocks import MockCallArgs, MockMonitor, MockResourceArgs, Mocks
from pulumi.runtime.proto import alias_pb2, provider_pb2, resource_pb2

from cli.errors import UsageError
from cli.graph.model import Resource
from cli.graph.wire import plain_struct, plain_value

STACK = "pulumi:pulumi:Stack"

Function = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Answers a provider function: arguments -> result, both in wire form (camelCase)."""

Outputs = Callable[[Resource], Mapping[str, Any]]
"""Computes what a provider would add to a resource's inputs: resource -> further outputs (camelCase).

An output called `id` is the resource's identifier."""


class DuplicateResource(UsageError):
    """Two resources have the same type and name.

    The engine refuses them when their parents' types are the same too; Penstock always does, because graphs,
    inventories and policies name a resource by `type::name`.
    """

    def __init__(self, type_: str, name: str, parents: tuple[str | None, str | None]) -> None:
        first, second = (f"under `{parent}`" if parent else "at the top of the stack" for parent in parents)
        super().__init__(
            f"two resources of type `{type_}` are named `{name}`: the first {first}, the second {second}. "
            "Give one of them another name, e.g. prefixed with its component's name"
        )


class UnansweredFunction(UsageError):
    """The program calls a provider function for which the recording has no answer."""

    def __init__(self, token: str) -> None:
        super().__init__(
            f"the program calls the provider function `{token}`, which needs the provider and therefore cannot be "
            "answered offline. Take the value from configuration, or pass an answer for it to the recorder"
        )


class _NoMocks(Mocks):
    """The recording monitor answers by itself; nothing of resources ever reaches its mocks."""

    def new_resource(self, args: MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        raise AssertionError(f"{args.typ} {args.name} reached the mocks, past RecordingMonitor.RegisterResource")

    def call(self, args: MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]] | None]:
        raise UnansweredFunction(args.token)


class RecordingMonitor(MockMonitor):
    """Keeps all requests of one program. Called from the threads of Pulumi's executor.

    Args:
        project: the project's name, part of each URN.
        stack: the stack's name (the environment).
        preview: answer as a preview does: identifiers and provider outputs are unknown.
        functions: answers to provider functions by token; a function without an answer raises `UnansweredFunction`.
        outputs: what providers add to a resource's inputs, by type. In previews only for what the program reads.
    """

    def __init__(
        self,
        project: str,
        stack: str,
        *,
        preview: bool,
        functions: Mapping[str, Function] | None = None,
        outputs: Mapping[str, Outputs] | None = None,
    ) -> None:
        super().__init__(_NoMocks())
        self.recorded: dict[str, Resource] = {}
        """Key (`type::name`) -> resource, in the order of arrival, which is not deterministic."""
        self.registered_outputs: dict[str, dict[str, Any]] = {}
        """Key -> outputs of components; the stack's own under `STACK`."""
        self._project, self._stack, self._preview = project, stack, preview
        self._functions, self._outputs = functions or {}, outputs or {}
        self._lock = threading.Lock()

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        """Return the engine's URN: types of all component parents joined by `$`, the stack left out."""
        chain = parent.split("::", 3)[2] if parent else ""
        qualified = f"{chain}${type_}" if chain and chain != STACK else type_
        return f"urn:pulumi:{self._stack}::{self._project}::{qualified}::{name}"

    def RegisterResource(self, request: resource_pb2.RegisterResourceRequest) -> resource_pb2.RegisterResourceResponse:
        """Record a resource and answer with its inputs as its outputs."""
        urn = self.make_urn(request.parent, request.type, request.name)
        if request.type == STACK:
            return resource_pb2.RegisterResourceResponse(urn=urn)
        resource = Resource(
            type=request.type,
            name=request.name,
            parent=_key(request.parent),
            custom=request.custom,
            inputs=plain_struct(request.object),
            dependencies=_keys(request.dependencies),
            property_dependencies={
                name: _keys(dependencies.urns)
                for name, dependencies in sorted(request.propertyDependencies.items())
                if dependencies.urns
            },
            options=_options(request),
        )
        self._keep(resource)
        state = struct_pb2.Struct()
        state.CopyFrom(request.object)
        if self._preview:
            return resource_pb2.RegisterResourceResponse(urn=urn, object=state)
        identifier = request.importId or self._provide(resource, state)
        return resource_pb2.RegisterResourceResponse(urn=urn, id=identifier, object=state)

    def ReadResource(self, request: resource_pb2.ReadResourceRequest) -> resource_pb2.ReadResourceResponse:
        """Record a resource that the program reads (`X.get`); `options["read"]` holds its identifier."""
        options: dict[str, Any] = {"read": request.id}
        if request.provider:
            options["provider"] = _key(request.provider)
        resource = Resource(
            type=request.type,
            name=request.name,
            parent=_key(request.parent),
            custom=True,
            inputs=plain_struct(request.properties),
            dependencies=_keys(request.dependencies),
            options=options,
        )
        self._keep(resource)
        state = struct_pb2.Struct()
        state.CopyFrom(request.properties)
        state.update(dict(self._outputs.get(resource.type, _nothing)(resource)))
        urn = self.make_urn(request.parent, request.type, request.name)
        return resource_pb2.ReadResourceResponse(urn=urn, properties=state)

    def RegisterResourceOutputs(self, request: resource_pb2.RegisterResourceOutputsRequest) -> empty_pb2.Empty:
        """Keep what a component, or the stack, exports."""
        key = _key(request.urn) or STACK
        with self._lock:
            self.registered_outputs[key] = plain_struct(request.outputs)
        return empty_pb2.Empty()

    def Invoke(self, request: resource_pb2.ResourceInvokeRequest) -> resource_pb2.ResourceInvokeResponse:
        """Answer a provider function from `functions`."""
        answer: dict[str, Any] = {"return": self._answer(request.tok, request.args)}  # a keyword, hence the dict
        return resource_pb2.ResourceInvokeResponse(**answer)

    def Call(self, request: resource_pb2.ResourceCallRequest) -> provider_pb2.CallResponse:
        """Answer a method of a resource from `functions`; MockMonitor has none."""
        answer: dict[str, Any] = {"return": self._answer(request.tok, request.args)}
        return provider_pb2.CallResponse(**answer)

    def _answer(self, token: str, args: struct_pb2.Struct) -> struct_pb2.Struct:
        function = self._functions.get(token)
        if function is None:
            raise UnansweredFunction(token)
        answer = struct_pb2.Struct()
        answer.update(dict(function(plain_struct(args))))
        return answer

    def _keep(self, resource: Resource) -> None:
        with self._lock:
            first = self.recorded.setdefault(resource.key, resource)
        if first is not resource:
            raise DuplicateResource(resource.type, resource.name, (first.parent, resource.parent))

    def _provide(self, resource: Resource, state: struct_pb2.Struct) -> str:
        """Add to `state` what a provider would, and return the resource's identifier ("" for a component)."""
        if not resource.custom:
            return ""
        added = dict(self._outputs.get(resource.type, _nothing)(resource))
        identifier = str(added.pop("id", f"{resource.name}-id"))
        state.update(added)
        if not (resource.type.startswith("kubernetes:") and "kind" in resource.inputs):
            return identifier
        metadata = state.fields["metadata"].struct_value
        if "name" not in metadata.fields:
            # The provider appends a random suffix to the logical name; offline it has to be the same each time.
            metadata["name"] = f"{resource.name}-00000000"
        name, namespace = metadata["name"], metadata.fields.get("namespace")
        return f"{namespace.string_value}/{name}" if namespace and namespace.string_value else str(name)


def _nothing(_: Resource) -> Mapping[str, Any]:
    return {}


def _key(urn: str) -> str | None:
    """Return `type::name` of a URN or of a provider reference (`urn::id`); None for the stack and for nothing."""
    if not urn:
        return None
    _, _, qualified, rest = urn.split("::", 3)
    type_ = qualified.rsplit("$", 1)[-1]
    if type_.startswith("pulumi:providers:"):
        rest = rest.split("::", 1)[0]
    return None if type_ == STACK else f"{type_}::{rest}"


def _keys(urns: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({key for urn in urns if (key := _key(urn))}))


def _options(request: resource_pb2.RegisterResourceRequest) -> dict[str, Any]:
    """Return the options that differ from Pulumi's defaults, named as in Pulumi's own documentation (camelCase).

    The provider's version is left out: every SDK sets it on every resource.
    """
    timeouts = request.customTimeouts
    options: dict[str, Any] = {
        "protect": request.protect,
        "retainOnDelete": request.retainOnDelete,
        "remote": request.remote,
        "import": request.importId,
        "provider": _key(request.provider),
        "providers": {package: _key(reference) for package, reference in sorted(request.providers.items())},
        "ignoreChanges": list(request.ignoreChanges),
        "replaceOnChanges": list(request.replaceOnChanges),
        "additionalSecretOutputs": list(request.additionalSecretOutputs),
        "hideDiffs": list(request.hideDiffs),
        "deletedWith": _key(request.deletedWith),
        "replaceWith": list(_keys(request.replace_with)),
        "customTimeouts": {
            action: getattr(timeouts, action)
            for action in ("create", "update", "delete", "read")
            if getattr(timeouts, action)
        },
        "aliases": [*map(_alias, request.aliases), *request.aliasURNs],
        "transforms": len(request.transforms),
    }
    options = {name: value for name, value in options.items() if value}
    if request.deleteBeforeReplaceDefined:
        options["deleteBeforeReplace"] = request.deleteBeforeReplace
    if request.HasField("replacement_trigger"):
        options["replacementTrigger"] = plain_value(request.replacement_trigger)
    return options


def _alias(alias: alias_pb2.Alias) -> str | dict[str, Any]:
    if alias.urn:
        return alias.urn
    return {field.name: value for field, value in alias.spec.ListFields() if value}
