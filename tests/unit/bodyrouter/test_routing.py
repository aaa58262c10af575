"""Aliases, prompt routes and classifiers: which model serves, and what goes on to it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.bodyrouter.filter import BodyRouter, Counts
from services.bodyrouter.headers import AGENT_HEADER
from services.bodyrouter.prompt import text_of
from services.bodyrouter.scan import Refused, read_model, with_model
from services.bodyrouter.settings import Settings
from services.extproc.api import Exchange, Headers, Reply
from services.extproc.config import ConfigError, parse_config

CONFIG = {
    "models": [{"name": "small"}, {"name": "large", "adapters": ["large-law"]}],
    "aliases": [{"name": "gpt-4o", "model": "large"}, {"name": "auto", "model": "small"}],
    "promptRoutes": [
        {"name": "law", "model": "auto", "when": "prompt.matches('(?i)\\\\bcontract\\\\b')", "to": "large-law"},
        {"name": "tools", "model": "auto", "when": "size(body.tools) > 0", "to": "gpt-4o"},
        {"name": "long", "model": "auto", "when": "promptChars > 100", "to": "large"},
        {"name": "gold", "model": "small", "when": "request.headers['x-tier'] == 'gold'", "to": "large"},
    ],
}


def make(**config: Any) -> tuple[BodyRouter, Counts]:
    counts = Counts(CollectorRegistry())
    return BodyRouter(Settings.model_validate({**CONFIG, **config}), counts, created=1), counts


def begin(router: BodyRouter, body: bytes, **headers: str) -> tuple[Exchange, Reply | Awaitable[Reply | None] | None]:
    exchange = Exchange()
    fields = {":method": "POST", ":path": "/v1/chat/completions", "content-type": "application/json"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    exchange.request_headers = Headers((name, value.encode()) for name, value in fields.items())
    stream = router.open(exchange)
    assert stream.on_request_headers() is None
    exchange.request_body = body
    return exchange, stream.on_request_body()


def chat(model: str, content: Any = "hi", **fields: Any) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": content}], **fields}).encode()


@pytest.mark.parametrize(
    ("body", "model", "base"),
    [
        (chat("small"), "small", None),
        (chat("large-law"), "large-law", "large"),
        (chat("gpt-4o"), "large", None),
        (chat("auto"), "small", None),
        (chat("auto", "Read this Contract."), "large-law", "large"),
        (chat("auto", "Read these contracts."), "small", None),
        (chat("auto", tools=[{"type": "function"}]), "large", None),
        (chat("auto", tools=[]), "small", None),
        (chat("auto", "x" * 101), "large", None),
        (chat("auto", [{"type": "text", "text": "x" * 101}]), "large", None),
        (chat("auto", [{"type": "image_url", "image_url": {"url": "x" * 200}}]), "small", None),
    ],
)
def test_which_model_serves(body: bytes, model: str, base: str | None) -> None:
    router, counts = make()
    exchange, reply = begin(router, body)
    assert reply is None
    changes = exchange.request_changes.set
    assert changes["x-gateway-model-name"] == model
    assert changes.get("x-gateway-base-model-name") == base
    asked = json.loads(body)["model"]
    assert exchange.request_body == body.replace(f'"{asked}"'.encode(), f'"{model}"'.encode(), 1)
    assert exchange.request_body_changed == (asked != model)
    assert exchange.request_json() == orjson.loads(exchange.request_body)
    assert counts.requests.counts[model, "chat_completions"] == 1


def test_conditions_over_headers_and_those_without_a_value() -> None:
    router, counts = make()
    exchange, _ = begin(router, chat("small"), x_tier="gold")
    assert exchange.request_changes.set["x-gateway-model-name"] == "large"
    begin(router, chat("small"))
    assert counts.decisions.counts == {("route", "gold"): 1, ("failed", "gold"): 1}


def test_models_without_rules_are_not_looked_at() -> None:
    router, counts = make(models=[*CONFIG["models"], {"name": "other"}])
    exchange, _ = begin(router, chat("other"))
    assert exchange.request_changes.set["x-gateway-model-name"] == "other"
    assert not counts.decisions.counts
    assert make(aliases=[], promptRoutes=[])[0].routing is None


def test_unknown_models_stay_unknown() -> None:
    _, reply = begin(make()[0], chat("gpt-5"))
    assert isinstance(reply, Reply)
    assert reply.status == 404


def test_aliases_are_listed() -> None:
    catalogue = make()[0].catalogue
    cards = {card["id"]: (card["root"], card["parent"]) for card in json.loads(catalogue.listing)["data"]}
    assert cards == {
        "small": ("small", None),
        "large": ("large", None),
        "large-law": ("large", "large"),
        "gpt-4o": ("large", None),
        "auto": ("small", None),
    }
    assert json.loads(catalogue.card("gpt-4o") or b"")["id"] == "gpt-4o"


def test_the_agent_alone_of_its_family_passes() -> None:
    exchange, _ = begin(make()[0], chat("small"), x_penstock_agent="planner", x_penstock_team="blue")
    assert exchange.request_changes.remove == {"x-penstock-team"}
    exchange = Exchange()
    names = [AGENT_HEADER, "x_penstock_agent", "x-penstock_agent", "x-penstock-agents"]
    fields = [(":method", "POST"), (":path", "/v1/embeddings"), *((name, "a") for name in names)]
    exchange.request_headers = Headers((name, value.encode()) for name, value in fields)
    make()[0].open(exchange).on_request_headers()
    assert exchange.request_changes.remove == set(names[1:])


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"auto","n":12345678901234567890123,"x":1.10,"y":{"model":"auto","a":1,"a":2}}',
        b'{ "y" : [{"model" : "auto"}, "\\"model\\":"], "z":"{[", "model"\n:\t"auto" , "messages": []}',
        b'{"messages":[{"content":"\\\\"}],"\\u006dodel":"au\\u0074o","u":"\xc3\xa4"}',
        b'{"model":"auto"}',
    ],
)
def test_no_other_byte_changes(body: bytes) -> None:
    exchange, reply = begin(make()[0], body)
    assert reply is None
    for old in (b'"model":"auto",', b'"model"\n:\t"auto"', b'"au\\u0074o"', b'"model":"auto"}'):
        if old in body:
            new = old.replace(b"auto", b"small").replace(b"au\\u0074o", b"small")
            assert exchange.request_body == body.replace(old, new, 1)
            break


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(max_size=12)
    | st.sampled_from(["model", '"model":', "\\"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "a", '\\"model', "{", "mod\\u0065l"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.dictionaries(st.text(max_size=6), values, max_size=4), st.text(min_size=1, max_size=8), st.booleans())
def test_the_model_is_replaced_in_any_body(body: dict[str, Any], model: str, spaced: bool) -> None:
    body = {**body, "model": model, "after": {"model": [model]}}
    raw = json.dumps(body, indent=1 if spaced else None, ensure_ascii=spaced).encode("utf-8", "replace")
    try:
        read_model(raw, lambda: orjson.loads(raw))
    except Refused:
        return
    assert orjson.loads(with_model(raw, 'new"')) == {**orjson.loads(raw), "model": 'new"'}


def test_text_of_prompts() -> None:
    body = {
        "instructions": "a",
        "messages": [
            {"role": "user", "content": "b"},
            {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "image_url", "image_url": "no"}]},
        ],
        "input": ["d", [1, 2]],
        "user": "no",
    }
    assert text_of(body) == "a\nb\nc\nd"
    deep: Any = "end"
    for _ in range(5000):
        deep = [deep]
    assert text_of({"prompt": deep}) == "end"


# classifiers


@asynccontextmanager
async def classifier(answer: bytes, seen: list[Any], **config: Any) -> AsyncIterator[tuple[BodyRouter, Counts]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length: ")[1].split(b"\r")[0])
            seen.append(orjson.loads(await reader.readexactly(length)))
            writer.write(
                b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer)
            )
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    router, counts = make(classifiers=[{"model": "auto", "url": url, **config}])
    try:
        yield router, counts
    finally:
        assert router.routing is not None
        await router.routing.stop()
        server.close()


async def classified(router: BodyRouter, body: bytes) -> tuple[Exchange, Reply | None]:
    exchange, answer = begin(router, body)
    return exchange, answer if answer is None or isinstance(answer, Reply) else await answer


async def test_a_classifier_chooses_where_no_route_has() -> None:
    seen: list[Any] = []
    async with classifier(b'{"model": "large-law"}', seen) as (router, counts):
        exchange, reply = await classified(router, chat("auto", "hi"))
        assert reply is None
        assert exchange.request_changes.set["x-gateway-base-model-name"] == "large"
        assert orjson.loads(exchange.request_body)["model"] == "large-law"
        await classified(router, chat("auto", "x" * 200))
        await classified(router, chat("gpt-4o"))
    assert seen == [{"model": "auto", "path": "/v1/chat/completions", "body": orjson.loads(chat("auto", "hi"))}]
    assert counts.decisions.counts["classifier", "auto"] == 1


@pytest.mark.parametrize("answer", [b'{"model": "gpt-4o"}', b'{"model": "none"}', b'{"model": ["large"]}', b"[]", b"{"])
async def test_a_classifier_that_fails(answer: bytes) -> None:
    async with classifier(answer, []) as (router, counts):
        _, reply = await classified(router, chat("auto"))
        assert reply is not None
        assert reply.status == 503
        assert orjson.loads(reply.body)["error"]["code"] == "classifier_unavailable"
        assert counts.decisions.counts["failed", "classifier:auto"] == 1
    async with classifier(answer, [], failOpen=True) as (router, _):
        exchange, reply = await classified(router, chat("auto"))
        assert reply is None
        assert exchange.request_changes.set["x-gateway-model-name"] == "small"


def test_all_problems_of_rules_at_once() -> None:
    text = """
    models: [{name: small, adapters: [law]}]
    aliases:
      - {name: law, model: small}
      - {name: a, model: nope}
      - {name: a, model: a}
    promptRoutes:
      - {name: r, model: auto, when: "promptChar > 1", to: small}
      - {name: r, model: a, when: "body.x ==", to: none}
      - {name: Bad_Name, model: a, when: "true", to: small}
    classifiers:
      - {model: b, url: "http://example.com/"}
    """
    with pytest.raises(ConfigError) as caught:
        parse_config(text, Settings)
    found = {problem.path: problem.expected for problem in caught.value.problems}
    assert found.pop("classifiers[0]").endswith("use https")
    assert "did you mean promptChars?" in found.pop("promptRoutes[0].when")
    assert "at character 10" in found.pop("promptRoutes[1].when")
    assert "unknown model; known: a, law, small" in found.pop("promptRoutes[0].model")
    assert "unknown model; known: law, small" in found.pop("aliases[2].model")
    assert set(found) >= {
        "aliases[0].name",
        "aliases[1].model",
        "aliases[2].name",
        "promptRoutes[1].name",
        "promptRoutes[1].to",
        "promptRoutes[2].name",
        "classifiers[0].model",
    }
