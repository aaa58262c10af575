"""Expressions and data at random: what the other implementation of CEL says, ours says too.

Left out is `size()` of text beyond ASCII, of which the other counts bytes.
"""

from typing import Any

import cel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cel.compiler import Predicate
from services.cel.values import Failure

VARIABLES = {"body": lambda subject: subject["body"], "n": lambda subject: subject["n"]}

leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["", "a", "b", "ab"]), st.sampled_from([0.5, 1.5])
)
bodies = st.dictionaries(
    st.sampled_from("abc"), leaves | st.lists(st.integers(0, 3), max_size=4) | st.dictionaries(st.just("d"), leaves)
)
paths = st.sampled_from(["body.a", "body.b", "body.c", "body.a.d", 'body["b"]', "body.c[0]", "n"])
literals = st.sampled_from(["1", "-2", "1.5", "'a'", "'b'", "true", "false", "null", "[1, 2]", "['a']"])
operands = paths | literals


def _grow(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("({} && {})".format, parts, parts),
        st.builds("({} || {})".format, parts, parts),
        st.builds("!{}".format, parts),
        st.builds("({} ? {} : {})".format, parts, parts, parts),
    )


conditions = st.recursive(
    st.one_of(
        st.builds("({} {} {})".format, operands, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), operands),
        st.builds("({} in {})".format, operands, st.sampled_from(["body", "body.a", "body.c", "[1, 2]", "['a', 'b']"])),
        st.builds("has({})".format, st.sampled_from(["body.a", "body.b.d"])),
        st.builds("({} {} {} == 2)".format, operands, st.sampled_from(["+", "-", "*", "/", "%"]), operands),
        st.builds("{}.{}('a')".format, paths, st.sampled_from(["contains", "startsWith", "endsWith", "matches"])),
        st.builds(
            "body.{}.{}(x, x {} {})".format,
            st.sampled_from("abc"),
            st.sampled_from(["all", "exists", "exists_one"]),
            st.sampled_from(["==", ">"]),
            literals,
        ),
        st.builds("(body.{}.{}(x, x > 1).size() == 1)".format, st.sampled_from("abc"), st.just("filter")),
        st.builds("(body.{}.map(x, x + 1) == [1, 2])".format, st.sampled_from("abc")),
        st.builds("(size({}) > 1)".format, paths),
    ),
    _grow,
    max_leaves=4,
)


def _theirs(text: str, subject: dict[str, Any]) -> object:
    try:
        value = cel.compile(text).execute(subject)
    except Exception:  # noqa: BLE001 - it documents no closed set
        return "none"
    return value if isinstance(value, bool) else "none"


def _ours(text: str, subject: dict[str, Any]) -> object:
    try:
        return Predicate(text, VARIABLES)(subject)
    except Failure:
        return "none"


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(conditions, bodies, st.integers(-3, 3))
def test_the_same_value(text: str, body: dict[str, Any], n: int) -> None:
    subject = {"body": body, "n": n}
    assert _ours(text, subject) == _theirs(text, subject), text


@pytest.mark.parametrize(
    "text",
    [
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "10 - 2 - 3 == 5",
        "-7 / 2 == -3",
        "-7 % 3 == -1",
        "7 % -3 == 1",
        "!false && true",
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(false && 1 / 0 == 1)",
        "true ? false || true : false",
        "1 == 1.0",
        "1 < 1.5",
        "'a' + 'b' == 'ab'",
        "[1] + [2] == [1, 2]",
        "r'\\d' == '\\\\d'",
        "'\\x41\\u0042\\103' == 'ABC'",
        "0x1F == 31",
        "1e3 == 1000.0",
        "string(1) == '1'",
        "int('12') == 12",
        "int(2.9) == 2",
        "double(2) == 2.0",
        "'a' in ['a'] && !('b' in ['a'])",
        "[1, 2, 3].exists(i, i == 2) && [1, 2].all(i, i > 0)",
        "[[1, 2], [3]].exists(a, a.exists(b, b == 3))",
        "[1, 2].map(i, [3].map(j, i + j)) == [[4], [5]]",
        "'abc'.matches('^a.c$')",
        "1.0 / 0.0 > 1.0 // infinity",
    ],
)
def test_values(text: str) -> None:
    assert Predicate(text, {})(None) is True
    assert cel.evaluate(text) is True
