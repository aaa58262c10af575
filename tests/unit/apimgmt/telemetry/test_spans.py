import random
import subprocess
import sys
import time

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, http_attributes, service_attributes, url_attributes
from opentelemetry.semconv.schemas import Schemas

from services.apimgmt.call import Finding, Verdict
from services.apimgmt.ledger.record import RequestOutcome, make
from services.apimgmt.settings import Tracing
from services.apimgmt.telemetry import genai, open_spans, spans
from services.apimgmt.usage.tokens import Tokens
from services.extproc.api import Ending, Headers, Outcome
from tests.unit.apimgmt.telemetry.collector import collector
from tests.unit.apimgmt.usage.calls import call_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET = "psk_aaaaaaaaaaaaaaaa_secret"
DONE = Outcome(Ending.COMPLETE, 200, 0.5, 10, 10)


@pytest.fixture
def server():
    with collector() as server:
        yield server


def call_with(**headers):
    body = {
        "messages": [{"role": "user", "content": "my secret prompt"}],
        "temperature": 0.5,
        "n": 2,
        "max_tokens": 64,
        "stream": True,
    }
    call = call_of(body, model="adapter", base="llama")
    call.stream = True
    call.now, call.started = 1_800_000_000.25, time.perf_counter() - 0.5
    extra = [(name, value.encode()) for name, value in headers.items()]
    items = [*call.exchange.request_headers, ("authorization", f"Bearer {SECRET}".encode()), *extra]
    call.exchange.request_headers = Headers(items)
    return call


def seen(call, outcome=RequestOutcome.OK, status=200, done=DONE, **more):
    return call, make(call, outcome, status=status, **more), done


