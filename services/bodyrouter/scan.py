"""Reading `model` from a request body so that the router reads what the model server reads.

orjson does the parsing; the checks around it are byte searches and level-by-level walks, so that an ordinary body costs
little more than its parse and a hostile one stays linear in its size. Servers keep the last of two equal keys, others
the first: a body with two top-level `model` keys is refused, however the keys are escaped. Python's parser, which
vLLM uses, accepts more than JSON allows (NaN, byte order marks, UTF-16, lone surrogates): orjson refuses all of it.
"""

import operator
import re
from collections.abc import Callable
from itertools import accumulate, compress

import orjson

from services.bodyrouter.settings import MAX_MODEL_CHARS

MAX_DEPTH = 128
"""Deepest nesting of objects and arrays, the body itself counted as 1; Python's parser, of vLLM, stops near 1,000."""

MAX_CONTAINERS = 100_000
"""Most objects and arrays in one body. Each takes dozens of bytes or more once parsed."""

_CONTAINERS = frozenset((dict, list))
# Strings, and what stands between them but brackets and marks, in matches as long as can be: few pieces, little memory.
# An unclosed string reaches to the end: otherwise each quote in it would be tried again, in quadratic time.
_STRINGS = re.compile(rb'(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"?[^"\[\]{}\x01]*+)++', re.DOTALL)
_ESCAPED_KEY = b"\\u006"
"""Every letter of `model` is U+0064 to U+006F: an escaped spelling of the key has this in it."""

# In valid JSON no backslash stands before the quote that opens a string, so a match is a key, never part of a string.
_KEY = re.compile(
    rb'"(?<!\\")(?:m|\\u006[dD])(?:o|\\u006[fF])(?:d|\\u0064)(?:e|\\u0065)(?:l|\\u006[cC])"(?=[ \t\r\n]*:)'
)
_VALUE = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*("(?:[^"\\]|\\.)*+")', re.DOTALL)
_MARK = b"\x01"  # JSON allows no raw control character, so a valid body has none
_NOT_SKELETON = bytes(set(range(256)) - set(b"[]{}" + _MARK))
_STEPS = bytes(1 if c in b"[{" else 0xFF if c in b"]}" else 0 for c in range(256))  # as signed bytes: 1, -1, 0


class Refused(Exception):
    """The body cannot be routed; always HTTP 400. `code` is stable, the text is for people."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


def read_model(body: bytes, parse: Callable[[], object]) -> str:
    """Return the top-level `model` of the JSON object `body`.

    Args:
        body: the whole request body.
        parse: parses `body` with `orjson.loads`; called once, after `body` is known not to blow up in memory.

    Raises:
        Refused: anything else than one JSON object with one non-empty `model` string of at most 256 characters.
    """
    if not body:
        raise Refused("empty_body", "The request body is empty; expected a JSON object with a 'model'.")
    openings = body.count(b"{") + body.count(b"[")
    if openings > MAX_CONTAINERS:
        _check_containers(body)
    root = _parsed(parse)
    if type(root) is not dict:
        raise Refused("invalid_body", f"The request body is {_kind(root)}; expected a JSON object with a 'model'.")
    if openings > MAX_DEPTH:
        _check_depth(root)
    model = _checked(root)
    if body.count(b'"model"') > 1 or _ESCAPED_KEY in body:
        _check_single(body)
    return model


def with_model(body: bytes, model: str) -> bytes:
    """Return `body`, of which `read_model` has read the model, with `model` in its place and no other byte changed."""
    depth = end = 0
    for key in _KEY.finditer(body):
        bare = _STRINGS.sub(b"", body[end : key.start()])
        depth += bare.count(b"{") + bare.count(b"[") - bare.count(b"}") - bare.count(b"]")
        value = _VALUE.match(body, key.end())
        if depth == 1 and value is not None:
            return body[: value.start(1)] + orjson.dumps(model) + body[value.end(1) :]
        end = key.end()
    raise ValueError("the body has no model")


def _parsed(parse: Callable[[], object]) -> object:
    try:
        return parse()
    except orjson.JSONDecodeError as error:
        if "depth" in error.msg or "recursion" in error.msg.lower():
            raise _too_deep() from None
        # the parser's message names what it met and where; it never quotes the text
        raise Refused(
            "invalid_json",
            f"The request body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno}).",
        ) from None


def _checked(root: dict[str, object]) -> str:
    if "model" not in root:
        raise Refused("missing_required_parameter", "Missing required parameter: 'model'.", "model")
    model = root["model"]
    if type(model) is not str:
        raise Refused("invalid_type", f"Invalid type for 'model': expected a string, but got {_kind(model)}.", "model")
    if not model:
        raise Refused("empty_string", "Invalid 'model': empty string. Expected the name of a model.", "model")
    if len(model) > MAX_MODEL_CHARS:
        raise Refused(
            "string_above_max_length",
            f"Invalid 'model': string too long. Expected at most {MAX_MODEL_CHARS} characters, but got {len(model)}.",
            "model",
        )
    return model


def _check_containers(body: bytes) -> None:
    """Count brackets outside strings, before anything is built."""
    bare = _STRINGS.sub(b"", body)
    if bare.count(b"{") + bare.count(b"[") > MAX_CONTAINERS:
        raise Refused(
            "too_many_values", f"The request body has more than {MAX_CONTAINERS} objects and arrays; send less at once."
        )


def _check_depth(root: object) -> None:
    level: list[object] = [root]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)  # type: ignore[attr-defined]
            if type(child) in _CONTAINERS
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> Refused:
    return Refused("nesting_too_deep", f"The request body nests objects and arrays deeper than {MAX_DEPTH} levels.")


def _check_single(body: bytes) -> None:
    """Count `model` keys at depth 1 of `body`, which is known to be valid JSON and an object."""
    marked, keys = _KEY.subn(_MARK, body)
    if keys < 2:
        return
    skeleton = _STRINGS.sub(b"", marked).translate(None, _NOT_SKELETON)
    depths = accumulate(memoryview(skeleton.translate(_STEPS)).cast("b"))
    marks = map(_MARK[0].__eq__, skeleton)
    if operator.countOf(compress(depths, marks), 1) > 1:
        raise Refused("duplicate_parameter", "The request body has 'model' more than once; send it once.", "model")


def _kind(value: object) -> str:
    """Name a JSON value's type as OpenAI's errors do."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list):
        return "an array"
    return "an object" if isinstance(value, dict) else "a number"
