"""A key that stands twice is found, however it is hidden, and nothing else is."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.apimgmt.body import SLOW_BYTES, doubtful, read, repeated_key
from services.extproc.api import Exchange, Reply

TWICE = [
    (b'{"max_tokens": 1, "max_tokens": 9}', "max_tokens"),
    (b'{"a": {"b": 1, "c": 2, "b": 3}}', "b"),
    (b'{"max_tokens": 1, "\\u006dax_tokens": 9}', "max_tokens"),
    (b'{"n":1,"n":2,"x":"\\u0022\\u0022"}', "n"),
    (b'[{"x": 1}, {"x": 1, "x": 2}]', "x"),
]


@pytest.mark.parametrize(("raw", "name"), TWICE)
def test_a_key_that_stands_twice_is_doubtful_and_named(raw: bytes, name: str) -> None:
    assert doubtful(raw, orjson.loads(raw))
    assert repeated_key(raw) == name


@pytest.mark.parametrize(
    "raw", [b"{}", b'{"a": "say \\"hi\\"", "b": ["a", {"a": 1}]}', b' { "a" : "\xc3\xa9\\n" , "b" : null } ']
)
def test_ordinary_bodies_are_not_doubtful(raw: bytes) -> None:
    assert not doubtful(raw, orjson.loads(raw))
    assert repeated_key(raw) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(JSON, st.booleans(), st.sampled_from([None, 2]))
def test_whatever_a_client_writes_is_single_unless_it_says_something_twice(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    assert repeated_key(raw) is None


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.dictionaries(st.text(), JSON, min_size=1, max_size=5), st.data())
def test_a_repeated_member_is_never_overlooked(members: dict[str, Any], data: st.DataObject) -> None:
    pairs = [*members.items()]
    again = data.draw(st.sampled_from(pairs))
    pairs.insert(data.draw(st.integers(0, len(pairs))), (again[0], data.draw(JSON)))
    text = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs)
    raw = f"{{{text}}}".encode()
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return  # a lone surrogate: refused before
    assert doubtful(raw, parsed)
    assert repeated_key(raw) is not None


def body_of(raw: bytes) -> tuple[Exchange, Any]:
    exchange = Exchange()
    exchange.request_body = raw
    return exchange, read(exchange)


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b'{"max_tokens": 1, "max_tokens": 100000}', "duplicate_parameter", "max_tokens"),
        (b'{"a": 1', "invalid_json", None),
        (b"[1]", "invalid_json", None),
        (b'{"a": NaN}', "invalid_json", None),
    ],
)
def test_what_cannot_be_judged_is_refused(raw: bytes, code: str, param: str | None) -> None:
    _, reply = body_of(raw)
    assert isinstance(reply, Reply)
    error = orjson.loads(reply.body)["error"]
    assert (reply.status, error["code"], error["param"]) == (400, code, param)


def test_a_long_doubtful_body_goes_on_as_it_was_read() -> None:
    exchange, body = body_of(b'{"max_tokens": 1, "max_tokens": 2, "x": "' + b"x" * SLOW_BYTES + b'"}')
    assert body["max_tokens"] == 2
    assert exchange.request_body_changed
    assert exchange.request_body.count(b"max_tokens") == 1


def test_other_bodies_go_on_as_they_came() -> None:
    exchange, body = body_of(b' { "x" : "\\u00e9" } ')
    assert body == {"x": "é"}
    assert not exchange.request_body_changed
    assert body_of(b"")[1] == {}
