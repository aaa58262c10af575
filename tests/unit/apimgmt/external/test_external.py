"""The external callout against a real server that behaves in every way."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from services.apimgmt.call import Call, Verdict
from services.apimgmt.policies.external import ExternalPolicy, ExternalSettings
from services.extproc.api import Reply
from tests.unit.apimgmt.calls import make_call, make_tools

Answerer = Callable[[dict[str, Any]], Awaitable[bytes]]


def http(body: bytes | object, status: str = "200 OK", extra: str = "") -> bytes:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(content)}\r\n{extra}\r\n".encode() + content


class Service:
    """Answers with what `answer` returns for the request; remembers requests."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.heads: list[str] = []
        self.busy = self.most_busy = 0
        self.answer: Answerer = self.allow
        self.port = 0

    async def allow(self, request: dict[str, Any]) -> bytes:
        return http({"allow": True})

    def answers(self, data: bytes) -> None:
        async def answer(request: dict[str, Any]) -> bytes:
            return data

        self.answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                length = next(int(v[15:]) for v in head.split("\r\n") if v.lower().startswith("content-length:"))
                request = orjson.loads(await reader.readexactly(length))
                self.requests.append(request)
                self.heads.append(head)
                self.busy += 1
                self.most_busy = max(self.most_busy, self.busy)
                data = await self.answer(request)
                self.busy -= 1
                writer.write(data)
                await writer.drain()
                if not data.startswith(b"HTTP"):
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[tuple[ExternalPolicy, Service]]:
    service = Service()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{service.port}/check?token=hidden"
    policy = ExternalPolicy(ExternalSettings.model_validate({"url": url, **settings}), make_tools())
    await policy.start()
    try:
        yield policy, service
    finally:
        await policy.stop()
        server.close()


async def asked(policy: ExternalPolicy, call: Call | None = None) -> Reply | None:
    answer = policy.check(call or make_call())
    return answer if answer is None or isinstance(answer, Reply) else await answer


def error(reply: Reply | None) -> tuple[int, str, str]:
    assert reply is not None
    found = orjson.loads(reply.body)["error"]
    return reply.status, found["code"], found["message"]


async def test_what_the_service_is_asked() -> None:
    async with running(headers={"authorization": "Bearer ours"}) as (policy, service):
        call = make_call({"messages": []}, {"authorization": "Bearer psk_secret", "x-tier": "gold"})
        assert await asked(policy, call) is None
    (request,) = service.requests
    assert request == {
        "id": "call-1",
        "policy": "external",
        "request": {
            "path": "/v1/chat/completions",
            "method": "POST",
            "headers": {"x-gateway-model-name": "gemma", "x-tier": "gold"},
            "model": "gemma",
            "stream": False,
        },
        "caller": {"organization": "acme", "team": "red", "user": "ada@example.com", "app": "bot", "key": "k1"},
        "product": "",
        "promptTokens": 120,
    }
    assert "authorization: Bearer ours\r\n" in service.heads[0]


async def test_the_body_is_sent_and_replaced() -> None:
    async with running(send="body", setHeaders=["X-Tier"]) as (policy, service):
        body = {"model": "gemma", "stream": True, "messages": [1]}
        service.answers(
            http({"allow": True, "setHeaders": {"X-Tier": "gold"}, "body": {"model": "other", "messages": [2], "n": 1}})
        )
        call = make_call(body)
        assert await asked(policy, call) is None
    assert service.requests[0]["body"] == body
    assert call.body == {"messages": [2], "n": 1, "model": "gemma", "stream": True}
    assert call.exchange.request_changes.set == {"x-tier": "gold"}


async def test_a_denial() -> None:
    async with running() as (policy, service):
        service.answers(http({"allow": False, "status": 451, "message": "Not from here.", "code": "not_here"}))
        assert error(await asked(policy)) == (451, "not_here", "Not from here.")
        service.answers(http({"allow": False}))
        assert error(await asked(policy))[:2] == (403, "refused_by_service")


FAILURES = {
    "500": http({"allow": True}, "500 Internal Server Error"),
    "redirect": http({"allow": True}, "302 Found", "location: http://127.0.0.1:1/\r\n"),
    "garbage": http(b"\x00\xff{"),
    "no http": b"hello\r\n\r\n",
    "dead": b"",
    "list": http([True]),
    "text for allow": http({"allow": "true"}),
    "no allow": http({"status": 403}),
    "status 200": http({"allow": False, "status": 200}),
    "message": http({"allow": False, "message": "x" * 501}),
    "code": http({"allow": False, "code": "Not A Code"}),
    "header": http({"allow": True, "setHeaders": {"x-other": "1"}}),
    "identity": http({"allow": True, "setHeaders": {"x-penstock-team": "blue"}}),
    "header split": http({"allow": True, "setHeaders": {"x-tier": "a\r\nx-penstock-team: b"}}),
    "body": http({"allow": True, "body": [1]}),
    "huge": http(b" " * 5000),
    "deep": http(b"[" * 4000),
}


