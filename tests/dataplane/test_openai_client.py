"""The unmodified OpenAI client through the whole path, over the declared environment `local`."""

import json
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.dataplane.conftest import MakeClient
from tests.support.local import Stack

pytestmark = pytest.mark.xdist_group("local-stack")

LLAMA, GEMMA, ADAPTERS = "llama-3.1-8b", "gemma-3-12b", ("LoRA-1-gemma", "LoRA-2-gemma")
HELLO: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def client(stack: Stack, openai_client: MakeClient) -> OpenAI:
    return openai_client(stack.endpoint, stack.api_key)


@pytest.mark.parametrize("model", [LLAMA, GEMMA, *ADAPTERS])
def test_chat(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=7)
    assert (answer.object, answer.model) == ("chat.completion", model)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 7


def test_streamed_chat_says_the_same_as_a_plain_one_and_ends_with_usage(client: OpenAI) -> None:
    fixed: Any = {"model": GEMMA, "messages": HELLO, "max_tokens": 20, "seed": 1}
    plain = client.chat.completions.create(**fixed)
    chunks = list(client.chat.completions.create(**fixed, stream=True, stream_options={"include_usage": True}))
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == plain.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 20
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_completions(client: OpenAI) -> None:
    answer = client.completions.create(model=LLAMA, prompt="Once upon a time", max_tokens=5, n=2)
    assert (answer.object, answer.model, len(answer.choices)) == ("text_completion", LLAMA, 2)
    chunks = list(client.completions.create(model=ADAPTERS[0], prompt="Once", max_tokens=5, stream=True))
    assert {chunk.model for chunk in chunks} == {ADAPTERS[0]}
    assert chunks[-1].choices[0].finish_reason == "length"


def test_embeddings(client: OpenAI) -> None:
    answer = client.embeddings.create(model=GEMMA, input=["a frog", "a newt"])
    assert answer.model == GEMMA
    assert [item.index for item in answer.data] == [0, 1]
    assert len(answer.data[0].embedding) == len(answer.data[1].embedding) > 0
    assert answer.data[0].embedding != answer.data[1].embedding


def test_responses(client: OpenAI) -> None:
    answer = client.responses.create(model=LLAMA, input="Say hello.", max_output_tokens=16)
    assert (answer.object, answer.model) == ("response", LLAMA)
    assert answer.output_text
    events = list(client.responses.create(model=LLAMA, input="Say hello.", max_output_tokens=16, stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")


def test_model_list(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [LLAMA, GEMMA, *ADAPTERS]
    for name in (LLAMA, ADAPTERS[1]):
        assert client.models.retrieve(name).id == name


def assert_openai_shape(error: openai.APIStatusError) -> None:
    """An error of the path has exactly OpenAI's four fields, a message above all."""
    assert isinstance(error.body, dict)
    assert set(error.body) == {"message", "type", "param", "code"}
    assert error.body["message"]
    assert error.body["type"]


def test_unknown_models(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as listed:
        client.models.retrieve("gpt-17")
    with pytest.raises(openai.NotFoundError) as asked:
        client.chat.completions.create(model="gpt-17", messages=HELLO)
    for raised in (listed, asked):
        assert_openai_shape(raised.value)
        assert raised.value.code == "model_not_found"
        assert raised.value.param == "model"
        assert "gpt-17" in raised.value.message


def test_errors_of_a_replica_reach_the_client(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=LLAMA, messages=HELLO, max_tokens=100_000)  # only it knows its context
    assert "8192" in raised.value.message
    assert raised.value.response.headers["x-penstock-replica"].startswith("llama-3-1-8b-")


def test_request_ids_come_back(client: OpenAI) -> None:
    given = client.chat.completions.with_raw_response.create(
        model=LLAMA, messages=HELLO, max_tokens=1, extra_headers={"x-request-id": "my-own-id"}
    )
    assert given.headers["x-request-id"] == "my-own-id"
    made = client.chat.completions.with_raw_response.create(model=LLAMA, messages=HELLO, max_tokens=1)
    assert len(made.headers["x-request-id"]) == 36
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="x", messages=HELLO, extra_headers={"x-request-id": "my-own-id"})
    assert raised.value.response.headers["x-request-id"] == "my-own-id"


def test_unicode_survives(client: OpenAI) -> None:
    text = "Übergröße 漢字 🐸 \u2028 \x07"
    raw = client.completions.with_raw_response.create(model=GEMMA, prompt=text, max_tokens=1, echo=True)
    assert json.loads(raw.text)["choices"][0]["text"].startswith(text)
