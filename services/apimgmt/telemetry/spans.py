"""One span per request, made when it is over from what is in the ledger record, and sent in batches over OTLP/HTTP.

A request waits for nothing here: its span goes into a bounded queue, which a thread of its own sends; a collector that
is slow or gone costs spans, never requests. Headers for the collector (`OTEL_EXPORTER_OTLP_HEADERS`) and attributes of
the resource (`OTEL_RESOURCE_ATTRIBUTES`) come from the environment, as OpenTelemetry's specification says.
"""

import asyncio
import random
import threading
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from services.apimgmt.call import Call, Verdict
from services.apimgmt.settings import Tracing
from services.apimgmt.telemetry import genai
from services.bodyrouter.operations import ROUTED
from services.extproc.api import Outcome

SERVICE = "penstock-apimgmt"

MAX_WAITING = 4096
"""Spans that wait to be sent; more are dropped."""

SEND_EVERY_MS = 2000
EXPORT_TIMEOUT_S = 5.0
STOP_S = 3.0
"""How long `stop` waits for what is still to be sent."""

_PROPAGATOR = TraceContextTextMapPropagator()
_NUMBERS = {
    "temperature": genai.REQUEST_TEMPERATURE,
    "top_p": genai.REQUEST_TOP_P,
    "n": genai.REQUEST_CHOICE_COUNT,
    "max_output_tokens": genai.REQUEST_MAX_TOKENS,
    "max_tokens": genai.REQUEST_MAX_TOKENS,
    "max_completion_tokens": genai.REQUEST_MAX_TOKENS,
}
"""Numbers of the request's body; of two with the same name the later is what the model server goes by."""
_FAILED = frozenset({"error", "aborted", "lost"})


class Spans:
    """An observer of the pipeline. One per process, not shared with a fork."""

    def __init__(self, tracing: Tracing) -> None:
        self._ratio = tracing.sample_ratio
        self._exporter = OTLPSpanExporter(endpoint=tracing.endpoint, timeout=EXPORT_TIMEOUT_S)
        processor = BatchSpanProcessor(
            self._exporter, max_queue_size=MAX_WAITING, schedule_delay_millis=SEND_EVERY_MS, max_export_batch_size=512
        )
        resource = Resource.create({genai.SERVICE_NAME: SERVICE})
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("penstock", schema_url=genai.SCHEMA_URL)

    def observe(self, call: Call, record: Mapping[str, Any], outcome: Outcome) -> None:
        """Make the span of a request that is over: with its client's trace if that is sampled, else by the ratio."""
        context = _parent(call)
        parent = get_current_span(context).get_span_context()
        if not (parent.trace_flags.sampled if parent.is_valid else random.random() < self._ratio):
            return
        begin = int(call.now * 1e6) * 1000
        operation = genai.OPERATIONS.get(ROUTED.get(call.operation, ""), "")
        # Nothing that a client may write is part of the name: a model is one that the gateway routes to.
        name = f"{operation} {_text(call.model)}" if operation and call.model else "request"
        span = self._tracer.start_span(
            name, context, SpanKind.SERVER, _attributes(call, record, operation), start_time=begin
        )
        status = record.get("status") or outcome.status or 0
        if record.get("outcome") in _FAILED or status >= 500:
            span.set_attribute(genai.ERROR_TYPE, str(status) if status >= 400 else outcome.ending.value)
            span.set_status(Status(StatusCode.ERROR))
        elif status >= 400:
            # The convention for servers: a client's error is no error of the span.
            span.set_attribute(genai.ERROR_TYPE, str(status))
        span.end(begin + int((time.perf_counter() - call.started) * 1e9))

    async def stop(self) -> None:
        """Send what waits, for at most `STOP_S` seconds."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            try:
                loop.call_soon_threadsafe(done.set)
            except RuntimeError:  # the loop has ended meanwhile: nobody waits
                return

        # A daemon thread: a collector that does not answer must not keep the process from ending.
        threading.Thread(target=shut_down, name="spans-stop", daemon=True).start()
        try:
            async with asyncio.timeout(STOP_S):
                await done.wait()
        except TimeoutError:
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # ends the thread's waiting for another try


def _parent(call: Call) -> Context:
    """Return the context of the client's span (W3C Trace Context); an empty one where there is none."""
    headers = call.exchange.request_headers
    traceparent = headers.get("traceparent")
    if not traceparent:
        return Context()
    carrier = {"traceparent": traceparent, "tracestate": headers.get("tracestate")}
    return _PROPAGATOR.extract(carrier, Context())


def _attributes(call: Call, record: Mapping[str, Any], operation: str) -> dict[str, AttributeValue]:
    """Return what is told of a request: no text of it, no user, no key."""
    values: dict[str, AttributeValue] = {
        genai.REQUEST_ID: call.id,
        genai.PROVIDER_NAME: genai.PROVIDER,
        genai.REQUEST_STREAM: call.stream,
    }
    if operation:
        values[genai.OPERATION_NAME] = operation
        values[genai.URL_PATH] = call.operation
    for field, name in _NUMBERS.items():
        value = call.body.get(field)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53:
            values[name] = value
    for field, name in _FROM_RECORD.items():
        given = record.get(field)
        if given not in (None, ""):
            values[name] = _text(given) if isinstance(given, str) else given
    if call.model:
        values[genai.REQUEST_MODEL] = _text(call.model)
    first = record.get("ttftMs")
    if first is not None:
        values[genai.TIME_TO_FIRST_CHUNK] = first / 1000
    denied = [f"{f.policy}:{f.code}" for f in call.findings if f.verdict is Verdict.DENY and not f.shadow]
    if denied:
        values[genai.REFUSED_BY] = denied
    return values


def _text(value: str) -> str:
    """Headers may hold bytes that are no UTF-8, and one such value would lose the whole batch."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


_FROM_RECORD = {
    "organization": genai.ORGANIZATION,
    "team": genai.TEAM,
    "app": genai.APP,
    "product": genai.PRODUCT,
    "agent": genai.AGENT,
    "outcome": genai.OUTCOME,
    "replica": genai.REPLICA,
    "status": genai.STATUS_CODE,
    "promptTokens": genai.INPUT_TOKENS,
    "completionTokens": genai.OUTPUT_TOKENS,
    "cachedTokens": genai.CACHED_TOKENS,
    "reasoningTokens": genai.REASONING_TOKENS,
    "estimated": genai.TOKENS_ESTIMATED,
    "costMicros": genai.COST_MICROS,
    "overheadMs": genai.OVERHEAD_MS,
}
