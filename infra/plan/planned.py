"""A component with its arguments, before it is declared: checked by the paths of settings, then wired and made."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pulumi
from penstock import ConfigError

from infra.settings import camel

C = TypeVar("C", bound=pulumi.ComponentResource)


class Later:
    """Stands in arguments where an output of another component will be."""

    def __repr__(self) -> str:
        return "(known when it is declared)"


LATER = Later()


@dataclass(frozen=True)
class Planned(Generic[C]):
    """A component to declare.

    Attributes:
        component: its class.
        name: its logical name.
        args: its arguments, with `LATER` where `declare` is given an output.
        moves: where its arguments come from: path in `args` -> path in settings, the longest one counts. "" is all.
        polish: changes a moved path once more, where arguments and settings differ in shape.
    """

    component: type[C]
    name: str
    args: dict[str, Any]
    moves: Mapping[str, str]
    polish: Callable[[str], str] = field(default=str)

    def problems(self) -> Iterator[ConfigError]:
        """Yield every reason why the component refuses its arguments, by the paths of settings."""
        check: Callable[[Any, str], Iterable[ConfigError]] = self.component.problems  # type: ignore[attr-defined]
        for error in check(self.args, ""):
            yield ConfigError(self.path(error.path), error.value, error.expected, error.fix)

    def path(self, path: str) -> str:
        """Return the path of settings for a path of the arguments, e.g. `.rules[0].max_size`."""
        start = max((old for old in self.moves if begins(path, old)), key=len)
        return self.polish(self.moves[start] + camel(path[len(start) :])).lstrip(".")

    def declare(self, options: pulumi.ResourceOptions, wired: Mapping[str, Any] | None = None) -> C:
        """Declare the component.

        Args:
            options: of the component.
            wired: an output, or value, for each path of `args` that holds `LATER`.
        """
        make: Callable[[str, Any, pulumi.ResourceOptions], C] = self.component
        return make(self.name, _wire(self.args, "", wired or {}), options)


def begins(path: str, start: str) -> bool:
    """Tell whether `path` is `start` or lies in it."""
    return path.startswith(start) and path[len(start) : len(start) + 1] in ("", ".", "[")


def given(values: Mapping[str, Any] | None, only: Iterable[str] = (), without: Iterable[str] = ()) -> dict[str, Any]:
    """Return the settings that are given, all or only some of them."""
    chosen = set(only or values or ()) - set(without)
    return {key: value for key, value in (values or {}).items() if key in chosen}


def element(path: str, field_: str, name: str) -> str:
    """Return the path of `name` in an element of the list `field_`: a string to a component, a map in settings."""
    return re.sub(rf"(?<=\.){field_}\[[0-9]+\]$", rf"\g<0>.{name}", path)


def _wire(value: Any, path: str, wired: Mapping[str, Any]) -> Any:
    if value is LATER:
        return wired[path]
    if isinstance(value, dict):
        return {key: _wire(item, f"{path}.{key}".lstrip("."), wired) for key, item in value.items()}
    return value
