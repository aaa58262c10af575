"""CPU that one exchange costs a callout apart from gRPC: protobuf in and out, session, and filter.

An exchange is what Envoy sends for a chat completion: the messages a callout is subscribed to, in the order and with
the headers of the data path. Nothing here waits, so the time of the process is the cost of the work; caches are warm,
and a busy process pays about twice as much.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence

import orjson
from prometheus_client import CollectorRegistry

from benchmarks.table import print_table
from services.bodyrouter.filter import BodyRouter, Counts
from services.bodyrouter.settings import Settings
from services.extproc.api import Filter
from services.extproc.chain import Chain
from services.extproc.limits import Limits
from services.extproc.proto import ext_proc_pb2 as pb
from services.extproc.session import Session
from services.picker.config import PickerConfig
from services.picker.filter import PickerFilter
from services.picker.metrics import ReplicaMetrics
from services.picker.pool import Address, Pool
from services.picker.prefix import PrefixIndex
from services.picker.scheduler import Scheduler

MODEL = "gemma-3-12b"
BODY_BYTES = 1_024
REPLICAS = 3
EXCHANGES = 3_000
WARM_UP = 300
RUNS = 5

HEADER = ("callout", "messages", "CPU us/exchange")
_REQUEST = (
    (":authority", b"penstock.local"),
    (":path", b"/v1/chat/completions"),
    (":method", b"POST"),
    (":scheme", b"http"),
    ("content-type", b"application/json"),
    ("x-forwarded-for", b"127.0.0.1"),
    ("x-forwarded-proto", b"http"),
    ("x-request-id", b"e3f1c1d0-1111-2222-3333-444455556666"),
    ("x-envoy-expected-rq-timeout-ms", b"600000"),
)
ROUTED = (("x-gateway-model-name", MODEL.encode()),)
_RESPONSE = (
    (":status", b"200"),
    ("content-type", b"application/json"),
    ("content-length", b"347"),
    ("x-envoy-upstream-service-time", b"1"),
)
_SERVED = {
    "x-gateway-destination-endpoint": "10.0.0.1:8000",
    "x-gateway-destination-endpoint-served": "10.0.0.1:8000",
}


def run() -> list[tuple[str, str, str]]:
    """Return a row for each callout."""
    router = BodyRouter(Settings.model_validate({"models": [{"name": MODEL}]}), Counts(CollectorRegistry()))
    body = orjson.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x" * BODY_BYTES}]})
    return [
        _row("body router", router, [message_of_headers(), message_of_body(body)]),
        _row("picker", _picker(), [message_of_headers(ROUTED), message_of_body(body), _answered()]),
    ]


def measure(filter_: Filter, messages: Sequence[bytes], exchanges: int) -> float:
    """Return the CPU seconds of one exchange: the mean of `exchanges`, in a tight loop."""
    chain, limits = Chain([filter_]), Limits()

    async def serve(count: int) -> None:
        for _ in range(count):
            session = Session(chain, limits)
            for message in messages:
                for answer in await session.receive(pb.ProcessingRequest.FromString(message)):
                    answer.SerializeToString()
            session.close()

    asyncio.run(serve(WARM_UP))
    started = time.process_time()
    asyncio.run(serve(exchanges))
    return (time.process_time() - started) / exchanges


def _picker() -> PickerFilter:
    config, pool = PickerConfig(), Pool()
    index = PrefixIndex(config.prefix.lru_capacity_per_server)
    pool.update(Address(f"r{n}", f"10.0.0.{n}", 8000) for n in range(REPLICAS))
    for replica in pool:
        index.open(replica.slot)
        pool.observed(replica, ReplicaMetrics(), 0, 0.0)
    return PickerFilter(pool, index, Scheduler(pool, index, config, random.Random(1)), config.prefix, {})


def _row(name: str, filter_: Filter, messages: Sequence[pb.ProcessingRequest]) -> tuple[str, str, str]:
    raw = [message.SerializeToString() for message in messages]
    seconds = statistics.median(measure(filter_, raw, EXCHANGES) for _ in range(RUNS))
    return name, f"{len(raw)}", f"{seconds * 1e6:.1f}"


def message_of_headers(
    extra: Sequence[tuple[str, bytes]] = (), response_mode: "pb.BodySendMode.ValueType" = pb.NONE
) -> pb.ProcessingRequest:
    """Return the message of a request's headers, with `extra` ones."""
    message = _message()
    message.protocol_config.request_body_mode = pb.FULL_DUPLEX_STREAMED
    message.protocol_config.response_body_mode = response_mode
    _add(message.request_headers.headers, (*_REQUEST, *extra))
    return message


def message_of_body(body: bytes) -> pb.ProcessingRequest:
    """Return the message of a request's whole body."""
    message = _message()
    message.request_body.body, message.request_body.end_of_stream = body, True
    return message


def _answered() -> pb.ProcessingRequest:
    message = _message()
    _add(message.response_headers.headers, _RESPONSE)
    for key, value in _SERVED.items():
        message.metadata_context.filter_metadata["envoy.lb"].fields[key].string_value = value
    return message


def message_of_answer(body: bytes) -> list[pb.ProcessingRequest]:
    """Return the messages of an answer: headers, body, and the empty end that Envoy sends behind it."""
    headers, content, end = _message(), _message(), _message()
    _add(headers.response_headers.headers, _RESPONSE)
    content.response_body.body = body
    end.response_body.end_of_stream = True
    return [headers, content, end]


def _message() -> pb.ProcessingRequest:
    message = pb.ProcessingRequest()
    message.metadata_context.SetInParent()  # Envoy sends it always, mostly empty
    return message


def _add(target: pb.HeaderMap, headers: Sequence[tuple[str, bytes]]) -> None:
    for key, value in headers:
        target.headers.add(key=key, raw_value=value)


if __name__ == "__main__":
    print_table("Callouts: CPU of one exchange without gRPC", HEADER, run())