def attributes(span):
    values = {}
    for item in span.attributes:
        kind = item.value.WhichOneof("value")
        value = getattr(item.value, kind)
        values[item.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return values


async def sent(server, *observed, ratio=1.0):
    maker = open_spans(Tracing(endpoint=server.endpoint, sample_ratio=ratio))
    for one in observed:
        maker.observe(*one)
    await maker.stop()
    return server.spans()


async def test_a_request_becomes_a_span_of_its_clients_trace(server):
    call = call_with(traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="a=b")
    tokens = Tokens(100, 60, 20, 5)
    (span,) = await sent(server, seen(call, tokens=tokens, cost=7, ttft_ms=125, overhead_ms=0.5))
    assert server.paths == ["/v1/traces"]
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) == (TRACE, PARENT, "a=b")
    assert span.name == "chat adapter"
    assert span.kind == span.SPAN_KIND_SERVER
    assert span.start_time_unix_nano == 1_800_000_000_250_000_000
    assert 0.5 <= (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 < 5
    assert span.status.code == span.status.STATUS_CODE_UNSET
    assert attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "adapter",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.stream": True,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.time_to_first_chunk": 0.125,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "http.response.status_code": 200,
        "url.path": "/v1/chat/completions",
        "penstock.request.id": "id",
        "penstock.organization": "acme",
        "penstock.team": "t",
        "penstock.app": "app",
        "penstock.product": "p",
        "penstock.outcome": "ok",
        "penstock.cost_micros": 7,
        "penstock.tokens.estimated": False,
        "penstock.overhead_ms": 0.5,
    }
    scope = server.received[0].resource_spans[0].scope_spans[0]
    assert scope.schema_url == genai.SCHEMA_URL
    resource = {item.key: item.value.string_value for item in server.received[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "penstock-apimgmt"


async def test_no_text_no_key_no_user(server):
    await sent(server, seen(call_with()))
    raw = server.received[0].SerializeToString()
    for part in ("secret", "prompt", "psk_", "Bearer"):
        assert part.encode() not in raw
    assert "u" not in attributes(server.spans()[0]).values()
    assert "key" not in attributes(server.spans()[0]).values()


@pytest.mark.parametrize(
    ("traceparent", "ratio", "count"),
    [
        ("", 1.0, 1),
        ("", 0.0, 0),
        (f"00-{TRACE}-{PARENT}-01", 0.0, 1),
        (f"00-{TRACE}-{PARENT}-00", 1.0, 0),
        ("nonsense", 1.0, 1),
        ("nonsense", 0.0, 0),
        (f"00-{'0' * 32}-{PARENT}-01", 0.0, 0),
    ],
)
async def test_the_clients_trace_decides_and_else_the_ratio(server, traceparent, ratio, count):
    found = await sent(server, seen(call_with(traceparent=traceparent)), ratio=ratio)
    assert len(found) == count
    if traceparent == "nonsense" and count:
        assert not found[0].parent_span_id


async def test_about_as_many_as_the_ratio_says(server):
    random.seed(1)
    observed = seen(call_with())
    found = await sent(server, *[observed] * 1000, ratio=0.2)
    assert 120 <= len(found) <= 290


@pytest.mark.parametrize(
    ("outcome", "status", "ending", "code", "error"),
    [
        (RequestOutcome.ERROR, 503, Ending.COMPLETE, 2, "503"),
        (RequestOutcome.ABORTED, 200, Ending.ABORTED, 2, "aborted"),
        (RequestOutcome.REFUSED, 429, Ending.DENIED, 0, "429"),
        (RequestOutcome.OK, 200, Ending.COMPLETE, 0, None),
    ],
)
async def test_errors(server, outcome, status, ending, code, error):
    call = call_with()
    if outcome is RequestOutcome.REFUSED:
        call.findings += [Finding("limits", Verdict.DENY, "rate_limit_exceeded"), Finding("x", Verdict.DENY, "y", True)]
    (span,) = await sent(server, seen(call, outcome, status, Outcome(ending, status, 0.1, 0, 0)))
    assert span.status.code == code
    values = attributes(span)
    assert values.get("error.type") == error
    refused = ["limits:rate_limit_exceeded"] if outcome is RequestOutcome.REFUSED else None
    assert values.get("penstock.refused_by") == refused


async def test_values_that_cannot_be_written_do_not_lose_the_batch(server):
    bad = call_with()
    bad.agent = b"\xff\xfe".decode("utf-8", "surrogateescape")
    bad.body = {"n": 10**30, "temperature": "hot", "top_p": True}
    found = await sent(server, seen(bad), seen(call_with()))
    assert len(found) == 2
    assert attributes(found[0])["penstock.agent"] == "??"
    assert "gen_ai.request.temperature" not in attributes(found[0])


@pytest.mark.parametrize("status", [400, 503])
async def test_a_collector_that_refuses_harms_nothing(server, status, monkeypatch):
    monkeypatch.setattr(spans, "STOP_S", 0.5)
    server.status = status
    began = time.monotonic()
    assert await sent(server, *[seen(call_with())] * 10) == []
    assert server.paths
    assert time.monotonic() - began < 5


async def test_a_collector_that_does_not_answer_harms_nothing(server, monkeypatch):
    monkeypatch.setattr(spans, "STOP_S", 0.2)
    monkeypatch.setattr(spans, "MAX_WAITING", 600)
    server.hold.clear()
    maker = open_spans(Tracing(endpoint=server.endpoint, sample_ratio=1.0))
    observed = seen(call_with())
    began = time.monotonic()
    for _ in range(3000):
        maker.observe(*observed)
    await maker.stop()
    assert time.monotonic() - began < 10
    server.hold.set()


async def test_a_collector_that_is_gone_harms_nothing(monkeypatch):
    monkeypatch.setattr(spans, "STOP_S", 0.2)
    maker = open_spans(Tracing(endpoint="http://127.0.0.1:9/v1/traces", sample_ratio=1.0))
    maker.observe(*seen(call_with()))
    await maker.stop()


def test_without_tracing_nothing_is_imported():
    assert open_spans(None) is None
    text = (
        "import sys; from services.apimgmt.telemetry import open_spans; assert open_spans(None) is None; "
        "print(sorted(name for name in sys.modules if name.startswith('opentelemetry')))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_are_those_of_the_convention():
    known = set()
    for module in (gen_ai_attributes, error_attributes, http_attributes, service_attributes, url_attributes):
        known |= {value for value in vars(module).values() if isinstance(value, str)}
    ours = {v for n, v in vars(genai).items() if n.isupper() and isinstance(v, str) and "." in v and "/" not in v}
    assert {name for name in ours if not name.startswith("penstock.")} <= known
    assert genai.SCHEMA_URL in {schema.value for schema in Schemas}
    operations = {value.value for value in gen_ai_attributes.GenAiOperationNameValues}
    assert set(genai.OPERATIONS.values()) - operations == {"rerank", "score"}
