"""Reading `model`: what is accepted, what is refused and how."""

import orjson
import pytest

from services.bodyrouter import scan
from services.bodyrouter.scan import MAX_CONTAINERS, MAX_DEPTH, Refused, read_model


def read(body: bytes) -> str:
    return read_model(body, lambda: orjson.loads(body))


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]", inner: bytes = b"") -> bytes:
    """A body of `depth` levels, its own object included."""
    return b'{"model":"m","x":' + opening * (depth - 1) + inner + closing * (depth - 1) + b"}"


ACCEPTED = {
    "plain": (b'{"model":"m"}', "m"),
    "escaped key": (b'{"mod\\u0065l":"m"}', "m"),
    "escaped value": (b'{"model":"\\u006d"}', "m"),
    "white space": (b' \r\n\t{ "model" \t: "m" } \n', "m"),
    "last": (b'{"messages":[{"role":"user","content":"hi"}],"model":"m"}', "m"),
    "nested key after": (b'{"model":"m","x":{"model":"n"}}', "m"),
    "nested key before": (b'{"x":[{"model":"n"},{"model":"o"}],"model":"m"}', "m"),
    "nested escaped key": (b'{"x":{"\\u006dodel":"n"},"model":"m"}', "m"),
    "nested duplicates": (b'{"x":{"model":1,"model":2},"model":"m"}', "m"),
    "as a value": (b'{"model":"model","x":"model"}', "model"),
    "value, then colon in a string": (b'{"model":"m","x":["model",": 1"]}', "m"),
    "in a string": (b'{"model":"m","x":"{\\"model\\":\\"n\\",\\"model\\":1}"}', "m"),
    "in a string, quote first": (b'{"model":"m","x":"\\"model\\": 1 \\\\","y":"\\\\\\"model"}', "m"),
    "escape in a string": (b'{"model":"m","x":"\\u006dodel"}', "m"),
    "escaped backslash before u": (b'{"model":"m","mod\\\\u0065l":"n"}', "m"),
    "other case": (b'{"model":"m","Model":"n","MODEL":"o","model ":"p"}', "m"),
    "brackets in strings": (b'{"model":"m","x":"' + b"[{" * 300 + b'"}', "m"),
    "brackets in strings, duplicates elsewhere": (b'{"model":"m","x":"}}]{","y":{"model":"]{"},"z":1}', "m"),
    "256 characters": (b'{"model":"' + b"a" * 256 + b'"}', "a" * 256),
    "not ASCII": ('{"model":"模型"}'.encode(), "模型"),
    "surrogate pair": (b'{"model":"\\ud83d\\ude00"}', "\U0001f600"),
    "deepest array": (nested(MAX_DEPTH), "m"),
    "deepest object": (nested(MAX_DEPTH, b'{"a":', b"}", b"1").replace(b'"a":}', b"}"), "m"),
    "wide, not deep": (b'{"model":"m","x":[' + b"[]," * 1000 + b"1]}", "m"),
    "many brackets in strings": (b'{"model":"m","x":"' + b"[" * (MAX_CONTAINERS + 10) + b'"}', "m"),
    "most containers": (b'{"model":"m","x":[' + b"{}," * (MAX_CONTAINERS - 2) + b"1]}", "m"),
}


@pytest.mark.parametrize(("body", "model"), ACCEPTED.values(), ids=ACCEPTED)
def test_reads_the_model(body: bytes, model: str) -> None:
    assert read(body) == model


