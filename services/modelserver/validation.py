"""Reading request bodies: JSON, then types, with the errors that vLLM gives (pydantic's kinds and wording)."""

import json
from collections.abc import Mapping

import orjson

from services.modelserver.http import HttpError

_EXPECTED = {
    "string": ("string_type", "Input should be a valid string"),
    "boolean": ("bool_parsing", "Input should be a valid boolean, unable to interpret input"),
    "integer": ("int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
    "number": ("float_parsing", "Input should be a valid number, unable to parse string as a number"),
    "list": ("list_type", "Input should be a valid list"),
    "object": ("dict_type", "Input should be a valid dictionary"),
}
Field = tuple[str, bool]
"""Kind and whether null is allowed; `any` accepts everything."""


def _summary(value: object) -> str:
    """Return the value as vLLM shows it in an error: containers by size, long text cut."""
    if isinstance(value, dict):
        return f"'<dict of {len(value)} items>'"
    if isinstance(value, list):
        return f"'<list of {len(value)} items>'"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _error(kind: str, location: str, message: str, value: object, context: str = "") -> str:
    return f"{{'type': '{kind}', 'loc': '{location}', 'msg': '{message}', 'input': {_summary(value)}{context}}}"


def _refuse(errors: list[tuple[str, str]]) -> HttpError:
    """Make the 400 of pairs (location, description)."""
    title = "1 validation error:" if len(errors) == 1 else f"{len(errors)} validation errors:"
    message = "\n  ".join([title, *(text for _, text in errors)])
    return HttpError(400, "Bad Request", message, errors[0][0])


def parse_object(body: bytes, content_type: str) -> dict[str, object]:
    """Return the JSON object in `body`. Raises HttpError 400."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        raise HttpError(400, "Bad Request", message)
    if not body:
        raise _refuse([("body", _error("missing", "body", "Field required", None))])
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = _parse_leniently(body)
    if not isinstance(value, dict):
        expected = "Input should be a valid dictionary or object to extract fields from"
        raise _refuse([("body", _error("model_attributes_type", "body", expected, value))])
    return value


def _parse_leniently(body: bytes) -> object:
    """Parse what orjson refuses: vLLM accepts NaN and lone surrogates. Raises HttpError for what is no JSON."""
    try:
        return _clean(json.loads(body))
    except json.JSONDecodeError as error:
        position, reason = error.pos, error.msg
    except UnicodeDecodeError as error:
        position, reason = error.start, "invalid text encoding"
    except (ValueError, RecursionError):
        position, reason = 0, "number too long or nesting too deep"
    where = f"body.{position}"
    context = f", 'ctx': {{'error': {reason!r}}}"
    raise _refuse([(where, _error("json_invalid", where, "JSON decode error", {}, context))])


def _clean(value: object) -> object:
    """Replace what can't be sent back: lone surrogates and integers beyond 64 bits."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    return value


def check_fields(body: dict[str, object], fields: Mapping[str, Field], required: tuple[str, ...] = ()) -> None:
    """Check and convert the known `fields` in place, as pydantic's lax mode. Raises HttpError with all errors."""
    errors = []
    for name in required:
        if name not in body:
            errors.append((f"body.{name}", _error("missing", f"body.{name}", "Field required", body)))
    for name in body.keys() & fields.keys():
        kind, nullable = fields[name]
        value = body[name]
        if (value is None and nullable) or kind == "any":
            continue
        try:
            body[name] = _convert(kind, value)
        except ValueError:
            code, message = _EXPECTED[kind]
            errors.append((f"body.{name}", _error(code, f"body.{name}", message, value)))
    if errors:
        raise _refuse(sorted(errors))


def _convert(kind: str, value: object) -> object:
    if kind == "string" and isinstance(value, str):
        return value
    if kind == "list" and isinstance(value, list):
        return value
    if kind == "object" and isinstance(value, dict):
        return value
    if kind == "boolean":
        return _boolean(value)
    if kind in ("integer", "number") and isinstance(value, (int, float, str)):
        return _integer(value) if kind == "integer" else float(value)
    raise ValueError(kind)


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = value.lower() if isinstance(value, str) else value
    if text in (0, "0", "false", "f", "no", "n", "off"):
        return False
    if text in (1, "1", "true", "t", "yes", "y", "on"):
        return True
    raise ValueError(value)


def _integer(value: int | float | str) -> int:
    """Convert; an integer beyond 64 bits or a fraction is refused."""
    try:
        number = int(value)
    except OverflowError:
        raise ValueError(value) from None
    if (isinstance(value, float) and number != value) or not -(2**63) <= number < 2**63:
        raise ValueError(value)
    return number


def at(location: str, kind: str, message: str, value: object) -> HttpError:
    """Make a 400 for one value deeper in the body."""
    where = f"body.{location}"
    return _refuse([(where, _error(kind, where, message, value))])


def bad(message: str, param: str | None = None, value: object = None) -> HttpError:
    """Make a 400 of vLLM's own checks: the message ends with parameter and value where there is a parameter."""
    if param is not None and value is not None:
        message = f"{message} (parameter={param}, value={value})"
    return HttpError(400, "BadRequestError", message, param)
