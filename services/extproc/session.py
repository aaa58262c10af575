"""One HTTP exchange of a callout, free of any transport: messages of the proxy in, answers out.

    session = Session(chain, limits)
    try:
        for message in stream:
            for answer in await session.receive(message):
                ...send
    finally:
        session.close()

`receive` suspends only where a filter waits: awaiting it costs no task and no turn of the event loop otherwise.

A denial is sent as `immediate_response` while the response's headers are still here. After they left Envoy would reset
the connection, so a stream of server-sent events is ended with an error event, `data: [DONE]` and the end of the body,
and the rest of the upstream's answer is swallowed. Any other response is reset: half a document must not look whole.
"""

import logging
import time
from collections.abc import Awaitable, Callable

from services.extproc import chain as chains
from services.extproc import messages
from services.extproc.api import Ending, Exchange, Headers, Outcome, Reply, deny
from services.extproc.chain import Chain, Denied, Link
from services.extproc.flow import Flow
from services.extproc.limits import Limits
from services.extproc.proto import ext_proc_pb2 as pb

logger = logging.getLogger("penstock.extproc")

DEFAULT_MODE = pb.FULL_DUPLEX_STREAMED
"""Body mode assumed for both directions if the first message has no `protocol_config`: what Penstock declares for its
callouts. Envoy sends it since 1.32; other proxies may not."""

EVENT_STREAM = "text/event-stream"


