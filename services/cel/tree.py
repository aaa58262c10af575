"""Trees of expressions."""

from dataclasses import dataclass


class CelError(ValueError):
    """An expression cannot be used. The text says where, why and what to do instead."""

    def __init__(self, problem: str, at: int, fix: str) -> None:
        super().__init__(f"at character {at + 1}: {problem}; {fix}")


@dataclass(frozen=True, slots=True)
class Node:
    """Part of an expression. `at` is the index of its first character, or of its operator."""

    at: int


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """null, a boolean, an int, a float or a string."""

    value: object


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Field(Node):
    """`of.name`."""

    of: Node
    name: str


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function, a method (its object is the first argument) or an operator by its sign (`[]`, `? :`, `!`, ...)."""

    name: str
    args: tuple[Node, ...]
    method: bool = False


@dataclass(frozen=True, slots=True)
class Macro(Node):
    """`over.name(variable, body)`."""

    name: str
    over: Node
    variable: str
    body: Node


@dataclass(frozen=True, slots=True)
class Items(Node):
    """`[a, b]`."""

    items: tuple[Node, ...]


def children(node: Node) -> tuple[Node, ...]:
    """Return the parts of a node, from left to right."""
    match node:
        case Field():
            return (node.of,)
        case Call():
            return node.args
        case Items():
            return node.items
        case Macro():
            return (node.over, node.body)
    return ()
