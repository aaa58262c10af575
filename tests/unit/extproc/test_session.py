"""Sessions, message by message: body modes, mutations, denials, limits."""

import asyncio

import orjson
import pytest

from services.extproc.api import BodyMode, Ending, Exchange, deny
from services.extproc.limits import CHUNK_BYTES
from services.extproc.proto import ext_proc_pb2 as pb
from tests.support.extproc import BUFFERED, DUPLEX, NONE, STREAMED, Scripted, body, headers, session, trailers

WHOLE, CHUNKS = BodyMode.WHOLE, BodyMode.CHUNKS


def kinds(answers: list[pb.ProcessingResponse]) -> list[str]:
    return [answer.WhichOneof("response") or "" for answer in answers]


def sent(answers: list[pb.ProcessingResponse], side: str = "request") -> tuple[bytes, list[bool]]:
    pieces = [
        getattr(answer, f"{side}_body").response.body_mutation.streamed_response
        for answer in answers
        if answer.WhichOneof("response") == f"{side}_body"
    ]
    return b"".join(piece.body for piece in pieces), [piece.end_of_stream for piece in pieces]


def header_sets(answer: pb.HeadersResponse | pb.BodyResponse) -> dict[str, bytes]:
    options = answer.response.header_mutation.set_headers
    assert all(option.append_action == pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD for option in options)
    assert all(option.header.value == "" for option in options)
    return {option.header.key: option.header.raw_value for option in options}


