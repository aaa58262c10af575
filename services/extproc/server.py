"""The ext_proc service on grpc.aio: one handler task for each stream, and one shared timer for all of them."""

import asyncio
import logging
import time
from collections.abc import Sequence

import grpc
import grpc.aio

from services.extproc.api import Ending
from services.extproc.chain import Chain
from services.extproc.limits import Limits
from services.extproc.metrics import TALLY
from services.extproc.proto import ext_proc_pb2 as pb
from services.extproc.session import Session

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
"""Full name of the gRPC service on the wire (Envoy v3 API)."""

TICK_S = 0.25
"""How often silent streams are looked for, seconds: the precision of the idle limits."""

MESSAGE_OVERHEAD_BYTES = 1024 * 1024
"""What a message may hold besides body, bytes: headers and metadata."""

RECEIVE_BYTES = 128 * 1024 * 1024
"""Smallest limit of one message, bytes: twice the highest body cap of any service. Only the proxy sends messages, and
how much it sends at once is bounded by its own buffers."""

EOF: object = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs

logger = logging.getLogger("penstock.extproc")

Context = grpc.aio.ServicerContext[pb.ProcessingRequest, pb.ProcessingResponse]


def server_options(limits: Limits) -> list[tuple[str, int]]:
    """Return gRPC server options.

    A proxy may send a body in one message, so the receive limit (4 MiB by default in gRPC) is the body cap and room
    for headers; since the cap may be raised while the server runs, room for `RECEIVE_BYTES` at least. Keepalive pings
    of proxies at 1 s or slower are welcome: by default gRPC closes connections that ping more often than every 5
    minutes ("too many pings"), and with them silent streams.
    """
    return [
        ("grpc.max_receive_message_length", max(2 * limits.max_body_bytes, RECEIVE_BYTES) + MESSAGE_OVERHEAD_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.http2.min_ping_interval_without_data_ms", 500),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.so_reuseport", 0),
    ]


class Callout:
    """Runs the sessions of one process."""

    def __init__(self, chain: Chain, limits: Limits) -> None:
        self.use(chain, limits)
        self._streams: set[_Stream] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._expiring: set[asyncio.Task[None]] = set()

    def use(self, chain: Chain, limits: Limits) -> None:
        """Serve exchanges that begin from now on by `chain` and `limits`; open ones keep theirs."""
        self._chain, self._limits = chain, limits

    @property
    def in_flight(self) -> int:
        """Streams that are open now."""
        return len(self._streams)

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a gRPC server."""
        method = grpc.stream_stream_rpc_method_handler(
            self._process,
            request_deserializer=pb.ProcessingRequest.FromString,
            response_serializer=pb.ProcessingResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Process": method})])

    async def wait_idle(self) -> None:
        """Return when no stream is open."""
        await self._idle.wait()

    async def watch(self) -> None:
        """End streams whose peer fell silent; runs until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            for stream in [stream for stream in self._streams if stream.deadline <= now]:
                stream.deadline = float("inf")
                task = asyncio.create_task(stream.expire())
                self._expiring.add(task)
                task.add_done_callback(self._expiring.discard)

    async def _process(self, _: object, context: Context) -> None:
        stream = _Stream(Session(self._chain, self._limits), context)
        self._streams.add(stream)
        self._idle.clear()
        TALLY.streams += 1
        TALLY.in_flight += 1
        try:
            await stream.run()
        except grpc.aio.InternalError:
            pass  # the proxy reset the stream while an answer was being written, before gRPC cancelled this task
        finally:
            self._streams.discard(stream)
            if not self._streams:
                self._idle.set()
            TALLY.in_flight -= 1
            stream.close()


class _Stream:
    """One session and the gRPC stream that carries it."""

    __slots__ = ("_context", "_session", "_task", "deadline")

    def __init__(self, session: Session, context: Context) -> None:
        self._session, self._context = session, context
        self._task = asyncio.current_task()
        self.deadline = time.monotonic() + session.idle_limit()

    async def run(self) -> None:
        """Serve until the proxy ends the stream: by half close, or by a reset, which cancels this task.

        The stream is never ended from here: in full duplex Envoy would take that for an empty or finished body.
        """
        session, context, phases = self._session, self._context, TALLY.phases
        while True:
            message = await context.read()
            if message is EOF:
                return
            self.deadline = float("inf")  # a filter that waits has a deadline of its own
            began = time.monotonic()
            answers = await session.receive(message)
            if session.phase in phases:
                phases[session.phase].add(time.monotonic() - began)
            self.deadline = time.monotonic() + session.idle_limit()
            for answer in answers:
                await context.write(answer)
            TALLY.sent += len(answers)

    async def expire(self) -> None:
        """Tell the proxy that it was silent for too long, and end the stream if it stays so."""
        try:
            async with asyncio.timeout(TICK_S * 4):
                await self._write(self._session.expire())
                await asyncio.sleep(TICK_S * 3)
        except (TimeoutError, grpc.RpcError, asyncio.InvalidStateError):
            pass  # the stream ended meanwhile
        finally:
            if self._task is not None:
                self._task.cancel()

    def close(self) -> None:
        """Close the session and count how it ended."""
        outcome = self._session.close()
        if outcome is None:
            return
        TALLY.end(outcome, self._session.reply)
        level = logging.INFO if outcome.ending in (Ending.DEADLINE, Ending.ERROR) else logging.DEBUG
        if logger.isEnabledFor(level):
            logger.log(
                level,
                "exchange ended",
                extra={
                    "request_id": self._session.exchange.request_id,
                    "ending": outcome.ending.value,
                    "status": outcome.status,
                    "duration_s": round(outcome.duration_s, 4),
                    "phase": self._session.phase,
                },
            )

    async def _write(self, answers: Sequence[pb.ProcessingResponse]) -> None:
        for answer in answers:
            await self._context.write(answer)
