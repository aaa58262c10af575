"""Request headers that the path trusts, and that clients therefore may not send.

Sources: Gateway API Inference Extension v1.6 (endpoint picker protocol v1.0, body based routing), llm-d-router v0.10
(`x-llm-d-*`, `x-slo-*`, disaggregated serving), vLLM and SGLang (`X-data-parallel-rank`), Penstock (`x-penstock-*`).
"""

from functools import lru_cache

MODEL_HEADER = "x-gateway-model-name"
"""Carries the requested model or adapter (body based routing, Gateway API Inference Extension)."""

BASE_MODEL_HEADER = "x-gateway-base-model-name"
"""Carries the model that an adapter extends, so that routes need not know adapters (same source)."""

AGENT_HEADER = "x-penstock-agent"
"""Which agent asks. Alone of its family it passes: API management believes it of trusted apps, and removes it
otherwise; without API management nothing reads it."""

TRUSTED_FAMILIES = (
    "x-gateway-",
    "x-llm-d-",
    "x-penstock-",
    "x-slo-",
    "x-prefiller-",
    "x-encoder-",
    "x-data-parallel-",
    "x-kv-cache-source-",
)
"""Beginnings of names: whatever upstream adds to a family later is removed as well."""

TRUSTED_NAMES = frozenset(
    {
        "x-session-token",  # llm-d's session affinity: names a replica
        "x-session-id",  # llm-d's session affinity: decides which replica
        "test-epp-endpoint-selection",  # conformance tests: upstream's pickers obey it
    }
)

MAX_REMEMBERED_CHARS = 64
"""Longest name that `is_trusted` remembers: clients choose names, and must not choose how much memory they take."""

NEVER_ALLOWED = (
    "x-gateway-model-name",
    "x-llm-d-model-name",
    "x-gateway-base-model-name",
    "x-llm-d-base-model-name",
    "x-gateway-destination-endpoint",
    "x-llm-d-destination-endpoint",
    "x-penstock-",
    "x-prefiller-",
    "x-encoder-",
    "x-data-parallel-",
    "x-kv-cache-source-",
    "test-epp-endpoint-selection",
)
"""Beginnings of names that decide model, replica or identity: no config may let clients send them."""


def canonical(name: str) -> str:
    """Return `name` as this module compares it: lower case, and `_` as `-`, since some servers make them one."""
    return name.lower().replace("_", "-")


def is_trusted(name: str) -> bool:
    """Tell whether the path trusts the header `name`, in any case."""
    return _remembered(name) if len(name) <= MAX_REMEMBERED_CHARS else _judge(name)


def _judge(name: str) -> bool:
    name = canonical(name)
    return name.startswith(TRUSTED_FAMILIES) or name in TRUSTED_NAMES


_remembered = lru_cache(maxsize=1024)(_judge)
