import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.apimgmt.settings import Estimation
from services.apimgmt.usage.estimator import Estimator
from services.apimgmt.usage.prompt import CHAT_BYTES, MESSAGE_BYTES, measure
from services.apimgmt.usage.request import prepare, unanswered
from services.bodyrouter.operations import ROUTED
from tests.unit.apimgmt.usage.calls import CHAT, call_of

USER = [{"role": "user", "content": "hello"}]


def prepared(body, path=CHAT, cap=None, estimation=None, **names):
    call = call_of(body, path, cap=cap, **names)
    assert prepare(call, Estimator(estimation)) is None
    return call


def test_a_stream_is_asked_for_its_usage_and_the_client_does_not_see_it():
    body = {"messages": USER, "stream": True}
    call = prepared(body)
    assert call.stream
    assert call.strip_usage
    assert call.edited == {"messages": USER, "stream": True, "stream_options": {"include_usage": True}}
    assert body == {"messages": USER, "stream": True}


def test_usage_that_the_client_asked_for_is_its_own():
    options = {"include_usage": True, "continuous_usage_stats": True}
    call = prepared({"messages": USER, "stream": True, "stream_options": options})
    assert call.stream
    assert not call.strip_usage
    assert call.edited is None


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (None, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_usage": None, "include_obfuscation": False}, {"include_usage": True, "include_obfuscation": False}),
        ({"continuous_usage_stats": True}, {"include_usage": True}),
    ],
)
def test_other_options_of_the_stream_stay(options, sent):
    call = prepared({"messages": USER, "stream": True, "stream_options": options})
    assert call.body["stream_options"] == sent
    assert call.strip_usage


@pytest.mark.parametrize("stream", ["true", "True", 1, 1.0, "on"])
def test_a_stream_by_another_spelling_that_the_model_server_accepts_is_a_stream(stream):
    assert prepared({"messages": USER, "stream": stream}).strip_usage


@pytest.mark.parametrize("stream", [False, None, "false", 0, [], {}])
def test_no_stream(stream):
    call = prepared({"messages": USER, "stream": stream})
    assert not call.stream
    assert call.edited is None


def test_options_of_a_wrong_type_are_left_to_whoever_refuses_them():
    call = prepared({"messages": USER, "stream": True, "stream_options": "x"})
    assert call.edited is None
    assert not call.strip_usage


def test_streams_of_the_responses_api_carry_usage_anyway():
    call = prepared({"input": "hello", "stream": True}, "/v1/responses")
    assert call.stream
    assert call.edited is None


@pytest.mark.parametrize(
    ("path", "body", "most"),
    [
        (CHAT, {"messages": USER, "max_tokens": 7}, 7),
        (CHAT, {"messages": USER, "max_completion_tokens": 9, "max_tokens": 7}, 9),
        (CHAT, {"messages": USER, "max_tokens": 7, "n": 3}, 21),
        (CHAT, {"messages": USER, "max_tokens": "64"}, 64),
        (CHAT, {"messages": USER, "max_tokens": 64.0, "n": "2"}, 128),
        (CHAT, {"messages": USER}, 1024),
        (CHAT, {"messages": USER, "max_tokens": None}, 1024),
        (CHAT, {"messages": USER, "max_tokens": [1]}, 1024),
        (CHAT, {"messages": USER, "max_tokens": "much", "n": {}}, 1024),
        (CHAT, {"messages": USER, "max_tokens": 10**18, "n": 10**18}, 2**40),
        ("/v1/completions", {"prompt": "a"}, 16),
        ("/v1/completions", {"prompt": "a", "max_tokens": None}, 1024),
        ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 5, "n": 2, "best_of": 3}, 30),
        ("/v1/completions", {"prompt": [[1, 2], [3]], "max_tokens": 5}, 10),
        ("/v1/completions", {"prompt": "a", "max_tokens": 0, "echo": True}, 1024),
        ("/v1/responses", {"input": "a", "max_output_tokens": 8}, 8),
        ("/v1/embeddings", {"input": "a", "max_tokens": 8}, 0),
        ("/v1/rerank", {"query": "a", "documents": ["b"]}, 0),
        ("/v1/score", {"text_1": "a", "text_2": ["b"]}, 0),
        ("/v1/other", {"max_tokens": 5}, 0),
    ],
)
def test_the_longest_answer(path, body, most):
    assert prepared(body, path).max_output == most


@pytest.mark.parametrize(
    ("path", "body", "field", "bound"),
    [
        (CHAT, {"messages": USER}, "max_tokens", 100),
        (CHAT, {"messages": USER, "max_completion_tokens": None}, "max_tokens", 100),
        ("/v1/completions", {"prompt": "a", "max_tokens": None}, "max_tokens", 100),
        ("/v1/responses", {"input": "a"}, "max_output_tokens", 100),
    ],
)
def test_the_products_cap_is_written_into_the_request(path, body, field, bound):
    call = prepared({**body, "n": 2}, path, cap=100)
    assert call.edited is not None
    assert call.edited[field] == bound
    assert call.max_output == 2 * bound


