"""Usage of real answers over HTTP: what clients get, and what is counted."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from services.apimgmt.usage.estimator import Estimator
from services.apimgmt.usage.request import prepare
from services.apimgmt.usage.response import UsageReader
from services.apimgmt.usage.tokens import Tokens
from tests.contract.modelserver.conftest import RECORDED, Simulator, run_simulators
from tests.unit.apimgmt.usage.calls import CHAT, call_of

COMPLETIONS = "/v1/completions"
MESSAGES = [{"role": "user", "content": "tell me about rivers"}]
CHAT_BODY = {"model": "tiny", "messages": MESSAGES, "max_tokens": 12, "seed": 3, "ignore_eos": True}
TEXT_BODY = {"model": "tiny", "prompt": ["a river", "the sea"], "max_tokens": 9, "seed": 3, "ignore_eos": True}
BODIES = [(CHAT, CHAT_BODY), (COMPLETIONS, {**TEXT_BODY, "prompt": "a river"})]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    for start in run_simulators():
        yield start(*RECORDED, "--sim-time-scale", "0")


def passed(
    simulator: Simulator, path: str, body: dict[str, Any], estimator: Estimator | None = None, chunk_size: int = 64
) -> tuple[bytes, Tokens | None, UsageReader]:
    """Send a request as the pipeline would; return what the client gets and what is counted."""
    estimator = estimator or Estimator()
    call = call_of(body, path)
    assert prepare(call, estimator) is None
    with httpx.stream("POST", simulator.url + path, json=call.edited or body) as answer:
        reader = UsageReader(call, answer.status_code, answer.headers["content-type"], estimator)
        out = [reader.feed(chunk, False) for chunk in answer.iter_raw(chunk_size)]
    out.append(reader.feed(b"", True))
    tokens = reader.tokens()
    if tokens is not None:
        assert tokens.completion <= call.max_output
    return b"".join(out), tokens, reader


def form(answer: bytes) -> bytes:
    return re.sub(rb'"(id|created)":("[^"]*"|\d+)', rb'"\1":0', answer)


@pytest.mark.parametrize(("path", "body"), BODIES)
@pytest.mark.parametrize("size", [1, 64, 65_536])
def test_a_client_gets_the_stream_that_it_would_have_got_without_us(
    simulator: Simulator, path: str, body: dict[str, Any], size: int
) -> None:
    streamed = {**body, "stream": True}
    plain = httpx.post(simulator.url + path, json=streamed).content
    assert b'"usage"' not in plain
    out, tokens, reader = passed(simulator, path, streamed, chunk_size=size)
    assert form(out) == form(plain)
    assert tokens is not None
    assert (tokens.completion, tokens.estimated) == (body["max_tokens"], False)
    assert reader.first_token_at is not None


@pytest.mark.parametrize(("path", "body"), [*BODIES, (CHAT, {**CHAT_BODY, "n": 3}), (COMPLETIONS, TEXT_BODY)])
@pytest.mark.parametrize(
    "options", [None, {"include_usage": True}, {"include_usage": True, "continuous_usage_stats": 1}]
)
def test_every_way_of_asking_counts_the_same(
    simulator: Simulator, path: str, body: dict[str, Any], options: dict[str, Any] | None
) -> None:
    whole = passed(simulator, path, body)[1]
    assert whole is not None
    assert whole.completion == body["max_tokens"] * body.get("n", 1) * (len(body["prompt"]) if body is TEXT_BODY else 1)
    out, tokens, _ = passed(simulator, path, {**body, "stream": True, "stream_options": options})
    assert tokens == whole
    assert (b'"usage"' in out) == (options is not None)


def test_responses_and_embeddings(simulator: Simulator) -> None:
    body = {"model": "tiny", "input": "tell me", "max_output_tokens": 8, "ignore_eos": True}
    whole = passed(simulator, "/v1/responses", body)[1]
    assert whole is not None
    assert (whole.completion, whole.estimated) == (8, False)
    assert passed(simulator, "/v1/responses", {**body, "stream": True})[1] == whole
    vectors = passed(simulator, "/v1/embeddings", {"model": "tiny", "input": ["a river"] * 50})[1]
    assert vectors is not None
    assert vectors.prompt >= 50
    assert (vectors.completion, vectors.estimated) == (0, False)


def test_a_refusal_of_the_model_server_used_nothing(simulator: Simulator) -> None:
    out, tokens, _ = passed(simulator, CHAT, {**CHAT_BODY, "max_tokens": 10_000_000, "stream": True})
    assert b"max_tokens" in out
    assert tokens is None


def test_prompts_teach_the_estimator(simulator: Simulator) -> None:
    estimator = Estimator()
    for number in range(1, 31):
        messages = [{"role": "user", "content": "water flows " * 3 * number}]
        passed(simulator, CHAT, {**CHAT_BODY, "messages": messages, "max_tokens": 1}, estimator)
    call = call_of({**CHAT_BODY, "messages": [{"role": "user", "content": "rivers run " * 60}]})
    prepare(call, estimator)
    tokens = passed(simulator, CHAT, dict(call.body))[1]
    assert tokens is not None
    assert tokens.prompt <= call.prompt_tokens <= 2 * tokens.prompt
