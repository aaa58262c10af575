"""Validates raw settings and keeps going: a wrong value is reported and replaced, so that the rest is checked too."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, is_typeddict

from penstock.errors import ConfigError, did_you_mean

from infra.settings.marks import Hidden, Secret, fields, split

_WORDS = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}
_STAND_INS = {str: "x", bool: False, int: 1, float: 1.0}
"""Of a wrong value's type, so that components can be asked what else is wrong."""


@dataclass
class Report:
    """What a validation found.

    Attributes:
        errors: each with its path in camelCase.
        replaced: the paths that hold stand-ins: what a component says of them means nothing.
    """

    errors: list[ConfigError] = field(default_factory=list)
    replaced: set[str] = field(default_factory=set)

    def wrong(self, path: str, value: Any, expected: str, fix: str = "Give a value of that type") -> None:
        """Note an error and that the value is replaced."""
        self.errors.append(ConfigError(path or "penstock", value, expected, fix))
        self.replaced.add(path)


def validate(shape: Any, raw: Any, report: Report, path: str = "") -> Any:
    """Return `raw` in the declared shape, keys in snake_case, with stand-ins where something is wrong.

    Args:
        shape: an annotation; see `infra.settings.marks`.
        raw: JSON-like data, keys in camelCase.
        report: gets everything that is wrong.
        path: where `raw` stands.
    """
    base, marks = split(shape)
    origin, params = get_origin(base), get_args(base)
    if is_typeddict(base):
        return _map(shape, raw, report, path)
    if origin in (list, Sequence):
        if not isinstance(raw, list):
            report.wrong(path, raw, "a list")
            return []
        return [validate(params[0], item, report, f"{path}[{index}]") for index, item in enumerate(raw)]
    if origin in (dict, Mapping):
        if not isinstance(raw, Mapping):
            report.wrong(path, raw, "a map")
            return {}
        return {str(key): validate(params[1], item, report, f"{path}.{key}") for key, item in raw.items()}
    if base is Any:
        return raw
    return _scalar(base, raw, report, path, hidden=any(isinstance(mark, Secret) for mark in marks))


def camel(name: str) -> str:
    """Return a name or path of arguments as settings write it."""
    return re.sub(r"(?<=[a-z0-9])_([a-z0-9])", lambda match: match[1].upper(), name)


def _map(shape: Any, raw: Any, report: Report, path: str) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        expected = "a map" if path else "a map of settings"
        report.wrong(path, raw if path else type(raw).__name__, expected)
        raw = {}
    known = {camel(name): (name, item) for name, item in fields(shape).items()}
    found: dict[str, Any] = {}
    for key, value in raw.items():
        where = f"{path}.{key or repr(key)}".removeprefix(".")
        if key not in known:
            report.wrong(where, value, "a known key", did_you_mean(str(key), known))
        elif value is not None:
            name, item = known[key]
            found[name] = validate(item.shape, value, report, where)
    for key, (name, item) in known.items():
        if item.required and name not in found:
            where = f"{path}.{key}".removeprefix(".")
            if path not in report.replaced:
                report.wrong(where, None, "a value", "Set it, it has no default")
            report.replaced.add(where)
            found[name] = _stand_in(item.shape)
    return found


def _stand_in(shape: Any) -> Any:
    base, _ = split(shape)
    if is_typeddict(base):
        return {name: _stand_in(item.shape) for name, item in fields(shape).items() if item.required}
    if base in _STAND_INS:
        return _STAND_INS[base]
    return [] if get_origin(base) in (list, Sequence) else {}


def _scalar(shape: type, value: Any, report: Report, path: str, *, hidden: bool) -> Any:
    if shape is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if shape is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) != (shape is bool) or not isinstance(value, shape):
        report.wrong(path, "(hidden)" if hidden else value, _WORDS.get(shape, shape.__name__))
        return _stand_in(shape)
    return Hidden(value) if hidden else value
