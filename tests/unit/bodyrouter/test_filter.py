"""The filter: operations, headers, errors, the model list, metrics."""

import itertools
import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.bodyrouter.filter import BodyRouter, Counts
from services.bodyrouter.settings import Settings
from services.extproc.api import Exchange, Headers, Reply

CONFIG = {
    "models": [
        {"name": "llama-3.1-8b"},
        {"name": "org/gemma-3-12b", "adapters": ["LoRA-1-gemma", "LoRA-2-gemma"]},
    ]
}
CHAT = "/v1/chat/completions"
JSON = ("content-type", "application/json")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def router(registry: CollectorRegistry) -> BodyRouter:
    return make(registry)


def make(registry: CollectorRegistry, **config: Any) -> BodyRouter:
    return BodyRouter(Settings.model_validate({**CONFIG, **config}), Counts(registry), created=1_700_000_000)


def run(
    router: BodyRouter, method: str, path: str, headers: list[tuple[str, str]] | None = None, body: bytes = b""
) -> tuple[Exchange, Reply | None]:
    """Take one exchange through the hooks, as a session does."""
    exchange = Exchange()
    fields = [(":method", method), (":path", path), *([JSON] if headers is None else headers)]
    exchange.request_headers = Headers((name, value.encode()) for name, value in fields)
    stream = router.open(exchange)
    reply = stream.on_request_headers()
    if reply is None:
        exchange.request_body = body
        reply = stream.on_request_body()
    assert reply is None or isinstance(reply, Reply)
    return exchange, reply


def error(reply: Reply | None) -> dict[str, Any]:
    assert reply is not None
    assert reply.headers["content-type"] == "application/json"
    parsed: dict[str, Any] = json.loads(reply.body)
    assert set(parsed) == {"error"}
    assert set(parsed["error"]) == {"message", "type", "param", "code"}
    return {"status": reply.status, **parsed["error"]}


def body(model: object) -> bytes:
    return json.dumps({"model": model, "messages": []}).encode()


ROUTED = ["chat/completions", "completions", "embeddings", "responses", "rerank", "score"]

QUERIES = ["", "?", "?a=b&model=llama-3.1-8b", "?/v1/x?y"]


@pytest.mark.parametrize(("path", "query"), list(itertools.product(ROUTED, QUERIES)))
def test_routes_by_model(router: BodyRouter, path: str, query: str) -> None:
    exchange, reply = run(router, "POST", f"/v1/{path}{query}", body=body("org/gemma-3-12b"))
    assert reply is None
    assert exchange.request_changes.set == {"x-gateway-model-name": "org/gemma-3-12b"}
    assert exchange.clear_route_cache


def test_an_adapter_names_its_base(router: BodyRouter) -> None:
    exchange, reply = run(router, "POST", CHAT, body=body("LoRA-2-gemma"))
    assert reply is None
    assert exchange.request_changes.set == {
        "x-gateway-model-name": "LoRA-2-gemma",
        "x-gateway-base-model-name": "org/gemma-3-12b",
    }
    assert exchange.notes == {"bodyrouter.model": "LoRA-2-gemma"}


SMUGGLED = [
    "x-gateway-model-name",
    "x-gateway-base-model-name",
    "x-gateway-model-name-rewrite",
    "x-gateway-destination-endpoint",
    "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint-served",
    "x-gateway-destination-endpoint-scores",
    "x-gateway-inference-objective",
    "x-gateway-inference-fairness-id",
    "x-gateway-anything-to-come",
    "x-llm-d-inference-objective",
    "x-llm-d-inference-fairness-id",
    "x-llm-d-model-name-rewrite",
    "x-llm-d-slo-ttft-ms",
    "x-llm-d-request-dropped-reason",
    "x-slo-ttft-ms",
    "x-slo-tpot-ms",
    "x-prefiller-host-port",
    "x-prefiller-url",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-data-parallel-rank",
    "x-kv-cache-source-host-port",
    "x-session-token",
    "x-session-id",
    "x-penstock-user",
    "x-penstock-verdict",
    "test-epp-endpoint-selection",
]
KEPT = ["authorization", "x-request-id", "x-gatewaymodel", "gateway-model-name", "traceparent", "x-forwarded-for", "x"]


@pytest.mark.parametrize("name", SMUGGLED)
def test_clients_cannot_send_trusted_headers(router: BodyRouter, name: str) -> None:
    for spelling in (name, name.upper(), name.title(), name.replace("-", "_")):
        headers = [JSON, (spelling, "a"), (spelling, "b"), *((kept, "k") for kept in KEPT)]
        for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("GET", "/metrics"), ("PUT", CHAT), ("POST", "/")):
            exchange, _ = run(router, method, path, headers, body("llama-3.1-8b"))
            assert exchange.request_changes.remove == {spelling.lower()}, (method, path)


