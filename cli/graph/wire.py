"""Pulumi's wire values as plain data: structs, secrets and unknowns.

Needed by everything that shows or compares recorded values; knows nothing of graphs or programs.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2

SIGNATURE = "4dabf18193072939515e22adb298388d"
"""Key that marks a special object on the wire. Source: pulumi/pulumi sdk 3.272, `rpc._special_sig_key`."""

SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - a public marker, no secret
"""Value of `SIGNATURE` in a secret's envelope. Source: pulumi/pulumi sdk 3.272, `rpc._special_secret_sig`."""

REDACTED = "[secret]"

_EXACT = 2.0**53  # above it a float no longer tells neighbouring integers apart


def plain_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Return a protobuf struct as a dict, keys sorted: the wire keeps no order.

    Integral numbers become int, since the wire knows only doubles.
    """
    return {key: plain_value(struct.fields[key]) for key in sorted(struct.fields)}


def plain_value(value: struct_pb2.Value) -> Any:
    """Return one protobuf value as plain data."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return plain_struct(value.struct_value)
    if kind == "list_value":
        return [plain_value(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= _EXACT else number
    if kind == "string_value":
        return value.string_value
    return value.bool_value if kind == "bool_value" else None


def is_secret(value: object) -> bool:
    """Tell whether `value` is a secret's envelope (`{SIGNATURE: SECRET, "value": ...}`)."""
    return isinstance(value, Mapping) and value.get(SIGNATURE) == SECRET


def redact(value: Any) -> Any:
    """Return `value` with each secret replaced by `[secret]`. Everything that is printed goes through here."""
    if is_secret(value):
        return REDACTED
    if isinstance(value, Mapping):
        return {key: redact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return value


def redacted_inputs(inputs: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resource's inputs without secrets.

    Besides envelopes these are `data` and `stringData` of a Kubernetes Secret and whatever `additionalSecretOutputs`
    names: providers return those inputs as secret outputs, and SDKs send them unwrapped.
    """
    hidden = set(options.get("additionalSecretOutputs", ()))
    if inputs.get("kind") == "Secret":
        hidden |= {"data", "stringData"}
    return {key: REDACTED if key in hidden else redact(value) for key, value in inputs.items()}
