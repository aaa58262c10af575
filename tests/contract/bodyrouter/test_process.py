"""The body router as it runs: its own process, ext_proc over TLS from a real Envoy, routes by its headers."""

import re
import subprocess
import sys
from pathlib import Path

import httpx

from tests.contract.bodyrouter.conftest import REPOSITORY, Routed, chat

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


async def test_models_and_adapters_reach_their_pool(path: Routed) -> None:
    for model in ("llama-3.1-8b", "gemma-3-12b", "LoRA-1-gemma"):
        body = chat(model)
        answer = await path.client.post(CHAT + "?x=y", content=body, headers=JSON)
        assert (answer.status_code, answer.content) == (200, body)
    assert [r.headers["x-gateway-model-name"] for r in path.llama.requests] == ["llama-3.1-8b"]
    assert [r.headers["x-gateway-model-name"] for r in path.gemma.requests] == ["gemma-3-12b", "LoRA-1-gemma"]
    assert [r.headers.get("x-gateway-base-model-name") for r in path.gemma.requests] == [None, "gemma-3-12b"]
    assert path.gemma.requests[0].path == CHAT + "?x=y"


async def test_smuggled_headers_change_nothing_and_do_not_arrive(path: Routed) -> None:
    smuggled = [
        (name, value)
        for name in (
            "X-Gateway-Model-Name",
            "x-gateway-base-model-name",
            "X-GATEWAY-DESTINATION-ENDPOINT",
            "x-llm-d-inference-objective",
            "x-penstock-user",
            "x-prefiller-host-port",
            "x-data-parallel-rank",
            "x_gateway_model_name",
        )
        for value in ("gemma-3-12b", "LoRA-1-gemma")
    ]
    answer = await path.client.post(
        CHAT, content=chat("llama-3.1-8b"), headers=[*JSON.items(), *smuggled, ("x-mine", "1")]
    )
    assert answer.status_code == 200
    assert not path.gemma.requests
    (request,) = path.llama.requests
    assert request.headers["x-gateway-model-name"] == "llama-3.1-8b"
    assert request.headers["x-mine"] == "1"
    names = {name.lower() for name, _ in smuggled} - {"x-gateway-model-name"}
    assert not names & set(request.headers)


async def test_errors_come_in_openais_shape_and_nothing_reaches_a_pool(path: Routed) -> None:
    cases = [
        ("POST", CHAT, JSON, b"", 400, "empty_body"),
        ("POST", CHAT, JSON, b"{", 400, "invalid_json"),
        ("POST", CHAT, JSON, b'{"model":"gemma-3-12b","mod\\u0065l":"llama-3.1-8b"}', 400, "duplicate_parameter"),
        ("POST", CHAT, JSON, b"[" * 50_000, 400, "nesting_too_deep"),
        ("POST", CHAT, JSON, chat("nope"), 404, "model_not_found"),
        ("POST", CHAT, JSON, chat("llama-3.1-8b", 2 * 1024 * 1024), 413, "request_too_large"),
        ("POST", CHAT, {}, chat("llama-3.1-8b"), 415, "unsupported_media_type"),
        ("POST", CHAT, {**JSON, "content-encoding": "gzip"}, b"\x1f\x8b", 415, "unsupported_content_encoding"),
        ("POST", "/v1/load_lora_adapter", JSON, b'{"lora_name":"x"}', 404, "unknown_url"),
        ("PUT", CHAT, JSON, b"{}", 405, "method_not_supported"),
        ("GET", "/metrics", {"x-gateway-model-name": "llama-3.1-8b"}, None, 404, "unknown_url"),
        ("GET", "/v1/models/nope", {}, None, 404, "model_not_found"),
    ]
    for method, target, headers, body, status, code in cases:
        answer = await path.client.request(method, target, headers=headers, content=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), (method, target, answer.text)
        assert answer.headers["content-type"] == "application/json"
    assert not path.llama.requests
    assert not path.gemma.requests


async def test_model_list_and_metrics(path: Routed) -> None:
    answer = await path.client.get("/v1/models")
    assert [model["id"] for model in answer.json()["data"]] == ["llama-3.1-8b", "gemma-3-12b", "LoRA-1-gemma"]
    assert (await path.client.get("/v1/models/LoRA-1-gemma")).json()["parent"] == "gemma-3-12b"
    await path.client.post("/v1/embeddings", content=chat("LoRA-1-gemma"), headers=JSON)
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(path.metrics_url)).text
    found = re.findall(r'^penstock_body_router_requests_total\{model="(.*)",operation="(.*)"\} (.*)$', text, re.M)
    assert sorted(found) == [("LoRA-1-gemma", "embeddings", "1.0"), ("none", "models", "2.0")]


async def test_large_body_arrives_unchanged(path: Routed) -> None:
    body = chat("gemma-3-12b", 1_000_000)
    answer = await path.client.post(CHAT, content=body, headers=JSON)
    assert answer.status_code == 200
    assert path.gemma.requests[0].body == body


def test_wrong_config_ends_with_every_problem(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "models: [{name: a, adapters: [a]}]\nmaxBodyBytes: 1\nallowClientHeaders: [x-gateway-model-name]\n"
    )
    command = [sys.executable, "-m", "services.bodyrouter", "--config-file", str(config)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    for expected in (str(config), "3 problems", "models[0].adapters[0]", "maxBodyBytes", "allowClientHeaders[0]"):
        assert expected in ended.stderr