class Session:
    """One exchange. `receive` each message in order, then `close` exactly once, whatever happened."""

    __slots__ = (
        "_chain",
        "_clock",
        "_closed",
        "_denied",
        "_ending",
        "_expired",
        "_limits",
        "_links",
        "_observe_only",
        "_request",
        "_response",
        "_response_expected",
        "_response_mode",
        "_started",
        "_status",
        "exchange",
        "phase",
        "reply",
    )

    def __init__(self, chain: Chain, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.exchange = Exchange()
        self.phase = "open"
        """Name of the last message, e.g. `request_body`."""
        self.reply: Reply | None = None
        """The reply that ended the exchange, if one did."""
        self._chain, self._limits, self._clock = chain, limits, clock
        self._links: list[Link] = []
        self._request: Flow | None = None
        self._response: Flow | None = None
        self._response_expected = False
        self._response_mode: int = DEFAULT_MODE
        self._observe_only = False
        self._denied = False
        self._closed = False
        self._expired = False
        self._ending: Ending | None = None
        self._status: int | None = None
        self._started = clock()

    async def receive(self, message: pb.ProcessingRequest) -> list[pb.ProcessingResponse]:
        """Handle one message of the proxy and return the answers, in order. Never raises for what a peer sends."""
        kind = message.WhichOneof("request")
        if kind is None or self._denied or self._closed:
            return []
        self.phase = kind
        try:
            answers = await self._handle(kind, message)
            if self.exchange.dynamic_metadata and answers:
                messages.write_struct(answers[0].dynamic_metadata, self._take_metadata())
        except Denied as denied:
            answers = self._deny(denied)
        except (ValueError, TypeError) as error:
            # A filter left something that cannot be sent: a header with a line break, metadata of a strange type.
            logger.error("answer failed", extra={"request_id": self.exchange.request_id, "error": type(error).__name__})
            answers = self._deny(_broken(), reset=True)
        return [] if self._observe_only else answers

    def idle_limit(self) -> float:
        """Return for how many seconds the proxy may now be silent."""
        held = self._request is not None and self._request.holding and not self._denied
        return self._limits.upload_idle_s if held else self._limits.stream_idle_s

    def expire(self) -> list[pb.ProcessingResponse]:
        """The proxy was silent for `idle_limit()` seconds: return what to tell it, then close."""
        if self._denied or self._closed or self._complete():
            return []
        self._expired = True
        if self._request is not None and self._request.holding:
            reply = deny(408, "The request body did not arrive in time. Send it again.", code="request_timeout")
        else:
            reply = deny(504, "The upstream was silent for too long.", type="server_error", code="stream_idle_timeout")
        return self._deny(Denied(reply, Ending.DEADLINE))

    def close(self) -> Outcome | None:
        """The stream is over, for whatever reason: tell the filters. Returns None if that was done before."""
        if self._closed:
            return None
        self._closed = True
        outcome = Outcome(
            self._ending or (Ending.COMPLETE if self._complete() else Ending.ABORTED),
            self._status,
            self._clock() - self._started,
            self._request.bytes_seen if self._request else 0,
            self._response.bytes_seen if self._response else 0,
        )
        chains.end(self._links, self.exchange, outcome)
        return outcome

    def _handle(self, kind: str, message: pb.ProcessingRequest) -> Awaitable[list[pb.ProcessingResponse]]:
        if self._request is None:
            self._begin(message)
        if message.HasField("metadata_context"):
            self.exchange.metadata = messages.read_structs(message.metadata_context.filter_metadata)
        if kind.startswith("response"):
            flow = self._response = self._response or self._begin_response()
        else:
            assert self._request is not None  # noqa: S101 - made by _begin
            flow = self._request
        if kind == "request_headers":
            return flow.on_headers(message.request_headers)
        if kind == "response_headers":
            self._read_response(message.response_headers)
            return flow.on_headers(message.response_headers)
        if kind == "request_body":
            return flow.on_body(message.request_body)
        if kind == "response_body":
            return flow.on_body(message.response_body)
        return flow.on_trailers()

    def _begin(self, message: pb.ProcessingRequest) -> None:
        """Handle what only the first message tells: body modes, attributes, request headers; open the filters."""
        exchange, request_mode = self.exchange, DEFAULT_MODE
        if message.HasField("protocol_config"):
            config = message.protocol_config
            request_mode, self._response_mode = config.request_body_mode, config.response_body_mode
            self._response_expected = self._response_mode != pb.NONE
        self._observe_only = message.observability_mode
        if message.attributes:
            exchange.attributes = {
                name: value
                for values in messages.read_structs(message.attributes).values()
                for name, value in values.items()
            }
        if message.HasField("request_headers"):
            exchange.request_headers = Headers(messages.read_headers(message.request_headers.headers))
            exchange.request_id = exchange.request_headers.get("x-request-id")
        self._request = Flow(messages.REQUEST, self._chain.request, request_mode, exchange, self._links, self._limits)
        self._chain.open(exchange, self._links)

    def _begin_response(self) -> Flow:
        """Make the flow of the response: many callouts never see one."""
        links = self._links[::-1]
        return Flow(messages.RESPONSE, self._chain.response, self._response_mode, self.exchange, links, self._limits)

    def _read_response(self, message: pb.HttpHeaders) -> None:
        self.exchange.response_headers = Headers(messages.read_headers(message.headers))
        status = self.exchange.response_headers.get(":status")
        self._status = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else None

    def _take_metadata(self) -> dict[str, dict[str, object]]:
        metadata, self.exchange.dynamic_metadata = self.exchange.dynamic_metadata, {}
        return metadata

    def _deny(self, denied: Denied, reset: bool = False) -> list[pb.ProcessingResponse]:
        """End the exchange with a reply, in the way that is still open (see the module's text)."""
        self._ending, self.reply = denied.ending, denied.reply
        response = self._response
        if response is not None and response.left and not reset:
            cut = self._cut(response, denied.reply)
            if cut is not None:
                return cut
        self._denied = True
        try:
            answer = messages.immediate_answer(denied.reply)
        except (ValueError, TypeError):
            self._ending, self.reply = Ending.ERROR, _broken().reply
            answer = messages.immediate_answer(self.reply)
        self._status = self.reply.status
        return [answer]

    def _cut(self, response: Flow, reply: Reply) -> list[pb.ProcessingResponse] | None:
        """End a response whose headers have left; None if it cannot be ended cleanly."""
        streamed = response.mode == pb.STREAMED and self.phase == messages.RESPONSE.body and not self._expired
        if not (response.mode == pb.FULL_DUPLEX_STREAMED or streamed) or not self.phase.startswith("response"):
            return None
        if not self.exchange.response_headers.get("content-type").startswith(EVENT_STREAM):
            return None
        for link in self._links:
            link.alive = False
        return response.cut_off(_error_event(reply), trailers=self.phase == messages.RESPONSE.trailers)

    def _complete(self) -> bool:
        """Tell whether all that the callout was subscribed to has passed, as far as that can be known."""
        last = self._response
        if not self._response_expected and (last is None or not last.has_headers):
            last = self._request
        if last is None:
            return False
        return last.ended or (last.has_headers and last.mode == pb.NONE)


def _error_event(reply: Reply) -> bytes:
    """Return a reply as the end of a stream of server-sent events, as vLLM ends one that failed.

    The blank line in front ends an event that may have been cut in the middle.
    """
    lines = b"\n".join(b"data: " + line for line in reply.body.splitlines())
    return b"\n\n" + lines + b"\n\ndata: [DONE]\n\n"


def _broken() -> Denied:
    reply = deny(500, "A gateway policy failed. Try again.", type="server_error", code="callout_error")
    return Denied(reply, Ending.ERROR)
