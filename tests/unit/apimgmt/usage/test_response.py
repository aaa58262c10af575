import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.apimgmt.usage import answer
from services.apimgmt.usage.estimator import Estimator
from services.apimgmt.usage.request import prepare
from services.apimgmt.usage.response import UsageReader
from services.apimgmt.usage.tokens import MAX_TOKENS, Tokens, from_usage
from services.extproc.api import Headers
from tests.unit.apimgmt.usage.calls import CHAT, call_of
from tests.unit.apimgmt.usage.recordings import chat_stream, recorded

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"
ANSWER = b'{"choices":[{"message":{"content":"\\"usage\\":{\\"prompt_tokens\\":1}"}}],"usage":%b,"metrics":null}'


def opened(body=None, path=CHAT, status=200, content_type=JSON, estimator=None):
    estimator = estimator or Estimator()
    body = body or {"messages": [{"role": "user", "content": "x" * 1000}], "max_tokens": 500}
    call = call_of(body, path)
    assert prepare(call, estimator) is None
    return UsageReader(call, status, content_type, estimator)


def fed(reader, data, step=1 << 20, last=True):
    for at in range(0, len(data), step):
        chunk = data[at : at + step]
        assert reader.feed(chunk, False) == chunk
    if last:
        assert reader.feed(b"", True) == b""
    return reader.tokens()


@pytest.mark.parametrize("name", ["chat_nonstream", "chat_nonstream_lora"])
def test_recorded_answers(name):
    assert fed(opened(), recorded(f"{name}.http.txt"), 100) == Tokens(14, 0, 16, 0)


def test_recorded_completion():
    reader = opened({"prompt": "a"}, "/v1/completions")
    assert fed(reader, recorded("completions_nonstream.http.txt")) == Tokens(4, 0, 8, 0)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 4}, Tokens(9, 0, 4, 0)),
        ({"prompt_tokens": 9, "total_tokens": 9}, Tokens(9)),
        ({"total_tokens": 56}, Tokens(56)),
        ({"total_tokens": 56, "completion_tokens": 6}, Tokens(50, 0, 6)),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 8},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Tokens(9, 8, 4, 3),
        ),
        (
            {
                "input_tokens": 9,
                "output_tokens": 4,
                "input_tokens_details": {"cached_tokens": 80},
                "output_tokens_details": {"reasoning_tokens": 30},
            },
            Tokens(9, 9, 4, 4),
        ),
        ({"prompt_tokens": 9, "prompt_tokens_details": None, "completion_tokens": "4"}, Tokens(9)),
        ({"prompt_tokens": True}, None),
        ({"prompt_tokens": -1}, None),
        ({"prompt_tokens": MAX_TOKENS + 1}, None),
        ({"prompt_tokens": 1.5}, None),
        ({}, None),
        (None, None),
        ([9], None),
    ],
)
def test_counts_of_every_kind(usage, tokens):
    assert from_usage(usage) == tokens


def test_the_answers_own_usage_counts_and_no_text_about_it():
    body = ANSWER % b'{"prompt_tokens":9,"completion_tokens":4}'
    assert fed(opened(), body) == Tokens(9, 0, 4, 0)
    tokens = fed(opened(), ANSWER % b"null")
    assert tokens is not None
    assert tokens.estimated


def test_usage_inside_what_a_client_sent_is_none():
    forged = {"tools": [{"parameters": {"usage": {"prompt_tokens": 0, "output_tokens": 0, "input_tokens": 0}}}]}
    real = {"usage": {"input_tokens": 9, "output_tokens": 4}}
    for values in ({**real, **forged}, {**forged, **real}):
        assert fed(opened({"input": "a"}, "/v1/responses"), orjson.dumps(values)) == Tokens(9, 0, 4, 0)
    large = orjson.dumps({**real, "text": "x" * (answer.MAX_ANSWER + answer.TAIL), **forged})
    tokens = fed(opened({"input": "a"}, "/v1/responses"), large)
    assert tokens is not None
    assert tokens.estimated


@pytest.mark.parametrize("size", [10, 100_000, 1_000_000])
def test_embeddings_of_any_size(size):
    body = b'{"data":[{"embedding":[%b1]}],"usage":{"prompt_tokens":9,"total_tokens":9}}' % (b"0.5," * size)
    reader = opened({"input": "a"}, "/v1/embeddings")
    assert fed(reader, body, 65_536) == Tokens(9)


def test_rerank():
    body = b'{"usage":{"total_tokens":56},"results":[{"document":{"text":"a"}}]}'
    assert fed(opened({"query": "a", "documents": ["a"]}, "/v1/rerank"), body) == Tokens(56)


def test_a_long_answer_is_read_from_its_end():
    body = b'{"choices":[{"message":{"content":"%b"}}],"usage":{"prompt_tokens":9,"completion_tokens":4}}'
    assert fed(opened(), body % (b"x" * 2 * answer.MAX_ANSWER)) == Tokens(9, 0, 4, 0)


@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_an_error_used_nothing(status):
    assert fed(opened(status=status), b'{"error":{"message":"no"}}') is None
    assert fed(opened(status=status, content_type=SSE), chat_stream(usage=False)) is None


