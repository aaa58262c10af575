"""Aliases and prompt routes behind a real Envoy: pool, body and length are those of the model that serves."""

import json

import pytest

from tests.contract.bodyrouter.conftest import CONFIG, Routed, chat

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}

RULES = """
aliases:
  - {name: a, model: llama-3.1-8b}
  - {name: a-name-that-is-much-longer-than-that-of-the-model-that-serves-in-its-place, model: gemma-3-12b}
promptRoutes:
  - {name: long, model: a, when: promptChars > 1000, to: LoRA-1-gemma}
"""
LONG = "a-name-that-is-much-longer-than-that-of-the-model-that-serves-in-its-place"

pytestmark = pytest.mark.parametrize("path", [CONFIG + RULES], indirect=True)


@pytest.mark.parametrize(
    ("asked", "size", "pool", "served"),
    [
        ("a", 10, "llama", "llama-3.1-8b"),
        ("a", 2_000, "gemma", "LoRA-1-gemma"),
        ("a", 300_000, "gemma", "LoRA-1-gemma"),
        (LONG, 10, "gemma", "gemma-3-12b"),
        (LONG, 300_000, "gemma", "gemma-3-12b"),
    ],
)
async def test_the_body_names_the_model_that_serves(
    path: Routed, asked: str, size: int, pool: str, served: str
) -> None:
    body = chat(asked, size)
    answer = await path.client.post(CHAT, content=body, headers={**JSON, "x-penstock-agent": "planner"})
    assert answer.status_code == 200
    (request,) = (path.llama if pool == "llama" else path.gemma).requests
    assert request.body == body.replace(f'"{asked}"'.encode(), f'"{served}"'.encode(), 1)
    assert json.loads(request.body)["model"] == request.headers["x-gateway-model-name"] == served
    assert request.headers["x-penstock-agent"] == "planner"
    assert len((path.gemma if pool == "llama" else path.llama).requests) == 0


async def test_aliases_are_listed(path: Routed) -> None:
    cards = {card["id"]: card["root"] for card in (await path.client.get("/v1/models")).json()["data"]}
    assert cards["a"] == "llama-3.1-8b"
    assert cards[LONG] == "gemma-3-12b"
