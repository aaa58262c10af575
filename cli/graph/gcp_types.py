"""Judges recorded Google Cloud resources by the typed arguments of the provider's own SDK, offline.

A misspelt key of a nested argument reaches the provider in silence: the SDK translates the names it knows and sends the
others as they are. The SDK's argument classes are generated from the provider's schema, so they know every input, its
type and whether it is required. Only the SDK's modules of types that occur are imported; they are large.

Source: pulumi-gcp 10.2 (`pulumi_gcp`, resource modules and `input_type` classes), pulumi SDK 3.272 (`pulumi._types`).
"""

import importlib
import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Union, get_args, get_origin

import pulumi
from penstock.errors import did_you_mean
from pulumi import _types
from pulumi.runtime import rpc

from cli.graph.findings import Findings, SchemaError, join, unwrap
from cli.graph.model import UNKNOWN, Graph, Resource
from cli.graph.schemas import Verdict
from cli.graph.wire import SIGNATURE

PREFIX = "gcp:"
PROVIDER = "pulumi:providers:gcp"
_WORDS: Mapping[Any, str] = {str: "a string", bool: "true or false", int: "an integer", float: "a number"}


def judge(graph: Graph) -> Iterable[Verdict]:
    """Yield a verdict for each Google Cloud resource of `graph` that the program declares, in its order."""
    for resource in graph.resources:
        if is_gcp_resource(resource):
            yield verdict(resource)


def is_gcp_resource(resource: Resource) -> bool:
    """Tell whether `resource` is one that the gcp provider makes; what a program only reads is none."""
    return resource.type.startswith(PREFIX) and resource.custom and "read" not in resource.options


def verdict(resource: Resource) -> Verdict:
    """Judge one resource: `ok`, `invalid`, or `no-schema` for a type that the installed SDK does not know."""
    if not is_gcp_resource(resource):
        return Verdict(resource, "skipped")
    shape = arguments(resource.type)
    if shape is None:
        return Verdict(resource, "no-schema")
    errors = tuple(problems(shape, resource.inputs))
    return Verdict(resource, "invalid" if errors else "ok", errors)


def check(token: str, inputs: Mapping[str, Any]) -> list[SchemaError]:
    """Return everything that is wrong with `inputs` (wire names, camelCase) of a resource of type `token`.

    Raises:
        LookupError: the installed SDK knows no such type.
    """
    shape = arguments(token)
    if shape is None:
        raise LookupError(f"pulumi_gcp knows no resource type {token}")
    return problems(shape, inputs)


@cache
def arguments(token: str) -> type | None:
    """Return the SDK's argument class of a resource type, e.g. `gcp:compute/network:Network`; None for unknown ones."""
    importlib.import_module("pulumi_gcp")  # registers every resource module, and imports none of them
    package, module, name = token.split(":", 2)
    for known in rpc._RESOURCE_MODULES.get(f"{package}:{module}", []):  # public access asks for a version
        info: Mapping[str, Any] = known.mod_info  # type: ignore[attr-defined]
        if token in info["classes"]:
            resource = getattr(importlib.import_module(info["fqn"]), info["classes"][token])
            found: type = getattr(sys.modules[resource.__module__], f"{name}Args")
            return found
    return None


@cache
def fields(shape: type) -> Mapping[str, Any]:
    """Return the type of each field of an argument class, by its name on the wire."""
    return _types.input_type_types(shape)


@cache
def required(shape: type) -> frozenset[str]:
    """Return the names on the wire of the fields that an argument class demands."""
    names = _types.input_type_py_to_pulumi_names(shape)
    signature = inspect.signature(shape)
    return frozenset(
        names[name] for name, parameter in signature.parameters.items() if parameter.default is inspect.Parameter.empty
    )


def problems(shape: type, inputs: Mapping[str, Any]) -> list[SchemaError]:
    """Return everything that is wrong with `inputs` as the fields of an argument class. Secrets are not shown."""
    secrets: set[str] = set()
    plain = unwrap(dict(inputs), "", secrets)
    findings = Findings(frozenset(secrets))
    _object(shape, plain, "", findings)
    return findings.errors


def _object(shape: type, value: Mapping[str, Any], path: str, findings: Findings) -> None:
    known = fields(shape)
    for name in sorted(required(shape) - value.keys()):
        findings.missing(join(path, name), _expected(known[name]))
    for name, item in value.items():
        where = join(path, name)
        if name.startswith("__"):
            continue  # Pulumi's own, e.g. `__defaults`
        if name in known:
            _value(known[name], item, where, findings)
        else:
            findings.error(where, item, f"an argument of {shape.__name__}", did_you_mean(name, known))


def _value(shape: Any, value: Any, path: str, findings: Findings) -> None:
    shape = _plain(shape)
    if value is None or value == UNKNOWN or shape is Any or _is_special(value):
        return
    origin, params = get_origin(shape), get_args(shape)
    if origin is Union:
        if not any(_accepts(member, value) for member in params):
            findings.error(path, value, _expected(shape), "Give a value of that type")
    elif not _accepts(shape, value):
        findings.error(path, value, _expected(shape), "Give a value of that type")
    elif _types.is_input_type(shape):
        _object(shape, value, path, findings)
    elif origin is not None and issubclass(origin, Mapping):
        for key, item in value.items():
            _value(params[1], item, join(path, key), findings)
    elif origin is not None:
        for index, item in enumerate(value):
            _value(params[0], item, f"{path}[{index}]", findings)


def _plain(shape: Any) -> Any:
    """Return `T` of `Optional[T]` and `pulumi.Input[T]`, at any depth of the two."""
    members = [member for member in get_args(shape) if member is not type(None)]
    if get_origin(shape) is not Union:
        return shape
    kept = [member for member in members if get_origin(member) is not pulumi.Output and "Awaitable" not in str(member)]
    return _plain(kept[0]) if len(kept) == 1 else Union[tuple(kept)]  # noqa: UP007 - built from data


def _accepts(shape: Any, value: Any) -> bool:
    """Tell whether the JSON kind of `value` is that of `shape`."""
    shape = _plain(shape)
    origin = get_origin(shape)
    if shape is Any:
        return True
    if _types.is_input_type(shape) or (origin is not None and issubclass(origin, Mapping)):
        return isinstance(value, Mapping)
    if origin is not None and issubclass(origin, Sequence):
        return isinstance(value, list)
    if shape is bool or isinstance(value, bool):
        return shape is bool and isinstance(value, bool)
    if shape is float:
        return isinstance(value, (int, float))
    return isinstance(value, shape) if shape in (str, int) else _is_special(value)


def _expected(shape: Any) -> str:
    shape = _plain(shape)
    origin = get_origin(shape)
    if origin is Union:
        return " or ".join(_expected(member) for member in get_args(shape))
    if _types.is_input_type(shape) or (origin is not None and issubclass(origin, Mapping)):
        return "an object"
    if origin is not None:
        return "a list"
    return _WORDS.get(shape, f"{getattr(shape, '__name__', shape)}")


def _is_special(value: Any) -> bool:
    """Tell whether `value` is an asset, an archive or a reference to a resource: typed by Pulumi itself."""
    return isinstance(value, Mapping) and SIGNATURE in value
