"""Taking fields out of a body that its schema does not name.

The engine's errors would tell which these are, but at a cost that a hostile body could drive to minutes. So the body is
walked along the compiled (open) schema: of alternatives those count whose types and constants fit the value. What the
walk leaves in is refused afterwards, as the caller checks the result against the closed schema.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_CONTAINERS = 10_000
"""Most objects and arrays that are cleaned in one body; each takes some 20 us."""

_PYTHON = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def remove(body: dict[str, Any], schema: Mapping[str, Any]) -> None:
    """Remove unknown fields from `body`, in place. `schema` is complete in itself (`Compiler.compile`)."""
    _prune(body, [schema], _Work(schema["$defs"]))


@dataclass(slots=True)
class _Work:
    definitions: Mapping[str, Any]
    left: int = MAX_CONTAINERS


def _prune(value: Any, schemas: Sequence[Any], work: _Work) -> None:
    if not isinstance(value, (dict, list)) or not schemas or work.left == 0:
        return
    work.left -= 1
    definitions = work.definitions
    parts: list[Mapping[str, Any]] = []
    _gather(schemas, value, definitions, parts, set())
    if isinstance(value, list):
        first = [part.get("prefixItems", ()) for part in parts]
        rest = [part["items"] for part in parts if "items" in part]
        for index, item in enumerate(value):
            _prune(item, [p[index] for p in first if index < len(p)] or rest, work)
        return
    named = [part["properties"] for part in parts if "properties" in part]
    free = [part["additionalProperties"] for part in parts if part.get("additionalProperties", False) is not False]
    if named and not free and not any("patternProperties" in part for part in parts):
        for name in [name for name in value if not any(name in names for names in named)]:
            del value[name]
    for name, item in value.items():
        _prune(item, [names[name] for names in named if name in names] or free, work)


def _gather(
    schemas: Sequence[Any],
    value: object,
    definitions: Mapping[str, Any],
    found: list[Mapping[str, Any]],
    seen: set[int],
) -> None:
    """Add the schemas that look at `value`, those that they consist of included."""
    for schema in schemas:
        if not isinstance(schema, Mapping) or id(schema) in seen:
            continue
        seen.add(id(schema))
        found.append(schema)
        if "$ref" in schema:
            _gather([definitions[schema["$ref"].removeprefix("#/$defs/")]], value, definitions, found, seen)
        _gather(schema.get("allOf", ()), value, definitions, found, seen)
        for keyword in ("anyOf", "oneOf"):
            fitting = [part for part in schema.get(keyword, ()) if _fits(part, value, definitions)]
            _gather(fitting, value, definitions, found, seen)
        _gather([schema.get("then"), schema.get("else")], value, definitions, found, seen)
        _gather(list(schema.get("dependentSchemas", {}).values()), value, definitions, found, seen)


def _fits(schema: Any, value: object, definitions: Mapping[str, Any]) -> bool:
    """Whether an alternative is for values of this kind: by its type, what it requires, and constants of its fields."""
    while isinstance(schema, Mapping) and set(schema) == {"$ref"}:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    if not isinstance(schema, Mapping):
        return schema is not False
    types = schema.get("type")
    names = [types] if isinstance(types, str) else types
    if names and not any(isinstance(value, _PYTHON.get(name, ())) for name in names):
        return False
    if not isinstance(value, dict):
        return True
    if any(name not in value for name in schema.get("required", ())):
        return False
    for name, field in schema.get("properties", {}).items():
        if name in value and isinstance(field, Mapping):
            if "const" in field and field["const"] != value[name]:
                return False
            if "enum" in field and value[name] not in field["enum"]:
                return False
    return True