def test_a_completion_without_a_maximum_keeps_the_default_of_its_operation():
    assert prepared({"prompt": "a"}, "/v1/completions", cap=100).edited is None
    assert prepared({"prompt": "a"}, "/v1/completions", cap=10).body["max_tokens"] == 10


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    ("value", "cap", "code"),
    [(101, 100, "max_tokens_too_large"), ("101", 100, "max_tokens_too_large"), (101.0, 100, "max_tokens_too_large"),
     (0, 100, "invalid_value"), (-1, None, "invalid_value")],
)  # fmt: skip
def test_what_is_not_allowed_is_refused_and_names_the_field(field, value, cap, code):
    call = call_of({"messages": USER, field: value}, cap=cap)
    reply = prepare(call, Estimator())
    assert reply is not None
    assert reply.status == 400
    error = orjson.loads(reply.body)["error"]
    assert (error["param"], error["code"]) == (field, code)
    assert str(int(value)) in error["message"]
    assert call.edited is None


def test_as_much_as_the_cap_is_allowed():
    assert prepared({"messages": USER, "max_tokens": 100}, cap=100).edited is None


def size(operation, body):
    return measure(operation, body, 999).size


def test_text_counts_by_its_bytes():
    assert size("chat_completions", {"messages": USER}) == CHAT_BYTES + MESSAGE_BYTES + 5
    more = {"messages": [{"role": "system", "content": "é€"}, *USER]}
    assert size("chat_completions", more) == CHAT_BYTES + 2 * MESSAGE_BYTES + 5 + 5


def test_parts_tools_and_calls_count():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "what is this"}, image]}]
    prompt = measure("chat_completions", {"messages": messages}, 0)
    assert prompt.media == 1
    assert prompt.size < 200
    assert not prompt.learnable
    plain = size("chat_completions", {"messages": USER})
    tools = [{"type": "function", "function": {"name": "f", "description": "d" * 500}}]
    assert size("chat_completions", {"messages": USER, "tools": tools}) > plain + 500
    calls = [{"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": "x" * 300}}]}]
    assert size("chat_completions", {"messages": calls}) > CHAT_BYTES + 300
    assert size("chat_completions", {"messages": USER, "documents": [{"text": "x" * 300}]}) > plain + 300


@pytest.mark.parametrize(
    ("operation", "body", "least", "most"),
    [
        ("responses", {"input": "x" * 400, "instructions": "y" * 300}, 700, 900),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x" * 400}]}]}, 400, 600),
        ("embeddings", {"input": ["x" * 100, "y" * 100]}, 200, 220),
        ("embeddings", {"messages": [{"role": "user", "content": "x" * 100}]}, 200, 220),
        ("rerank", {"query": "q" * 50, "documents": ["d" * 100] * 4}, 600, 700),
        ("rerank", {"query": "q", "documents": [{"content": [{"type": "text", "text": "d" * 100}]}] * 4}, 400, 500),
        ("score", {"text_1": "q" * 50, "text_2": ["d" * 100] * 4}, 600, 700),
        ("score", {"text_1": ["q" * 50] * 4, "text_2": ["d" * 100] * 4}, 600, 700),
        ("score", {"queries": "q" * 50, "items": ["d" * 100] * 4}, 600, 700),
        ("completions", {"prompt": ["x" * 100, "é" * 100], "suffix": "y" * 10}, 310, 340),
    ],
)
def test_prompts_of_every_operation(operation, body, least, most):
    assert least <= size(operation, body) <= most


def test_token_ids_are_counted_one_by_one():
    for prompt, count in (([1, 2, 3], 1), ([[1, 2], [3]], 2)):
        measured = measure("completions", {"prompt": prompt}, 0)
        assert (measured.fixed, measured.count, measured.size) == (3, count, 0)
    assert prepared({"prompt": [1, 2, 3]}, "/v1/completions").prompt_tokens == 3


def test_what_is_no_text_has_a_flat_amount():
    parts = [{"type": "input_audio", "input_audio": {"data": "A" * 9000}}] * 2
    call = prepared({"messages": [{"role": "user", "content": parts}]}, estimation=Estimation(media_tokens=700))
    assert 1400 <= call.prompt_tokens <= 1450


def test_an_adapter_is_estimated_by_its_base_model():
    estimator = Estimator()
    for _ in range(50):
        estimator.observe("llama", 1000, 900)
    call = call_of({"messages": [{"role": "user", "content": "x" * 1000}]}, model="adapter", base="llama")
    prepare(call, estimator)
    assert call.prompt_tokens > 900
    assert unanswered(call, estimator).estimated
    assert unanswered(call, estimator).prompt == pytest.approx(0.9 * (CHAT_BYTES + MESSAGE_BYTES + 1000), abs=1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("messages", "prompt", "input", "query", "documents", "text_1", "text_2", "tools", "instructions", "stream",
          "stream_options", "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of", "suffix",
          "prompt_embeds")  # fmt: skip
PARTS = st.lists(st.fixed_dictionaries({}, optional={"role": JSON, "content": JSON, "type": JSON}), max_size=3)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.sampled_from(sorted(ROUTED)), st.dictionaries(st.sampled_from(FIELDS), JSON | PARTS), st.none() | st.just(50))
def test_nothing_that_a_body_may_hold_stops_it(path, body, cap):
    call = call_of(body, path, cap=cap)
    reply = prepare(call, Estimator())
    assert reply is None or reply.status == 400
    assert 0 <= call.prompt_tokens <= 2**40
    assert 0 <= call.max_output <= 2**40
    assert unanswered(call, Estimator()).prompt >= 0
