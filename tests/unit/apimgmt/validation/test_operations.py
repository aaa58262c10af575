"""Our document of the operations: what it takes and refuses, and how it says so."""

import json
from typing import Any

import httpx2 as httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params

from services.apimgmt.openapi.documents import built_in
from services.bodyrouter.operations import ROUTED
from tests.unit.apimgmt.validation.calls import CHAT, call, chat, error, policy

TEXTS = {"role": "user", "content": [{"type": "text", "text": "x"}]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}}
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}


def test_every_operation_of_the_router_is_described() -> None:
    assert set(built_in()["paths"]) == set(ROUTED)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0},
        {"temperature": 2.0, "top_p": 1, "n": 2, "seed": -1, "stop": None},
        {"stop": ["a", "b", "c", "d", "e"]},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"tools": [TOOL], "tool_choice": "auto"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tool_choice": "none"},
        {"logprobs": True, "top_logprobs": 5},
        {"top_logprobs": 0},
        {"stream_options": None},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
        {"response_format": None},
        {"response_format": {"type": "structural_tag", "structures": [], "triggers": []}},
        {"top_k": -1, "min_p": 0.1, "repetition_penalty": 1.1, "structured_outputs": {"choice": ["a"]}, "priority": -3},
        {"guided_json": {"type": "object"}, "chat_template_kwargs": {"enable_thinking": False}},
        {
            "messages": [
                TEXTS,
                CALLED,
                {"role": "tool", "content": "5", "tool_call_id": "1"},
                {"role": "developer", "content": "x"},
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": "x",
                    "reasoning": None,
                    "annotations": None,
                    "audio": None,
                    "function_call": None,
                    "refusal": None,
                    "tool_calls": [],
                }
            ]
        },
        {"never_heard_of": 1},
    ],
)
def test_good_chats_pass(fields: dict[str, Any]) -> None:
    assert error(chat(**fields)) is None


@pytest.mark.parametrize(
    ("fields", "code", "param", "said"),
    [
        ({"messages": None}, "invalid_type", "messages", "is null; expected an array"),
        ({"messages": []}, "invalid_value", "messages", "an empty array; expected at least 1 items"),
        ({"messages": ["x"]}, "invalid_type", "messages[0]", "expected an object"),
        ({"messages": [TEXTS, {"content": "x"}]}, "missing_required_parameter", "messages[1].role", "is missing"),
        (
            {"messages": [{"role": "robot", "content": "x"}]},
            "invalid_value",
            "messages[0].role",
            '"robot"; expected "system"',
        ),
        ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content", "is missing"),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "invalid_type",
            "messages[0].content",
            "expected a string or an array",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "invalid_type",
            "messages[0].content[0].text",
            "is 5; expected a string",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "blob"}]}]},
            "invalid_value",
            "messages[0].content[0].type",
            '"blob"; expected "text"',
        ),
        ({"temperature": 2.5}, "invalid_value", "temperature", "is 2.5; expected at most 2"),
        ({"temperature": "hot"}, "invalid_type", "temperature", '"hot"; expected a number or null'),
        ({"temperature": True}, "invalid_type", "temperature", "is true"),
        ({"n": 0}, "invalid_value", "n", "at least 1"),
        ({"n": 1.5}, "invalid_type", "n", "expected an integer"),
        ({"seed": 2**64}, "invalid_value", "seed", "a number beyond 64 bits"),
        ({"tools": []}, "invalid_value", "tools", "at least 1"),
        (
            {"tools": [{"type": "function", "function": {}}]},
            "missing_required_parameter",
            "tools[0].function.name",
            "missing",
        ),
        ({"tool_choice": "auto"}, "missing_required_parameter", "tools", "which other fields of the request need"),
        ({"stream_options": {"include_usage": True}}, "missing_required_parameter", "stream", "other fields"),
        ({"top_logprobs": 3}, "missing_required_parameter", "logprobs", "other fields"),
        ({"response_format": {"type": "xml"}}, "invalid_value", "response_format.type", '"xml"; expected "text"'),
        (
            {"response_format": {"type": "json_schema"}},
            "missing_required_parameter",
            "response_format.json_schema",
            "missing",
        ),
        ({"logit_bias": {"50": "x"}}, "invalid_type", "logit_bias.50", "expected a number"),
        ({"stop": "x" * 5, "max_tokens": 0}, "invalid_value", "max_tokens", "at least 1"),
    ],
)
def test_bad_chats_are_refused_by_field(fields: dict[str, Any], code: str, param: str, said: str) -> None:
    found = error(chat(**fields))
    assert found is not None
    assert (found["code"], found["param"]) == (code, param)
    assert said in found["message"]


