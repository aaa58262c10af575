"""What a schema check found in one object, and the values it was found in."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cli.graph.model import UNKNOWN
from cli.graph.wire import REDACTED, is_secret


@dataclass(frozen=True, slots=True)
class SchemaError:
    """One value that the API server would refuse, or drop in silence.

    `path` is dotted with indices (`spec.rules[0].matches`), `value` is already fit to print: shortened, no secrets.
    """

    path: str
    value: str
    expected: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}: got {self.value}, expected {self.expected}. {self.fix}."


@dataclass(slots=True)
class Findings:
    """Collected while an object is walked.

    `undecided` names what unknown values hide; `not_evaluated` names what this program cannot check, with the reason.
    """

    secrets: frozenset[str] = frozenset()
    """Paths whose values must not be printed."""
    errors: list[SchemaError] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    not_evaluated: list[str] = field(default_factory=list)

    def error(self, path: str, value: object, expected: str, fix: str) -> None:
        self.errors.append(SchemaError(path or "(root)", self.describe(path, value), expected, fix))

    def missing(self, path: str, expected: str) -> None:
        self.errors.append(SchemaError(path, "nothing", expected, "Add this required field"))

    def describe(self, path: str, value: object) -> str:
        """Return `value` for a message. Containers are counted rather than shown: they may hold secrets."""
        if self.hides(path):
            return REDACTED
        if isinstance(value, Mapping):
            return f"an object with {len(value)} field{'' if len(value) == 1 else 's'}"
        if isinstance(value, list):
            return f"a list of {len(value)}"
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= 80 else f"{text[:77]}..."

    def hides(self, path: str) -> bool:
        """Tell whether `path` is a secret or lies in one."""
        return any(is_at_or_below(path, secret) for secret in self.secrets)

    def touches_secret(self, path: str) -> bool:
        """Tell whether `path` is, lies in, or contains a secret."""
        return self.hides(path) or any(is_at_or_below(secret, path) for secret in self.secrets)


def is_at_or_below(path: str, ancestor: str) -> bool:
    """Tell whether `path` is `ancestor` or lies in it. The empty path is the root."""
    return not ancestor or path == ancestor or path.startswith((f"{ancestor}.", f"{ancestor}["))


def unwrap(value: Any, path: str, secrets: set[str]) -> Any:
    """Return `value` with secret envelopes opened, and add the path of each to `secrets`."""
    if is_secret(value):
        secrets.add(path)
        return unwrap(value.get("value"), path, secrets)
    if isinstance(value, Mapping):
        return {key: unwrap(item, join(path, key), secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [unwrap(item, f"{path}[{index}]", secrets) for index, item in enumerate(value)]
    return value


def join(path: str, key: str) -> str:
    """Return the path of field `key` of the object at `path`; keys with dots or slashes are quoted."""
    if not key or any(character in key for character in "./[] "):
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else key


def unknown_paths(value: Any, path: str) -> Iterable[str]:
    """Yield the path of each unknown in `value`."""
    if value == UNKNOWN:
        yield path
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from unknown_paths(item, join(path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown_paths(item, f"{path}[{index}]")
