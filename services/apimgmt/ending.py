"""What became of a request, and what of it is charged.

Charged is what the model did: the whole answer, or what of it passed before somebody went away or a later filter cut it
off; the prompt alone where a request went on and no answer was seen. Nothing is charged for what never went on, nor for
an upstream's error without usage.
"""

from typing import NamedTuple

from services.apimgmt.call import Call
from services.apimgmt.ledger.record import RequestOutcome
from services.apimgmt.usage import request as usage
from services.apimgmt.usage.estimator import Estimator
from services.apimgmt.usage.response import UsageReader
from services.apimgmt.usage.tokens import Tokens
from services.extproc.api import Ending, Outcome, Reply


class End(NamedTuple):
    """What the books are closed with."""

    outcome: RequestOutcome
    status: int
    """HTTP status that the client got; 0 for none."""
    tokens: Tokens | None
    """What is charged; None for nothing."""
    code: str = ""
    """Error code, for metrics."""


_NOTHING = Tokens()


def of_reply(reply: Reply, *, reserved: bool) -> End:
    """Return the end of a request that API management answered itself."""
    if reply.status < 400:
        return End(RequestOutcome.CACHED, reply.status, _NOTHING if reserved else None, reply.details)
    outcome = RequestOutcome.REFUSED if reply.status < 500 else RequestOutcome.ERROR
    return End(outcome, reply.status, None, reply.details)


def of_answer(status: int, reader: UsageReader | None) -> End:
    """Return the end of a request whose answer passed to its last byte."""
    tokens = reader.tokens() if reader is not None else None
    if status >= 400:
        return End(RequestOutcome.ERROR if status >= 500 else RequestOutcome.DENIED, status, tokens)
    return End(RequestOutcome.OK, status, _NOTHING if tokens is None and reader is not None else tokens)


def of_cut_answer(call: Call, status: int, reader: UsageReader | None, outcome: Outcome, estimator: Estimator) -> End:
    """Return the end of a request of which the beginning of an answer was seen.

    A later filter that holds the answer whole may have denied it: then nothing passed here, and all of it was used.
    """
    if outcome.ending is Ending.COMPLETE:
        return of_answer(status, reader)
    whole = call.exchange.response_body
    if reader is not None and outcome.ending in (Ending.DENIED, Ending.ERROR) and whole:
        reader.feed(whole, True)
    found = of_answer(status, reader)
    if status >= 400:
        return found
    tokens = reader.tokens() or usage.unanswered(call, estimator) if reader is not None else None
    what = {Ending.DENIED: RequestOutcome.DENIED, Ending.ERROR: RequestOutcome.ERROR}
    ended = what.get(outcome.ending, RequestOutcome.ABORTED)
    return End(ended, outcome.status or status, tokens, outcome.ending.value)


def of_silence(call: Call, outcome: Outcome, estimator: Estimator, *, charged: bool) -> End:
    """Return the end of a request of which no answer was seen; `charged` if it went on to the upstream."""
    ending, status = outcome.ending, outcome.status or 0
    if ending is Ending.DENIED:
        return End(RequestOutcome.DENIED if status < 500 else RequestOutcome.ERROR, status, None, ending.value)
    if ending in (Ending.ERROR, Ending.DEADLINE):
        return End(RequestOutcome.ERROR, status, None, ending.value)
    tokens = usage.unanswered(call, estimator) if charged else None
    return End(RequestOutcome.OK if ending is Ending.COMPLETE else RequestOutcome.ABORTED, status, tokens, ending.value)
