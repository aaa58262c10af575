"""From a validator's errors to the one that helps: which field, what was found, what was expected.

Where a value fits none of several alternatives, the alternative that was meant is told by its constants (a message's
`role`, a part's `type`) and by the value's kind; its own error is then the one to show. OpenAI names fields as
`messages[0].role`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from jsonschema_rs import ValidationError, Validator
from jsonschema_rs import ValidationErrorKind as Kind

from services.apimgmt.openapi.excerpt import Excerpt

MAX_PARAM = 200
"""Longest name of a field in an error, characters; keys come from the client."""
MAX_SHOWN = 60
"""Longest value in an error, characters."""
MAX_OPTIONS = 12
"""Most allowed values that are listed."""

_UNIONS = (Kind.AnyOf, Kind.OneOfNotValid)
_UNKNOWN = (Kind.AdditionalProperties, Kind.UnevaluatedProperties)
_CONSTANTS = (Kind.Constant, Kind.Enum)
_TYPES = {
    "string": "a string",
    "number": "a number",
    "integer": "an integer",
    "boolean": "a boolean",
    "object": "an object",
    "array": "an array",
    "null": "null",
}
_LIMITS: dict[type[Any], str] = {
    Kind.Minimum: "at least {}",
    Kind.Maximum: "at most {}",
    Kind.ExclusiveMinimum: "more than {}",
    Kind.ExclusiveMaximum: "less than {}",
    Kind.MinLength: "at least {} characters",
    Kind.MaxLength: "at most {} characters",
    Kind.MinItems: "at least {} items",
    Kind.MaxItems: "at most {} items",
    Kind.MinProperties: "at least {} fields",
    Kind.MaxProperties: "at most {} fields",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a body."""

    code: str
    """`invalid_type`, `missing_required_parameter`, `unknown_parameter` or `invalid_value`."""
    param: str
    message: str


def find(validator: Validator, body: Mapping[str, Any]) -> Fault:
    """Say what is wrong with a body that `validator` refused: of several faults the one it meets first."""
    excerpt = Excerpt(body, validator.is_valid)
    if excerpt.complete:
        try:
            validator.validate(excerpt.body)
        except ValidationError as error:
            return _describe(best(error), excerpt)
    return Fault("invalid_value", "", "The body does not fit the schema of this operation.")


def _describe(error: ValidationError, excerpt: Excerpt) -> Fault:
    kind, path = error.kind, excerpt.original(error.instance_path)
    if isinstance(kind, Kind.Required):
        param = name_of([*path, kind.property])
        why = ", which other fields of the request need" if {"then", "else"} & set(error.schema_path) else ""
        return Fault("missing_required_parameter", param, f"'{param}' is missing{why}.")
    if isinstance(kind, _UNKNOWN):
        param = name_of([*path, min(kind.unexpected, default="")])
        return Fault("unknown_parameter", param, f"'{param}' is not a known field.")
    if isinstance(kind, _UNIONS):
        return _between(error, path)
    code = "invalid_type" if isinstance(kind, Kind.Type) else "invalid_value"
    return _fault(code, path, error.instance, _expected(error))


def best(error: ValidationError) -> ValidationError:
    """Follow alternatives down to the error that was meant; stop where none stands out."""
    while isinstance(error.kind, _UNIONS):
        depth = len(error.instance_path)
        meant = [branch for branch in error.kind.context if branch and not any(_other(e, depth) for e in branch)]
        if not meant:
            return error
        branch = min(meant, key=_weight)
        error = next((e for e in branch if isinstance(e.kind, Kind.Required)), branch[0])
    return error


def _other(error: ValidationError, depth: int) -> bool:
    """Whether an alternative was for another kind of value: another type, or another constant in one of its fields."""
    path = error.instance_path
    if len(path) == depth:
        return isinstance(error.kind, (Kind.Type, *_CONSTANTS))
    return len(path) == depth + 1 and isinstance(error.kind, _CONSTANTS) and isinstance(path[-1], str)


