"""The simulator behind the real `openai` client and plain HTTP."""

import struct
from base64 import b64decode

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.contract.modelserver.conftest import Simulator, Start

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello world"}]


@pytest.fixture
def client(recorded: Simulator) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{recorded.url}/v1", api_key="none", max_retries=0)


def test_chat(client: openai.OpenAI) -> None:
    with client:
        answer = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=7, n=2)
        again = client.chat.completions.create(model="tiny", messages=HELLO, max_completion_tokens=7, n=2)
    assert [choice.finish_reason for choice in answer.choices] == ["length", "length"]
    texts = [choice.message.content for choice in answer.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert texts[0] != texts[1]
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.usage.prompt_tokens) == (14, 10)


def test_stream_says_the_same_as_the_plain_answer(client: openai.OpenAI) -> None:
    with client:
        plain = client.chat.completions.create(model="lora-a", messages=HELLO, max_tokens=20, n=2)
        stream = client.chat.completions.create(
            model="lora-a", messages=HELLO, max_tokens=20, n=2, stream=True, stream_options={"include_usage": True}
        )
        texts, reasons, usages = ["", ""], {}, []
        for chunk in stream:
            usages.append(chunk.usage)
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    reasons[choice.index] = choice.finish_reason
    assert texts == [choice.message.content for choice in plain.choices]
    assert reasons == {0: "length", 1: "length"}
    assert usages[:-1] == [None] * (len(usages) - 1)
    assert usages[-1] is not None
    assert usages[-1].completion_tokens == 40


def test_stop_and_natural_end(client: openai.OpenAI) -> None:
    with client:
        full = client.chat.completions.create(model="tiny", messages=HELLO).choices[0]
        assert full.finish_reason == "stop"
        assert full.message.content is not None
        stop = full.message.content[20:25]
        cut = client.chat.completions.create(model="tiny", messages=HELLO, stop=stop).choices[0]
        streamed = client.chat.completions.create(model="tiny", messages=HELLO, stop=[stop], stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
    assert cut.message.content == full.message.content.partition(stop)[0] == text
    assert cut.model_dump()["stop_reason"] == stop


def test_logprobs(client: openai.OpenAI) -> None:
    with client:
        chat = client.chat.completions.create(
            model="tiny", messages=HELLO, max_tokens=3, logprobs=True, top_logprobs=4
        ).choices[0]
        text = client.completions.create(model="tiny", prompt="hello", max_tokens=3, logprobs=2).choices[0]
    assert chat.logprobs is not None
    assert chat.logprobs.content is not None
    assert "".join(entry.token for entry in chat.logprobs.content) == chat.message.content
    assert [len(entry.top_logprobs) for entry in chat.logprobs.content] == [4, 4, 4]
    assert text.logprobs is not None
    assert "".join(text.logprobs.tokens or []) == text.text
    assert text.logprobs.text_offset == [0, 4, 8]


def test_completions_of_several_prompts_echo_and_token_ids(client: openai.OpenAI, recorded: Simulator) -> None:
    with client:
        answer = client.completions.create(model="tiny", prompt=["one", "two"], n=2, max_tokens=2, echo=True)
        ids = httpx.post(f"{recorded.url}/tokenize", json={"model": "tiny", "prompt": "hell"}).json()["tokens"]
        by_ids = client.completions.create(model="tiny", prompt=ids, max_tokens=4)
        by_text = client.completions.create(model="tiny", prompt="hell", max_tokens=4)
    assert [choice.text[:3] for choice in answer.choices] == ["one", "one", "two", "two"]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 8)
    assert by_ids.choices[0].text == by_text.choices[0].text


def test_embeddings(client: openai.OpenAI, recorded: Simulator) -> None:
    with client:
        answer = client.embeddings.create(model="tiny", input=["a", "b", "a"], dimensions=8)
    first, second, third = (item.embedding for item in answer.data)
    assert first == third != second
    assert len(first) == 8
    body = {"model": "tiny", "input": "a", "dimensions": 8, "encoding_format": "base64"}
    encoded = httpx.post(f"{recorded.url}/v1/embeddings", json=body).json()["data"][0]["embedding"]
    assert list(struct.unpack("<8f", b64decode(encoded))) == pytest.approx(first, abs=1e-6)


