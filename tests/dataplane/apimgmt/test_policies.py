"""Shadow mode, template rules, output caps and what the service says about itself."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.dataplane.apimgmt.declaration import SLOW, config_file
from tests.dataplane.apimgmt.managed import CHAT, Managed, chat
from tests.dataplane.apimgmt.test_limits import limit
from tests.dataplane.apimgmt.test_refusals import refused
from tests.support.stack import ROOT

pytestmark = pytest.mark.xdist_group("apimgmt")


async def test_a_limit_in_shadow_mode_never_refuses_but_is_recorded(sqlite: Managed) -> None:
    tenant = sqlite.tenant([limit("trial", "requests", 2) | {"mode": "shadow"}])
    async with tenant.http() as http:
        answers = [await http.post(CHAT, json=chat(stream=i % 2 == 1)) for i in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 5
    assert not any("x-ratelimit-limit-requests" in answer.headers for answer in answers)
    records = await tenant.recorded(5, outcome="ok")
    policy = f"limits/{tenant.name}-trial"
    would = [[(v["policy"], v["verdict"], v["shadow"]) for v in record["verdicts"]] for record in records]
    assert would == [[], []] + [[(policy, "deny", True)]] * 3
    await tenant.balanced()


async def test_a_policy_in_shadow_mode_has_no_effect(sqlite: Managed) -> None:
    uses = [
        {"policy": "prompt-limit", "mode": "shadow", "settings": {"maxTokens": 1}},
        {"policy": "spike-arrest", "mode": "shadow", "settings": {"requests": {"amount": 1, "per": "minute"}}},
    ]
    tenant = sqlite.tenant(product={"policies": uses})
    async with tenant.http() as http:
        answers = await asyncio.gather(*(http.post(CHAT, json=chat()) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    records = await tenant.recorded(4)
    found = [{v["policy"] for v in r["verdicts"] if v["shadow"]} for r in records]
    assert all("prompt-limit" in names for names in found)
    assert sum("spike-arrest" in names for names in found) == 3
    assert {r["outcome"] for r in records} == {"ok"}
    await tenant.balanced()


async def test_conditions_choose_the_requests_of_a_policy(sqlite: Managed) -> None:
    use = {"policy": "prompt-limit", "when": f"request.model == '{SLOW}'", "settings": {"maxTokens": 1}}
    tenant = sqlite.tenant(product={"policies": [use]})
    async with tenant.http() as http:
        refused(await http.post(CHAT, json=chat(model=SLOW)), 400, "context_length_exceeded")
        assert (await http.post(CHAT, json=chat())).status_code == 200
    await tenant.recorded(1, outcome="refused", status=400)
    await tenant.balanced()


async def test_the_longest_answer_of_a_product(sqlite: Managed) -> None:
    tenant = sqlite.tenant(product={"maxOutputTokens": 6})
    async with tenant.http() as http:
        body = chat(ignore_eos=True)
        del body["max_tokens"]
        answer = await http.post(CHAT, json=body)
        assert answer.json()["usage"]["completion_tokens"] == 6
        refused(await http.post(CHAT, json=chat(max_tokens=7)), 400, "max_tokens_too_large")
    await tenant.balanced()


def test_a_product_against_a_template_rule_is_not_saved(sqlite: Managed) -> None:
    rule = "/templateRules/no-cache"
    sqlite.put(rule, {"denied": ["cache"]})
    try:
        body: dict[str, Any] = {"models": ["*"], "policies": [{"policy": "cache"}]}
        answer = sqlite.admin.put("/products/against", json=body)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert "no-cache" in answer.text
        assert sqlite.admin.get("/products/against").status_code == 404
    finally:
        etag = sqlite.admin.get(rule).headers["etag"]
        assert sqlite.admin.delete(rule, headers={"if-match": etag}).status_code == 204


def test_a_declared_product_against_a_template_rule_is_no_start(sqlite: Managed, tmp_path: Path) -> None:
    piece = sqlite.stack.pieces[sqlite.pods[0]]
    settings = yaml.safe_load(config_file(piece).read_text())
    settings["store"]["path"] = str(tmp_path / "store.db")
    settings["templateRules"] = [{"name": "no-cache", "denied": ["cache"]}]
    settings["products"] = [{"name": "against", "models": ["*"], "policies": [{"policy": "cache"}]}]
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(settings))
    ports = ("--grpc-port=0", "--health-port=0", "--metrics-port=0", "--admin-port=0")
    flags = [word for word in piece.command if not word.startswith("--") or word == "--address=127.0.0.1"]
    command = [*flags, f"--config-file={file}", "--tls-mode=off", *ports]
    environ = dict(piece.env)
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "no-cache" in ended.stderr
    assert "products[0]" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_metrics_agree_with_the_ledger(managed: Managed) -> None:
    """Of all pods together, by outcome; tokens and cost too."""
    tenant = managed.tenant([limit("few", "requests", 6)])
    async with tenant.http() as http:
        answers = [await http.post(CHAT, json=chat(stream=i % 2 == 0)) for i in range(9)]
        await http.post(CHAT, json=chat() | {"temperature": "hot"})
    assert [a.status_code for a in answers] == [200] * 6 + [429] * 3
    assert all(0 < float(a.headers["x-penstock-overhead-ms"]) < 1000 for a in answers)
    records = await tenant.recorded(10)
    samples = [await managed.stack.metrics(pod) for pod in managed.pods]

    def summed(name: str, **labels: str) -> float:
        wanted = [f'{key}="{value}"' for key, value in {"organization": tenant.name, **labels}.items()]
        return sum(
            value
            for pod in samples
            for key, value in pod.items()
            if key.startswith(f"penstock_apimgmt_{name}_total{{") and all(pair in key for pair in wanted)
        )

    ok = [r for r in records if r["outcome"] == "ok"]
    assert summed("requests", outcome="ok") == len(ok) == 6
    assert summed("requests", outcome="refused", code="insufficient_quota") == 3
    probes = sum(r["organization"] == tenant.name and r["app"] == "probe" for r in managed.records())
    assert summed("requests", outcome="refused") == 4 + probes
    assert summed("tokens", kind="completion") == sum(r["completionTokens"] for r in ok)
    assert summed("tokens", kind="prompt") == sum(r["promptTokens"] for r in ok)
    assert summed("cost_micros") == sum(r["costMicros"] for r in ok)
    assert sum(pod["penstock_apimgmt_in_flight"] for pod in samples) == 0
    assert sum(pod["penstock_apimgmt_settlements_waiting"] for pod in samples) == 0
