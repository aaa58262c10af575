"""Requests made to reserve less than they use."""

import pytest

from services.apimgmt.usage.estimator import Estimator
from services.apimgmt.usage.prompt import measure
from services.apimgmt.usage.request import prepare
from tests.unit.apimgmt.usage.calls import CHAT, call_of
from tests.unit.apimgmt.usage.test_request import USER, prepared

LONG = "x" * 10_000


@pytest.mark.parametrize(
    "message",
    [
        {"role": LONG, "content": "hi"},
        {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": LONG}}]},
        {"role": "assistant", "reasoning": LONG},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": LONG}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": LONG, "text": "hi"}]},
        {"role": "user", "content": [{"type": "refusal", "refusal": LONG, "image_url": "x"}]},
    ],
    ids=["role", "calls", "reasoning", "refusal", "thinking", "media"],
)
def test_text_counts_wherever_a_message_has_it(message):
    assert measure("chat_completions", {"messages": [message]}, 0).size > len(LONG)


@pytest.mark.parametrize("field", ["chat_template", "chat_template_kwargs"])
def test_what_a_template_is_given_counts(field):
    value = LONG if field == "chat_template" else {"model_identity": LONG}
    assert measure("chat_completions", {"messages": USER, field: value}, 0).size > len(LONG)


def test_an_image_by_its_data_or_its_embedding_counts_flat():
    parts = [{"type": "image_url", "image_url": {"url": LONG}}, {"type": "image_embeds", "image_embeds": LONG}]
    parts += [{"type": "audio_embeds", "audio_embeds": LONG}]
    prompt = measure("chat_completions", {"messages": [{"role": "user", "content": parts}]}, 0)
    assert prompt.media == 3
    assert prompt.size < 200


def test_each_embedded_prompt_is_answered():
    assert prepared({"prompt_embeds": ["a", "b", "c"], "max_tokens": 10}, "/v1/completions").max_output == 30
    body = {"prompt_embeds": ["a", "b"], "prompt": "c", "max_tokens": 10}
    assert prepared(body, "/v1/completions").max_output == 30


def test_leading_zeros_do_not_hide_a_number():
    call = call_of({"messages": USER, "max_tokens": "0" * 100 + "64000"}, CHAT, cap=100)
    refused = prepare(call, Estimator())
    assert refused is not None
    assert refused.status == 400
    assert prepared({"messages": USER, "max_tokens": 10, "n": "0" * 100 + "4"}).max_output == 40


@pytest.mark.parametrize("value", ["much", [1], {}, 1.5, "9" * 5000])
def test_a_cap_is_not_passed_by_what_cannot_be_read(value):
    refused = prepare(call_of({"messages": USER, "max_tokens": value}, CHAT, cap=100), Estimator())
    assert refused is not None
    assert refused.status == 400


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("embeddings", {"messages": USER, "input": [LONG]}),
        ("embeddings", {"messages": [{"role": "user", "content": LONG}], "input": ["hi"]}),
        ("score", {"text_1": "a", "text_2": "b", "queries": "c", "documents": [LONG]}),
        ("score", {"data_1": LONG, "data_2": "x", "text_1": "a", "text_2": "b"}),
    ],
)
def test_a_body_of_two_forms_counts_as_both(operation, body):
    assert measure(operation, body, 0).size > len(LONG)
