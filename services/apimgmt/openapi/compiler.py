"""From an OpenAPI document to JSON Schema validators of request bodies (JSON Schema 2020-12, engine: jsonschema-rs).

Each reference is followed here, and only inside of the document. What is copied over is known: keywords that check
something. Schemas of OpenAPI 3.0 are rewritten (`nullable`, boolean `exclusiveMinimum`, no siblings of `$ref`).
`format` is not checked, as JSON Schema 2020-12 has it. `pattern` runs in an engine without backtracking (Rust's
`regex`), in time linear in the text; patterns that need backtracking (look-around, back references) are refused.

A schema is compiled open (fields that it does not name pass) or closed (they do not). Closing is more than
`additionalProperties: false` in every object: parts of an `allOf` each know a part of the fields. So a schema is walked
in one of three modes, and the same component may appear in several.
"""

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from services.apimgmt.openapi.documents import DocumentError
from services.apimgmt.openapi.parts import dotted, operations, renewed, resolve

Schema = dict[str, Any] | bool

MAX_PATTERN_BYTES = 1024 * 1024
"""Largest compiled regular expression, bytes."""

_MAPS = ("properties", "patternProperties", "dependentSchemas")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLES = (
    *("items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems", "contains", "propertyNames"),
    *("not", "if", "then", "else"),
)
_IN_PLACE = frozenset(("allOf", "anyOf", "oneOf", "then", "else", "dependentSchemas"))
"""Keywords whose schemas look at the same value. So do `if` and `not`, which are conditions and never closed."""
_PLAIN = (
    *("type", "enum", "const", "required", "dependentRequired"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "pattern", "minItems", "maxItems", "uniqueItems", "minContains", "maxContains"),
    *("minProperties", "maxProperties"),
)
_REFUSED = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$vocabulary")
_DIALECTS = ("https://json-schema.org/draft/2020-12/schema", "https://spec.openapis.org/oas/3.1/dialect/base")


@dataclass(frozen=True, slots=True)
class Checker:
    """The schema of one operation's body, ready to use."""

    validator: jsonschema_rs.Validator
    schema: Mapping[str, Any]


class Mode(enum.Enum):
    """How a schema treats fields that it does not name."""

    OPEN = "open"
    PART = "part"
    """Part of a closed schema: leaves unknown fields of this object to the whole, closes the objects below."""
    CLOSED = "closed"


