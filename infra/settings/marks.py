"""How settings take over the arguments of components, so that no field is written twice.

A field of `Settings` is annotated with a component's own arguments, and marks say where the two differ: what the
program wires by itself, what it fills in, which other component's arguments stand in the same map. To a type checker
`Annotated[Args, ...]` is `Args`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, NotRequired, Required, Union, get_args, get_origin


class Wired:
    """Fields that the program sets by itself: they are no settings. Names are in snake_case, nested ones dotted."""

    def __init__(self, *names: str) -> None:
        self.names = names


class Filled:
    """Fields that the program fills in where a setting leaves them out."""

    def __init__(self, *names: str) -> None:
        self.names = names


class Also:
    """The fields of other arguments, all optional; those of the map itself win."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


class Secret:
    """A string that no message may show."""


class Hidden(str):
    """Such a string: what is printed of a structure that holds it does not show it."""

    def __repr__(self) -> str:
        return "'(hidden)'"


@dataclass(frozen=True)
class Field:
    """A field of a map.

    Attributes:
        shape: its annotation, `NotRequired` taken away.
        required: whether it must be given.
        owner: the TypedDict that declares and documents it.
    """

    shape: Any
    required: bool
    owner: type


def split(shape: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a shape's plain type and its marks; of `pulumi.Input[T]` and `T | None` it is `T`."""
    marks: tuple[Any, ...] = ()
    while True:
        origin, params = get_origin(shape), get_args(shape)
        if origin is Annotated:
            shape, marks = params[0], marks + params[1:]
        elif origin in (NotRequired, Required, Union):
            shape = params[0]
        else:
            return shape, marks


def fields(shape: Any) -> Mapping[str, Field]:
    """Return the fields of a map by name, in snake_case.

    Raises:
        KeyError: a mark names a field that does not exist.
    """
    base, marks = split(shape)
    found = {
        name: Field(hint, name in base.__required_keys__, _owner(base, name))
        for name, hint in base.__annotations__.items()
    }
    for mark in marks:
        if isinstance(mark, Also):
            found = {name: replace(field, required=False) for name, field in fields(mark.shape).items()} | found
        elif isinstance(mark, (Wired, Filled)):
            for name in mark.names:
                _mark(found, name, type(mark))
    return found


def _mark(found: dict[str, Field], name: str, mark: type[Wired] | type[Filled]) -> None:
    head, _, rest = name.partition(".")
    field = found[head]
    if rest:
        found[head] = replace(field, shape=Annotated[field.shape, mark(rest)])
    elif mark is Wired:
        del found[head]
    else:
        found[head] = replace(field, required=False)


def _owner(base: Any, name: str) -> type:
    """Return the TypedDict that declares a field itself; TypedDicts forget their bases, hence `__orig_bases__`."""
    for parent in getattr(base, "__orig_bases__", ()):
        if name in getattr(parent, "__annotations__", {}):
            return _owner(parent, name)
    owner: type = base
    return owner
