"""Recorded requests through other configurations: what would have become of them."""

from typing import Any

import pytest

from services.apimgmt.recording import Recorded
from services.apimgmt.replay import Decision, Run, replay
from services.apimgmt.settings import Settings

BEGIN = 1_699_999_980.0  # a whole minute, UTC
PASS = Decision("pass")

CONFIG: dict[str, Any] = {
    "store": {"kind": "sqlite", "path": "/nonexistent/never-opened.db"},
    "organizations": [{"name": "acme"}],
    "teams": [{"name": "red", "organization": "acme"}],
    "developers": [{"name": "ada@example.com", "organization": "acme", "team": "red"}],
    "products": [{"name": "chat", "models": ["gemma"]}],
    "apps": [
        {
            "name": "bot",
            "organization": "acme",
            "team": "red",
            "developer": "ada@example.com",
            "products": [{"product": "chat"}],
        }
    ],
}


def config(product: dict[str, Any] | None = None, **changes: Any) -> Settings:
    products = [{**CONFIG["products"][0], **(product or {})}]
    return Settings.model_validate({**CONFIG, "products": products, **changes})


def request(second: float = 0.0, **changes: Any) -> Recorded:
    fields = {
        "id": f"r{second}",
        "time": BEGIN + second,
        "organization": "acme",
        "team": "red",
        "user": "ada@example.com",
        "app": "bot",
        "key": "k1",
        "operation": "/v1/chat/completions",
        "model": "gemma",
        "expectedPromptTokens": 100,
        "maxOutput": 50,
        "promptTokens": 80,
        "completionTokens": 20,
        "status": 200,
        "outcome": "ok",
        "latencyMs": 500,
    }
    return Recorded.model_validate({**fields, **changes})


async def ran(settings: Settings, requests: list[Recorded], **options: Any) -> Run:
    return await replay(settings, requests, **{"bodies": False, **options})


async def test_nothing_changes() -> None:
    run = await ran(config(), [request(i) for i in range(3)])
    assert run.decisions == [PASS] * 3
    assert [(left.policy, left.where) for left in run.not_evaluated] == [("validation", "default")]


async def test_who_and_what_is_not_allowed() -> None:
    run = await ran(config(), [request(app="gone"), request(model="llama"), request(organization="other")])
    unknown, model, organization = run.decisions
    assert unknown == organization == Decision("unknown")
    assert (model.verdict, model.policy, model.code) == ("deny", "access", "model_not_allowed")


LIMITS = {"limits": [{"name": "few", "scope": "key", "kind": "requests", "amount": 2, "window": "minute"}]}
FEW = Decision("deny", "limits/few", "rate_limit_exceeded")


async def test_limits_hold_at_the_recorded_times() -> None:
    settings = config({"limits": ["few"]}, **LIMITS)
    run = await ran(settings, [request(0), request(10), request(20), request(59.9), request(60), request(61)])
    assert run.decisions == [PASS, PASS, FEW, FEW, PASS, PASS]


async def test_limits_per_key_tell_keys_apart() -> None:
    settings = config({"limits": ["few"]}, **LIMITS)
    run = await ran(settings, [request(i, key=f"k{i % 2}") for i in range(6)])
    assert run.decisions == [PASS] * 4 + [FEW] * 2


async def test_tokens_are_released_when_answers_end() -> None:
    limit = {"name": "tokens", "scope": "organization", "kind": "tokens", "amount": 300, "window": "day"}
    settings = config({"limits": ["tokens"]}, limits=[limit])
    # each reserves 150 and uses 100
    run = await ran(settings, [request(0), request(0.1), request(0.2), request(1), request(1.1)])
    denied = Decision("deny", "limits/tokens", "insufficient_quota")
    assert run.decisions == [PASS, PASS, denied, denied, denied]
    run = await ran(settings, [request(0), request(1), request(2)])
    assert run.decisions == [PASS, PASS, denied]
    run = await ran(settings, [request(0, promptTokens=10, completionTokens=10), request(1), request(2)])
    assert run.decisions == [PASS, PASS, PASS]


async def test_requests_at_the_same_time() -> None:
    limit = {"name": "one", "scope": "user", "kind": "concurrent", "amount": 1}
    run = await ran(config({"limits": ["one"]}, limits=[limit]), [request(0), request(0.4), request(0.5), request(0.6)])
    assert [decision.verdict for decision in run.decisions] == ["pass", "deny", "pass", "deny"]


