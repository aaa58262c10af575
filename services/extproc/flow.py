"""One message of an exchange, the request or the response, on its way through the chain.

How a body passes depends on what the proxy sends (`BodySendMode`) and on what the filters want (`Plan`):

- FULL_DUPLEX_STREAMED: pieces in, pieces out, in any number. Headers are held while a filter wants the body whole,
  otherwise answered at once. What no filter changes is sent on as it came.
- STREAMED: exactly one answer for each piece. The proxy sends the body only after the headers have been answered, so
  filters that want it whole cannot change headers any more (what they change is sent with the last answer, which Envoy
  documents for BUFFERED only); earlier pieces are taken away and the last is replaced by the whole body. A body that
  ends by trailers leaves no such last piece: it is denied.
- BUFFERED: the whole body in one message; headers may still be changed by its answer. BUFFERED_PARTIAL is the same,
  except that a body cut at the proxy's buffer limit is denied if a filter wants it.
- NONE: no body. If a filter wants one, the exchange is denied: a check that cannot look must not pass.
"""

from services.extproc import chain, messages
from services.extproc.api import BodyMode, Ending, Exchange, HeaderChanges, Headers, deny
from services.extproc.chain import Denied, Link, Plan
from services.extproc.limits import Limits
from services.extproc.messages import Side
from services.extproc.proto import ext_proc_pb2 as pb

DUPLEX = pb.FULL_DUPLEX_STREAMED
SWALLOW_FACTOR = 4
"""How many times the body cap of a request that is too large is still received and dropped, so that its client sees the
413 rather than a reset connection."""

WHOLE, CHUNKS = BodyMode.WHOLE, BodyMode.CHUNKS  # as members of the enumeration they take ten times as long to read
WHOLE_IN_ONE = (pb.BUFFERED, pb.BUFFERED_PARTIAL)
KNOWN_MODES = (DUPLEX, pb.STREAMED, *WHOLE_IN_ONE)


