"""Prometheus metrics of a callout process, with the children of the hot path bound once."""

from prometheus_client import Counter, Gauge, Histogram

from services.extproc.api import Ending

PHASES = (
    "request_headers",
    "request_body",
    "request_trailers",
    "response_headers",
    "response_body",
    "response_trailers",
)

STREAMS = Counter("penstock_extproc_streams", "Exchanges that a callout took part in")
IN_FLIGHT = Gauge("penstock_extproc_streams_in_flight", "Exchanges that are open now")
MESSAGES_IN = Counter("penstock_extproc_messages_received", "Messages from the proxy", ["phase"])
MESSAGES_OUT = Counter("penstock_extproc_messages_sent", "Messages to the proxy")
ENDINGS = Counter("penstock_extproc_endings", "Exchanges by how they ended", ["outcome"])
DENIALS = Counter("penstock_extproc_denials", "Replies given in place of the upstream", ["code"])
BODY_BYTES = Counter("penstock_extproc_body_bytes", "Body bytes that came through", ["direction"])
PHASE_SECONDS = Histogram(
    "penstock_extproc_phase_seconds",
    "Time to answer one message, filters included and the wait for the proxy not",
    ["phase"],
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

ENDING = {ending: ENDINGS.labels(ending.value) for ending in Ending}
REQUEST_BYTES, RESPONSE_BYTES = BODY_BYTES.labels("request"), BODY_BYTES.labels("response")
PHASE = {phase: (MESSAGES_IN.labels(phase), PHASE_SECONDS.labels(phase)) for phase in PHASES}
