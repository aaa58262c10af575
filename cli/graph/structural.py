"""Checks a Kubernetes object against a structural schema, as the API server does before it stores it.

In the server's order: defaults are filled in, fields that the schema does not know are found (the server drops them in
silence, which is worse than an error), values are checked. Rules (CEL) come after; see `rules.py`. One walk serves
all, which a general JSON Schema validator could not: it knows neither defaults, unknowns, list keys nor rules.

Source: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions", sections "Specifying a
structural schema", "Field pruning", "Defaulting"; checked with 1.35.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.errors import did_you_mean

from cli.graph.findings import Findings, join, unknown_paths
from cli.graph.formats import UNCHECKED, format_problem, go_pattern
from cli.graph.model import UNKNOWN

Schema = Mapping[str, Any]

_STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}

METADATA: Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 253, "minLength": 1},
        "generateName": {"type": "string"},
        "namespace": {"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        "labels": _STRINGS,
        "annotations": _STRINGS,
        "finalizers": {"type": "array", "items": {"type": "string"}},
        "ownerReferences": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    },
}
"""What a client may set of `metadata`; CRDs leave it to the API server. Source: Kubernetes API 1.35, ObjectMeta."""

_RANGES = {"int32": 31, "int64": 63}

_IS: dict[str, Callable[[object], bool]] = {
    "object": lambda value: isinstance(value, Mapping),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
}
_NOUNS = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "int-or-string": "an integer or a string",
}


def with_defaults(value: Any, schema: Schema) -> Any:
    """Return `value` with the schema's defaults where a field is missing (or null and not nullable)."""
    if isinstance(value, Mapping):
        properties = schema.get("properties", {})
        extra = schema.get("additionalProperties")
        filled = dict(value)
        for name, sub in properties.items():
            if "default" in sub and (name not in filled or (filled[name] is None and not sub.get("nullable"))):
                filled[name] = sub["default"]
        for name, item in filled.items():
            sub = properties.get(name) or (extra if isinstance(extra, Mapping) else None)
            if sub:
                filled[name] = with_defaults(item, sub)
        return filled
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        return [with_defaults(item, schema["items"]) for item in value]
    return value