class Flow:
    """State of one direction. Its methods take a message of the proxy and return the answers."""

    __slots__ = (
        "_body_s",
        "_exchange",
        "_headers_s",
        "_limits",
        "_links",
        "_overflow",
        "_parts",
        "_plan",
        "answered",
        "bytes_seen",
        "cut",
        "ended",
        "has_headers",
        "held_bytes",
        "left",
        "mode",
        "side",
    )

    def __init__(self, side: Side, plan: Plan, mode: int, exchange: Exchange, links: list[Link], limits: Limits):
        self.side, self.mode = side, mode
        self._plan, self._exchange, self._links, self._limits = plan, exchange, links, limits
        request = side is messages.REQUEST
        self._headers_s = limits.request_headers_s if request else limits.response_headers_s
        self._body_s = limits.request_body_s if request else limits.response_body_s
        self._parts: list[bytes] = []
        self._overflow: Denied | None = None
        self.has_headers = False
        self.answered = False
        """The headers have been answered."""
        self.left = False
        """The headers are on their way to the other end: no `immediate_response` can replace them any more."""
        self.ended = False
        """The proxy has sent all of the message."""
        self.cut = False
        """The body was ended early by the callout; what still comes is swallowed."""
        self.bytes_seen = 0
        self.held_bytes = 0

    @property
    def holding(self) -> bool:
        """Headers or body are held back until the message is complete."""
        return (self._plan.holds or self._overflow is not None) and self.has_headers and not self.ended

    async def on_headers(self, message: pb.HttpHeaders) -> list[pb.ProcessingResponse]:
        """Handle the headers."""
        if self.has_headers or self.ended:
            raise _violation(f"a second message of {self.side.headers}")
        self.has_headers = True
        if not message.end_of_stream:
            if self._plan.wants:
                self._check_mode()
            if self._caps and self._length_over():
                return self._swallow_too_large()
        await chain.ask(self._links, self.side.on_headers, self._headers_s, self._exchange)
        if message.end_of_stream:
            await self._finish()
        elif self._plan.holds and self.mode == DUPLEX:
            return []
        return [self._let_headers_go()]

    async def on_body(self, message: pb.HttpBody) -> list[pb.ProcessingResponse]:
        """Handle a piece of the body, or all of it."""
        if self.ended or self.cut:
            return self._swallow(message.end_of_stream)
        if self.mode not in KNOWN_MODES:
            self.mode = pb.STREAMED  # one answer for each message is right in every mode but full duplex
        body, last = message.body, message.end_of_stream
        if self.mode in WHOLE_IN_ONE:
            if self.mode == pb.BUFFERED_PARTIAL and self._plan.wants and not last:
                raise _too_large(self.side, self._limits.max_body_bytes)
            last = True  # also with trailers to come, where Envoy leaves the flag unset
        self.bytes_seen += len(body)
        if self._overflow or (self._caps and self.bytes_seen > self._limits.max_body_bytes):
            self.ended = last
            return self._swallow_too_large()
        if not self._plan.holds:
            return await self._pass(body, last)
        return await self._hold(body, last)

    async def on_trailers(self) -> list[pb.ProcessingResponse]:
        """Handle the trailers: the body, if there was one, has ended."""
        answers: list[pb.ProcessingResponse] = []
        if self._overflow:
            raise self._overflow
        if not self.ended and not self.cut:
            if self._plan.holds:
                await self._finish()
                answers = self._release(last=False)
            else:
                self.ended = True
                tail = await self._transform(0, b"", True)
                answers = messages.pieces(self.side, tail, False) if self.mode == DUPLEX else []
        self.ended = True
        return [*answers, messages.trailers_answer(self.side)]

    def cut_off(self, body: bytes, trailers: bool) -> list[pb.ProcessingResponse]:
        """End the body with `body`, as the answer to the message at hand (which may be the trailers)."""
        self.cut = True
        self._parts.clear()
        if self.mode == DUPLEX:
            end = [messages.trailers_answer(self.side)] if trailers else []
            return [*messages.pieces(self.side, body, not trailers), *end]
        return [messages.body_answer(self.side, body, None, False)]

    async def _pass(self, body: bytes, last: bool) -> list[pb.ProcessingResponse]:
        """Send a piece on, through the filters that want pieces."""
        self.ended = last
        out = await self._transform(0, body, last) if self._plan.wants else body
        if self.mode == DUPLEX:
            return messages.pieces(self.side, out, last)
        return [self._one_answer(None if out is body or out == body else out, None)]

    async def _hold(self, body: bytes, last: bool) -> list[pb.ProcessingResponse]:
        """Keep a piece until the body is complete, then send all of it on."""
        if self._plan.first_whole:
            body = await self._transform(0, body, last)
        if body:
            self._parts.append(body)
            self.held_bytes += len(body)
        if not last:
            return [] if self.mode == DUPLEX else [messages.body_answer(self.side, b"", None, False)]
        single = self.held_bytes == self.bytes_seen == len(body)
        await self._finish()
        if self.mode == DUPLEX:
            return self._release(last=True)
        whole: bytes = getattr(self._exchange, self.side.body)
        unchanged = single and not self._plan.first_whole and not getattr(self._exchange, self.side.body_changed)
        return [self._one_answer(None if unchanged else whole, getattr(self._exchange, self.side.changes))]

    async def _finish(self) -> None:
        """The message is complete: show the body to the filters that want it whole and to those after them."""
        self.ended = True
        if not self._plan.wants:
            return
        exchange, side = self._exchange, self.side
        if not self._plan.holds:
            await self._transform(0, b"", True)
            return
        setattr(exchange, side.body, self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
        self._parts.clear()
        for position in range(self._plan.first_whole, len(self._links)):
            link = self._links[position]
            mode = self._mode_of(link)
            if mode is WHOLE:
                await chain.ask([link], side.on_body, self._body_s, exchange)
            elif mode is CHUNKS:
                before: bytes = getattr(exchange, side.body)
                after = await self._transform(position, before, True)
                if after is not before:
                    getattr(exchange, f"replace_{side.body}")(after)

    async def _transform(self, position: int, chunk: bytes, last: bool) -> bytes:
        """Pass a chunk through the filters before the first that wants it whole, or through the one at `position`."""
        links = self._links[position : position + 1] if position else self._links[: self._plan.first_whole]
        wanting = [link for link in links if self._mode_of(link) is CHUNKS]
        return await chain.transform(wanting, self.side.on_chunk, chunk, last, self._body_s, self._exchange)

    def _release(self, last: bool) -> list[pb.ProcessingResponse]:
        """Full duplex: let headers and the held body go; `last` unless trailers follow."""
        answers = [self._let_headers_go()] if self.has_headers and not self.answered else []
        if self.mode == DUPLEX:
            return answers + messages.pieces(self.side, getattr(self._exchange, self.side.body), last)
        if self.held_bytes:
            raise Denied(
                deny(
                    500,
                    f"The gateway cannot check a {self.side.name} with trailers in STREAMED body mode.",
                    type="server_error",
                    code="callout_misconfigured",
                ),
                Ending.ERROR,
            )
        return answers

    def _let_headers_go(self) -> pb.ProcessingResponse:
        answer = messages.headers_answer(self.side, getattr(self._exchange, self.side.changes), self._clear_route_cache)
        self.answered = True
        self.left = self.ended or self.mode not in WHOLE_IN_ONE
        return answer

    def _one_answer(self, body: bytes | None, changes: HeaderChanges | None) -> pb.ProcessingResponse:
        """Answer a message of STREAMED or BUFFERED."""
        if self.mode in WHOLE_IN_ONE:
            changes = getattr(self._exchange, self.side.changes)
            if body is not None:  # Envoy answers 500 if the length it has seen and the new body differ
                changes = HeaderChanges({**changes.set, "content-length": str(len(body))}, changes.remove)
        self.left = True
        return messages.body_answer(self.side, body, changes, self._clear_route_cache)

    def _swallow(self, last: bool) -> list[pb.ProcessingResponse]:
        """Answer what came after the end: known of Envoy 1.35 to 1.37 with bodies over 1 MB, or after a cut."""
        self.ended = self.ended or last
        return [] if self.mode == DUPLEX else [messages.body_answer(self.side, b"", None, False)]

    def _mode_of(self, link: Link) -> BodyMode:
        return link.request_body if self.side is messages.REQUEST else link.response_body

    @property
    def _clear_route_cache(self) -> bool:
        return self._exchange.clear_route_cache and self.side is messages.REQUEST

    @property
    def _caps(self) -> bool:
        """Requests are capped always, responses only where they have to be held."""
        return self.side is messages.REQUEST or self._plan.holds

    def _check_mode(self) -> None:
        """Refuse what cannot be looked at: a filter wants a body that the proxy was not told to send."""
        if self.mode in (pb.NONE, pb.GRPC):
            wanting = [link for link in self._links if self._mode_of(link) is not BodyMode.NONE and link.alive]
            for link in wanting:
                error = RuntimeError("the proxy sends no body")
                chain.failed(link.filter, self._exchange, f"{self.side.name}_body_mode", error)
                link.alive = False

    def _length_over(self) -> bool:
        """Tell by content-length what is too large, before it is sent. No filter is asked then."""
        if self.mode == pb.NONE:
            return False
        headers: Headers = getattr(self._exchange, self.side.headers)
        length = headers.get("content-length")
        if not length.isascii() or not length.isdigit() or int(length[:20]) <= self._limits.max_body_bytes:
            return False
        if int(length[:20]) > SWALLOW_FACTOR * self._limits.max_body_bytes:
            raise _too_large(self.side, self._limits.max_body_bytes)
        return True

    def _swallow_too_large(self) -> list[pb.ProcessingResponse]:
        """Drop a request that is too large up to its end, and deny it there; deny at once what cannot be dropped.

        A client that is still sending would not see an early answer: over HTTP/1.1 Envoy sends it and closes the
        connection, which becomes a reset with the unread rest of the upload, and the client retries.
        """
        overflow = self._overflow or _too_large(self.side, self._limits.max_body_bytes)
        duplex = self.mode == DUPLEX and self.side is messages.REQUEST
        if not duplex or self.ended or self.bytes_seen > SWALLOW_FACTOR * self._limits.max_body_bytes:
            raise overflow
        self._overflow = overflow
        self._parts.clear()
        return []


def _too_large(side: Side, cap: int) -> Denied:
    if side is messages.REQUEST:
        text = f"The request body is larger than {cap} bytes. Shorten the prompt."
        return Denied(deny(413, text, code="request_too_large"))
    text = f"The response body is larger than {cap} bytes and cannot be checked. Ask for less, or for a stream."
    return Denied(deny(502, text, type="server_error", code="response_too_large"))


def _violation(what: str) -> Denied:
    text = f"The gateway's proxy sent {what}."
    return Denied(deny(500, text, type="server_error", code="callout_protocol_error"), Ending.ERROR)
