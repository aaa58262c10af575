"""The CEL parser; Envoy evaluates what it makes in tests/dataplane/test_local_cel.py."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.local.cel import CelError, parse


def shape(tree: dict[str, Any]) -> Any:
    """Return a tree as nested tuples, easier to compare."""
    if "const_expr" in tree:
        return next(iter(tree["const_expr"].values()))
    if "ident_expr" in tree:
        return tree["ident_expr"]["name"]
    if "select_expr" in tree:
        select = tree["select_expr"]
        return ("has" if select.get("test_only") else ".", shape(select["operand"]), select["field"])
    if "list_expr" in tree:
        return [shape(item) for item in tree["list_expr"]["elements"]]
    call = tree["call_expr"]
    target = (shape(call["target"]),) if "target" in call else ()
    return (call["function"], *target, *(shape(item) for item in call["args"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("request.path", (".", "request", "path")),
        ("request.path.startsWith('/v1/')", ("startsWith", (".", "request", "path"), "/v1/")),
        ('request.headers["x-a"] == "b"', ("_==_", ("_[_]", (".", "request", "headers"), "x-a"), "b")),
        ("a || b && !c", ("_||_", "a", ("_&&_", "b", ("!_", "c")))),
        ("(a || b) && c", ("_&&_", ("_||_", "a", "b"), "c")),
        ("x in ['a', \"b\"]", ("@in", "x", ["a", "b"])),
        ("has(request.headers.a)", ("has", (".", "request", "headers"), "a")),
        ("1 + 2 * 3 < 8", ("_<_", ("_+_", "1", ("_*_", "2", "3")), "8")),
        ("a ? b : c ? d : e", ("_?_:_", "a", "b", ("_?_:_", "c", "d", "e"))),
        (r"p.matches(r'\d+\.')", ("matches", "p", r"\d+\.")),
        (r"'a\'\n'", "a'\n"),
        ("1.5", 1.5),
    ],
)
def test_expressions(text: str, expected: Any) -> None:
    assert shape(parse(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "a ==", "a b", "(a", "[a", "'a", "a.", "a.1", "x.all(y, true)", "has(a)", r"'\q'", "a @ b", "a" * 513]
)
def test_refusals(text: str) -> None:
    with pytest.raises(CelError):
        parse(text)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.text(alphabet="ab.()[]!&|=<>?:,'\"\\ 1in-+", max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse(text)
    except CelError:
        pass
