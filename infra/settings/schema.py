"""The JSON Schema of an environment's file, generated from the types: editors complete and check by it.

`python -m infra.settings.schema` (`make golden`) writes `schemas/settings.schema.json`. Descriptions are the docstrings
under the fields. What a schema cannot say (which values fit together) is said by the program.
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, is_typeddict

from infra.settings.marks import Secret, fields, split
from infra.settings.types import DEFAULTS, SHAPE
from infra.settings.validate import camel

PREFIX = "penstock:"
PATH = Path(__file__).parents[2] / "schemas" / "settings.schema.json"
_SCALARS = {str: "string", bool: "boolean", int: "integer", float: "number"}
_SECURE = {
    "type": "object",
    "properties": {"secure": {"type": "string"}},
    "required": ["secure"],
    "additionalProperties": False,
}


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `Pulumi.<env>.yaml`."""
    definitions: dict[str, Any] = {}
    keys = {
        PREFIX + camel(name): _described(field.shape, field.owner, name, definitions, DEFAULTS.get(name))
        for name, field in fields(SHAPE).items()
    }
    config = {
        "type": "object",
        "properties": keys,
        "patternProperties": {f"^(?!{PREFIX})[^:]+:.+$": {}},
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An environment of Penstock",
        "description": "Pulumi.<env>.yaml. Generated from infra/settings by `make golden`; do not edit.",
        "type": "object",
        "properties": {"config": config},
        "$defs": dict(sorted(definitions.items())),
    }


def text() -> str:
    """Return the schema as it is kept."""
    return json.dumps(schema(), indent=1) + "\n"


@cache
def docs(owner: type) -> Mapping[str, str]:
    """Return the docstring under each field of a TypedDict, its line breaks taken out."""
    module = sys.modules[owner.__module__]
    for node in ast.walk(_tree(inspect.getsource(module))):
        if isinstance(node, ast.ClassDef) and node.name == owner.__name__:
            return {
                field.target.id: _spelt(" ".join(doc.value.value.split()))
                for field, doc in zip(node.body, node.body[1:], strict=False)
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(doc, ast.Expr)
                and isinstance(doc.value, ast.Constant)
                and isinstance(doc.value.value, str)
            }
    return {}


def _spelt(text: str) -> str:
    """Return a docstring with the names of fields as settings write them; other names with underscores are values."""
    return re.sub(r"`([a-z_0-9]+)`", lambda found: f"`{camel(found[1])}`" if found[1] in _names() else found[0], text)


@cache
def _names() -> frozenset[str]:
    """Return the names of all fields at any depth."""
    found: set[str] = set()

    def collect(shape: Any) -> None:
        base, _ = split(shape)
        if is_typeddict(base):
            for name, field in fields(shape).items():
                found.add(name)
                collect(field.shape)
        else:
            for inner in get_args(base):
                collect(inner)

    collect(SHAPE)
    return frozenset(found)


@cache
def _tree(source: str) -> ast.Module:
    return ast.parse(source)


def _described(shape: Any, owner: type, name: str, definitions: dict[str, Any], default: Any = None) -> dict[str, Any]:
    found = _schema(shape, definitions)
    found["description"] = docs(owner).get(name, "")
    if default not in (None, "", [], {}):
        found["default"] = default
    return found


def _schema(shape: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    base, marks = split(shape)
    origin, params = get_origin(base), get_args(base)
    if is_typeddict(base):
        return _map(shape, base, bool(marks), definitions)
    if origin in (list, Sequence):
        return {"type": "array", "items": _schema(params[0], definitions)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _schema(params[1], definitions)}
    if base is Any:
        return {}
    scalar: dict[str, Any] = {"type": _SCALARS[base]}
    return {"anyOf": [scalar, _SECURE]} if any(isinstance(mark, Secret) for mark in marks) else scalar


def _map(shape: Any, base: type, marked: bool, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a map; one without marks is the same everywhere and becomes a definition."""
    if not marked and base.__name__ in definitions:
        return {"$ref": f"#/$defs/{base.__name__}"}
    known = fields(shape)
    found: dict[str, Any] = {"type": "object", "additionalProperties": False}
    if not marked:
        definitions[base.__name__] = found
    found["properties"] = {
        camel(name): _described(field.shape, field.owner, name, definitions) for name, field in known.items()
    }
    needed = [camel(name) for name, field in known.items() if field.required]
    if needed:
        found["required"] = needed
    return found if marked else {"$ref": f"#/$defs/{base.__name__}"}


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(text(), encoding="utf-8")
