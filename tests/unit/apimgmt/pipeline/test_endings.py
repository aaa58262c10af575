"""Every way in which a request may end: one ledger record, nothing held afterwards, the right amounts."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.apimgmt.policies.validation import Validation
from services.extproc.api import BodyMode, deny
from tests.support.extproc import Scripted, body, headers
from tests.unit.apimgmt.pipeline.world import ANSWER, CHAT, World, answer, begin_stream, event, limit, reply

LIMITS = [
    limit("requests", "requests", 100),
    limit("tokens", "tokens", 1000),
    limit("open", "concurrent", 3, None),
    limit("month", "tokens", 10_000, "month", scope="organization"),
]
NOTHING = {"requests": 0, "tokens": 0, "open": 0, "month": 0}


async def one(world: World) -> dict[str, Any]:
    records = await world.records()
    assert len(records) == 1
    assert world.metrics.in_flight == 0
    return records[0]


async def test_a_complete_answer_is_charged_what_it_says(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        held = await world.request(opened)
        during = await world.totals()
        assert during["open"] == during["requests"] == 1
        assert during["tokens"] >= 20
        assert held[0].HasField("request_headers")
        answers = await answer(opened)
        totals = await world.totals()  # the last chunk is not let go before it is booked
        assert answers[-1].response_body.response.body_mutation.streamed_response.end_of_stream
        assert totals == {"requests": 1, "tokens": 12, "open": 0, "month": 12}
        opened.close()
        record = await one(world)
        expected = {"outcome": "ok", "status": 200, "promptTokens": 7, "completionTokens": 5, "estimated": False}
        assert expected.items() <= record.items()
        identity = {"organization": "acme", "team": "red", "user": "ada", "app": "app", "key": world.key_id}
        assert identity.items() <= record.items()
        assert (record["product"], record["model"], record["adapter"]) == ("std", "llama", "")
        assert record["overheadMs"] > 0


async def test_a_denial_by_a_later_filter_costs_nothing(tmp_path: Path) -> None:
    guard = Scripted(BodyMode.WHOLE, on_request_body=lambda _: deny(403, "no", code="screened"))
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session(guard)
        status, _, _ = reply(await world.request(opened))
        opened.close()
        assert status == 403
        assert (await one(world))["outcome"] == "denied"
        assert await world.totals() == NOTHING


async def test_a_later_filter_that_denies_the_answer_does_not_give_it_for_free(tmp_path: Path) -> None:
    guard = Scripted(BodyMode.NONE, BodyMode.WHOLE, on_response_body=lambda _: deny(403, "no", code="screened"))
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session(guard)
        await world.request(opened)
        await answer(opened)
        opened.close()
        record = await one(world)
        assert (record["outcome"], record["status"], record["completionTokens"]) == ("denied", 403, 5)
        assert (await world.totals())["tokens"] == 12


async def test_a_client_that_leaves_while_it_sends(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        await opened.receive(world.request_headers())
        await opened.receive(body("request", b'{"model"'))
        opened.close()
        record = await one(world)
        assert (record["outcome"], record["promptTokens"], record["status"]) == ("aborted", 0, 0)
        assert await world.totals() == NOTHING


async def test_a_client_that_leaves_before_the_answer_pays_the_prompt(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        await world.request(opened)
        opened.close()
        record = await one(world)
        assert (record["outcome"], record["completionTokens"], record["estimated"]) == ("aborted", 0, True)
        assert record["promptTokens"] > 0
        totals = await world.totals()
        assert totals == {"requests": 1, "tokens": record["promptTokens"], "open": 0, "month": record["promptTokens"]}


async def test_a_client_that_leaves_in_mid_stream_pays_what_passed(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        await world.request(opened, {**CHAT, "stream": True})
        await begin_stream(opened)
        await opened.receive(body("response", event("a") + event("b") + event("c")))
        opened.close()
        record = await one(world)
        assert (record["outcome"], record["completionTokens"], record["estimated"]) == ("aborted", 3, True)
        assert record["ttftMs"] is not None
        totals = await world.totals()
        assert totals["tokens"] == record["promptTokens"] + 3
        assert totals["open"] == 0


async def test_a_stream_is_booked_before_its_end_is_let_go(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        await world.request(opened, {**CHAT, "stream": True})
        await begin_stream(opened)
        await opened.receive(body("response", event("a")))
        usage = {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}
        sent = await opened.receive(body("response", event(usage=usage) + b"data: [DONE]\n\n"))
        assert (await world.totals())["tokens"] == 5
        passed = b"".join(a.response_body.response.body_mutation.streamed_response.body for a in sent)
        assert b"usage" not in passed.replace(b'"usage":null', b"")
        assert passed.endswith(b"data: [DONE]\n\n")
        await opened.receive(body("response", b"", last=True))
        opened.close()
        assert (await one(world))["outcome"] == "ok"


@pytest.mark.parametrize(("status", "outcome"), [(404, "denied"), (500, "error"), (503, "error")])
async def test_an_upstream_error_costs_nothing(tmp_path: Path, status: int, outcome: str) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        await world.request(opened)
        await answer(opened, {"error": {"message": "no"}}, status)
        opened.close()
        record = await one(world)
        assert (record["outcome"], record["status"], record["promptTokens"]) == (outcome, status, 0)
        assert await world.totals() == NOTHING


async def test_an_answer_without_a_body(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        await world.request(opened)
        await opened.receive(headers("response", {":status": "502"}, last=True))
        opened.close()
        assert (await one(world))["outcome"] == "error"
        assert await world.totals() == NOTHING


async def test_a_deadline_of_a_later_filter(tmp_path: Path) -> None:
    slow = Scripted(BodyMode.WHOLE, on_request_body=lambda _: asyncio.sleep(60))
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session(slow, request_body_s=0.05)
        status, _, _ = reply(await world.request(opened))
        opened.close()
        assert status == 504
        record = await one(world)
        assert (record["outcome"], record["status"]) == ("error", 504)
        assert await world.totals() == NOTHING


async def test_a_policy_that_fails_ends_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(Validation, "check", fail)
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        status, _, error = reply(await world.request(opened))
        opened.close()
        assert (status, error["error"]["code"]) == (500, "policy_error")
        record = await one(world)
        assert record["outcome"] == "error"
        assert record["verdicts"] == [
            {"policy": "validation", "verdict": "deny", "code": "policy_error", "shadow": False}
        ]
        monkeypatch.undo()
        assert await world.totals() == NOTHING


async def test_a_request_that_is_cancelled_while_it_reserves(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        task = asyncio.create_task(world.request(opened))
        while not world.metrics.in_flight:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        opened.close()
        assert (await one(world))["outcome"] == "aborted"
        assert await world.totals() == NOTHING


@pytest.mark.parametrize("sent", [b"{", b"[1]", b"null", b"7"])
async def test_a_body_that_is_no_object(tmp_path: Path, sent: bytes) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        status, _, error = reply(await world.request(opened, sent))
        opened.close()
        assert (status, error["error"]["code"]) == (400, "invalid_json")
        assert (await one(world))["outcome"] == "refused"
        assert await world.totals() == NOTHING


async def test_nobody_is_counted_but_not_recorded(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        answers = await opened.receive(world.request_headers({"authorization": "Bearer wrong"}))
        assert reply(answers)[0] == 401
        opened.close()
        assert await world.records() == []
        assert sum(world.metrics.requests.counts.values()) == 1


async def test_identity_goes_on_and_what_the_client_claims_does_not(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        answers = await world.request(opened, fields={"x-penstock-user": "boss", "x-penstock-foo": "1"})
        mutation = answers[0].request_headers.response.header_mutation
        fields = {o.header.key: o.header.raw_value.decode() for o in mutation.set_headers}
        assert fields["x-penstock-user"] == "ada"
        assert "x-penstock-foo" in mutation.remove_headers


async def test_usage_larger_than_the_reservation_is_booked(tmp_path: Path) -> None:
    async with World(tmp_path, limits=LIMITS) as world:
        opened = world.session()
        await world.request(opened)
        await answer(opened, {**ANSWER, "usage": {"prompt_tokens": 900, "completion_tokens": 300}})
        opened.close()
        assert (await world.totals())["tokens"] == 1200
        refused = world.session()
        status, _, error = reply(await world.request(refused))
        assert (status, error["error"]["type"]) == (429, "tokens")