@pytest.mark.parametrize(
    ("operation", "body", "param"),
    [
        ("/v1/completions", {"model": "m", "prompt": "x", "max_tokens": 0, "echo": True, "logprobs": 1}, None),
        ("/v1/completions", {"model": "m", "prompt": [[1, 2], [3]]}, None),
        ("/v1/completions", {"model": "m"}, "prompt"),
        ("/v1/completions", {"model": "m", "prompt": [1, "x"]}, "prompt[0]"),
        ("/v1/embeddings", {"model": "m", "input": ["a"], "encoding_format": "base64"}, None),
        ("/v1/embeddings", {"model": "m", "messages": [TEXTS]}, None),
        ("/v1/embeddings", {"model": "m"}, "input"),
        ("/v1/embeddings", {"model": "m", "input": []}, "input"),
        ("/v1/responses", {"model": "m"}, "input"),
        ("/v1/responses", {"model": "m", "input": [{"role": "user", "content": "x"}], "store": False}, None),
        ("/v1/responses", {"model": "m", "input": "x", "text": {"format": {"type": "y"}}}, "text.format.type"),
        ("/v1/rerank", {"model": "m", "query": "x", "documents": ["a", "b"], "top_n": 0}, None),
        ("/v1/rerank", {"model": "m", "query": "x"}, "documents"),
        ("/v1/score", {"model": "m", "text_1": "x", "text_2": ["a"]}, None),
        ("/v1/score", {"model": "m", "text_1": "x"}, "text_2"),
        ("/v1/other", {"anything": 1}, None),
        (CHAT, {"model": "m"}, "messages"),
    ],
)
def test_other_operations(operation: str, body: dict[str, Any], param: str | None) -> None:
    found = error(body, operation)
    assert (found and found["param"]) == param


def test_every_field_of_the_openai_client_is_named() -> None:
    schemas = built_in()["components"]["schemas"]
    known = {
        "Chat": chat_params.CompletionCreateParamsStreaming,
        "Completion": completion_create_params.CompletionCreateParamsStreaming,
        "Embedding": embedding_create_params.EmbeddingCreateParams,
        "Response": response_create_params.ResponseCreateParamsStreaming,
    }
    for name, params in known.items():
        assert set(params.__annotations__) - set(schemas[name]["properties"]) == set(), name


def test_requests_of_the_openai_client_pass_with_unknown_fields_refused() -> None:
    sent: list[tuple[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((request.url.path, json.loads(request.content)))
        return httpx.Response(400, json={"error": {"message": "enough"}})

    http = httpx.Client(transport=httpx.MockTransport(answer))
    client = openai.OpenAI(api_key="x", base_url="http://127.0.0.1/v1", http_client=http, max_retries=0)  # type: ignore[arg-type]
    messages: Any = [{"role": "system", "content": "s"}, TEXTS]
    tools: Any = [TOOL]
    asks = (
        lambda: client.chat.completions.create(model="m", messages=messages, tools=tools, tool_choice="required"),
        lambda: client.chat.completions.create(
            model="m", messages=messages, stream=True, stream_options={"include_usage": True}, extra_body={"top_k": 5}
        ),
        lambda: client.completions.create(model="m", prompt="x", logprobs=3, stop=["a"]),
        lambda: client.embeddings.create(model="m", input=["x"]),
        lambda: client.responses.create(model="m", input="x", instructions="y", reasoning={"effort": "low"}),
    )
    for ask in asks:
        with pytest.raises(openai.BadRequestError):
            ask()
    strict = policy(unknownFields="refuse")
    assert len(sent) == len(asks)
    assert [error(body, path, strict) for path, body in sent] == [None] * len(asks)


def test_values_and_names_of_the_client_are_shown_short_and_printable() -> None:
    found = error(chat(temperature="\x1b[31m\u202e" + "x" * 5000))
    assert found is not None
    assert len(found["message"]) < 200
    assert found["message"].isprintable()
    found = error(chat(**{"k\n" * 5000: 1}), made=policy(unknownFields="refuse"))
    assert found is not None
    assert found["param"].isprintable()
    assert len(found["param"]) < 210


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.sampled_from(["user", "text", "function", "json_schema"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "function", "name", "x"]), inner, max_size=4
        )
    ),
    max_leaves=10,
)
FIELDS = sorted(
    {name for schema in built_in()["components"]["schemas"].values() for name in schema.get("properties", ())}
)


@pytest.mark.parametrize("mode", ["allow", "refuse", "remove"])
@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    st.sampled_from(sorted(ROUTED)),
    st.dictionaries(st.sampled_from([*FIELDS, "unknown"]), JSON_VALUES, max_size=6),
    st.lists(st.dictionaries(st.sampled_from(["role", "content", "name"]), JSON_VALUES, max_size=3), max_size=3),
)
def test_any_body_is_accepted_or_refused_with_a_code(mode: str, operation: str, body: Any, messages: Any) -> None:
    found = error({"model": "m", "messages": messages, **body}, operation, POLICIES[mode])
    if found is not None:
        assert found["code"] in ("invalid_type", "missing_required_parameter", "unknown_parameter", "invalid_value")


POLICIES = {mode: policy(unknownFields=mode) for mode in ("allow", "refuse", "remove")}


def test_deep_bodies_are_answered() -> None:
    deep: Any = {}
    for _ in range(1000):
        deep = {"a": deep}
    assert error(chat(messages=deep)) is not None
    assert error({"model": 5, "messages": [TEXTS], "metadata": deep}) is not None
    assert policy().check(call(chat(kv_transfer_params=deep), CHAT)) is None
