"""Scripts in their processes: what they may do, and what they cannot."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from services.apimgmt.call import Call, Verdict
from services.apimgmt.policies.script import ScriptPolicy, ScriptSettings
from services.extproc.api import Reply
from tests.unit.apimgmt.calls import make_call, make_tools


@asynccontextmanager
async def running(source: str, **settings: Any) -> AsyncIterator[ScriptPolicy]:
    policy = ScriptPolicy(ScriptSettings.model_validate({"source": source, **settings}), make_tools())
    await policy.start()
    try:
        yield policy
    finally:
        await policy.stop()


async def ran(policy: ScriptPolicy, call: Call | None = None) -> Reply | None:
    answer = policy.check(call or make_call())
    return answer if answer is None or isinstance(answer, Reply) else await answer


def error(reply: Reply | None) -> tuple[int, str]:
    assert reply is not None
    return reply.status, orjson.loads(reply.body)["error"]["code"]


async def test_what_a_script_sees() -> None:
    source = """
    function check(request) {
      const seen = [request.request.path, request.request.method, request.request.model, request.request.stream,
                    request.caller.team, request.product, request.promptTokens, request.body.messages[0].content,
                    request.request.headers["x-tier"], request.request.headers["authorization"]];
      return {deny: {status: 418, code: "seen", message: JSON.stringify(seen)}};
    }"""
    async with running(source) as policy:
        call = make_call({"messages": [{"content": "häß"}]}, {"x-tier": "gold", "authorization": "Bearer secret"})
        reply = await ran(policy, call)
    assert error(reply) == (418, "seen")
    assert reply is not None
    seen = orjson.loads(orjson.loads(reply.body)["error"]["message"])
    assert seen == ["/v1/chat/completions", "POST", "gemma", False, "red", "", 120, "häß", "gold", None]


async def test_effects() -> None:
    source = """
    function check(r) {
      if (r.promptTokens > 1000) return {deny: {}};
      return {set: {headers: {"X-Tier": "gold"}}, body: {...r.body, temperature: 0, model: "other"}};
    }"""
    async with running(source, setHeaders=["x-tier"]) as policy:
        call = make_call({"model": "gemma", "temperature": 1})
        assert await ran(policy, call) is None
        assert call.body == {"model": "gemma", "temperature": 0}
        assert call.exchange.request_changes.set == {"x-tier": "gold"}
        call = make_call()
        call.prompt_tokens = 2000
        assert error(await ran(policy, call)) == (403, "refused_by_script")


async def test_without_the_body() -> None:
    async with running("function check(r) { if ('body' in r) return {deny: {}} }", body=False) as policy:
        assert await ran(policy, make_call({"a": 1})) is None


async def test_nothing_is_left_for_the_next_request() -> None:
    source = """
    let seen = 0;
    function check(r) {
      seen++;
      if (seen > 1 || globalThis.left || Object.prototype.left || [].left) return {deny: {}};
      globalThis.left = Object.prototype.left = Array.prototype.left = 1;
      JSON.parse = () => ({});
    }"""
    async with running(source) as policy:
        assert [await ran(policy) for _ in range(3)] == [None] * 3


HOSTILE = {
    "loop": "while (true) {}",
    "loop that catches": "while (true) { try { while (true) {} } catch (e) {} }",
    "pattern": "return /^(a+)+$/.test('a'.repeat(60) + 'b')",
    "native loop": "return new Array(1e9).join('a')",
    "memory": "const a = []; while (true) a.push(new Array(10000).fill(1))",
    "text": "let s = 'a'; while (true) s += s",
    "array buffer": "return new Uint8Array(2 ** 30).length",
    "recursion": "return check(r)",
    "deep result": "let o = {}, x = o; for (let i = 0; i < 1e5; i++) { x.a = {}; x = x.a } return {body: o}",
    "huge result": "return {body: {a: 'x'.repeat(2e6)}}",
    "throw": "throw new Error(r.caller.user)",
    "throw text": "throw 'secret'",
    "number": "return 1",
    "text result": "return 'deny'",
    "list": "return []",
    "unknown effect": "return {allow: false}",
    "function": "return check",
    "symbol": "return Symbol('a')",
    "circle": "const a = {}; a.a = a; return a",
    "deny": "return {deny: true}",
    "deny status": "return {deny: {status: 200}}",
    "deny message": "return {deny: {message: {}}}",
    "header": "return {set: {headers: {'x-other': '1'}}}",
    "identity": "return {set: {headers: {'x-penstock-team': 'blue'}}}",
    "header split": "return {set: {headers: {'x-tier': 'a\\r\\nb: c'}}}",
    "body": "return {body: []}",
    "require": "return require('fs').readFileSync('/etc/passwd')",
    "process": "return process.env",
    "std": "return std.getenv('PATH')",
    "os": "return os.exec(['ls'])",
    "fetch": "return fetch('http://127.0.0.1/')",
    "timer": "return setTimeout(() => 1, 0)",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
async def test_hostile(body: str) -> None:
    async with running(f"function check(r) {{ {body} }}", setHeaders=["x-tier"], cpuMs=50) as policy:
        call = make_call()
        began = time.monotonic()
        assert error(await ran(policy, call)) == (500, "script_failed")
        assert time.monotonic() - began < 3
        assert call.exchange.request_changes.set == {}
        assert call.edited is None


async def test_other_streams_go_on_meanwhile() -> None:
    async with running("function check(r) { while (true) {} }", cpuMs=300) as policy:
        task = asyncio.create_task(ran(policy))  # type: ignore[arg-type]
        turns = 0
        while not task.done():
            await asyncio.sleep(0.005)
            turns += 1
        assert error(task.result()) == (500, "script_failed")
        assert turns > 10


async def test_after_a_kill_the_next_request_is_served() -> None:
    source = "function check(r) { if (r.promptTokens === 1) return new Array(1e9).join('a') }"
    async with running(source) as policy:
        late = make_call()
        late.prompt_tokens = 1
        for _ in range(2):
            assert error(await ran(policy, late)) == (500, "script_failed")
            assert await ran(policy) is None


async def test_a_process_that_dies_is_replaced() -> None:
    async with running("function check(r) {}") as policy:
        assert await ran(policy) is None
        (worker,) = policy._pool._idle
        os.kill(worker.process.pid, 9)
        await worker.process.wait()
        assert await ran(policy) is None


async def test_fail_open() -> None:
    async with running("function check(r) { throw 1 }", failOpen=True) as policy:
        call = make_call()
        assert await ran(policy, call) is None
        assert [(f.policy, f.verdict, f.code) for f in call.findings] == [("script", Verdict.ERROR, "script_failed")]


async def test_calls_at_once() -> None:
    source = "function check(r) { return {deny: {message: String(r.promptTokens)}} }"
    async with running(source, processes=2) as policy:
        calls = [make_call() for _ in range(50)]
        for i, call in enumerate(calls):
            call.prompt_tokens = i
        replies = await asyncio.gather(*(ran(policy, call) for call in calls))
    found = [orjson.loads(reply.body)["error"]["message"] for reply in replies if reply is not None]
    assert found == [str(i) for i in range(50)]


async def test_a_call_that_is_given_up_answers_no_other() -> None:
    source = "function check(r) { if (r.promptTokens === 1) while (true) {} return {deny: {status: 418}} }"
    async with running(source, cpuMs=200) as policy:
        late = make_call()
        late.prompt_tokens = 1
        task = asyncio.create_task(ran(policy, late))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert error(await ran(policy))[0] == 418


async def test_the_process_knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_KEY_PEPPER", "pepper-of-the-service-that-is-secret")
    async with running("function check(r) {}") as policy:
        (worker,) = policy._pool._idle
        assert b"pepper" not in Path(f"/proc/{worker.process.pid}/environ").read_bytes()  # noqa: ASYNC240 - of the kernel, no disk


@pytest.mark.parametrize(
    ("source", "says"),
    [("function check(r) {", "SyntaxError"), ("import fs from 'fs'", "SyntaxError"), ("}{", "Syntax")],
)
def test_what_is_no_script_is_refused(source: str, says: str) -> None:
    settings = ScriptSettings.model_validate({"source": source})
    with pytest.raises(ValueError, match=f"^source: .*{says}"):
        ScriptPolicy(settings, make_tools())


async def test_a_script_without_check_fails_closed() -> None:
    async with running("function chck(r) {}") as policy:
        assert error(await ran(policy)) == (500, "script_failed")


def test_settings_that_cannot_work() -> None:
    with pytest.raises(ValidationError):
        ScriptSettings.model_validate({"source": "x", "setHeaders": ["x-penstock-user"]})
    with pytest.raises(ValidationError):
        ScriptSettings.model_validate({"source": "x" * 70_000})
