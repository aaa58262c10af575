"""Parse CEL expressions, since Envoy takes them only as syntax trees.

Covers the grammar of match conditions: literals, `request.path`, indexing, calls and methods, `has()`, lists,
`in`, comparisons, `!`, `&&`, `||` and `? :`. Macros other than `has` (`all`, `exists`, `map`, `filter`) are refused.
Source: CEL language definition, "Syntax"; names of operators as in cel.dev/expr `syntax.proto`.
"""

import re
from typing import Any

Tree = dict[str, Any]

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>[rR]?(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
  | (?P<number>\d+\.\d+|\d+)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<op>&&|\|\||[=!<>]=|[<>!?:.,()\[\]+\-*/%])
    )""",
    re.VERBOSE,
)
_BINARY: tuple[dict[str, str], ...] = (
    {"||": "_||_"},
    {"&&": "_&&_"},
    {"<": "_<_", "<=": "_<=_", ">": "_>_", ">=": "_>=_", "==": "_==_", "!=": "_!=_", "in": "@in"},
    {"+": "_+_", "-": "_-_"},
    {"*": "_*_", "/": "_/_", "%": "_%_"},
)
_MACROS = frozenset({"all", "exists", "exists_one", "map", "filter"})
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'", "`": "`", "?": "?"}
_MAX_LENGTH = 512
"""Longest `celMatcher`. Source: GCPTrafficExtension CRD (networking.gke.io/v1)."""


class CelError(ValueError):
    """An expression that is not CEL, or not of the part that is understood here."""


def parse(text: str) -> Tree:
    """Return the `cel.expr.Expr` of `text` in protobuf's JSON form. Raises `CelError`."""
    if len(text) > _MAX_LENGTH:
        raise CelError(f"{len(text)} characters; at most {_MAX_LENGTH} are allowed")
    parser = _Parser(_tokens(text))
    tree = parser.ternary()
    if parser.kind != "end":
        raise CelError(f"unexpected {parser.text!r} in {text!r}")
    return tree


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    position = 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise CelError(f"unexpected {text[position:].strip()[:10]!r} in {text!r}")
        kind = match.lastgroup or ""
        tokens.append((kind, match.group(kind)))
        position = match.end()
    return [*tokens, ("end", "the end")]


class _Parser:
    """Precedence climbing over tokens. Every node gets its own id, as evaluators expect."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0
        self._id = 0

    @property
    def kind(self) -> str:
        return self._tokens[self._at][0]

    @property
    def text(self) -> str:
        return self._tokens[self._at][1]

    def ternary(self) -> Tree:
        condition = self._binary(0)
        if not self._accept("?"):
            return condition
        first = self._binary(0)
        self._expect(":")
        return self._call("_?_:_", [condition, first, self.ternary()])

    def _binary(self, level: int) -> Tree:
        if level == len(_BINARY):
            return self._unary()
        left = self._binary(level + 1)
        while self.kind in ("op", "name") and self.text in _BINARY[level]:
            function = _BINARY[level][self._next()]
            left = self._call(function, [left, self._binary(level + 1)])
        return left

    def _unary(self) -> Tree:
        if self._accept("!"):
            return self._call("!_", [self._unary()])
        if self._accept("-"):
            return self._call("-_", [self._unary()])
        return self._member(self._primary())

    def _member(self, tree: Tree) -> Tree:
        while True:
            if self._accept("["):
                tree = self._call("_[_]", [tree, self.ternary()])
                self._expect("]")
            elif self._accept("."):
                name = self._name()
                if self.text == "(" and self.kind == "op":
                    tree = self._call(name, self._arguments(), target=tree)
                else:
                    tree = self._node("select_expr", operand=tree, field=name)
            else:
                return tree

    def _primary(self) -> Tree:
        kind, text = self.kind, self.text
        if self._accept("("):
            tree = self.ternary()
            self._expect(")")
            return tree
        if self._accept("["):
            return self._node("list_expr", elements=self._items("]"))
        if kind == "string":
            return self._node("const_expr", string_value=_unquote(self._next()))
        if kind == "number":
            self._next()
            return self._node("const_expr", **({"double_value": float(text)} if "." in text else {"int64_value": text}))
        name = self._name()
        if name in ("true", "false"):
            return self._node("const_expr", bool_value=name == "true")
        if self.kind == "op" and self.text == "(":
            return self._has() if name == "has" else self._call(name, self._arguments())
        return self._node("ident_expr", name=name)

    def _has(self) -> Tree:
        arguments = self._arguments()
        if len(arguments) != 1 or "select_expr" not in arguments[0]:
            raise CelError("has() takes one field, for example has(request.headers.name)")
        arguments[0]["select_expr"]["test_only"] = True
        return arguments[0]

    def _arguments(self) -> list[Tree]:
        self._expect("(")
        return self._items(")")

    def _items(self, end: str) -> list[Tree]:
        items: list[Tree] = []
        while not self._accept(end):
            if items:
                self._expect(",")
            items.append(self.ternary())
        return items

    def _call(self, function: str, args: list[Tree], target: Tree | None = None) -> Tree:
        if function in _MACROS:
            raise CelError(f"the macro {function}() is not supported")
        return self._node("call_expr", function=function, args=args, **({"target": target} if target else {}))

    def _node(self, kind: str, **fields: Any) -> Tree:
        self._id += 1
        return {"id": str(self._id), kind: fields}

    def _name(self) -> str:
        if self.kind != "name":
            raise CelError(f"expected a name, got {self.text!r}")
        return self._next()

    def _next(self) -> str:
        text = self.text
        self._at += 1
        return text

    def _accept(self, operator: str) -> bool:
        if self.kind == "op" and self.text == operator:
            self._at += 1
            return True
        return False

    def _expect(self, operator: str) -> None:
        if not self._accept(operator):
            raise CelError(f"expected {operator!r}, got {self.text!r}")


def _unquote(token: str) -> str:
    if token[0] in "rR":
        return token[2:-1]

    def replace(match: re.Match[str]) -> str:
        if match.group(1) not in _ESCAPES:
            raise CelError(f"the escape {match.group(0)!r} is not supported")
        return _ESCAPES[match.group(1)]

    return re.sub(r"\\(.)", replace, token[1:-1])