def _weight(branch: Sequence[ValidationError]) -> tuple[bool, int, int]:
    """Order alternatives: first one that only unknown fields keep from fitting, then the one that fits deepest."""
    deepest = max(len(best(error).instance_path) for error in branch[:MAX_OPTIONS])
    return not all(isinstance(error.kind, _UNKNOWN) for error in branch), -deepest, len(branch)


def _between(error: ValidationError, path: Sequence[str | int]) -> Fault:
    """Describe a value that is of no alternative's kind: by the types, or by the constants of one field, of all."""
    depth = len(path)
    branches = error.kind.context if isinstance(error.kind, _UNIONS) else []
    right_type = [b for b in branches if not any(len(e.instance_path) == depth and _is_type(e) for e in b)]
    if not right_type:
        types = [text for branch in branches for e in branch if _is_type(e) for text in _options(e)]
        return _fault("invalid_type", path, error.instance, _either(types))
    told = [e for branch in right_type for e in branch if _other(e, depth)]
    if told and len({tuple(e.instance_path) for e in told}) == 1:
        wanted = _either([text for e in told for text in _options(e)])
        return _fault("invalid_value", [*path, *told[0].instance_path[depth:]], told[0].instance, wanted)
    return _fault("invalid_value", path, error.instance, "one of the forms that the schema names")


def _is_type(error: ValidationError) -> bool:
    return isinstance(error.kind, Kind.Type)


def _fault(code: str, path: Sequence[str | int], instance: object, expected: str) -> Fault:
    param = name_of(path)
    subject = f"'{param}'" if param else "The body"
    return Fault(code, param, f"{subject} is {shown(instance)}; expected {expected}.")


def _expected(error: ValidationError) -> str:
    kind = error.kind
    for known, text in _LIMITS.items():
        if isinstance(kind, known):
            return text.format(kind.limit)
    if isinstance(kind, (Kind.Type, *_CONSTANTS)):
        return _either(_options(error))
    if isinstance(kind, Kind.Pattern):
        return f"text that matches {kind.pattern[:MAX_SHOWN]}"
    if isinstance(kind, Kind.MultipleOf):
        return f"a multiple of {kind.multiple_of}"
    if isinstance(kind, Kind.UniqueItems):
        return "items that differ"
    return f"a value that fits the schema's {kind.name!r}"


def _options(error: ValidationError) -> Iterator[str]:
    """Yield what would have been right, for errors of a type or a constant."""
    kind = error.kind
    if isinstance(kind, Kind.Type):
        yield from (_TYPES.get(name, name) for name in kind.types)
    elif isinstance(kind, Kind.Enum):
        yield from (shown(option) for option in kind.options)
    elif isinstance(kind, Kind.Constant):
        yield shown(kind.expected_value)


def _either(options: Sequence[str] | Iterator[str]) -> str:
    texts = list(dict.fromkeys(options))
    if "a number" in texts and "an integer" in texts:
        texts.remove("an integer")
    if "null" in texts[:-1]:
        texts.remove("null")
        texts.append("null")
    if len(texts) > MAX_OPTIONS:
        texts = [*texts[:MAX_OPTIONS], "..."]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"


def name_of(path: Sequence[str | int]) -> str:
    """Return a field's name in OpenAI's way, e.g. `messages[0].role`; empty for the body."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        if len(text) > MAX_PARAM:
            return printable(text[:MAX_PARAM]) + "..."
    return printable(text)


def shown(value: object) -> str:
    """Return a value as an error shows it: containers by their kind, text as JSON, short and printable."""
    if isinstance(value, dict):
        return "an object" if value else "an empty object"
    if isinstance(value, list):
        return "an array" if value else "an empty array"
    if isinstance(value, str) and len(value) > MAX_SHOWN:
        value = value[:MAX_SHOWN] + "..."
    try:
        text = orjson.dumps(value).decode()
    except (TypeError, ValueError):  # numbers beyond 64 bits, lone surrogates
        text = repr(value) if isinstance(value, str) else "a number beyond 64 bits"
    return printable(text)


def printable(text: str) -> str:
    """Replace what could change how a terminal or page shows the text."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
