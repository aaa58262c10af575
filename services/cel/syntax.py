"""Reading expressions of the Common Expression Language into trees.

The part of CEL that conditions need: literals of null, booleans, numbers and strings, lists, fields, indexes, calls,
methods, `in`, arithmetic, comparisons, `!`, `&&`, `||`, `? :`, and the macros `has`, `all`, `exists`, `exists_one`,
`filter`, `map`. Not: maps, messages, bytes, unsigned numbers, times, optional values, triple-quoted strings.
Source: CEL language definition (cel-spec), "Syntax" and "Macros".
"""

import re

from services.cel.tree import Call, CelError, Field, Items, Literal, Macro, Name, Node, children

MAX_CHARS = 2000
"""Longest expression, characters."""

MAX_DEPTH = 32
"""Deepest nesting of an expression. Evaluation takes a Python frame per level, reading up to ten."""

MACROS = frozenset({"all", "exists", "exists_one", "filter", "map"})

_TOKEN = re.compile(
    r"""\s*(?://[^\n]*\s*)*(?:
    (?P<string>[rR]"[^"\n]*"|[rR]'[^'\n]*'|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
  | (?P<number>0x[0-9a-fA-F]+|\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<op>&&|\|\||[=!<>]=|[<>!?:.,()\[\]+\-*/%])
  | (?P<end>$)
    )""",
    re.VERBOSE | re.ASCII,
)
_LEVELS = (
    frozenset({"||"}),
    frozenset({"&&"}),
    frozenset({"<", "<=", ">", ">=", "==", "!=", "in"}),
    frozenset({"+", "-"}),
    frozenset({"*", "/", "%"}),
)
_ESCAPE = re.compile(r"\\(?:[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL)
_ESCAPES = {
    **dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True)),
    **{c: c for c in "\\\"'`?"},
}
_INT_RANGE = range(-(2**63), 2**63)


def parse(text: str) -> Node:
    """Return the tree of `text`. Raises CelError."""
    if len(text) > MAX_CHARS:
        raise CelError(f"{len(text)} characters", MAX_CHARS, f"write at most {MAX_CHARS}")
    parser = _Parser(_tokens(text))
    tree = parser.expression()
    if parser.kind != "end":
        raise parser.unexpected("join the parts by an operator")
    _check_depth(tree)
    return tree


def _check_depth(tree: Node) -> None:
    """Chains such as `a + b + c` nest without a parenthesis."""
    level: tuple[Node, ...] = (tree,)
    for _ in range(MAX_DEPTH):
        level = tuple(child for node in level for child in children(node))
        if not level:
            return
    raise CelError(f"nested deeper than {MAX_DEPTH} levels", level[0].at, "write it flatter")


def _tokens(text: str) -> list[tuple[str, str, int]]:
    tokens: list[tuple[str, str, int]] = []
    position = 0
    while True:
        match = _TOKEN.match(text, position)
        if match is None:
            start = position + len(text[position:]) - len(text[position:].lstrip())
            fix = "close the string" if text[start] in "\"'" else "take it out"
            raise CelError(f"unexpected {text[start]!r}", start, fix)
        kind = match.lastgroup or "end"
        tokens.append((kind, match.group(kind), match.start(kind)))
        if kind == "end":
            return tokens
        position = match.end()


