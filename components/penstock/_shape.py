"""Checks that arguments have the shape that their TypedDict declares, before any value is looked at.

Arguments reach a component from Python callers, from other languages through the component host, and from settings;
only the last are checked elsewhere. Knows the few annotations that a component schema may use, nothing else.
"""

import collections.abc
import inspect
import types
from collections.abc import Mapping
from typing import Any, NotRequired, TypeVar, Union, cast, get_args, get_origin, is_typeddict

import pulumi

from .errors import ConfigError, did_you_mean, raise_if

T = TypeVar("T")

_WORDS = {str: "a string", bool: "true or false", int: "a whole number", float: "a number"}


def conform(shape: type[T], args: Mapping[str, Any], path: str) -> T:
    """Return a copy of `args` in the declared shape: None dropped, whole floats made int (JSON knows one number type).

    Args:
        shape: a TypedDict class.
        args: what the caller gave.
        path: what errors call it, usually the component's name.

    Raises:
        ConfigErrors: unknown or missing keys, values of another type; all at once.
    """
    errors: list[ConfigError] = []
    value = _value(shape, args, path, errors)
    raise_if(errors)
    return cast(T, value)


def _value(shape: Any, value: Any, path: str, errors: list[ConfigError]) -> Any:
    origin, params = get_origin(shape), get_args(shape)
    if origin is NotRequired:
        return _value(params[0], value, path, errors)
    if isinstance(value, pulumi.Output) or inspect.isawaitable(value):
        if any(get_origin(param) is collections.abc.Awaitable for param in params):  # pulumi.Input
            return value
        expected = "a value that is known before the update, since it decides what is declared"
        errors.append(ConfigError(path, "an output", expected, "Pass the value itself"))
        return value
    if shape is Any:
        return _plain(value, path, errors)
    if origin in (Union, types.UnionType):  # of Optional and pulumi.Input the first member is plain
        return _value(params[0], value, path, errors)
    if is_typeddict(shape):
        return _typed_dict(shape, value, path, errors)
    if origin in (list, collections.abc.Sequence):
        if not isinstance(value, (list, tuple)):
            return _wrong(value, path, "a list", errors)
        return [_value(params[0], item, f"{path}[{index}]", errors) for index, item in enumerate(value)]
    if origin in (dict, collections.abc.Mapping):
        if not isinstance(value, Mapping):
            return _wrong(value, path, "a map", errors)
        return {str(key): _value(params[1], item, f"{path}.{key}", errors) for key, item in value.items()}
    return _scalar(shape, value, path, errors)


def _typed_dict(shape: Any, value: Any, path: str, errors: list[ConfigError]) -> Any:
    if not isinstance(value, Mapping):
        return _wrong(value, path, "a map", errors)
    hints = shape.__annotations__  # real types; `get_type_hints` cannot resolve the forward references of pulumi.Input
    given = {key: item for key, item in value.items() if item is not None}
    for key in given.keys() - hints.keys():
        errors.append(ConfigError(f"{path}.{key}", given[key], "a known field", did_you_mean(key, hints)))
    for key in sorted(shape.__required_keys__ - given.keys()):
        errors.append(ConfigError(f"{path}.{key}", None, "a value", "Set it, it has no default"))
    return {key: _value(hints[key], given[key], f"{path}.{key}", errors) for key in hints if key in given}


def _plain(value: Any, path: str, errors: list[ConfigError]) -> Any:
    """Return `value` if it is JSON: text of configuration files is made from it."""
    if isinstance(value, Mapping):
        return {str(key): _value(Any, item, f"{path}.{key}", errors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value(Any, item, f"{path}[{index}]", errors) for index, item in enumerate(value)]
    if value is None or isinstance(value, (str, bool, int, float)):
        return int(value) if isinstance(value, float) and value.is_integer() else value
    return _wrong(value, path, "JSON", errors)


def _scalar(shape: type, value: Any, path: str, errors: list[ConfigError]) -> Any:
    if shape is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if shape is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) != (shape is bool) or not isinstance(value, shape):
        return _wrong(value, path, _WORDS.get(shape, shape.__name__), errors)
    return value


def _wrong(value: Any, path: str, expected: str, errors: list[ConfigError]) -> Any:
    errors.append(ConfigError(path, value, expected, "Give a value of that type"))
    return value
