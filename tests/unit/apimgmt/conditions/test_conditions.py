"""`when` over real exchanges."""

import logging
from typing import Any

import orjson
import pytest

from services.apimgmt.call import Call, Caller, Credential
from services.apimgmt.conditions import compile_condition, facts
from services.extproc.api import Exchange, Headers


def make_call(body: dict[str, Any] | None = None, **headers: str) -> Call:
    exchange = Exchange()
    fields = {":method": "POST", ":path": "/v1/chat/completions?x=1", "x-gateway-model-name": "gemma", **headers}
    exchange.request_headers = Headers(
        (name.replace("_", "-"), value.encode("utf-8", "surrogateescape")) for name, value in fields.items()
    )
    call = Call(exchange, "call-1", 0.0, 0.0)
    call.body, call.prompt_tokens, call.stream = body or {}, 120, True
    call.caller = Caller("acme", "red", "ada@example.com", "bot", "k1", Credential.API_KEY, ())
    return call


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("request.path == '/v1/chat/completions' && request.method == 'POST'", True),
        ("request.model == 'gemma' && request.stream", True),
        ("!request.stream", False),
        ("caller.organization == 'acme' && caller.team == 'red' && caller.app == 'bot' && caller.key == 'k1'", True),
        ("caller.user.endsWith('@example.com')", True),
        ("product == ''", True),
        ("promptTokens > 100", True),
        ("promptTokens > 1000", False),
        ("has(body.user) && body.user == 'batch'", True),
        ("body.messages.exists(m, m.role == 'tool')", False),
        ("request.headers['x-tier'] == 'gold'", True),
        ("'x-none' in request.headers", False),
        ("'authorization' in request.headers || 'x-api-key' in request.headers || ':path' in request.headers", False),
    ],
)
def test_what_a_condition_sees(text: str, holds: bool) -> None:
    body = {"user": "batch", "messages": [{"role": "user", "content": "hi"}]}
    call = make_call(body, x_tier="gold", authorization="Bearer secret", x_api_key="secret")
    assert compile_condition(text)(call) is holds


def test_before_the_caller_is_known() -> None:
    call = make_call()
    call.caller = None
    assert compile_condition("caller.team == ''")(call)


def test_without_a_value_the_policy_runs_and_it_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    condition = compile_condition("body.secret == 'no'")
    with caplog.at_level(logging.WARNING):
        assert condition(make_call({"other": "private text"}))
        assert condition(make_call())
    assert condition.failed == 2
    assert len(caplog.records) == 1
    assert "private" not in str(vars(caplog.records[0]))


def test_refused_with_place_and_fix() -> None:
    with pytest.raises(
        ValueError, match=r"at character 8: unknown variable reqest\.model; did you mean request\.model"
    ):
        compile_condition("reqest.model == 'a'")


def test_facts_hold_no_credential() -> None:
    call = make_call({"a": 1}, cookie="secret", x_tier="gold")
    found = facts(call, body=True)
    assert found["request"]["headers"] == {"x-gateway-model-name": "gemma", "x-tier": "gold"}
    assert found["body"] == {"a": 1}
    assert "body" not in facts(call, body=False)
    assert "secret" not in str(found)


def test_facts_can_be_written_as_json() -> None:
    call = make_call({}, x_raw="caf\udce9")
    assert orjson.loads(orjson.dumps(facts(call, body=True)))["request"]["headers"]["x-raw"] == "caf?"


@pytest.mark.parametrize("name", ["x-penstock-team", "x-penstock-agent", "X_penstock_team"])
def test_an_identity_that_a_client_wrote_is_not_seen(name: str) -> None:
    exchange = make_call().exchange
    exchange.request_headers = Headers([(":method", b"POST"), (name.lower(), b"red"), ("x-tier", b"gold")])
    call = Call(exchange, "call-1", 0.0, 0.0)
    assert facts(call, body=False)["request"]["headers"] == {"x-tier": "gold"}
    assert not compile_condition(f"'{name.lower()}' in request.headers")(call)
