"""Messages as a proxy sends them, and filters for tests."""

import asyncio
from collections.abc import Callable
from typing import Any

from services.extproc.api import Answer, BodyMode, ChunkAnswer, Exchange, Filter, FilterStream, Outcome
from services.extproc.chain import Chain
from services.extproc.limits import Limits
from services.extproc.proto import ext_proc_pb2 as pb
from services.extproc.session import Session

DUPLEX, STREAMED, BUFFERED, NONE = pb.FULL_DUPLEX_STREAMED, pb.STREAMED, pb.BUFFERED, pb.NONE


def headers(
    side: str, fields: dict[str, str] | None = None, *, last: bool = False, modes: tuple[int, int] | None = None
) -> pb.ProcessingRequest:
    """A message of request or response headers; `modes` adds protocol_config."""
    message = pb.ProcessingRequest()
    part = getattr(message, f"{side}_headers")
    part.SetInParent()
    for name, value in (fields or ({":status": "200"} if side == "response" else {":method": "POST"})).items():
        part.headers.headers.add(key=name, raw_value=value.encode())
    part.end_of_stream = last
    if modes is not None:
        message.protocol_config.request_body_mode = modes[0]  # type: ignore[assignment]  # ints are enum values
        message.protocol_config.response_body_mode = modes[1]  # type: ignore[assignment]
        message.protocol_config.SetInParent()
    return message


def body(side: str, data: bytes, last: bool = False) -> pb.ProcessingRequest:
    """A message with a piece of body."""
    message = pb.ProcessingRequest()
    part = getattr(message, f"{side}_body")
    part.SetInParent()
    part.body, part.end_of_stream = data, last
    return message


def trailers(side: str) -> pb.ProcessingRequest:
    """A message of trailers."""
    message = pb.ProcessingRequest()
    getattr(message, f"{side}_trailers").trailers.headers.add(key="x-end", raw_value=b"1")
    return message


class ScriptedStream(FilterStream):
    """A stream whose hooks are looked up in the filter's `hooks`, each called with the exchange first."""

    def __init__(self, owner: "Scripted", exchange: Exchange) -> None:
        self.owner, self.exchange = owner, exchange

    def _call(self, hook: str, default: Any, *args: Any) -> Any:
        self.owner.calls.append(hook)
        script = self.owner.hooks.get(hook)
        return default if script is None else script(self.exchange, *args)

    def on_request_headers(self) -> Answer:
        return self._call("on_request_headers", None)  # type: ignore[no-any-return]

    def on_request_body(self) -> Answer:
        self.owner.bodies.append(self.exchange.request_body)
        return self._call("on_request_body", None)  # type: ignore[no-any-return]

    def on_request_chunk(self, chunk: bytes, last: bool) -> ChunkAnswer:
        return self._call("on_request_chunk", chunk, chunk, last)  # type: ignore[no-any-return]

    def on_response_headers(self) -> Answer:
        return self._call("on_response_headers", None)  # type: ignore[no-any-return]

    def on_response_body(self) -> Answer:
        self.owner.bodies.append(self.exchange.response_body)
        return self._call("on_response_body", None)  # type: ignore[no-any-return]

    def on_response_chunk(self, chunk: bytes, last: bool) -> ChunkAnswer:
        return self._call("on_response_chunk", chunk, chunk, last)  # type: ignore[no-any-return]

    def on_end(self, outcome: Outcome) -> None:
        self.owner.outcomes.append(outcome)
        self.owner.ended.set()


class Scripted(Filter):
    """A filter made of functions: `Scripted(WHOLE, on_request_body=lambda exchange: deny(403, "no"))`."""

    name = "scripted"

    def __init__(
        self,
        request: BodyMode = BodyMode.NONE,
        response: BodyMode = BodyMode.NONE,
        *,
        fail_open: bool = False,
        **hooks: Callable[..., Any],
    ) -> None:
        self.request_body, self.response_body, self.fail_open = request, response, fail_open  # type: ignore[misc]
        self.hooks = hooks
        self.calls: list[str] = []
        self.bodies: list[bytes] = []
        self.outcomes: list[Outcome] = []
        self.ended = asyncio.Event()

    def open(self, exchange: Exchange) -> FilterStream:
        return ScriptedStream(self, exchange)


def session(*filters: Filter, **limits: float) -> Session:
    """A session of these filters, with the default limits but for those given."""
    return Session(Chain(filters), Limits(**limits))  # type: ignore[arg-type]
