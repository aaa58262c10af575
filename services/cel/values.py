"""What operators and functions of CEL do to values: Python's None, bool, int, float, str, list and mappings.

Every function checks its types, since Python and CEL disagree on many (`True == 1`, `"a" * 2`). Work is charged to a
budget where it grows with the data, so that no body makes an evaluation long.
Source: CEL language definition, "Values" and "List of Standard Definitions"; `lowerAscii` and `upperAscii` are of the
`strings` extension.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import re2  # type: ignore[import-untyped]

MAX_STEPS = 50_000
"""Work that one evaluation may do: elements looked at, and every 64 characters searched or copied."""

_CHARS_PER_STEP = 64
_MIN, _MAX = -(2**63), 2**63 - 1


class Failure(Exception):
    """The expression has no value for this data, e.g. a field is missing. The text quotes no data."""


class Budget:
    """Work left to one evaluation."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps = MAX_STEPS

    def take(self, steps: int) -> None:
        """Use some. Raises Failure when there is none left."""
        self.steps -= steps
        if self.steps < 0:
            raise Failure(f"more than {MAX_STEPS} steps")

    def text(self, text: str) -> str:
        """Use what going through `text` takes."""
        self.take(len(text) // _CHARS_PER_STEP)
        return text


def equal(a: Any, b: Any) -> bool:
    """`==`: values of different types are unequal, but numbers are numbers."""
    kind = type(a)
    if kind is type(b):
        if kind is list:
            return len(a) == len(b) and all(map(equal, a, b))
        if kind is dict:
            return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
        return bool(a == b)
    return kind in _NUMBERS and type(b) in _NUMBERS and bool(a == b)


def less(a: Any, b: Any) -> bool:
    """`<`."""
    if (type(a) is type(b) and type(a) in _ORDERED) or (type(a) in _NUMBERS and type(b) in _NUMBERS):
        return bool(a < b)
    raise Failure("values of these types have no order")


def at_most(a: Any, b: Any) -> bool:
    """`<=`: not the same as "not greater" where a number is NaN."""
    return less(a, b) or equal(a, b)


def member(item: Any, container: Any, budget: Budget) -> bool:
    """`in`."""
    if type(container) is list:
        budget.take(len(container))
        return any(equal(item, element) for element in container)
    if isinstance(container, Mapping) and type(item) in _KEYS:
        return type(item) is str and item in container
    raise Failure("`in` needs a list or an object")


def field(of: Any, name: str) -> Any:
    """`of.name`."""
    if isinstance(of, Mapping):
        try:
            return of[name]
        except KeyError:
            raise Failure("a field is missing") from None
    raise Failure("a field of what is no object")


def index(of: Any, key: Any) -> Any:
    """`of[key]`."""
    if type(of) is list:
        if type(key) is float and key.is_integer():
            key = int(key)
        if type(key) is int and 0 <= key < len(of):
            return of[key]
        raise Failure("no such index")
    return field(of, key) if type(key) is str else field(None, "")


def has(of: Any, name: str) -> bool:
    """`has(of.name)`."""
    if isinstance(of, Mapping):
        return name in of
    raise Failure("a field of what is no object")


def add(a: Any, b: Any, budget: Budget) -> Any:
    """`+`."""
    kind = type(a)
    if kind is not type(b):
        raise Failure("`+` needs two values of one type")
    if kind is int:
        return _fit(a + b)
    if kind is str:
        budget.text(a)
        return a + budget.text(b)
    if kind is list:
        budget.take(len(a) + len(b))
    elif kind is not float:
        raise Failure("`+` needs numbers, strings or lists")
    return a + b


def arithmetic(sign: str) -> Callable[[Any, Any], Any]:
    """Return what `-`, `*`, `/` or `%` does."""

    def compute(a: Any, b: Any) -> Any:
        kind = type(a)
        if kind is not type(b) or kind not in _NUMBERS:
            raise Failure(f"`{sign}` needs two numbers of one type")
        return _float(sign, a, b) if kind is float else _fit(_int(sign, a, b))

    return compute


def negative(a: Any) -> Any:
    """`-a`."""
    if type(a) not in _NUMBERS:
        raise Failure("`-` needs a number")
    return -a if type(a) is float else _fit(-a)


def size(value: Any) -> int:
    """Number of characters (Unicode code points), elements or fields."""
    if type(value) is str or type(value) is list or isinstance(value, Mapping):
        return len(value)
    raise Failure("size() needs a string, a list or an object")


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return a search for an RE2 pattern: time grows with the text only. Raises ValueError."""
    options = re2.Options()
    options.log_errors = False
    try:
        found = re2.compile(pattern, options).search
    except re2.error as error:
        reason = error.args[0] if error.args else "unknown"
        raise ValueError(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)) from None

    def matches(text: str) -> bool:
        try:
            return found(text) is not None
        except UnicodeEncodeError:  # a header with bytes that are no text
            raise Failure("a string is no Unicode text") from None

    return matches


def to_string(value: Any) -> str:
    """`string(value)`."""
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) in (str, int):
        return str(value)
    if type(value) is float:
        return repr(value) if not value.is_integer() or abs(value) >= 1e15 else str(int(value))
    raise Failure("string() needs a string, a number or a boolean")


def to_int(value: Any) -> int:
    """`int(value)`: cut towards zero."""
    try:
        if type(value) in (int, float) or (type(value) is str and value.isascii() and value.strip() == value):
            return _fit(int(value))
    except (ValueError, OverflowError):
        pass
    raise Failure("int() needs a number that fits 64 bits")


def to_double(value: Any) -> float:
    """`double(value)`."""
    try:
        if type(value) in (int, float) or (type(value) is str and "_" not in value):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise Failure("double() needs a number")


def _fit(value: int) -> int:
    if _MIN <= value <= _MAX:
        return value
    raise Failure("a number does not fit 64 bits")


def _int(sign: str, a: int, b: int) -> int:
    if sign == "-":
        return a - b
    if sign == "*":
        return a * b
    if b == 0:
        raise Failure("division by zero")
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return quotient if sign == "/" else a - quotient * b


def _float(sign: str, a: float, b: float) -> float:
    if sign == "%":
        raise Failure("`%` needs whole numbers")
    if sign == "-":
        return a - b
    if sign == "*":
        return a * b
    if b == 0:  # IEEE 754
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
    return a / b


_NUMBERS = frozenset({int, float})
_KEYS = frozenset({str, int, bool})
_ORDERED = frozenset({int, float, str, bool})
