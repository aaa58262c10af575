"""What a request used is in the ledger as the answer said it, once, and the client sees what it asked for."""

import json
from typing import Any

import httpx
import pytest

from tests.dataplane.apimgmt.declaration import ADAPTER, ALPHA, COMPLETION_PRICE, PROMPT_PRICE, REQUEST_PRICE
from tests.dataplane.apimgmt.managed import CHAT, Managed, Tenant, chat

pytestmark = pytest.mark.xdist_group("apimgmt")

HELLO: Any = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def tenant(sqlite: Managed) -> Tenant:
    return sqlite.tenant()


@pytest.fixture
def either(managed: Managed) -> Tenant:
    """A tenant on SQLite, and one on Valkey."""
    return managed.tenant()


async def booked(tenant: Tenant, usage: Any, *, model: str = ALPHA, replica: str | None = None) -> dict[str, Any]:
    """Hold the tenant's only record to the usage that the client was told, and its counters to both."""
    (record,) = await tenant.recorded(1)
    told = {"prompt_tokens": 0, "completion_tokens": 0} | {k: v for k, v in dict(usage).items() if v is not None}
    prompt = told.get("input_tokens", told["prompt_tokens"])
    completion = told.get("output_tokens", told["completion_tokens"])
    assert (record["promptTokens"], record["completionTokens"]) == (prompt, completion)
    assert prompt > 0
    cost = REQUEST_PRICE + (prompt * PROMPT_PRICE + completion * COMPLETION_PRICE) // 1_000_000
    assert (record["outcome"], record["status"], record["estimated"], record["costMicros"]) == ("ok", 200, False, cost)
    assert (record["model"], record["adapter"]) == (ALPHA, ADAPTER if model == ADAPTER else "")
    assert (record["team"], record["user"], record["app"], record["key"]) == ("red", "ada", "app", tenant.key_id)
    assert record["product"] == tenant.name
    ports = {f"127.0.0.1:{p.port}": name for name, p in tenant.managed.stack.pieces.items() if p.kind == "replica"}
    assert ports[record["replica"]] == (replica or ports[record["replica"]])
    assert ports[record["replica"]].startswith("alpha-a-")
    await tenant.balanced()
    return record


@pytest.mark.parametrize("model", [ALPHA, ADAPTER])
async def test_chat(either: Tenant, model: str) -> None:
    with either.openai() as client:
        raw = client.chat.completions.with_raw_response.create(model=model, messages=HELLO, max_tokens=7)
    record = await booked(either, raw.parse().usage, model=model, replica=raw.headers["x-penstock-replica"])
    assert (record["operation"], record["stream"], record["completionTokens"]) == (CHAT, False, 7)
    assert 0 <= record["overheadMs"] <= record["latencyMs"] + 1
    assert float(raw.headers["x-penstock-overhead-ms"]) == pytest.approx(record["overheadMs"], abs=0.001)


async def test_a_stream_whose_client_asks_for_usage(either: Tenant) -> None:
    with either.openai() as client:
        chunks = list(
            client.chat.completions.create(
                model=ALPHA, messages=HELLO, max_tokens=9, stream=True, stream_options={"include_usage": True}
            )
        )
    assert chunks[-1].choices == []
    assert all(chunk.usage is None for chunk in chunks[:-1])
    record = await booked(either, chunks[-1].usage)
    assert (record["stream"], record["completionTokens"]) == (True, 9)
    assert 0 <= record["ttftMs"] <= record["latencyMs"]


@pytest.mark.parametrize("options", [None, {"include_usage": False}])
async def test_a_stream_whose_client_does_not_ask_for_usage_has_none(tenant: Tenant, options: Any) -> None:
    body = chat(max_tokens=9, stream=True, seed=1) | ({"stream_options": options} if options else {})
    asked = {**body, "stream_options": {"include_usage": True}}
    async with tenant.http() as http:
        said = (await http.post(CHAT, json=body)).text
        (record,) = await tenant.recorded(1)
        usage = events((await http.post(CHAT, json=asked)).text)[-1]["usage"]
    assert '"usage"' not in said
    assert said.endswith("data: [DONE]\n\n")
    chunks = events(said)
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert (record["promptTokens"], record["completionTokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    await tenant.balanced()


async def test_a_stream_is_the_same_as_without_api_management(tenant: Tenant) -> None:
    """Byte for byte what the replica sends, but for identifiers and times."""
    body = chat(max_tokens=9, stream=True, seed=1)
    port = next(p.port for n, p in tenant.managed.stack.pieces.items() if n == "alpha-a-0")
    async with tenant.http() as http, httpx.AsyncClient(trust_env=False) as direct:
        ours = events((await http.post(CHAT, json=body)).text)
        theirs = events((await direct.post(f"http://127.0.0.1:{port}{CHAT}", json=body)).text)
    changing = {"id": "", "created": 0}
    assert [{**event, **changing} for event in ours] == [{**event, **changing} for event in theirs]


async def test_a_key_in_the_other_header(sqlite: Managed) -> None:
    tenant = sqlite.tenant()
    async with sqlite.http(None) as http:
        answer = await http.post(CHAT, json=chat(), headers={"x-api-key": tenant.key})
    await booked(tenant, answer.json()["usage"])


async def test_completions(tenant: Tenant) -> None:
    with tenant.openai() as client:
        answer = client.completions.create(model=ADAPTER, prompt=["One", "Two"], max_tokens=4, n=2)
    record = await booked(tenant, answer.usage, model=ADAPTER)
    assert record["completionTokens"] == 16


async def test_embeddings(tenant: Tenant) -> None:
    with tenant.openai() as client:
        answer = client.embeddings.create(model=ALPHA, input=["a frog", "a newt"])
    record = await booked(tenant, answer.usage)
    assert (record["operation"], record["completionTokens"]) == ("/v1/embeddings", 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_responses(tenant: Tenant, stream: bool) -> None:
    with tenant.openai() as client:
        if stream:
            last = list(client.responses.create(model=ALPHA, input="Hi.", max_output_tokens=16, stream=True))[-1]
            usage = last.response.usage  # type: ignore[union-attr]
        else:
            usage = client.responses.create(model=ALPHA, input="Hi.", max_output_tokens=16).usage
    record = await booked(tenant, usage)
    assert (record["stream"], record["operation"]) == (stream, "/v1/responses")


async def test_cached_prompt_tokens_are_kept_apart(tenant: Tenant) -> None:
    words = "The same beginning. " * 100
    with tenant.openai() as client:
        for _ in range(4):  # at most two of them are the first of a replica
            client.chat.completions.create(model=ALPHA, messages=[{"role": "user", "content": words}], max_tokens=1)
    records = await tenant.recorded(4)
    assert max(r["cachedTokens"] for r in records) > 0
    assert all(r["cachedTokens"] <= r["promptTokens"] for r in records)
    await tenant.balanced()


async def test_only_a_trusted_app_names_its_agent(sqlite: Managed) -> None:
    for trusted, expected in ((True, "planner/2"), (False, "")):
        tenant = sqlite.tenant(app={"trustedAgent": trusted})
        async with tenant.http() as http:
            await http.post(CHAT, json=chat(), headers={"x-penstock-agent": "planner/2"})
        (record,) = await tenant.recorded(1)
        assert record["agent"] == expected


def events(text: str) -> list[dict[str, Any]]:
    """Return the data of a stream of server-sent events, without the end."""
    found = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    return [json.loads(data) for data in found if data != "[DONE]"]
