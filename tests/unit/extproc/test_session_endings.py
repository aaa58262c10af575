"""How sessions end, and what filters learn of it."""

import logging

import pytest

from services.extproc.api import Ending, Exchange
from services.extproc.proto import ext_proc_pb2 as pb
from tests.support.extproc import DUPLEX, NONE, Scripted, headers, session


@pytest.mark.parametrize(
    ("messages", "ending"),
    [
        ([], Ending.ABORTED),
        ([headers("request", modes=(DUPLEX, NONE))], Ending.ABORTED),
        ([headers("request", last=True, modes=(DUPLEX, NONE))], Ending.COMPLETE),
        ([headers("request", last=True, modes=(DUPLEX, DUPLEX))], Ending.ABORTED),
        ([headers("request", last=True, modes=(DUPLEX, DUPLEX)), headers("response")], Ending.ABORTED),
        ([headers("request", last=True, modes=(DUPLEX, DUPLEX)), headers("response", last=True)], Ending.COMPLETE),
        ([headers("request", last=True, modes=(NONE, NONE)), headers("response")], Ending.COMPLETE),
        ([headers("request", last=True, modes=(NONE, NONE)), headers("request", last=True)], Ending.ERROR),
    ],
)
async def test_endings(messages: list[pb.ProcessingRequest], ending: Ending) -> None:
    s = session(Scripted())
    for message in messages:
        await s.receive(message)
    outcome = s.close()
    assert outcome is not None
    assert outcome.ending is ending


async def test_observability_mode_gets_no_answers() -> None:
    message = headers("request", last=True)
    message.observability_mode = True
    assert await session(Scripted()).receive(message) == []


async def test_on_end_that_raises_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Scripted):
        def open(self, exchange: Exchange):  # type: ignore[no-untyped-def]
            stream = super().open(exchange)
            stream.on_end = lambda outcome: 1 / 0  # type: ignore[method-assign,assignment,return-value]
            return stream

    other = Scripted()
    s = session(Bad(), other)
    await s.receive(headers("request", last=True))
    with caplog.at_level(logging.ERROR):
        s.close()
    assert len(other.outcomes) == 1
