import re

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.apimgmt.usage import sse
from services.apimgmt.usage.sse import Splitter, data_of, with_data
from services.apimgmt.usage.stream import StreamReader
from services.apimgmt.usage.tokens import Tokens
from tests.unit.apimgmt.usage.recordings import FINGERPRINT, HEAD, USAGE, chat_stream, recorded


def run(data, strip, cuts=()):
    reader, out, before = StreamReader(strip), [], 0
    for cut in [*sorted(cuts), len(data)]:
        out.append(reader.feed(data[before:cut], False))
        before = cut
    out.append(reader.feed(b"", True))
    return reader, b"".join(out)


def every(data, step):
    return range(step, len(data), step)


@pytest.mark.parametrize("step", [1, 7, 64, 10_000])
@pytest.mark.parametrize("null", [False, True])
def test_a_stripped_stream_is_what_the_client_would_have_got_without_asking(step, null):
    data = chat_stream(null=null)
    reader, out = run(data, True, every(data, step))
    assert out == chat_stream(usage=False)
    assert reader.final == Tokens(6, 0, 3, 0)
    assert reader.events == 3


@pytest.mark.parametrize("step", [1, 333, 10_000])
def test_the_recorded_stream_stripped_has_the_form_of_the_one_recorded_without_usage(step):
    data = recorded("chat_stream_usage.sse.http.txt")
    reader, out = run(data, True, every(data, step))
    assert reader.final == Tokens(6, 0, 8, 0)
    assert reader.events == 8

    def form(stream):
        stream = re.sub(rb'"(id|model|created)":("[^"]*"|\d+)', rb'"\1":0', stream)
        return re.sub(rb'"delta":\{"content":"[^"]*"\}', b'"delta":{"content":0}', stream)

    assert form(out) == form(recorded("chat_stream_lora_nousage.sse.http.txt"))


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("chat_stream_usage", Tokens(6, 0, 8, 0)),
        ("chat_stream_continuous_usage", Tokens(6, 0, 6, 0)),
        ("completions_stream", Tokens(4, 0, 4, 0)),
        ("chat_stream_lora_nousage", None),
    ],
)
@pytest.mark.parametrize("step", [1, 100])
def test_recorded_streams_pass_untouched_and_are_counted(name, tokens, step):
    data = recorded(f"{name}.sse.http.txt")
    reader, out = run(data, False, every(data, step))
    assert out == data
    assert reader.final == tokens


def test_without_stripping_each_chunk_goes_on_at_once():
    reader, data = StreamReader(False), chat_stream()
    for at in range(0, len(data), 50):
        assert reader.feed(data[at : at + 50], False) == data[at : at + 50]


def test_with_stripping_an_event_goes_on_when_it_is_complete():
    reader = StreamReader(True)
    events = [event + b"\n\n" for event in chat_stream().split(b"\n\n")[:-1]]
    sent = [reader.feed(event, False) for event in events]
    assert sent[:3] == events[:3]
    assert sent[3] == b"", "an event that ends a choice waits for the next"
    assert sent[4].endswith(FINGERPRINT + b"}\n\n")
    assert sent[5] == b"data: [DONE]\n\n"


def test_the_last_event_is_not_lost_where_no_usage_follows():
    data = chat_stream(usage=False)
    for end in (len(data), data.index(b"data: [DONE]")):
        assert run(data[:end], True)[1] == data[:end]


def test_an_event_with_content_and_usage_keeps_its_content():
    first = HEAD + b'{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],' + USAGE + b"}\n\n"
    reader, out = run(first, True)
    assert out == first.replace(b"," + USAGE, b"")
    assert reader.running == Tokens(6, 0, 3, 0)
    assert reader.complete


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("step", [1, 5, 10_000])
def test_line_ends_comments_and_data_of_several_lines(end, step):
    usage = (b'data: {"choices": [],', b'data:"usage": {"prompt_tokens": 5,', b'data: "completion_tokens": 2}}')
    lines = [b": ping", b"", b"id: 7", *usage, b"", b": pong", b"", b"data: [DONE]", b"", b""]
    data = end.join(lines)
    reader, out = run(data, True, every(data, step))
    assert reader.final == Tokens(5, 0, 2, 0)
    assert out == end.join([*lines[:2], *lines[7:]])


def test_usage_in_the_last_event_without_its_blank_line():
    data = chat_stream().partition(b"data: [DONE]")[0].rstrip()
    reader, out = run(data, True)
    assert reader.final is not None
    assert b'"usage":' not in out


def test_usage_of_the_responses_api():
    answer = {
        "usage": {
            "input_tokens": 9,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 2},
        },
        "tools": [{"usage": {"prompt_tokens": 0, "input_tokens": 0}}],
    }
    events = [
        {"type": "response.created", "response": {"usage": None}},
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.output_text.delta", "delta": '"usage"'},
        {"type": "response.completed", "response": answer},
    ]
    data = b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), orjson.dumps(e)) for e in events)
    reader, out = run(data, False, every(data, 11))
    assert out == data
    assert reader.final == Tokens(9, 4, 5, 2)
    assert reader.events == 2