def test_a_stream_that_was_cut_off_is_estimated_from_what_passed():
    reader = opened(content_type=SSE)
    events = chat_stream(["a"] * 40, usage=False).split(b"\n\n")
    tokens = fed(reader, b"\n\n".join(events[:31]) + b"\n\n", last=False)
    assert tokens == Tokens(round((1000 + 112) / 4), 0, 30, 0, True)
    assert reader.first_token_at is not None


def test_a_stream_with_running_usage_that_was_cut_off_keeps_its_prompt():
    data = recorded("chat_stream_continuous_usage.sse.http.txt")
    tokens = fed(opened(content_type=SSE), b"\n\n".join(data.split(b"\n\n")[:4]) + b"\n\n", last=False)
    assert tokens == Tokens(6, 0, 3, 0, True)


def test_usage_with_the_last_content_counts_when_the_end_has_come():
    usage = b',"usage":{"prompt_tokens":9,"completion_tokens":4}}\n\n'
    events = chat_stream(usage=False).replace(b',"system_fingerprint":"vllm-0.32.0"}\n\n', usage)
    for step in (10, 1 << 20):
        assert fed(opened(content_type=SSE), events, step, last=False) == Tokens(9, 0, 4, 0)
    reader = opened(content_type=SSE)
    for event in events.split(b"\n\n")[:-1]:
        reader.feed(event + b"\n\n", False)
    assert reader.tokens() == Tokens(9, 0, 4, 0)
    cut = fed(opened(content_type=SSE), events.partition(b"data: [DONE]")[0], last=False)
    assert cut == Tokens(9, 0, 4, 0, True)


def test_what_streams_with_usage_taught_helps_those_without():
    estimator = Estimator()
    for _ in range(30):
        data = chat_stream(["ab"] * 10).replace(b'"completion_tokens":3', b'"completion_tokens":40')
        assert fed(opened(content_type=SSE, estimator=estimator), data) == Tokens(6, 0, 40, 0)
    cut = chat_stream(["ab"] * 5, usage=False).partition(b"data: [DONE]")[0]
    tokens = fed(opened(content_type=SSE, estimator=estimator), cut, last=False)
    assert tokens == Tokens(6, 0, 20, 0, True)


def test_an_estimate_is_never_longer_than_the_answer_may_be():
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 3}
    tokens = fed(opened(body), b"x" * 5000)
    assert tokens is not None
    assert (tokens.completion, tokens.estimated) == (3, True)


def test_an_answer_without_usage_is_estimated_by_its_size():
    tokens = fed(opened(), b'{"choices":[{"message":{"content":"%b"}}]}' % (b"x" * 1000))
    assert tokens is not None
    assert 100 <= tokens.completion <= 250
    tokens = fed(opened({"input": "a" * 400}, "/v1/embeddings"), b"{}" * 1000)
    assert tokens == Tokens(102, 0, 0, 0, True)


def test_an_answer_in_the_background_is_booked_at_its_longest():
    body = {"input": "a", "background": True, "max_output_tokens": 77}
    tokens = fed(opened(body, "/v1/responses"), b'{"status":"queued","usage":null}')
    assert tokens is not None
    assert (tokens.completion, tokens.estimated) == (77, True)


def test_a_packed_answer_passes_as_it_is():
    call = call_of({"messages": [], "stream": True})
    call.exchange.response_headers = Headers([("content-encoding", b"gzip")])
    prepare(call, Estimator())
    tokens = fed(UsageReader(call, 200, SSE, Estimator()), b"\x1f\x8b\n\n" * 100, 7)
    assert tokens is not None
    assert tokens.estimated


def test_it_learns_once_and_only_from_text():
    estimator = Estimator()
    reader = opened(estimator=estimator)
    fed(reader, ANSWER % b'{"prompt_tokens":500,"completion_tokens":4}')
    reader.tokens()
    assert [(model, ratio.samples) for model, ratio, _ in estimator.ratios()] == [("tiny", 1)]
    ids = opened({"prompt": [1, 2, 3]}, "/v1/completions", estimator=estimator)
    fed(ids, ANSWER % b'{"prompt_tokens":3,"completion_tokens":4}')
    parts = [{"type": "image_url", "image_url": {"url": "http://x"}}, {"type": "text", "text": "what is it"}]
    image = opened({"messages": [{"role": "user", "content": parts}]}, estimator=estimator)
    fed(image, ANSWER % b'{"prompt_tokens":900,"completion_tokens":4}')
    assert next(estimator.ratios())[1].samples == 1


HOSTILE = st.sampled_from([b"[" * 5000, b'{"usage":' * 300, b'{"usage":{}}', b'"usage":{', b"1"])


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.binary(max_size=200) | HOSTILE,
       st.sampled_from([JSON, SSE, ""]), st.sampled_from([CHAT, "/v1/embeddings", "/v1/responses", "/x"]),
       st.integers(1, 50), st.booleans())  # fmt: skip
def test_nothing_that_an_upstream_may_send_stops_it(data, content_type, path, step, last):
    reader = opened({"max_tokens": 5}, path, content_type=content_type)
    tokens = fed(reader, data * 40, step, last)
    assert tokens is not None
    assert min(tokens.prompt, tokens.completion) >= 0