@dataclass(slots=True)
class Walker:
    """Walks one object along its schema and adds to `findings`.

    `partial` objects (patches) may lack required fields. `nodes` collects (value, schema, path) wherever the schema
    has rules, innermost last.
    """

    findings: Findings
    partial: bool = False
    nodes: list[tuple[Any, Schema, str]] = field(default_factory=list)

    def walk_object(self, value: Mapping[str, Any], schema: Schema) -> None:
        """Check a whole object: `apiVersion`, `kind` and `metadata` belong to the server, the rest to the schema."""
        self.walk(value, {**schema, "type": "object", "properties": _of_the_server(schema.get("properties", {}))}, "")

    def walk(self, value: Any, schema: Schema, path: str, *, structural: bool = True) -> None:
        """Check one value. `structural` is False inside anyOf, oneOf, allOf and not, where fields are not pruned."""
        if value == UNKNOWN and isinstance(value, str):
            self.findings.undecided.append(f"{path}: not known before the update")
            return
        if value is None:
            if structural and schema.get("nullable") is not True:
                self.findings.error(path, value, _noun(schema), "Set a value or leave the field out")
            return
        if structural and schema.get("x-kubernetes-validations"):
            self.nodes.append((value, schema, path))
        if not self._type(value, schema, path):
            return
        self._general(value, schema, path)
        if isinstance(value, Mapping):
            self._object(value, schema, path, structural)
        elif isinstance(value, list):
            self._array(value, schema, path, structural)
        elif isinstance(value, str):
            self._string(value, schema, path)
        elif not isinstance(value, bool):
            self._number(value, schema, path)
        self._combinations(value, schema, path)

    def _type(self, value: object, schema: Schema, path: str) -> bool:
        if schema.get("x-kubernetes-int-or-string"):
            right = _IS["integer"](value) or isinstance(value, str)
        else:
            right = "type" not in schema or _IS[schema["type"]](value)
        if not right:
            self.findings.error(path, value, _noun(schema), "Give a value of that type")
        return right

    def _general(self, value: object, schema: Schema, path: str) -> None:
        allowed = schema.get("enum")
        if allowed is not None and value not in allowed:
            names = [str(item) for item in allowed]
            fix = "Use one of them" if self.findings.hides(path) else did_you_mean(value, names)
            self.findings.error(path, value, f"one of {', '.join(names)}", fix)

    def _object(self, value: Mapping[str, Any], schema: Schema, path: str, structural: bool) -> None:
        properties: Schema = schema.get("properties", {})
        if schema.get("x-kubernetes-embedded-resource"):
            properties = _of_the_server(properties)
        if not self.partial:
            for name in schema.get("required", ()):
                if name not in value:
                    self.findings.missing(join(path, name), _noun(properties.get(name, {})))
        self._size(len(value), schema, path, value, "Properties", "field")
        extra = schema.get("additionalProperties")
        for name, item in value.items():
            if name in properties:
                self.walk(item, properties[name], join(path, name), structural=structural)
            elif isinstance(extra, Mapping):
                self.walk(item, extra, join(path, name), structural=structural)
            elif structural and not extra and not schema.get("x-kubernetes-preserve-unknown-fields"):
                self._unknown_field(name, item, properties, path)

    def _unknown_field(self, name: str, item: object, properties: Schema, path: str) -> None:
        fix = did_you_mean(name, properties)
        expected = "no such field (the API server would drop it in silence)"
        self.findings.error(join(path, name), item, expected, fix)

    def _array(self, value: list[Any], schema: Schema, path: str, structural: bool) -> None:
        self._size(len(value), schema, path, value, "Items", "item")
        if isinstance(schema.get("items"), Mapping):
            for index, item in enumerate(value):
                self.walk(item, schema["items"], f"{path}[{index}]", structural=structural)
        kind = schema.get("x-kubernetes-list-type")
        if kind == "map":
            self._unique(value, path, schema.get("x-kubernetes-list-map-keys", ()))
        elif kind == "set" or schema.get("uniqueItems"):
            self._unique(value, path, ())

    def _unique(self, value: list[Any], path: str, keys: tuple[str, ...]) -> None:
        """Refuse equal items, or items that agree in all of `keys`."""
        seen: dict[str, int] = {}
        for index, item in enumerate(value):
            own = {key: item.get(key) for key in keys} if keys and isinstance(item, Mapping) else item
            if any(unknown_paths(own, "")):
                continue  # already among the undecided
            first = seen.setdefault(repr(own), index)
            if first != index:
                of = f"value of {' and '.join(keys)}" if keys else "value"
                expected = f"another {of} than {path}[{first}] has"
                self.findings.error(
                    f"{path}[{index}]", item, expected, "Items of this list must differ: change or remove"
                )

    def _string(self, value: str, schema: Schema, path: str) -> None:
        self._size(len(value), schema, path, value, "Length", "character")
        pattern = schema.get("pattern")
        if pattern is not None:
            try:
                matches = go_pattern(pattern).search(value) is not None
            except re.error as error:
                self.findings.not_evaluated.append(f"{path}: pattern `{pattern}` ({error})")
                matches = True
            if not matches:
                self.findings.error(path, value, f"a string that matches `{pattern}`", "Change the value")
        name = schema.get("format")
        if name in UNCHECKED:
            self.findings.not_evaluated.append(f"{path}: format `{name}`")
        elif name and (expected := format_problem(name, value)):
            self.findings.error(path, value, expected, "Change the value")

    def _number(self, value: float, schema: Schema, path: str) -> None:
        lowest, highest = schema.get("minimum"), schema.get("maximum")
        if lowest is not None and (value < lowest or (value == lowest and schema.get("exclusiveMinimum"))):
            than = "more than" if schema.get("exclusiveMinimum") else "at least"
            self.findings.error(path, value, f"a number of {than} {lowest}", "Raise it")
        if highest is not None and (value > highest or (value == highest and schema.get("exclusiveMaximum"))):
            than = "less than" if schema.get("exclusiveMaximum") else "at most"
            self.findings.error(path, value, f"a number of {than} {highest}", "Lower it")
        multiple = schema.get("multipleOf")
        if multiple and value % multiple:
            self.findings.error(path, value, f"a multiple of {multiple}", "Round it")
        bits = _RANGES.get(str(schema.get("format")))
        if bits and not -(2**bits) <= value < 2**bits:
            self.findings.error(path, value, f"a number that fits {schema['format']}", "Use a smaller number")

    def _size(self, size: int, schema: Schema, path: str, value: object, suffix: str, noun: str) -> None:
        least, most = schema.get(f"min{suffix}"), schema.get(f"max{suffix}")
        if least is not None and size < least:
            expected = f"at least {least} {noun}{'' if least == 1 else 's'}"
            self.findings.error(path, value, f"{expected} instead of {size}", "Add what is missing")
        if most is not None and size > most:
            expected = f"at most {most} {noun}{'' if most == 1 else 's'}"
            self.findings.error(path, value, f"{expected} instead of {size}", "Shorten it")

    def _combinations(self, value: Any, schema: Schema, path: str) -> None:
        for sub in schema.get("allOf", ()):
            self.walk(value, sub, path, structural=False)
        for word, expected in (("anyOf", "one of the alternatives"), ("oneOf", "exactly one of the alternatives")):
            verdicts = [self._holds(value, sub, path) for sub in schema.get(word, ())]
            held = verdicts.count(True)
            if verdicts and None not in verdicts and not (held == 1 or (held and word == "anyOf")):
                alternatives = "; ".join(_summary(sub) for sub in schema[word])
                self.findings.error(path, value, f"{expected} ({alternatives})", "Change the value")
        if "not" in schema and self._holds(value, schema["not"], path):
            self.findings.error(path, value, f"a value other than {_summary(schema['not'])}", "Change the value")

    def _holds(self, value: Any, schema: Schema, path: str) -> bool | None:
        """Tell whether `value` satisfies `schema`; None when an unknown or an uncheckable format hides it."""
        trial = Walker(Findings(), self.partial)
        trial.walk(value, schema, path, structural=False)
        if trial.findings.errors:
            return False
        return None if trial.findings.undecided or trial.findings.not_evaluated else True


def _of_the_server(properties: Schema) -> dict[str, Schema]:
    """Return `properties` with those of each object; what a CRD says of `metadata` comes on top."""
    own = properties.get("metadata", {}).get("properties", {})
    return {
        **properties,
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {**METADATA, "properties": {**METADATA["properties"], **own}},
    }


def _noun(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return _NOUNS["int-or-string"]
    return _NOUNS.get(str(schema.get("type")), "a value")


def _summary(schema: Schema) -> str:
    return ", ".join(f"{word} {_short(value)}" for word, value in schema.items() if word != "description")


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