def test_the_first_content_is_no_role_and_no_usage():
    reader = StreamReader(False)
    events = [event + b"\n\n" for event in chat_stream().split(b"\n\n")[:-1]]
    reader.feed(events[0], False)
    assert reader.first_at is None
    reader.feed(events[1], False)
    assert reader.first_at is not None


def test_a_text_about_usage_is_no_usage():
    text = '"usage":{"prompt_tokens":1,"completion_tokens":1}'
    reader, out = run(chat_stream((text, "b"), usage=False), True)
    assert out == chat_stream((text, "b"), usage=False)
    assert reader.final is None


@pytest.mark.parametrize("step", [1000, 4096, 2 * sse.MAX_EVENT])
def test_an_endless_event_passes_in_pieces_and_what_follows_is_read(step):
    data = b"data: " + b"x" * (sse.MAX_EVENT + 5000) + b'"usage"\n\n' + chat_stream()
    reader = StreamReader(True)
    held, out = 0, b""
    for at in range(0, len(data), step):
        out += reader.feed(data[at : at + step], False)
        held = max(held, at + step - len(out))
    out += reader.feed(b"", True)
    assert held < sse.MAX_EVENT + 2 * step
    assert out == data[: data.index(b"\n\n") + 2] + chat_stream(usage=False)
    assert reader.final == Tokens(6, 0, 3, 0)


@pytest.mark.parametrize("step", [1, 2, 3, 5, 1000])
def test_the_end_of_a_long_event_may_be_cut_anywhere(step, monkeypatch):
    monkeypatch.setattr(sse, "MAX_EVENT", 400)
    for end in (b"\n\n", b"\r\n\r\n"):
        data = b"data: " + b"x" * 500 + end + chat_stream(("a",))
        reader, out = run(data, True, every(data, step))
        assert reader.final == Tokens(6, 0, 3, 0)
        assert USAGE not in out


def test_a_choice_that_ends_stays_in_its_place():
    ended = HEAD + b'{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    other = HEAD + b'{"index":1,"delta":{"content":"b"},"finish_reason":null}]}\n\n'
    reader = StreamReader(True)
    assert [reader.feed(event, False) for event in (other, ended, other, other)] == [other, b"", ended + other, other]


def test_blank_lines_stay_wherever_they_are_cut():
    usage = HEAD + b"]," + USAGE + b"}\n\n"
    first = HEAD + b'{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
    for blank in (b"", b"\n", b"\n\n", b"\n\n\n"):
        data = first + first + blank + usage + b"data: [DONE]\n\n"
        for cut in range(len(data)):
            assert run(data, True, [len(first), cut])[1] == data.replace(usage, b"")


def test_with_data_keeps_the_other_lines():
    event = b"id: 1\r\ndata: a\r\ndata: b\r\n\r\n"
    assert data_of(event) == b"a\nb"
    assert with_data(event, b"c") == b"id: 1\r\ndata: c\r\n\r\n"


PIECES = st.sampled_from(
    [b"\n", b"\r", b"\r\n", b"\n\n", b"\n\n\n", b"data: ", b": c", b"{", b'"usage":', b"null", b"\xff", b"x" * 40,
     USAGE, HEAD, HEAD + b"]," + USAGE + FINGERPRINT + b"}", b"data: [DONE]\n\n",
     HEAD + b'{"delta":{"content":"a"}}]}\n\n',
     HEAD + b'{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n', HEAD + b"]," + USAGE + b"}\r\n\r\n",
     HEAD + b'{"delta":{"content":"a"},"finish_reason":"stop"}],"usage":null}\n\n']
)  # fmt: skip


@settings(max_examples=500, derandomize=True, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=6), max_size=16).map(b"".join), st.lists(st.integers(0, 600), max_size=12))
def test_where_a_stream_is_cut_changes_nothing(data, cuts):
    cuts = [cut for cut in cuts if cut <= len(data)]
    assert run(data, False, cuts)[1] == data
    assert run(data, True, cuts)[1] == run(data, True)[1]
    assert run(data, True, cuts)[0].final == run(data, False)[0].final


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.lists(PIECES, max_size=16).map(b"".join), st.integers(1, 60), st.integers(1, 30))
def test_where_a_stream_with_long_events_is_cut_changes_nothing(data, most, step):
    before, sse.MAX_EVENT = sse.MAX_EVENT, most
    try:
        assert run(data, True, every(data, step))[1] == run(data, True)[1]
        splitter = Splitter()
        pieces = [piece for at in range(0, len(data), step) for piece in splitter.feed(data[at : at + step])]
        assert b"".join(piece for piece, _ in [*pieces, splitter.rest()]) == data
    finally:
        sse.MAX_EVENT = before