async def test_spike_arrest_at_the_recorded_times() -> None:
    spike = {"policy": "spike-arrest", "settings": {"requests": {"amount": 1, "per": "second"}}}
    run = await ran(config(policies=[spike]), [request(0), request(0.5), request(1), request(1.9), request(2)])
    assert [decision.verdict for decision in run.decisions] == ["pass", "deny", "pass", "deny", "pass"]
    assert run.decisions[1] == Decision("deny", "spike-arrest", "spike_arrest")


async def test_shadow_denials_are_told() -> None:
    limit = {**LIMITS["limits"][0], "amount": 1, "mode": "shadow"}
    run = await ran(config({"limits": ["few"]}, limits=[limit]), [request(0), request(1)])
    assert run.decisions == [PASS, Decision("pass", shadow=(("limits/few", "rate_limit_exceeded"),))]


async def test_refused_then_and_answered_now() -> None:
    limit = {"name": "tokens", "scope": "organization", "kind": "tokens", "amount": 300, "window": "day"}
    refused = request(1, outcome="refused", status=429, promptTokens=0, completionTokens=0, latencyMs=0)
    run = await ran(config({"limits": ["tokens"]}, limits=[limit]), [request(0), refused, request(2)])
    # 100 used, then 100 expected and 20 as others had: 80 are left
    assert [decision.verdict for decision in run.decisions] == ["pass", "pass", "deny"]


SCRIPT = "function check(r) { if (r.body.user === 'bad') return {deny: {code: 'bad_user'}} }"


async def test_with_bodies() -> None:
    settings = config({"policies": [{"policy": "script", "settings": {"source": SCRIPT}}]})
    bodies = [{"model": "gemma", "messages": [{"role": "user", "content": "x"}], "user": user} for user in ("a", "bad")]
    requests = [
        request(i, body=body, headers={}) for i, body in enumerate([*bodies, {"model": "gemma", "messages": 1}])
    ]
    run = await ran(settings, requests, bodies=True)
    assert [(d.verdict, d.policy, d.code) for d in run.decisions[:2]] == [
        ("pass", "", ""),
        ("deny", "script", "bad_user"),
    ]
    assert (run.decisions[2].verdict, run.decisions[2].policy) == ("deny", "validation")
    assert run.not_evaluated == []


async def test_what_is_not_evaluated() -> None:
    policies = [
        {"policy": "external", "settings": {"url": "http://127.0.0.1:1/"}},
        {"policy": "script", "settings": {"source": SCRIPT}},
        {"policy": "script", "settings": {"source": "function check(r) {}", "body": False}},
        {"policy": "prompt-limit", "settings": {"maxTokens": 1}, "when": "body.user == 'a'"},
        {"policy": "cache", "mode": "off"},
    ]
    own = [{"policy": "prompt-limit", "settings": {"maxTokens": 10}, "when": "promptTokens > 5"}]
    run = await ran(config({"policies": own}, policies=policies), [request()])
    assert {(left.policy, left.where) for left in run.not_evaluated} == {
        ("external", "policies[0]"),
        ("script", "policies[1]"),
        ("prompt-limit", "policies[3]"),
        ("validation", "default"),
    }
    assert (run.decisions[0].policy, run.decisions[0].code) == ("prompt-limit", "context_length_exceeded")


@pytest.mark.parametrize("call_external", [False, True])
async def test_external_services_are_asked_only_when_told(call_external: bool) -> None:
    policies = [{"policy": "external", "settings": {"url": "http://127.0.0.1:1/"}}]
    run = await ran(config(policies=policies), [request()], call_external=call_external)
    code = run.decisions[0].code
    assert code == ("external_unavailable" if call_external else "")


async def test_streams_embeddings_and_responses_are_counted() -> None:
    limit = {"name": "tokens", "scope": "organization", "kind": "tokens", "amount": 1000, "window": "day"}
    settings = config({"limits": ["tokens"]}, limits=[limit])
    for change in ({"stream": True}, {"operation": "/v1/embeddings", "maxOutput": 0}, {"operation": "/v1/responses"}):
        run = await ran(settings, [request(i, promptTokens=180, **change) for i in range(7)])
        assert [decision.verdict for decision in run.decisions].index("deny") == 5, change