class Compiler:
    """Compiles schemas of one document. `problems` gathers what is wrong with them, by path."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.problems: list[str] = []
        self._document = document
        self._old = document["openapi"].startswith("3.0.")
        self._names: dict[tuple[str, Mode], str] = {}
        self._definitions: dict[str, Schema] = {}

    def compile(self, pointer: str, *, closed: bool) -> dict[str, Any]:
        """Return the JSON Schema of the schema at `pointer`, complete in itself."""
        root = self._reference(pointer, "", Mode.CLOSED if closed else Mode.OPEN)
        self._check_loops()
        return {**root, "$defs": self._definitions}

    def _reference(self, target: object, path: str, mode: Mode) -> dict[str, Any]:
        """Return a reference to the compiled form of `target`, which is compiled when it is first met."""
        if not isinstance(target, str) or not (target == "#" or target.startswith("#/")):
            shown = repr(target)[:80]
            self.problems.append(
                f"{path}: refers to {shown}, outside of the document, which is never fetched; "
                "put it under components.schemas and refer to it as #/components/schemas/<name>"
            )
            return {}
        name = self._names.get((target, mode))
        if name is None:
            name = self._names[target, mode] = f"d{len(self._names)}"
            found = resolve(self._document, target)
            if found is None:
                self.problems.append(
                    f"{path}: refers to {target[:80]!r}, which is not there; add it or correct the name"
                )
                found = True
            self._definitions[name] = self._schema(found, dotted(target), mode)
        return {"$ref": f"#/$defs/{name}"}

    def _schema(self, schema: object, path: str, mode: Mode) -> Schema:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            self.problems.append(f"{path}: expected a schema (an object), found {type(schema).__name__}; correct it")
            return True
        self._refuse(schema, path)
        if "$ref" in schema and (self._old or not set(schema) & {*_MAPS, *_LISTS, *_SINGLES, *_PLAIN}):
            return self._reference(schema["$ref"], f"{path}.$ref", mode)
        if self._old:
            schema = renewed(schema)
        union = mode is Mode.CLOSED and _is_union(schema)
        result = {keyword: schema[keyword] for keyword in _PLAIN if keyword in schema}
        for keyword, child, child_path, put in _children(schema, result, path):
            put(self._schema(child, child_path, _below(keyword, mode, union)))
        if "$ref" in schema:
            below = mode if union else _below("allOf", mode, False)
            result["allOf"] = [*result.get("allOf", ()), self._reference(schema["$ref"], f"{path}.$ref", below)]
        if mode is Mode.CLOSED and not union:
            self._close(result, schema)
        return result

    def _refuse(self, schema: Mapping[str, Any], path: str) -> None:
        for keyword in _REFUSED:
            if keyword in schema:
                self.problems.append(f"{path}.{keyword}: not supported; refer by #/components/schemas/<name>")
        if schema.get("$schema", _DIALECTS[0]) not in _DIALECTS:
            self.problems.append(f"{path}.$schema: expected {_DIALECTS[0]}; remove it")

    def _close(self, result: dict[str, Any], schema: Mapping[str, Any]) -> None:
        """Refuse fields that neither `schema` nor its parts name; where nothing is named, anything goes."""
        if "additionalProperties" in schema or "unevaluatedProperties" in schema:
            return
        own = set(schema.get("properties") or ())
        parts = self._named(schema, set()) - own
        if parts:
            result["unevaluatedProperties"] = False
        elif own:
            result["additionalProperties"] = False

    def _named(self, schema: object, seen: set[int]) -> set[str]:
        """Return the fields that a schema names, with those of its parts."""
        if not isinstance(schema, dict) or id(schema) in seen:
            return set()
        seen.add(id(schema))
        names = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
        if isinstance(schema.get("patternProperties"), dict):
            names |= {f"/{pattern}/" for pattern in schema["patternProperties"]}
        if isinstance(schema.get("additionalProperties"), dict | bool) and schema["additionalProperties"] is not False:
            names.add("*")
        parts = [*_list(schema, "allOf"), *_list(schema, "anyOf"), *_list(schema, "oneOf")]
        parts += [schema.get("then"), schema.get("else"), *_values(schema, "dependentSchemas")]
        if isinstance(schema.get("$ref"), str):
            parts.append(resolve(self._document, schema["$ref"]))
        for part in parts:
            names |= self._named(part, seen)
        return names

    def _check_loops(self) -> None:
        """Refuse schemas that contain themselves without a step into the value: engines differ on what they mean."""
        state: dict[str, bool] = {}

        def visit(name: str) -> bool:
            if name in state:
                return state[name]
            state[name] = True  # under way: meeting it again is a loop
            looped = any(visit(target) for target in _same_value(self._definitions[name]))
            state[name] = looped
            return looped

        for (pointer, _), name in self._names.items():
            if visit(name):
                self.problems.append(f"{dotted(pointer)}: contains itself; take the loop out")
                return

    def reason(self, error: ValueError) -> str:
        """Say where and what the engine has against a compiled schema."""
        if not isinstance(error, jsonschema_rs.ValidationError):
            return f"the schema cannot be compiled: {str(error)[:200]}; correct it"
        where = [str(part) for part in error.instance_path]
        if where[:1] == ["$defs"]:
            pointers = {name: pointer for (pointer, _), name in self._names.items()}
            where = [dotted(pointers.get(where[1], "")), *where[2:]]
        text = " ".join(error.message.split())[:200]
        if where[-1:] == ["pattern"]:
            text += "; a pattern may not use look-around or back references, nor grow beyond 1 MiB"
        return f"{'.'.join(where)[:300]}: {text}; correct it"


def _below(keyword: str, mode: Mode, union: bool) -> Mode:
    """Return the mode of the schema under `keyword`."""
    if mode is Mode.OPEN or keyword in ("if", "not"):
        return Mode.OPEN
    if keyword in _IN_PLACE:
        return Mode.CLOSED if union else Mode.PART
    return Mode.CLOSED


def _is_union(schema: Mapping[str, Any]) -> bool:
    """Whether a schema is nothing but alternatives, of which each can be closed by itself."""
    if "properties" in schema or "patternProperties" in schema:
        return False
    return (
        sum(keyword in schema for keyword in (*_IN_PLACE, "$ref")) == 1
        and "allOf" not in schema
        and ("then" not in schema and "else" not in schema and "dependentSchemas" not in schema)
    )


def _children(
    schema: Mapping[str, Any], result: dict[str, Any], path: str
) -> Iterator[tuple[str, Any, str, Callable[[Schema], None]]]:
    """Yield the schemas in `schema`: keyword, schema, its path, and what puts its compiled form into `result`."""
    for keyword in _SINGLES:
        if keyword in schema:
            yield keyword, schema[keyword], f"{path}.{keyword}", _putter(result, keyword)
    for keyword in _MAPS:
        if isinstance(schema.get(keyword), dict):
            found: dict[str, Any] = {}
            result[keyword] = found
            for name, child in schema[keyword].items():
                yield keyword, child, f"{path}.{keyword}.{name}"[:300], _putter(found, name)
        elif keyword in schema:
            result[keyword] = schema[keyword]  # the engine says what is wrong with it
    for keyword in _LISTS:
        if isinstance(schema.get(keyword), list):
            made: dict[int, Schema] = {}
            for index, child in enumerate(schema[keyword]):
                yield keyword, child, f"{path}.{keyword}[{index}]", _putter(made, index)
            result[keyword] = list(made.values())
        elif keyword in schema:
            result[keyword] = schema[keyword]


def _putter(target: dict[Any, Any], key: object) -> Callable[[Schema], None]:
    return lambda value: target.__setitem__(key, value)


def _list(schema: Mapping[str, Any], keyword: str) -> list[Any]:
    value = schema.get(keyword)
    return value if isinstance(value, list) else []


def _values(schema: Mapping[str, Any], keyword: str) -> list[Any]:
    value = schema.get(keyword)
    return list(value.values()) if isinstance(value, dict) else []


def _same_value(schema: object) -> Iterator[str]:
    """Yield the definitions that a compiled schema applies to the very value that it looks at."""
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        yield schema["$ref"].removeprefix("#/$defs/")
    for keyword in ("allOf", "anyOf", "oneOf"):
        for child in _list(schema, keyword):
            yield from _same_value(child)
    for keyword in ("not", "if", "then", "else"):
        yield from _same_value(schema.get(keyword))
    for child in _values(schema, "dependentSchemas"):
        yield from _same_value(child)


def checkers(document: Mapping[str, Any], *, closed: bool) -> dict[str, Checker]:
    """Compile the request bodies of a checked document, by path. Raises DocumentError with all problems."""
    made: dict[str, Checker] = {}
    problems: dict[str, None] = {}  # in order, each once: paths share components
    for path, pointer in operations(document):
        compiler = Compiler(document)
        try:
            schema = compiler.compile(pointer, closed=closed)
            if not compiler.problems:
                made[path] = Checker(_validator(schema), schema)
        except ValueError as error:  # jsonschema_rs.ValidationError is one
            problems[compiler.reason(error)] = None
        except RecursionError:
            problems[f"paths.{path}: references follow each other too far; refer more directly"] = None
        problems.update(dict.fromkeys(compiler.problems))
    if problems:
        raise DocumentError(list(problems))
    return made


def _validator(schema: Schema) -> jsonschema_rs.Validator:
    options = jsonschema_rs.RegexOptions(size_limit=MAX_PATTERN_BYTES, dfa_size_limit=MAX_PATTERN_BYTES)
    return jsonschema_rs.Draft202012Validator(schema, offline=True, pattern_options=options, validate_formats=False)