REFUSED = {
    "empty": (b"", "empty_body", None),
    "white space only": (b"  ", "invalid_json", None),
    "not JSON": (b"hello", "invalid_json", None),
    "cut off": (b'{"model":"m"', "invalid_json", None),
    "trailing text": (b'{"model":"m"}{"model":"n"}', "invalid_json", None),
    "trailing comma": (b'{"model":"m",}', "invalid_json", None),
    "comment": (b'{"model":"m"/*,"model":"n"*/}', "invalid_json", None),
    "single quotes": (b"{'model':'m'}", "invalid_json", None),
    "NaN": (b'{"model":"m","x":NaN}', "invalid_json", None),
    "Infinity": (b'{"model":"m","x":-Infinity}', "invalid_json", None),
    "huge float": (b'{"model":"m","x":1e999}', "invalid_json", None),
    "huge integer": (b'{"model":"m","x":' + b"9" * 5000 + b"}", "invalid_json", None),
    "lone high surrogate": (b'{"model":"m","x":"\\ud800"}', "invalid_json", None),
    "lone low surrogate": (b'{"model":"m","x":"\\udc00"}', "invalid_json", None),
    "surrogate in a key": (b'{"model":"m","\\ud800":1}', "invalid_json", None),
    "encoded surrogate": (b'{"model":"\xed\xa0\x80"}', "invalid_json", None),
    "invalid UTF-8": (b'{"model":"m\xff"}', "invalid_json", None),
    "overlong UTF-8": (b'{"model":"m","x":"\xc0\xaf"}', "invalid_json", None),
    "byte order mark": (b'\xef\xbb\xbf{"model":"m"}', "invalid_json", None),
    "UTF-16": ('{"model":"m"}'.encode("utf-16-le"), "invalid_json", None),
    "UTF-32": ('{"model":"m"}'.encode("utf-32"), "invalid_json", None),
    "raw control character": (b'{"model":"m\x01"}', "invalid_json", None),
    "raw NUL": (b'{"model":"m\x00"}', "invalid_json", None),
    "array": (b'[{"model":"m"}]', "invalid_body", None),
    "string": (b'"model"', "invalid_body", None),
    "number": (b"1", "invalid_body", None),
    "null": (b"null", "invalid_body", None),
    "boolean": (b"true", "invalid_body", None),
    "no model": (b'{"messages":[]}', "missing_required_parameter", "model"),
    "model only nested": (b'{"x":{"model":"m"}}', "missing_required_parameter", "model"),
    "other spelling": (b'{"Model":"m"}', "missing_required_parameter", "model"),
    "null model": (b'{"model":null}', "invalid_type", "model"),
    "number model": (b'{"model":1.5}', "invalid_type", "model"),
    "boolean model": (b'{"model":true}', "invalid_type", "model"),
    "array model": (b'{"model":["m"]}', "invalid_type", "model"),
    "object model": (b'{"model":{"model":"m"}}', "invalid_type", "model"),
    "empty model": (b'{"model":""}', "empty_string", "model"),
    "257 characters": (b'{"model":"' + b"a" * 257 + b'"}', "string_above_max_length", "model"),
    "twice": (b'{"model":"m","model":"n"}', "duplicate_parameter", "model"),
    "twice the same": (b'{"model":"m","model":"m"}', "duplicate_parameter", "model"),
    "second of another type": (b'{"model":1,"model":"m"}', "duplicate_parameter", "model"),
    "second after white space": (b'{"model":"m","model"\r\n\t :"n"}', "duplicate_parameter", "model"),
    "second escaped": (b'{"model":"m","mod\\u0065l":"n"}', "duplicate_parameter", "model"),
    "first escaped": (b'{"\\u006Dodel":"m","model":"n"}', "duplicate_parameter", "model"),
    "both escaped, all letters": (
        b'{"\\u006d\\u006f\\u0064\\u0065\\u006c":"m","\\u006D\\u006F\\u0064\\u0065\\u006C":"n"}',
        "duplicate_parameter",
        "model",
    ),
    "around a nested one": (b'{"model":"m","x":{"model":1},"model":"n"}', "duplicate_parameter", "model"),
    "around brackets in strings": (b'{"model":"m","x":"[[{{","model":"n"}', "duplicate_parameter", "model"),
    "around escaped quotes": (b'{"model":"m","x":"\\"{\\\\","model":"n"}', "duplicate_parameter", "model"),
    "too deep array": (nested(MAX_DEPTH + 1), "nesting_too_deep", None),
    "too deep object": (nested(MAX_DEPTH + 1, b'{"a":', b"}", b"1"), "nesting_too_deep", None),
    "bomb, 1,000 levels": (nested(1000), "nesting_too_deep", None),
    "bomb, 5,000 levels": (nested(5000), "nesting_too_deep", None),
    "bomb, never closed": (b"[" * 50_000, "nesting_too_deep", None),
    "bomb, 1 MB": (b'{"a":' * 200_000, "too_many_values", None),
    "too many containers": (b'{"model":"m","x":[' + b"{}," * MAX_CONTAINERS + b"1]}", "too_many_values", None),
}


@pytest.mark.parametrize(("body", "code", "param"), REFUSED.values(), ids=REFUSED)
def test_refuses(body: bytes, code: str, param: str | None) -> None:
    with pytest.raises(Refused) as caught:
        read(body)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert 20 < len(caught.value.message) < 200


def test_messages_do_not_repeat_the_body() -> None:
    for body in (b'{"model":"' + b"secret" * 100 + b'"}', b'{"x":"secret" secret}', b'{"model":["secret"]}'):
        with pytest.raises(Refused) as caught:
            read(body)
        assert "secret" not in caught.value.message


def test_too_many_containers_are_refused_before_they_are_built() -> None:
    def parse() -> object:
        raise AssertionError("parsed")

    with pytest.raises(Refused):
        read_model(b"[" * (MAX_CONTAINERS + 1), parse)


@pytest.mark.parametrize("piece", [b'\\"', b'"', b'","', b"\\", b'\\"["', b"[", b"{}"])
def test_skeletons_are_linear_even_for_text_that_is_not_json(piece: bytes) -> None:
    """An unclosed string with many quotes must not be tried again from each of them: a quadratic scan takes minutes."""
    body = b"[" * (MAX_CONTAINERS + 1) + b'"' + piece * (2 * 1024 * 1024 // len(piece))
    with pytest.raises(Refused):
        read(body)


def test_ordinary_bodies_take_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def second_look(_: object) -> None:
        raise AssertionError("slow path")

    for check in ("_check_single", "_check_containers", "_check_depth"):
        monkeypatch.setattr(scan, check, second_look)
    messages = [{"role": "user", "content": 'Say "model" and {x}\n'}] * 50
    assert read(orjson.dumps({"model": "m", "stream": True, "messages": messages[:20]})) == "m"
