"""API management as a filter: who asks, the policies of the product, the reservation, the answer, the books.

Policies run in a plain loop; only the first one that has to wait turns the rest of a hook into a coroutine. Fails
closed: an exception here ends the request with 500.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, ClassVar

import orjson
from mypy_extensions import mypyc_attr

from services.apimgmt import body as bodies
from services.apimgmt import ending, errors, identity, reserving
from services.apimgmt.account import Account
from services.apimgmt.accounting import Accounting
from services.apimgmt.call import MAX_KEPT, Call
from services.apimgmt.chain import Chains, Compiled
from services.apimgmt.ending import End
from services.apimgmt.metrics import UNKNOWN, Metrics
from services.apimgmt.step import Step
from services.apimgmt.usage import request as usage
from services.apimgmt.usage.estimator import Estimator
from services.apimgmt.usage.response import UsageReader
from services.extproc.api import Answer, BodyMode, ChunkAnswer, Ending, Exchange, Filter, FilterStream, Outcome, Reply

OVERHEAD_HEADER = "x-penstock-overhead-ms"
"""Response header: milliseconds that the request spent here until it went on."""

STREAM_END = b"data: [DONE]\n\n"
"""End of a stream of server-sent events (OpenAI API reference, "Streaming"): the client is done when it has this."""

LATE_S = 1.0
"""How long after the headers a body is late, seconds: revocations take effect within this time."""

Observer = Callable[[Call, Mapping[str, Any], Outcome], None]
"""Is told of each request whose caller is known when it is over: call, ledger record, how the exchange ended."""


class ApiManagement(Filter):
    """One per process; chains and what they use change while it runs."""

    name: ClassVar[str] = "api-management"
    request_body: ClassVar[BodyMode] = BodyMode.WHOLE
    response_body: ClassVar[BodyMode] = BodyMode.CHUNKS
    fail_open = False

    def __init__(
        self,
        chains: Chains,
        accounting: Accounting,
        estimator: Estimator,
        metrics: Metrics,
        observers: Sequence[Observer] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.chains, self.accounting, self.estimator, self.metrics = chains, accounting, estimator, metrics
        self.observers, self.clock = tuple(observers), clock

    def open(self, exchange: Exchange) -> "ApiManagementStream":
        """Return the stream of one exchange."""
        return ApiManagementStream(self, exchange)


@mypyc_attr(allow_interpreted_subclasses=True)
class ApiManagementStream(FilterStream):
    """One exchange."""

    __slots__ = (
        *("_account", "_call", "_chain", "_exchange", "_filter", "_forwarded"),
        *("_kept", "_left", "_reader", "_reply", "_status"),
    )

    def __init__(self, owner: ApiManagement, exchange: Exchange) -> None:
        self._filter, self._exchange = owner, exchange
        now = owner.clock()
        self._call = Call(exchange, owner.accounting.ids.next(now), now, perf_counter())
        self._chain: Compiled | None = None
        """Of the product; None where there is none (the model list)."""
        self._account: Account | None = None
        """From when on the caller is known."""
        self._reader: UsageReader | None = None
        self._reply: Reply | None = None
        """Ours, if it ended the request."""
        self._status = 0
        """Of the upstream's answer; 0 if there is none yet."""
        self._forwarded = False
        """The request went on."""
        self._left = -1
        """Bytes of the answer that are still to come; negative where that is not known."""
        self._kept: list[bytes] | None = None

    # the request

    def on_request_headers(self) -> Answer:
        """Find out who asks and for what; run the policies that need no body."""
        began = perf_counter()
        identity.clean(self._exchange)
        found = self._run(self._filter.chains.head)
        answer = self._admit(found) if found is None or isinstance(found, Reply) else self._admit_later(found)
        return self._ended(answer, began) if answer is None or isinstance(answer, Reply) else self._later(answer, began)

    def on_request_body(self) -> Answer:
        """Run the policies of the product, then reserve."""
        began = perf_counter()
        if self._chain is None:
            self._forwarded = True
            return None
        now, before = self._filter.clock(), self._call.now
        if int(now) != int(before):  # who sends its body late must not be charged to a window that is over
            self._call.now = now
            if now - before >= LATE_S:
                return self._admit_again(began)
        return self._judge(self._chain, began)

    async def _admit_again(self, began: float) -> Reply | None:
        """Look again who asks, and for what: since the headers came, the key may have been revoked."""
        reply = await _resolved(self._run(self._filter.chains.head))
        chain = self._chain = self._filter.chains.of(self._call)
        if reply is not None or chain is None:
            return self._ended(reply or errors.broken_product("").reply(), began)
        return await _resolved(self._judge(chain, began))

    def _judge(self, chain: Compiled, began: float) -> Answer:
        answer: Answer = self._prepare()
        # Without an edit the body is the parsed one, which nobody changes: only a copy may be changed again.
        before = self._call.body if self._call.edited is None else dict(self._call.body)
        if answer is None:
            answer = self._run((self._chain or chain).body)
        if isinstance(answer, Reply) and answer.status >= 400:
            return self._ended(answer, began)
        return self._reserve(self._chain or chain, answer, before, began)

    def _admit(self, refusal: Reply | None) -> Answer:
        """Open the books where the caller is known; go on with the product's own chain if the head has passed."""
        call, owner = self._call, self._filter
        if call.caller is None:
            return refusal or errors.missing_credentials().reply()
        self._account = Account(owner.accounting, call)
        if refusal is not None:
            return refusal
        if call.product is None:  # the list of models: open to every caller that is known
            return None
        chain = self._chain = owner.chains.of(call)
        if chain is None:
            return self._admit_new(call.product.product.name)
        return self._run(chain.headers) if chain.headers else None

    async def _admit_new(self, name: str) -> Reply | None:
        """The product is newer than the chains: wait for them to be compiled."""
        chain = self._chain = await self._filter.chains.wait_for(name)
        if chain is None:
            return errors.broken_product(name).reply()
        return await _resolved(self._run(chain.headers))

    async def _admit_later(self, waiting: Awaitable[Reply | None]) -> Reply | None:
        return await _resolved(self._admit(await waiting))

    def _prepare(self) -> Reply | None:
        """Read the body and what it may use."""
        call, body = self._call, bodies.read(self._exchange)
        if isinstance(body, Reply):
            return body
        call.body = body
        if not call.model:  # no body router in front
            answer = self._filter.chains.recheck(call)
            chain = self._filter.chains.of(call)
            if answer is not None or chain is None:
                return answer or errors.broken_product("").reply()
            self._chain = chain
        return usage.prepare(call, self._filter.estimator)

    def _run(self, steps: Sequence[Step], start: int = 0) -> Answer:
        """Ask the policies in order."""
        call = self._call
        for i in range(start, len(steps)):
            answer = steps[i].run(call)
            if answer is not None:
                return answer if isinstance(answer, Reply) else self._continue(answer, steps, i)
        return None

    async def _continue(self, answer: Awaitable[Reply | None], steps: Sequence[Step], position: int) -> Reply | None:
        reply = await steps[position].finish(self._call, answer)
        return reply or await _resolved(self._run(steps, position + 1))

    async def _reserve(self, chain: Compiled, answer: Answer, before: Mapping[str, Any], began: float) -> Reply | None:
        """Reserve what the request may use, or the policy's answer does; with that it goes on, or is refused."""
        call, owner, account = self._call, self._filter, self._account
        assert account is not None  # noqa: S101 - made before the chain runs
        reply = answer if answer is None or isinstance(answer, Reply) else await answer
        if reply is None and call.edited is not None and call.body != before:
            reply = reserving.again(call, chain, owner.estimator)
        if reply is None or reply.status < 400:
            if reply is not None:
                reserving.without_model(call)
            reply = await reserving.reserve(account, owner.estimator, owner.accounting.store, owner.metrics) or reply
        if reply is None:
            self._forwarded = True
            if call.edited is not None:
                self._exchange.replace_request_body(orjson.dumps(call.edited), call.edited)
        return self._ended(reply, began)

    def _ended(self, reply: Reply | None, began: float) -> Reply | None:
        """End a hook: count its time, and give a reply the headers that belong to every answer."""
        account = self._account
        if account is not None:
            account.overhead_s += perf_counter() - began
        if reply is None:
            return None
        headers = {**self._call.headers, **reply.headers}
        if account is not None:
            headers[OVERHEAD_HEADER] = f"{account.overhead_s * 1000:.3f}"
        self._reply = Reply(reply.status, reply.body, headers, reply.details)
        return self._reply

    async def _later(self, answer: Awaitable[Reply | None], began: float) -> Reply | None:
        return self._ended(await answer, began)

    # the answer

    def on_response_headers(self) -> Answer:
        """Begin to read what was used; tell the client about its limits."""
        call, account, owner = self._call, self._account, self._filter
        headers = self._exchange.response_headers
        self._status = _number(headers.get(":status"), 0)
        if account is None:
            return None
        if account.granted:
            self._reader = UsageReader(call, self._status, headers.get("content-type"), owner.estimator)
            self._left = _number(headers.get("content-length"), -1)
        if self._chain is not None:
            for policy in self._chain.responders:
                policy.on_response(call)
        self._kept = [] if call.keep_response else None
        changes = self._exchange.response_changes.set
        changes.update(call.headers)
        changes[OVERHEAD_HEADER] = f"{account.overhead_s * 1000:.3f}"
        owner.metrics.overhead.add(account.overhead_s)
        return None

    def on_response_chunk(self, chunk: bytes, last: bool) -> ChunkAnswer:
        """Read usage; hold the end of the answer until it is booked."""
        reader, account = self._reader, self._account
        if account is None or reader is None:
            return chunk
        out = reader.feed(chunk, last)
        if self._kept is not None:
            self._keep(out)
        self._left -= len(chunk)
        if account.closed or not (last or self._left == 0 or chunk.endswith(STREAM_END)):
            return out
        future = self._close(account, ending.of_answer(self._status, reader))
        return out if future is None or future.done() else self._filter.accounting.hold(future, out)

    def _keep(self, out: bytes) -> None:
        assert self._kept is not None  # noqa: S101 - asked before
        self._kept.append(out)
        if sum(map(len, self._kept)) > MAX_KEPT:
            self._kept = None

    # the end

    def on_end(self, outcome: Outcome) -> None:
        """Settle what is not settled, and tell policies and observers."""
        call, account, owner = self._call, self._account, self._filter
        if account is None:
            end = self._end(outcome)
            owner.metrics.requests.counts[UNKNOWN, end.outcome.value, end.code] += 1
            return
        if not account.closed:
            self._close(account, self._end(outcome))
        if self._kept is not None and outcome.ending is Ending.COMPLETE:
            call.response = b"".join(self._kept)
        if self._chain is not None:
            for policy in self._chain.enders:
                policy.on_done(call, outcome)
        for observer in owner.observers:
            observer(call, account.record, outcome)

    def _end(self, outcome: Outcome) -> End:
        account, estimator = self._account, self._filter.estimator
        reserved = account is not None and account.granted
        if self._reply is not None and outcome.ending is Ending.DENIED:
            return ending.of_reply(self._reply, reserved=reserved)
        if self._status:
            return ending.of_cut_answer(self._call, self._status, self._reader, outcome, estimator)
        return ending.of_silence(self._call, outcome, estimator, charged=self._forwarded and reserved)

    def _close(self, account: Account, end: End) -> "asyncio.Future[None] | None":
        return account.close(end, self._reader.first_token_at if self._reader is not None else None)


async def _resolved(answer: Answer) -> Reply | None:
    return answer if answer is None or isinstance(answer, Reply) else await answer


def _number(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else default
