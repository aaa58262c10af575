"""Sessions under random messages: what must hold whatever a proxy sends and however it cuts bodies."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from services.extproc.api import BodyMode, Reply, deny
from services.extproc.chain import Chain
from services.extproc.limits import Limits
from services.extproc.proto import ext_proc_pb2 as pb
from services.extproc.session import Session
from tests.support.extproc import BUFFERED, DUPLEX, NONE, STREAMED, Scripted, body, headers, trailers

PROFILE = settings(max_examples=300, derandomize=True, deadline=None)

body_modes = st.sampled_from(list(BodyMode))
send_modes = st.sampled_from([NONE, STREAMED, BUFFERED, pb.BUFFERED_PARTIAL, DUPLEX, pb.GRPC])
sides = st.sampled_from(["request", "response"])
any_message = st.one_of(
    st.builds(headers, sides, last=st.booleans(), modes=st.none() | st.tuples(send_modes, send_modes)),
    st.builds(body, sides, st.binary(max_size=40), st.booleans()),
    st.builds(trailers, sides),
    st.just(pb.ProcessingRequest()),
)
hooks = ["on_request_headers", "on_request_body", "on_response_headers", "on_response_body"]


def faulty(kind: str) -> object:
    """A hook that denies, raises, waits or answers nonsense."""

    async def later() -> Reply | None:
        await asyncio.sleep(0)
        return None

    def hook(*_: object) -> object:
        if kind == "raise":
            raise RuntimeError("broken")
        if kind == "wait":
            return later()
        return {"deny": deny(403, "no"), "nonsense": 7}.get(kind)

    return hook


async def play(session: Session, messages: Sequence[pb.ProcessingRequest]) -> list[list[pb.ProcessingResponse]]:
    return [await session.receive(message) for message in messages]


@PROFILE
@given(
    st.lists(any_message, max_size=12),
    st.lists(
        st.tuples(
            body_modes,
            body_modes,
            st.booleans(),
            st.sampled_from(hooks),
            st.sampled_from(["fine", "raise", "deny", "wait", "nonsense"]),
        ),
        max_size=3,
    ),
)
def test_any_order_of_messages_is_survived(
    messages: list[pb.ProcessingRequest], chain: list[tuple[BodyMode, BodyMode, bool, str, str]]
) -> None:
    filters = [
        Scripted(request, response, fail_open=fail_open, **{hook: faulty(kind)})  # type: ignore[arg-type]
        for request, response, fail_open, hook, kind in chain
    ]
    session = Session(Chain(filters), Limits(max_body_bytes=60))
    answers = [answer for batch in asyncio.run(play(session, messages)) for answer in batch]
    kinds = [answer.WhichOneof("response") for answer in answers]
    assert None not in kinds
    assert kinds.count("immediate_response") <= 1
    assert "immediate_response" not in kinds[:-1]
    for side in ("request", "response"):
        assert kinds.count(f"{side}_headers") <= 1
    session.close()
    session.close()
    for one in filters:
        assert len(one.outcomes) <= 1
    assert len({len(one.outcomes) for one in filters}) <= 1 or any(kind == "immediate_response" for kind in kinds)


@PROFILE
@given(
    st.lists(st.binary(max_size=90_000), max_size=5),
    st.lists(body_modes, min_size=1, max_size=3),
    st.sampled_from(["last", "empty last", "trailers"]),
    sides,
)
def test_full_duplex_body_out_is_body_in(cut: list[bytes], modes: list[BodyMode], ending: str, side: str) -> None:
    filters = [Scripted(mode, mode) for mode in modes]
    session = Session(Chain(filters), Limits())
    messages = [headers("request", last=side == "response", modes=(DUPLEX, DUPLEX))]
    if side == "response":
        messages.append(headers("response"))
    messages += [body(side, piece) for piece in cut]
    messages.append(
        trailers(side) if ending == "trailers" else body(side, b"" if ending == "empty last" else b"end", last=True)
    )
    batches = asyncio.run(play(session, messages))
    answers = [answer for batch in batches for answer in batch if answer.WhichOneof("response").startswith(side)]
    kinds = [answer.WhichOneof("response") for answer in answers]
    assert kinds[0] == f"{side}_headers"
    assert kinds.count(f"{side}_headers") == 1
    pieces = [
        getattr(answer, f"{side}_body").response.body_mutation.streamed_response
        for answer in answers
        if answer.WhichOneof("response") == f"{side}_body"
    ]
    whole = b"".join(cut) + (b"end" if ending == "last" else b"")
    assert b"".join(piece.body for piece in pieces) == whole
    assert all(len(piece.body) <= 62_000 for piece in pieces)
    ends = [piece.end_of_stream for piece in pieces]
    if ending == "trailers":
        assert not any(ends)
        assert kinds[-1] == f"{side}_trailers"
    else:
        assert ends == [False] * (len(ends) - 1) + [True]
    session.close()
    assert all(len(one.outcomes) == 1 for one in filters)
    if BodyMode.WHOLE in modes:
        assert all(one.bodies[-1] == whole for one, mode in zip(filters, modes, strict=True) if mode is BodyMode.WHOLE)


@PROFILE
@given(st.lists(st.binary(max_size=50), max_size=6), st.lists(body_modes, min_size=1, max_size=3), sides)
def test_streamed_has_one_answer_for_each_piece(cut: list[bytes], modes: list[BodyMode], side: str) -> None:
    filters = [Scripted(mode, mode) for mode in modes]
    session = Session(Chain(filters), Limits())
    messages = [headers("request", last=side == "response", modes=(STREAMED, STREAMED))]
    if side == "response":
        messages.append(headers("response"))
    pieces = [*(body(side, piece) for piece in cut), body(side, b"end", last=True)]
    batches = asyncio.run(play(session, [*messages, *pieces]))
    assert all(len(batch) == 1 for batch in batches)
    out = b""
    for piece, (answer,) in zip([*cut, b"end"], batches[len(messages) :], strict=True):
        mutation = getattr(answer, f"{side}_body").response.body_mutation
        out += {"body": mutation.body, "clear_body": b"", None: piece}[mutation.WhichOneof("mutation")]
    assert out == b"".join(cut) + b"end"