class _Parser:
    """Precedence climbing over tokens."""

    def __init__(self, tokens: list[tuple[str, str, int]]) -> None:
        self._tokens, self._index, self._depth = tokens, 0, 0

    @property
    def kind(self) -> str:
        return self._tokens[self._index][0]

    @property
    def text(self) -> str:
        return self._tokens[self._index][1]

    @property
    def at(self) -> int:
        return self._tokens[self._index][2]

    def unexpected(self, fix: str) -> CelError:
        found = "the expression ends" if self.kind == "end" else f"unexpected {self.text!r}"
        return CelError(found, self.at, fix)

    def expression(self) -> Node:
        self._enter()
        condition = self._binary(0)
        at = self.at
        if self._accept("?"):
            first = self._binary(0)
            self._expect(":")
            condition = Call(at, "? :", (condition, first, self.expression()))
        self._depth -= 1
        return condition

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CelError(f"nested deeper than {MAX_DEPTH} levels", self.at, "write it flatter")

    def _binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        node = self._binary(level + 1)
        while self.kind in ("op", "name") and self.text in _LEVELS[level]:
            at, sign = self.at, self._next()
            right = self._binary(level + 1)
            # a chain of alternatives is one node, however long
            if sign in ("||", "&&") and isinstance(node, Call) and node.name == sign:
                node = Call(node.at, sign, (*node.args, right))
            else:
                node = Call(at, sign, (node, right))
        return node

    def _unary(self) -> Node:
        at = self.at
        if self.kind != "op" or self.text not in "!-":
            return self._member(self._primary())
        sign = self._next()
        if sign == "-" and self.kind == "number":
            return self._member(Literal(at, _number("-" + self._next(), at)))
        self._enter()
        node = Call(at, "-_" if sign == "-" else "!", (self._unary(),))
        self._depth -= 1
        return node

    def _member(self, node: Node) -> Node:
        while True:
            at = self.at
            if self._accept("["):
                node = Call(at, "[]", (node, self.expression()))
                self._expect("]")
            elif self._accept("."):
                at, name = self.at, self._name()
                node = self._method(node, name, at) if self._accept("(") else Field(at, node, name)
            else:
                return node

    def _method(self, of: Node, name: str, at: int) -> Node:
        if name not in MACROS:
            return Call(at, name, (of, *self._items(")")), method=True)
        if self.kind != "name":
            raise self.unexpected(f"write a variable first, as in .{name}(item, item == 1)")
        variable = self._name()
        self._expect(",")
        body = self.expression()
        self._expect(")")
        return Macro(at, name, of, variable, body)

    def _primary(self) -> Node:
        kind, at = self.kind, self.at
        if self._accept("("):
            node = self.expression()
            self._expect(")")
            return node
        if self._accept("["):
            return Items(at, self._items("]"))
        if kind == "string":
            return Literal(at, _unquoted(self._next(), at))
        if kind == "number":
            return Literal(at, _number(self._next(), at))
        name = self._name()
        if name in _CONSTANTS:
            return Literal(at, _CONSTANTS[name])
        return Call(at, name, self._items(")")) if self._accept("(") else Name(at, name)

    def _items(self, end: str) -> tuple[Node, ...]:
        items: list[Node] = []
        while not self._accept(end):
            if items:
                self._expect(",")
            items.append(self.expression())
        return tuple(items)

    def _name(self) -> str:
        if self.kind != "name" or self.text == "in":
            raise self.unexpected("write a value here")
        return self._next()

    def _next(self) -> str:
        text = self.text
        self._index += 1
        return text

    def _accept(self, sign: str) -> bool:
        if self.kind == "op" and self.text == sign:
            self._index += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._accept(sign):
            raise self.unexpected(f"write {sign!r} here")


_CONSTANTS = {"true": True, "false": False, "null": None}


def _number(text: str, at: int) -> object:
    digits = text.lstrip("-")
    if digits.startswith("0x"):
        value = int(text, 16)
    elif digits.isdigit():
        value = int(text)
    else:
        return float(text)
    if value not in _INT_RANGE:
        raise CelError(f"{text} does not fit 64 bits", at, "write a smaller number")
    return value


def _unquoted(token: str, at: int) -> str:
    if token[0] in "rR":
        return token[2:-1]

    def plain(match: re.Match[str]) -> str:
        two, four, eight, octal, other = match.groups()
        code = int(octal, 8) if octal else int(two or four or eight, 16) if two or four or eight else None
        if code is None and other in _ESCAPES:
            return _ESCAPES[other]
        if code is None or code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise CelError(f"unknown escape {match.group()!r}", at, "double the backslash, or write r'...'")
        return chr(code)

    return _ESCAPE.sub(plain, token[1:-1])