def test_smuggled_model_headers_do_not_outlive_the_routers_own(router: BodyRouter) -> None:
    headers = [JSON, ("x-gateway-model-name", "LoRA-1-gemma"), ("x-gateway-base-model-name", "org/gemma-3-12b")]
    exchange, _ = run(router, "POST", CHAT, headers, body("llama-3.1-8b"))
    changes = exchange.request_changes
    assert changes.set == {"x-gateway-model-name": "llama-3.1-8b"}
    assert "x-gateway-base-model-name" in changes.remove


def test_config_may_let_named_headers_through(registry: CollectorRegistry) -> None:
    router = make(registry, allowClientHeaders=["X-SLO-TTFT-ms"])
    exchange, _ = run(
        router, "POST", CHAT, [JSON, ("x-slo-ttft-ms", "1"), ("x-slo-tpot-ms", "1")], body("LoRA-1-gemma")
    )
    assert exchange.request_changes.remove == {"x-slo-tpot-ms"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("POST", "/v1//load_lora_adapter"),
        ("POST", "/v1/chat/completions/../../load_lora_adapter"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "/v1/chat%2Fcompletions"),
        ("POST", "/V1/chat/completions"),
        ("POST", "//v1/chat/completions"),
        ("POST", "/v1/chat/completions;x"),
        ("POST", "http://h/v1/chat/completions"),
        ("POST", "/v1/audio/transcriptions"),
        ("POST", "/v1/tokenize"),
        ("POST", "/tokenize"),
        ("POST", "/invocations"),
        ("POST", "/pause"),
        ("GET", "/v1/responses/resp_1"),
        ("GET", "/metrics"),
        ("GET", "/health"),
        ("GET", "/docs"),
        ("GET", "/v1/modelsx"),
        ("GET", "/"),
        ("GET", "*"),
        ("GET", ""),
        ("", ""),
    ],
)
def test_unknown_operations(router: BodyRouter, method: str, path: str) -> None:
    exchange, reply = run(router, method, path, body=body("llama-3.1-8b"))
    found = error(reply)
    assert (found["status"], found["code"], found["type"]) == (404, "unknown_url", "invalid_request_error")
    assert exchange.request_changes.set == {}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "post", "CONNECT"])
