"""Makes functions of expressions: once per expression, called per request.

Variables are read when they are met, and nothing is copied, so that a condition over a long body costs what it looks
at. Names, fields, functions and patterns are checked when the expression is compiled.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from services.cel import values
from services.cel.operators import MACROS, OPERATORS, Run
from services.cel.syntax import parse
from services.cel.tree import Call, CelError, Field, Items, Literal, Macro, Name, Node
from services.cel.values import Budget, Failure

T = TypeVar("T")
Variables = Mapping[str, Callable[[T], Any]]
"""Path, as in `body` or `caller.team`, -> how it is read. A path that others begin with has no value of its own."""

_METHODS = frozenset({"contains", "startsWith", "endsWith", "matches", "size", "lowerAscii", "upperAscii"})
_FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "size": values.size,
    "string": values.to_string,
    "int": values.to_int,
    "double": values.to_double,
}
_BOOLEAN = frozenset({"||", "&&", "!", "==", "!=", "<", "<=", ">", ">=", "in", "has", "contains", "startsWith"}) | {
    *("endsWith", "matches", "all", "exists", "exists_one")
}
_EITHER = frozenset({"[]", "? :"})


class Predicate(Generic[T]):
    """A compiled expression that is true or false of a subject."""

    __slots__ = ("_run", "paths", "text")

    def __init__(self, text: str, variables: Variables[T]) -> None:
        """Compile. Raises CelError for what cannot be an expression over `variables` with a truth value."""
        self.text = text
        tree = parse(text)
        compiler = _Compiler(variables)
        self._run = compiler.compile(tree)
        self.paths = frozenset(compiler.paths)
        """Variables that it reads."""
        if not _may_be_boolean(tree):
            raise CelError("the value is neither true nor false", tree.at, "compare it with something")

    def __call__(self, subject: T) -> bool:
        """Evaluate. Raises Failure where the expression has no truth value for `subject`."""
        result = self._run([subject, Budget()])
        if result is True or result is False:
            return bool(result)
        raise Failure("the value is neither true nor false")


def _may_be_boolean(node: Node) -> bool:
    if isinstance(node, Literal):
        return isinstance(node.value, bool)
    if isinstance(node, Call | Macro):
        return node.name in _BOOLEAN or node.name in _EITHER
    return not isinstance(node, Items)


class _Compiler:
    def __init__(self, variables: Variables[Any]) -> None:
        self._variables = variables
        self._bound: list[str] = []
        self.paths: set[str] = set()

    def compile(self, node: Node) -> Run:
        match node:
            case Literal():
                return _constant(node.value)
            case Name() | Field():
                return self._path(node)
            case Items():
                items = [self.compile(item) for item in node.items]
                return lambda env: [item(env) for item in items]
            case Macro():
                return self._macro(node)
            case Call():
                return self._call(node)
        raise CelError("unknown part", node.at, "take it out")

    def _path(self, node: Node) -> Run:
        """Compile a variable or a field: the variable may be a path of several names."""
        path = _dotted(node)
        if path and path.partition(".")[0] not in self._bound:
            return self._variable(node, path)
        if isinstance(node, Field):
            of, name = self.compile(node.of), node.name
            return lambda env: values.field(of(env), name)
        slot = 1 + len(self._bound) - self._bound[::-1].index(path)
        return lambda env: env[slot]

    def _variable(self, node: Node, path: str) -> Run:
        if path in self._variables:
            read = self._variables[path]
            self.paths.add(path)
            return lambda env: read(env[0])
        if isinstance(node, Field) and any(_begins(known, _dotted(node.of)) for known in self._variables):
            whole = self.compile(node.of)
            name = node.name
            return lambda env: values.field(whole(env), name)
        raise self._unknown(node, path)

    def _unknown(self, node: Node, path: str) -> CelError:
        fields = sorted(known for known in self._variables if known.startswith(path + "."))
        if fields:
            return CelError(f"{path} is no value by itself", node.at, f"write {' or '.join(fields)}")
        near = difflib.get_close_matches(path, self._variables, 1)
        fix = f"did you mean {near[0]}?" if near else f"known: {', '.join(self._variables)}"
        return CelError(f"unknown variable {path}", node.at, fix)

    def _macro(self, node: Macro) -> Run:
        over = self.compile(node.over)
        if any(known.partition(".")[0] == node.variable for known in self._variables):
            raise CelError(f"{node.variable} is a variable already", node.at, "give the element another name")
        self._bound.append(node.variable)
        body = self.compile(node.body)
        slot = 1 + len(self._bound)
        self._bound.pop()
        return MACROS[node.name](over, body, slot)

    def _call(self, node: Call) -> Run:
        if node.name == "has" and not node.method:
            return self._has(node)
        if node.method:
            return self._method(node)
        args = [self.compile(arg) for arg in node.args]
        if node.name in OPERATORS:
            return OPERATORS[node.name](*args)
        function = _FUNCTIONS.get(node.name)
        if function is None:
            raise CelError(f"unknown function {node.name}()", node.at, f"known: has, {', '.join(_FUNCTIONS)}")
        if len(args) != 1:
            raise CelError(f"{node.name}() takes one value", node.at, "write one")
        arg = args[0]
        return lambda env: function(arg(env))

    def _has(self, node: Call) -> Run:
        arg = node.args[0] if len(node.args) == 1 else None
        path = _dotted(arg) if arg is not None else ""
        if not isinstance(arg, Field) or path in self._variables:
            raise CelError("has() takes a field that may be missing", node.at, "write for example has(body.user)")
        of, name = self.compile(arg.of), arg.name
        return lambda env: values.has(of(env), name)

    def _method(self, node: Call) -> Run:
        name, wanted = node.name, 0 if node.name in ("size", "lowerAscii", "upperAscii") else 1
        if name not in _METHODS:
            raise CelError(f"unknown method .{name}()", node.at, f"known: {', '.join(sorted(_METHODS))}")
        if len(node.args) - 1 != wanted:
            raise CelError(f".{name}() takes {wanted or 'no'} value", node.at, "write as many")
        of = self.compile(node.args[0])
        if name == "matches":
            return _matches(of, node)
        if name == "size":
            return lambda env: values.size(of(env))
        if not wanted:
            change: Callable[[str], str] = _lower if name == "lowerAscii" else _upper
            return lambda env: change(env[1].text(_text(of(env))))
        search: Callable[[str, str], bool] = _SEARCHES[name]
        other = self.compile(node.args[1])
        return lambda env: search(env[1].text(_text(of(env))), _text(other(env)))


def _dotted(node: Node) -> str:
    """Return `a.b.c` of names and fields; empty for anything else."""
    names: list[str] = []
    while isinstance(node, Field):
        names.append(node.name)
        node = node.of
    return ".".join([node.name, *reversed(names)]) if isinstance(node, Name) else ""


def _begins(known: str, path: str) -> bool:
    """Tell whether `path` is the variable `known` or lies within it."""
    return path == known or path.startswith(known + ".")


def _matches(of: Run, node: Call) -> Run:
    pattern = node.args[1]
    if not isinstance(pattern, Literal) or not isinstance(pattern.value, str):
        raise CelError("the pattern is not a constant", pattern.at, "write it as a string")
    try:
        found = values.matcher(pattern.value)
    except ValueError as error:
        raise CelError(f"no regular expression: {error}", pattern.at, "write it in RE2's syntax") from None
    return lambda env: found(env[1].text(_text(of(env))))


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise Failure("a value is no string")


def _lower(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text)


def _upper(text: str) -> str:
    return "".join(c.upper() if c.isascii() else c for c in text)


def _constant(value: object) -> Run:
    return lambda env: value


_SEARCHES: Mapping[str, Callable[[str, str], bool]] = {
    "contains": str.__contains__,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
}