@pytest.mark.parametrize("answer", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("fail_open", [False, True])
async def test_failures(answer: bytes, fail_open: bool) -> None:
    async with running(failOpen=fail_open, maxAnswerBytes=4096, setHeaders=["x-tier"]) as (policy, service):
        service.answers(answer)
        call = make_call()
        reply = await asked(policy, call)
    assert call.exchange.request_changes.set == {}
    if fail_open:
        assert reply is None
        assert [(f.verdict, f.code) for f in call.findings] == [(Verdict.ERROR, "external_unavailable")]
    else:
        assert error(reply)[:2] == (503, "external_unavailable")


async def test_a_slow_service_is_given_up() -> None:
    async with running(timeoutMs=50) as (policy, service):
        released = asyncio.Event()

        async def wait(request: dict[str, Any]) -> bytes:
            await released.wait()
            return http({"allow": True})

        service.answer = wait
        assert error(await asked(policy))[:2] == (503, "external_unavailable")
        released.set()


async def test_the_circuit_opens_and_closes_again(caplog: pytest.LogCaptureFixture) -> None:
    async with running(failures=3, openSeconds=0.2) as (policy, service):
        service.answers(FAILURES["500"])
        with caplog.at_level(logging.WARNING):
            for _ in range(10):
                assert error(await asked(policy))[0] == 503
            assert len(service.requests) == 3
            service.answer = service.allow
            deadline = asyncio.get_running_loop().time() + 5
            while await asked(policy) is not None:
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.02)
        assert len(service.requests) == 4
        assert await asked(policy) is None
    texts = [record.getMessage() for record in caplog.records if record.name == "penstock.remote"]
    assert texts == ["a service is left alone", "a service is back"]
    assert "hidden" not in str([vars(record) for record in caplog.records if record.name == "penstock.remote"])


async def test_concurrency_is_bounded() -> None:
    async with running(maxConcurrent=3, timeoutMs=5000) as (policy, service):

        async def slowly(request: dict[str, Any]) -> bytes:
            await asyncio.sleep(0.005)
            return http({"allow": True})

        service.answer = slowly
        assert await asyncio.gather(*(asked(policy) for _ in range(20))) == [None] * 20
        assert service.most_busy == 3


async def test_a_request_that_is_given_up_says_nothing_of_the_service() -> None:
    async with running(failures=1) as (policy, service):
        reached = asyncio.Event()

        async def never(request: dict[str, Any]) -> bytes:
            reached.set()
            await asyncio.Event().wait()
            return b""

        service.answer = never
        task = asyncio.create_task(asked(policy))  # type: ignore[arg-type]
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        service.answer = service.allow
        assert await asked(policy) is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"url": "ftp://a/b"}, "https://"),
        ({"url": "http://example.com/"}, "use https"),
        ({"url": "http://169.254.169.254/latest"}, "use https"),
        ({"url": "http://policy.ns.svc/"}, "plainHttp"),
        ({"url": "http://policy.ns.svc.evil.com/", "plainHttp": True}, "use https"),
        ({"url": "https://user:secret@a/"}, "in a header"),
        ({"url": "https://a/", "setHeaders": ["x-penstock-team"]}, "identity"),
        ({"url": "https://a/", "setHeaders": ["X_Gateway_Model_Name"]}, "identity"),
        ({"url": "https://a/", "setHeaders": ["authorization"]}, "identity"),
        ({"url": "https://a/", "setHeaders": ["content-length"]}, "how the message is read"),
        ({"url": "https://a/", "headers": {"a b": "c"}}, "header name"),
        ({"url": "https://a/", "headers": {"a": "c\r\nd: e"}}, "characters"),
        ({"url": "https://a/", "headers": {"Host": "b"}}, "set here"),
        ({"url": "https://a/", "timeoutMs": 0}, "greater than"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ExternalSettings.model_validate(settings)


def test_settings_that_can() -> None:
    for url in ("https://a/b", "http://localhost:1/", "http://[::1]:8/", "http://127.0.0.9/"):
        assert ExternalSettings.model_validate({"url": url})
    assert ExternalSettings.model_validate({"url": "http://policy.ns.svc:8080/", "plainHttp": True})
    allowed = ExternalSettings.model_validate({"url": "https://a/", "setHeaders": ["x-gateway-inference-objective"]})
    assert allowed.set_headers == ["x-gateway-inference-objective"]


def test_an_authority_that_cannot_be_read(tmp_path: Any) -> None:
    settings = ExternalSettings.model_validate({"url": "https://a/", "caFile": str(tmp_path / "none.pem")})
    with pytest.raises(ValueError, match="caFile"):
        ExternalPolicy(settings, make_tools())
