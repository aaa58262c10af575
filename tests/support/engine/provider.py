"""A resource provider as the engine sees it, without what our stand-ins do not need: one small class to subclass.

Values are plain data in wire form (camelCase); what is unknown in a preview is `UNKNOWN`. Secrets arrive unwrapped:
the engine keeps them secret by itself.
"""

import abc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from cli.graph.model import UNKNOWN
from cli.graph.wire import plain_struct

Values = dict[str, Any]
Request = TypeVar("Request")
Answer = TypeVar("Answer")

_KINDS = provider_pb2.PropertyDiff.Kind
_DIFF = provider_pb2.DiffResponse
_MISSING = object()


class Refused(Exception):
    """What the cloud or the API server would answer with an error."""


@dataclass(frozen=True)
class Changes:
    """What differs between two versions of a resource's inputs.

    Attributes:
        paths: path such as `spec.rules[0].weight` -> "add", "delete" or "update".
        replaces: those of `paths` that only a new resource can have.
        delete_first: a replacement has to delete the old one first, since both would have one name.
    """

    paths: Mapping[str, str]
    replaces: frozenset[str] = field(default=frozenset())
    delete_first: bool = False


class Provider(provider_pb2_grpc.ResourceProviderServicer, abc.ABC):
    """Override what a package needs. `Refused` becomes the resource's error; anything else shows a traceback."""

    version = ""
    """Not below that of the package's SDK, or the engine warns in every run."""

    def check(self, type_: str, name: str, olds: Values, news: Values, seed: bytes) -> tuple[Values, list[str]]:
        """Return inputs, completed by defaults, and what is wrong with them, each as `path: reason`."""
        return news, []

    def diff(self, type_: str, old: Values, new: Values) -> Changes:
        """Compare checked inputs."""
        return Changes(paths_that_differ(old, new))

    @abc.abstractmethod
    def create(self, type_: str, name: str, urn: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        """Return identifier (empty in a preview) and outputs."""

    @abc.abstractmethod
    def read(self, type_: str, urn: str, identifier: str, inputs: Values) -> tuple[Values, Values] | None:
        """Return outputs and inputs of what exists; None if it does not."""

    @abc.abstractmethod
    def update(self, type_: str, name: str, urn: str, identifier: str, inputs: Values, preview: bool) -> Values:
        """Return the new outputs."""

    @abc.abstractmethod
    def delete(self, type_: str, urn: str, identifier: str, outputs: Values) -> None:
        """Delete a resource; one that is gone already is no error."""

    def invoke(self, token: str, args: Values) -> Values:
        """Answer a function."""
        raise Refused(f"no answer to the function {token}")

    def configured(self, args: Values) -> None:
        """Take the provider's configuration."""

    def diff_config(self, old: Values, new: Values) -> Changes:
        """Compare configurations; a replaced provider replaces all its resources."""
        return Changes(paths_that_differ(old, new))

    # The engine's side, none of it for overriding.

    def Handshake(self, request: Any, context: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=self.version)

    def Configure(self, request: Any, context: Any) -> Any:
        self.configured(plain_struct(request.args))
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        old, new = plain_struct(request.old_inputs), plain_struct(request.news)
        return _answered(self.diff_config(old, new), old, new)

    def Check(self, request: Any, context: Any) -> Any:
        type_, name = _named(request.urn)

        def answer() -> Any:
            olds, news = plain_struct(request.olds), plain_struct(request.news)
            inputs, failures = self.check(type_, name, olds, news, request.randomSeed)
            # An empty `property` lets the engine show the reason alone, which begins with the whole path.
            failed = [provider_pb2.CheckFailure(reason=reason) for reason in failures]
            return provider_pb2.CheckResponse(inputs=_struct(inputs), failures=failed)

        return _guarded(context, answer)

    def Diff(self, request: Any, context: Any) -> Any:
        type_, _ = _named(request.urn)
        old, new = plain_struct(request.old_inputs), plain_struct(request.news)
        return _guarded(context, lambda: _answered(self.diff(type_, old, new), old, new))

    def Create(self, request: Any, context: Any) -> Any:
        type_, name = _named(request.urn)

        def answer() -> Any:
            inputs = plain_struct(request.properties)
            identifier, outputs = self.create(type_, name, request.urn, inputs, request.preview)
            return provider_pb2.CreateResponse(id=identifier, properties=_struct(outputs))

        return _guarded(context, answer)

    def Read(self, request: Any, context: Any) -> Any:
        type_, _ = _named(request.urn)

        def answer() -> Any:
            found = self.read(type_, request.urn, request.id, plain_struct(request.inputs))
            if found is None:
                return provider_pb2.ReadResponse()
            outputs, inputs = found
            return provider_pb2.ReadResponse(id=request.id, properties=_struct(outputs), inputs=_struct(inputs))

        return _guarded(context, answer)

    def Update(self, request: Any, context: Any) -> Any:
        type_, name = _named(request.urn)

        def answer() -> Any:
            inputs = plain_struct(request.news)
            outputs = self.update(type_, name, request.urn, request.id, inputs, request.preview)
            return provider_pb2.UpdateResponse(properties=_struct(outputs))

        return _guarded(context, answer)

    def Delete(self, request: Any, context: Any) -> Any:
        type_, _ = _named(request.urn)

        def answer() -> Any:
            self.delete(type_, request.urn, request.id, plain_struct(request.properties))
            return empty_pb2.Empty()

        return _guarded(context, answer)

    def Invoke(self, request: Any, context: Any) -> Any:
        def answer() -> Any:
            answered: dict[str, Any] = {"return": _struct(self.invoke(request.tok, plain_struct(request.args)))}
            return provider_pb2.InvokeResponse(**answered)

        return _guarded(context, answer)

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()


def serve(add: Callable[[grpc.Server], None]) -> None:
    """Serve a plugin on a free port of 127.0.0.1, print the port, and end with the engine.

    The engine sends SIGINT when it needs a plugin no longer, waits, and kills it; a traceback would be taken for output
    of the program.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    server = grpc.server(ThreadPoolExecutor(max_workers=32), options=[("grpc.max_receive_message_length", 1 << 28)])
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    server.wait_for_termination()


def _end_with(parent: int) -> None:
    """An engine that is killed cannot end its plugins. Go's threads come and go, so prctl would end them too early."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(0)


def paths_that_differ(old: Any, new: Any, path: str = "") -> dict[str, str]:
    """Return the deepest paths at which two values differ, with "add", "delete" or "update".

    `__defaults` is the provider's own note and never differs.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found: dict[str, str] = {}
        for key in sorted({*old, *new} - {"__defaults"}):
            step = key if key.isidentifier() else f'["{key}"]'
            where = step if not path else f"{path}{'' if step.startswith('[') else '.'}{step}"
            found |= paths_that_differ(old.get(key, _MISSING), new.get(key, _MISSING), where)
        return found
    if isinstance(old, list) and isinstance(new, list):
        found = {}
        for index in range(max(len(old), len(new))):
            before, after = (side[index] if index < len(side) else _MISSING for side in (old, new))
            found |= paths_that_differ(before, after, f"{path}[{index}]")
        return found
    if old == new:
        return {}
    return {path: "add" if old is _MISSING else "delete" if new is _MISSING else "update"}


def has_unknown(value: Any) -> bool:
    """Tell whether anything in `value` is only known after an update."""
    if isinstance(value, Mapping):
        return any(map(has_unknown, value.values()))
    return any(map(has_unknown, value)) if isinstance(value, list) else bool(value == UNKNOWN)


def _answered(changes: Changes, old: Values, new: Values) -> Any:
    detailed = {}
    for path, kind in changes.paths.items():
        name = kind.upper() + ("_REPLACE" if path in changes.replaces else "")
        detailed[path] = provider_pb2.PropertyDiff(kind=_KINDS.Value(name), inputDiff=True)
    return _DIFF(
        changes=_DIFF.DIFF_SOME if detailed else _DIFF.DIFF_NONE,
        diffs=sorted({path.partition(".")[0].partition("[")[0] for path in detailed}),
        replaces=sorted({path.partition(".")[0].partition("[")[0] for path in changes.replaces}),
        deleteBeforeReplace=changes.delete_first,
        detailedDiff=detailed,
        hasDetailedDiff=True,
    )


def _guarded(context: Any, answer: Callable[[], Answer]) -> Answer:
    try:
        return answer()
    except Refused as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except Exception:  # noqa: BLE001 - the engine shows it as the resource's error
        context.abort(grpc.StatusCode.INTERNAL, traceback.format_exc())
    raise AssertionError("abort always raises")


def _named(urn: str) -> tuple[str, str]:
    """Return type and name of a URN."""
    _, _, qualified, name = urn.split("::", 3)
    return qualified.rpartition("$")[2], name


def _struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    made.update(dict(values))
    return made