def test_responses(client: openai.OpenAI) -> None:
    with client:
        plain = client.responses.create(model="tiny", input="hello", instructions="Be brief.", max_output_tokens=9)
        with client.responses.stream(
            model="tiny", input="hello", instructions="Be brief.", max_output_tokens=9
        ) as stream:
            kinds = [event.type for event in stream]
            deltas = kinds.count("response.output_text.delta")
    assert plain.status == "incomplete"
    assert plain.usage is not None
    assert plain.usage.output_tokens == deltas == 9
    assert len(plain.output_text) == 36
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.incomplete"


def test_models_and_errors(client: openai.OpenAI) -> None:
    with client:
        assert [model.id for model in client.models.list()] == ["tiny", "lora-a", "lora-b"]
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.chat.completions.create(model="nope", messages=HELLO)
        with pytest.raises(openai.BadRequestError, match="maximum input length of 2048"):
            client.embeddings.create(model="tiny", input="x" * 10000)
        with pytest.raises(openai.BadRequestError, match="You passed 2000 input tokens") as error:
            client.completions.create(model="tiny", prompt="x" * 8000, max_tokens=100)
    assert error.value.param == "input_tokens"


BAD: list[tuple[dict[str, object], str]] = [
    ({"messages": "hello"}, "list_type"),
    ({"messages": [{"content": "x"}]}, "body.messages.0.role"),
    ({"messages": []}, "must not be empty"),
    ({"max_tokens": 0}, "max_tokens must be at least 1"),
    ({"max_tokens": "many"}, "int_parsing"),
    ({"temperature": -1}, "temperature must be non-negative"),
    ({"top_p": 2}, "top_p must be in"),
    ({"n": 0}, "n must be at least 1"),
    ({"stop": [1]}, "string_type"),
    ({"logprobs": True, "top_logprobs": 99}, "max allowed: 20"),
    ({"top_logprobs": 2}, "`logprobs` must be set"),
    ({"stream_options": {"include_usage": True}}, "stream=True"),
    ({"max_tokens": "x", "n": "y"}, "2 validation errors"),
    ({"model": 7}, "string_type"),
]


@pytest.mark.parametrize(("change", "expected"), BAD, ids=[row[1] for row in BAD])
def test_bad_requests(recorded: Simulator, change: dict[str, object], expected: str) -> None:
    body = {"model": "tiny", "messages": HELLO, **change}
    answer = httpx.post(f"{recorded.url}/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert list(answer.json()["error"]) == ["message", "type", "param", "code"]
    assert expected in answer.text


def test_only_json_is_read(recorded: Simulator) -> None:
    answer = httpx.post(f"{recorded.url}/v1/chat/completions", content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 400
    assert "Unsupported Media Type" in answer.text


def test_tokenize_and_detokenize(recorded: Simulator) -> None:
    text = "a prompt of several tokens, ünïcode too"
    answer = httpx.post(f"{recorded.url}/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    back = httpx.post(f"{recorded.url}/detokenize", json={"tokens": answer["tokens"]}).json()
    assert back == {"prompt": text}
    assert httpx.get(f"{recorded.url}/version").json() == {"version": "0.32.0"}
    assert httpx.post(f"{recorded.url}/ping").status_code == 200


def test_api_key_replica_id_cached_tokens_and_aliases(start: Start) -> None:
    arguments = ["--api-key", "k1", "--sim-replica-id", "r7", "--enable-prompt-tokens-details", "--sim-time-scale", "0"]
    simulator = start("m", "--served-model-name", "first", "second", *arguments)
    with httpx.Client(base_url=simulator.url) as http:
        body = {"model": "second", "messages": [{"role": "user", "content": "x" * 1000}], "max_tokens": 1}
        refused = http.post("/v1/chat/completions", json=body, headers={"authorization": "Bearer k2"})
        assert (refused.status_code, refused.json()) == (401, {"error": "Unauthorized"})
        assert http.get("/health").status_code == 200
        answers = [
            http.post("/v1/chat/completions", json=body, headers={"authorization": "Bearer k1"}) for _ in range(2)
        ]
    assert answers[0].headers["x-penstock-replica"] == "r7"
    details = [answer.json()["usage"]["prompt_tokens_details"] for answer in answers]
    assert details == [{"cached_tokens": 0}, {"cached_tokens": 256}]
    assert answers[0].json()["model"] == "second"


def test_run_time_adapters_need_the_environment_variable(start: Start) -> None:
    simulator = start("m", "--enable-lora", VLLM_ALLOW_RUNTIME_LORA_UPDATING="0")
    answer = httpx.post(f"{simulator.url}/v1/load_lora_adapter", json={"lora_name": "a", "lora_path": "/a"})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