def test_wrong_method(router: BodyRouter, method: str) -> None:
    _, reply = run(router, method, CHAT, body=body("llama-3.1-8b"))
    assert error(reply)["code"] == "method_not_supported"
    assert reply is not None
    assert (reply.status, reply.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("method", ["POST", "HEAD", "DELETE"])
def test_the_model_list_is_only_read(router: BodyRouter, method: str) -> None:
    for path in ("/v1/models", "/v1/models/llama-3.1-8b"):
        _, reply = run(router, method, path)
        assert reply is not None
        assert (reply.status, reply.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize(
    "value", ["application/json", "Application/JSON", "application/json; charset=utf-8", " application/json "]
)
def test_json_content_types(router: BodyRouter, value: str) -> None:
    _, reply = run(router, "POST", CHAT, [("content-type", value)], body("llama-3.1-8b"))
    assert reply is None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("content-type", "")],
        [("content-type", "text/plain")],
        [("content-type", "multipart/form-data; boundary=x")],
        [("content-type", "application/x-www-form-urlencoded")],
        [("content-type", "application/jsonx")],
        [JSON, ("content-type", "multipart/form-data")],
        [("content-type", "application/json, text/plain")],
    ],
)
def test_other_content_types(router: BodyRouter, headers: list[tuple[str, str]]) -> None:
    found = error(run(router, "POST", CHAT, headers, body("llama-3.1-8b"))[1])
    assert (found["status"], found["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("values", [["gzip"], ["br"], ["identity, gzip"], ["identity", "deflate"], ["GZIP"]])
def test_encoded_bodies(router: BodyRouter, values: list[str]) -> None:
    headers = [JSON, *(("content-encoding", value) for value in values)]
    found = error(run(router, "POST", CHAT, headers, body("llama-3.1-8b"))[1])
    assert (found["status"], found["code"]) == (415, "unsupported_content_encoding")
    assert run(router, "POST", CHAT, [JSON, ("content-encoding", "identity")], body("llama-3.1-8b"))[1] is None


def test_body_errors_are_400_in_openais_shape(router: BodyRouter) -> None:
    found = error(run(router, "POST", CHAT, body=b'{"messages":[]}')[1])
    assert found == {
        "status": 400,
        "message": "Missing required parameter: 'model'.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "missing_required_parameter",
    }
    assert error(run(router, "POST", CHAT)[1])["code"] == "empty_body"


def test_unknown_model(router: BodyRouter) -> None:
    exchange, reply = run(router, "POST", CHAT, body=body("gpt-5"))
    found = error(reply)
    assert found.pop("message").startswith("The model `gpt-5` does not exist")
    assert found == {"status": 404, "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    assert exchange.request_changes.set == {}
    assert not exchange.clear_route_cache


@pytest.mark.parametrize("model", ["x" * 256, "\u202e\x00\x7f\r\nevil", "模" * 256, " llama-3.1-8b", "LLAMA-3.1-8B"])
def test_errors_repeat_little_of_what_the_client_sent(router: BodyRouter, model: str) -> None:
    text = error(run(router, "POST", CHAT, body=body(model))[1])["message"]
    assert len(text) < 160
    assert text.isprintable()
    text = error(run(router, "GET" * 50, "/" + model * 20)[1])["message"]
    assert len(text) < 160


def test_bytes_that_are_not_utf8_in_the_path_do_no_harm(router: BodyRouter) -> None:
    exchange = Exchange()
    exchange.request_headers = Headers([(":method", b"GET"), (":path", b"/v1/models/\xff\xfe"), ("x-slo-\xff", b"1")])
    reply = router.open(exchange).on_request_headers()
    assert isinstance(reply, Reply)
    assert error(reply)["code"] == "model_not_found"


def test_model_list(router: BodyRouter) -> None:
    for path in ("/v1/models", "/v1/models?limit=1", "/v1/models/"):
        exchange, reply = run(router, "GET", path, [])
        assert reply is not None
        assert (reply.status, dict(reply.headers)) == (200, {"content-type": "application/json"})
        listing = json.loads(reply.body)
        assert listing["object"] == "list"
        assert [(m["id"], m["root"], m["parent"]) for m in listing["data"]] == [
            ("llama-3.1-8b", "llama-3.1-8b", None),
            ("org/gemma-3-12b", "org/gemma-3-12b", None),
            ("LoRA-1-gemma", "org/gemma-3-12b", "org/gemma-3-12b"),
            ("LoRA-2-gemma", "org/gemma-3-12b", "org/gemma-3-12b"),
        ]
        for card in listing["data"]:
            assert (card["object"], card["created"], card["owned_by"]) == ("model", 1_700_000_000, "penstock")
    assert exchange.request_changes.set == {}


@pytest.mark.parametrize("identifier", ["org/gemma-3-12b", "org%2Fgemma-3-12b", "org%2fgemma%2D3-12b"])
def test_one_model(router: BodyRouter, identifier: str) -> None:
    _, reply = run(router, "GET", f"/v1/models/{identifier}?x=y", [])
    assert reply is not None
    assert json.loads(reply.body)["id"] == "org/gemma-3-12b"


@pytest.mark.parametrize("identifier", ["nope", "llama-3.1-8b/", "..", "%00", "%"])
def test_one_unknown_model(router: BodyRouter, identifier: str) -> None:
    found = error(run(router, "GET", f"/v1/models/{identifier}", [])[1])
    assert (found["status"], found["code"], found["param"]) == (404, "model_not_found", "model")


def test_metrics_have_a_bounded_number_of_series(router: BodyRouter, registry: CollectorRegistry) -> None:
    for i in range(20):
        run(router, "POST", CHAT, body=body(f"made-up-{i}"))
        run(router, "POST", f"/made-up-{i}")
    run(router, "POST", CHAT, body=body("LoRA-1-gemma"))
    run(router, "POST", CHAT, body=b"{}")
    run(router, "PUT", CHAT)
    run(router, "GET", "/v1/models", [])
    requests, errors = "penstock_body_router_requests_total", "penstock_body_router_errors_total"
    seen = {
        (*sorted(sample.labels.items()), sample.value)
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == requests
    }
    assert {(model, operation, value) for (_, model), (_, operation), value in seen} == {
        ("unknown", "chat_completions", 20.0),
        ("none", "unknown", 20.0),
        ("LoRA-1-gemma", "chat_completions", 1.0),
        ("none", "chat_completions", 2.0),
        ("none", "models", 1.0),
    }
    assert registry.get_sample_value(errors, {"code": "model_not_found"}) == 20
    assert registry.get_sample_value(errors, {"code": "unknown_url"}) == 20
    assert registry.get_sample_value(errors, {"code": "missing_required_parameter"}) == 1


def test_fails_closed(router: BodyRouter) -> None:
    assert router.fail_open is False
