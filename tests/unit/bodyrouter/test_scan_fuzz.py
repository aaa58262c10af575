"""The parser against generated and broken bodies, judged by Python's own parser, which model servers use."""

import json
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from services.bodyrouter.scan import Refused, read_model

TAME = settings(max_examples=400, derandomize=True, deadline=None)

KEYS = st.sampled_from(["model", "Model", "mode", "x", 'a"model', "model\\", ""]) | st.text(max_size=5)
SPELLINGS = st.sampled_from(
    [b'"model"', b'"mod\\u0065l"', b'"\\u006dodel"', b'"\\u006D\\u006F\\u0064\\u0065\\u006C"', b'"mode\\u006C"']
)
SPACE = st.sampled_from([b"", b" ", b"\n", b"\t\r "])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["model", '"model":', '{"model":"x"}', "[[{", '\\"', "\\u006d"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """The text of a JSON object with zero to three top-level `model` keys, spelt in any way."""
    pairs: list[bytes] = []
    for _ in range(draw(st.integers(0, 3))):
        value = draw(st.sampled_from(["m", "n", "", 1, None, {"model": "m"}]))
        pairs.append(draw(SPELLINGS) + draw(SPACE) + b":" + draw(SPACE) + json.dumps(value).encode())
    for key, value in draw(st.dictionaries(KEYS.filter(lambda k: k != "model"), VALUES, max_size=5)).items():
        text = json.dumps({key: value}, ensure_ascii=draw(st.booleans()))[1:-1]
        pairs.append(text.encode("utf-8", "surrogatepass"))
    return b"{" + (draw(SPACE) + b"," + draw(SPACE)).join(draw(st.permutations(pairs))) + b"}"


def judge(body: bytes) -> None:
    """What is accepted, both parsers read alike, from one key; what both call fine with one model is accepted."""
    model, code = "", ""
    try:
        model = read_model(body, lambda: orjson.loads(body))
    except Refused as refused:
        code = refused.code
    if not code:
        assert models(body) == [model]
        assert orjson.loads(body)["model"] == model
    else:
        assert not acceptable(body)
        assert code != "duplicate_parameter" or len(models(body)) > 1


def models(body: bytes) -> list[Any]:
    """Every top-level `model`, read by Python's parser."""
    pairs: Any = json.loads(body, object_pairs_hook=lambda pairs: pairs)
    return [value for key, value in pairs if key == "model"]


def acceptable(body: bytes) -> bool:
    try:
        root = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(root, dict) and len(found := models(body)) == 1 and isinstance(found[0], str) and found[0] != ""


@TAME
@given(objects())
def test_agrees_with_both_parsers(body: bytes) -> None:
    judge(body)


@TAME
@given(objects(), st.data())
def test_broken_bodies_are_refused_or_read_alike(body: bytes, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        cut = data.draw(st.integers(0, 4))
        put = data.draw(st.binary(max_size=3) | st.sampled_from([b'"', b"\\", b"{", b"}", b'"model":', b"\\u006"]))
        body = body[:at] + put + body[at + cut :]
    judge(body)


@TAME
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read_alike(body: bytes) -> None:
    judge(body)
