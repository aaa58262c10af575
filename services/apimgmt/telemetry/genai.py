"""Names of OpenTelemetry attributes, in one place: those of generative AI are still in development and change.

Source: OpenTelemetry semantic conventions 1.41 (`gen_ai.*`: status Development; `http.*`, `error.*`, `url.*`: stable).
Since 2026-05 those of generative AI live in a repository of their own, without a release so far. Content of prompts and
answers (`gen_ai.input.messages`, `gen_ai.output.messages`, ...) is left out on purpose: it is never traced.
"""

SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"

REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_CHOICE_COUNT = "gen_ai.request.choice.count"
REQUEST_TEMPERATURE = "gen_ai.request.temperature"
REQUEST_TOP_P = "gen_ai.request.top_p"

RESPONSE_MODEL = "gen_ai.response.model"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
"""Seconds."""

INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"

STATUS_CODE = "http.response.status_code"
URL_PATH = "url.path"
ERROR_TYPE = "error.type"

SERVICE_NAME = "service.name"
"""Of the resource."""

PROVIDER = "vllm"
"""The convention allows names of its own for providers that it does not list."""

OPERATIONS = {
    "chat_completions": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "responses": "chat",
    "rerank": "rerank",
    "score": "score",
}
"""Label of `bodyrouter.operations.ROUTED` -> operation name. The last two are none of the convention's, which allows
others."""

# Our own, for what the convention has no name. No users and no keys: a trace is read by more people than the ledger.
REQUEST_ID = "penstock.request.id"
"""The request's id in the ledger."""
ORGANIZATION = "penstock.organization"
TEAM = "penstock.team"
APP = "penstock.app"
PRODUCT = "penstock.product"
AGENT = "penstock.agent"
OUTCOME = "penstock.outcome"
REPLICA = "penstock.replica"
COST_MICROS = "penstock.cost_micros"
"""Millionths of a US dollar."""
TOKENS_ESTIMATED = "penstock.tokens.estimated"
OVERHEAD_MS = "penstock.overhead_ms"
REFUSED_BY = "penstock.refused_by"
"""Policies that denied, as `policy:code`."""