def error_of(answer: pb.ProcessingResponse) -> tuple[int, str]:
    error = orjson.loads(answer.immediate_response.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.immediate_response.status.code, error["code"]


def set_header(exchange: Exchange) -> None:
    exchange.request_changes.set["x-model"] = "m"
    exchange.request_changes.remove |= {"x-evil", "x-model"}
    exchange.clear_route_cache = True
    exchange.dynamic_metadata["envoy.lb"] = {"key": "v", "n": 1, "list": [True, None]}


async def test_full_duplex_holds_headers_until_the_body_is_whole() -> None:
    one = Scripted(WHOLE, on_request_body=set_header)
    s = session(one)
    assert await s.receive(headers("request", modes=(DUPLEX, NONE))) == []
    assert await s.receive(body("request", b"a" * 70_000)) == []
    answers = await s.receive(body("request", b"", last=True))
    assert kinds(answers) == ["request_headers", "request_body", "request_body"]
    assert header_sets(answers[0].request_headers) == {"x-model": b"m"}
    assert list(answers[0].request_headers.response.header_mutation.remove_headers) == ["x-evil"]
    assert answers[0].request_headers.response.clear_route_cache
    assert answers[0].dynamic_metadata["envoy.lb"]["n"] == 1
    assert sent(answers) == (b"a" * 70_000, [False, True])
    assert len(answers[1].request_body.response.body_mutation.streamed_response.body) == CHUNK_BYTES
    assert one.bodies == [b"a" * 70_000]
    outcome = s.close()
    assert outcome is not None
    assert (outcome.ending, outcome.request_bytes) == (Ending.COMPLETE, 70_000)
    assert s.close() is None
    assert len(one.outcomes) == 1


async def test_full_duplex_without_wishes_echoes_each_piece_at_once() -> None:
    s = session(Scripted())
    assert kinds(await s.receive(headers("request", modes=(DUPLEX, DUPLEX)))) == ["request_headers"]
    assert sent(await s.receive(body("request", b"one"))) == (b"one", [False])
    assert await s.receive(body("request", b"")) == []
    assert sent(await s.receive(body("request", b"", last=True))) == (b"", [True])


async def test_full_duplex_trailers_end_the_body_without_end_of_stream() -> None:
    s = session(Scripted(WHOLE))
    await s.receive(headers("request", modes=(DUPLEX, NONE)))
    await s.receive(body("request", b"abc"))
    answers = await s.receive(trailers("request"))
    assert kinds(answers) == ["request_headers", "request_body", "request_trailers"]
    assert sent(answers) == (b"abc", [False])


async def test_request_without_body_is_answered_at_once() -> None:
    one = Scripted(WHOLE, on_request_body=set_header)
    answers = await session(one).receive(headers("request", last=True, modes=(DUPLEX, DUPLEX)))
    assert kinds(answers) == ["request_headers"]
    assert header_sets(answers[0].request_headers) == {"x-model": b"m"}
    assert one.bodies == [b""]


async def test_body_after_the_end_is_ignored() -> None:
    s = session(Scripted(WHOLE))
    await s.receive(headers("request", modes=(DUPLEX, NONE)))
    await s.receive(body("request", b"abc", last=True))
    assert await s.receive(body("request", b"bc", last=True)) == []


async def test_streamed_answers_each_piece_once_and_replaces_the_last() -> None:
    one = Scripted(WHOLE, on_request_body=lambda e: e.replace_request_body(b"<" + e.request_body + b">"))
    s = session(one)
    assert kinds(await s.receive(headers("request", modes=(STREAMED, NONE)))) == ["request_headers"]
    (first,) = await s.receive(body("request", b"ab"))
    assert first.request_body.response.body_mutation.clear_body
    (last,) = await s.receive(body("request", b"c", last=True))
    assert last.request_body.response.body_mutation.body == b"<abc>"
    (late,) = await s.receive(body("request", b"c", last=True))
    assert late.request_body.response.body_mutation.clear_body


async def test_streamed_body_with_trailers_cannot_be_held() -> None:
    s = session(Scripted(WHOLE))
    await s.receive(headers("request", modes=(STREAMED, NONE)))
    await s.receive(body("request", b"ab"))
    (answer,) = await s.receive(trailers("request"))
    assert error_of(answer) == (500, "callout_misconfigured")


async def test_streamed_pieces_pass_and_change() -> None:
    upper = Scripted(NO, CHUNKS, on_response_chunk=lambda e, chunk, last: chunk.upper())
    s = session(upper)
    await s.receive(headers("request", last=True, modes=(NONE, STREAMED)))
    await s.receive(headers("response"))
    (answer,) = await s.receive(body("response", b"ab"))
    assert answer.response_body.response.body_mutation.body == b"AB"
    (same,) = await s.receive(body("response", b"12", last=True))
    assert not same.response_body.response.HasField("body_mutation")


NO = BodyMode.NONE


async def test_buffered_changes_headers_and_length_with_the_body() -> None:
    def change(exchange: Exchange) -> None:
        set_header(exchange)
        exchange.replace_request_body(b"longer than before")

    s = session(Scripted(WHOLE, on_request_body=change))
    assert kinds(await s.receive(headers("request", modes=(BUFFERED, NONE)))) == ["request_headers"]
    (answer,) = await s.receive(body("request", b"abc", last=False))  # trailers follow: no end of stream here
    assert answer.request_body.response.body_mutation.body == b"longer than before"
    assert header_sets(answer.request_body) == {"x-model": b"m", "content-length": b"18"}
    assert kinds(await s.receive(trailers("request"))) == ["request_trailers"]


async def test_buffered_body_that_nobody_changes_is_left_alone() -> None:
    s = session(Scripted(WHOLE))
    await s.receive(headers("request", modes=(BUFFERED, NONE)))
    (answer,) = await s.receive(body("request", b"abc", last=True))
    assert not answer.request_body.response.HasField("body_mutation")


async def test_filters_run_in_order_and_in_reverse() -> None:
    trace: list[str] = []

    def mark(name: str) -> Scripted:
        return Scripted(
            WHOLE,
            CHUNKS,
            on_request_headers=lambda e: trace.append(f"{name} headers"),
            on_request_body=lambda e: (
                trace.append(f"{name} body"),
                e.replace_request_body(e.request_body + name.encode()),
            )[0],
            on_response_chunk=lambda e, chunk, last: chunk + name.encode(),
        )

    s = session(mark("a"), mark("b"))
    await s.receive(headers("request", modes=(DUPLEX, DUPLEX)))
    assert sent(await s.receive(body("request", b"-", last=True))) == (b"-ab", [True])
    await s.receive(headers("response"))
    assert sent(await s.receive(body("response", b"-", last=True)), "response") == (b"-ba", [True])
    assert trace == ["a headers", "b headers", "a body", "b body"]


async def test_pieces_before_and_after_a_filter_that_holds() -> None:
    first = Scripted(CHUNKS, on_request_chunk=lambda e, chunk, last: chunk.upper())
    second = Scripted(WHOLE)
    third = Scripted(CHUNKS, on_request_chunk=lambda e, chunk, last: chunk + b"!" if last else chunk)
    s = session(first, second, third)
    await s.receive(headers("request", modes=(DUPLEX, NONE)))
    await s.receive(body("request", b"ab"))
    answers = await s.receive(body("request", b"c", last=True))
    assert second.bodies == [b"ABC"]
    assert sent(answers) == (b"ABC!", [True])


@pytest.mark.parametrize("hook", ["on_request_headers", "on_request_body", "on_response_headers", "on_response_body"])
@pytest.mark.parametrize("mode", [DUPLEX, BUFFERED])
async def test_deny_at_each_phase(hook: str, mode: int) -> None:
    s = session(Scripted(WHOLE, WHOLE, **{hook: lambda e: deny(403, "no", code="nope", headers={"x-why": "y"})}))
    answers: list[pb.ProcessingResponse] = []
    for message in (
        headers("request", modes=(mode, mode)),
        body("request", b"q", last=True),
        headers("response"),
        body("response", b"a", last=True),
    ):
        answers += await s.receive(message)
    assert kinds(answers)[-1] == "immediate_response"
    assert kinds(answers).count("immediate_response") == 1
    assert error_of(answers[-1]) == (403, "nope")
    assert answers[-1].immediate_response.details == "nope"
    names = {o.header.key: o.header.raw_value for o in answers[-1].immediate_response.headers.set_headers}
    assert names == {"content-type": b"application/json", "x-why": b"y"}
    outcome = s.close()
    assert outcome is not None
    assert (outcome.ending, outcome.status) == (Ending.DENIED, 403)


async def test_deny_in_an_event_stream_ends_it_cleanly() -> None:
    def stop(exchange: Exchange, chunk: bytes, last: bool) -> object:
        return deny(403, "blocked", code="blocked") if b"bad" in chunk else chunk

    for mode in (DUPLEX, STREAMED):
        s = session(Scripted(NO, CHUNKS, on_response_chunk=stop))
        await s.receive(headers("request", last=True, modes=(NONE, mode)))
        await s.receive(headers("response", {":status": "200", "content-type": "text/event-stream; charset=utf-8"}))
        await s.receive(body("response", b"data: good\n\n"))
        (cut,) = await s.receive(body("response", b"data: bad\n\n"))
        mutation = cut.response_body.response.body_mutation
        text = mutation.streamed_response.body if mode == DUPLEX else mutation.body
        assert text.strip().startswith(b'data: {"error"')
        assert text.endswith(b"\n\ndata: [DONE]\n\n")
        assert mutation.streamed_response.end_of_stream == (mode == DUPLEX)
        late = await s.receive(body("response", b"data: more\n\n"))
        assert late == [] if mode == DUPLEX else late[0].response_body.response.body_mutation.clear_body
        outcome = s.close()
        assert outcome is not None
        assert outcome.ending is Ending.DENIED


async def test_deny_after_headers_left_resets_what_is_no_event_stream() -> None:
    s = session(Scripted(NO, CHUNKS, on_response_chunk=lambda e, chunk, last: deny(403, "no")))
    await s.receive(headers("request", last=True, modes=(NONE, DUPLEX)))
    await s.receive(headers("response", {":status": "200", "content-type": "application/json"}))
    assert kinds(await s.receive(body("response", b"{"))) == ["immediate_response"]


async def test_too_large_by_length_and_by_count() -> None:
    one = Scripted(WHOLE)
    s = session(one, max_body_bytes=10)
    assert await s.receive(headers("request", {"content-length": "11"}, modes=(DUPLEX, NONE))) == []
    assert await s.receive(body("request", b"123456")) == []
    (answer,) = await s.receive(body("request", b"78901", last=True))
    assert error_of(answer) == (413, "request_too_large")
    assert one.calls == []
    for length in ("41", "9" * 5000):
        (answer,) = await session(max_body_bytes=10).receive(
            headers("request", {"content-length": length}, modes=(DUPLEX, NONE))
        )
        assert error_of(answer) == (413, "request_too_large")
    s = session(Scripted(WHOLE), max_body_bytes=10)
    await s.receive(headers("request", modes=(DUPLEX, NONE)))
    assert await s.receive(body("request", b"12345678901")) == []
    assert error_of((await s.receive(trailers("request")))[0]) == (413, "request_too_large")
    s = session(Scripted(WHOLE), max_body_bytes=10)
    await s.receive(headers("request", modes=(BUFFERED, NONE)))
    assert error_of((await s.receive(body("request", b"12345678901", last=True)))[0]) == (413, "request_too_large")


async def test_response_too_large_to_hold() -> None:
    s = session(Scripted(NO, WHOLE), max_body_bytes=10)
    await s.receive(headers("request", last=True, modes=(NONE, DUPLEX)))
    assert await s.receive(headers("response")) == []
    assert error_of((await s.receive(body("response", b"12345678901")))[0]) == (502, "response_too_large")


async def test_a_body_that_the_proxy_does_not_send_is_not_skipped_in_silence() -> None:
    (answer,) = await session(Scripted(WHOLE)).receive(headers("request", modes=(NONE, NONE)))
    assert error_of(answer) == (500, "callout_error")
    answers = await session(Scripted(WHOLE, fail_open=True)).receive(headers("request", modes=(NONE, NONE)))
    assert kinds(answers) == ["request_headers"]


async def test_exception_denies_or_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    def fail(exchange: Exchange) -> None:
        raise ValueError("secret body text")

    broken = Scripted(WHOLE, on_request_headers=fail)
    s = session(broken)
    (answer,) = await s.receive(headers("request", {"x-request-id": "r-1"}, modes=(DUPLEX, NONE)))
    assert error_of(answer) == (500, "callout_error")
    assert s.close().ending is Ending.ERROR  # type: ignore[union-attr]
    assert caplog.records[-1].request_id == "r-1"  # type: ignore[attr-defined]
    assert "secret" not in str([vars(record) for record in caplog.records])
    skipped, other = Scripted(WHOLE, fail_open=True, on_request_headers=fail), Scripted(WHOLE)
    s = session(skipped, other)
    await s.receive(headers("request", modes=(DUPLEX, NONE)))
    assert sent(await s.receive(body("request", b"x", last=True))) == (b"x", [True])
    assert (skipped.bodies, other.bodies) == ([], [b"x"])
    s.close()
    assert len(skipped.outcomes) == len(other.outcomes) == 1


async def test_a_hook_that_hangs_is_denied_with_504() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    one = Scripted(WHOLE, on_request_body=lambda e: hang())
    s = session(one, request_body_s=0.01)
    await s.receive(headers("request", modes=(DUPLEX, NONE)))
    (answer,) = await s.receive(body("request", b"x", last=True))
    assert error_of(answer) == (504, "callout_deadline")
    s.close()
    assert one.outcomes[0].ending is Ending.DEADLINE


async def test_a_hook_may_wait_and_then_answer() -> None:
    async def later() -> object:
        await asyncio.sleep(0)
        return deny(429, "later")

    (answer,) = await session(Scripted(on_request_headers=lambda e: later())).receive(headers("request", last=True))
    assert answer.immediate_response.status.code == 429


async def test_idle_upload_and_idle_stream() -> None:
    s = session(Scripted(WHOLE), upload_idle_s=1.0, stream_idle_s=9.0)
    assert s.idle_limit() == 9.0
    await s.receive(headers("request", modes=(DUPLEX, DUPLEX)))
    assert s.idle_limit() == 1.0
    assert error_of(s.expire()[0]) == (408, "request_timeout")
    assert s.close().ending is Ending.DEADLINE  # type: ignore[union-attr]
    s = session(Scripted(WHOLE), upload_idle_s=1.0, stream_idle_s=9.0)
    await s.receive(headers("request", last=True, modes=(DUPLEX, DUPLEX)))
    assert s.idle_limit() == 9.0
    assert error_of(s.expire()[0]) == (504, "stream_idle_timeout")


async def test_what_cannot_be_sent_is_an_error() -> None:
    for name, value in (("x-a", "line\r\nbreak"), ("x-b", "nul\0")):
        s = session(Scripted(on_request_headers=lambda e, n=name, v=value: e.request_changes.set.update({n: v})))
        (answer,) = await s.receive(headers("request", last=True))
        assert error_of(answer) == (500, "callout_error")
    s = session(Scripted(on_request_headers=lambda e: e.dynamic_metadata.update(ns={"x": object()})))
    assert error_of((await s.receive(headers("request", last=True)))[0]) == (500, "callout_error")


async def test_without_protocol_config_full_duplex_is_assumed() -> None:
    s = session(Scripted(WHOLE))
    assert await s.receive(headers("request")) == []
    assert kinds(await s.receive(body("request", b"a", last=True))) == ["request_headers", "request_body"]


async def test_metadata_and_attributes_reach_the_filter() -> None:
    message = headers("request", last=True)
    message.metadata_context.filter_metadata["envoy.lb"].update({"a": ["1", "2"], "b": {"c": True}})
    message.attributes["envoy.filters.http.ext_proc"].update({"request.path": "/x"})
    seen: list[object] = []
    s = session(Scripted(on_request_headers=lambda e: seen.extend([dict(e.metadata), dict(e.attributes)])))
    await s.receive(message)
    assert seen == [{"envoy.lb": {"a": ["1", "2"], "b": {"c": True}}}, {"request.path": "/x"}]
