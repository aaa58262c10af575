"""One example per kind, for the OpenAPI description; a test holds them to the models."""

from collections.abc import Mapping
from typing import Any

from services.apimgmt.domain import Kind

EXAMPLES: Mapping[Kind, Mapping[str, Any]] = {
    Kind.ORGANIZATION: {"displayName": "Acme", "limits": ["monthly-budget"], "ratePlan": "standard"},
    Kind.TEAM: {"displayName": "Research", "limits": ["team-tokens"]},
    Kind.DEVELOPER: {"displayName": "Ada", "team": "research", "role": "teamLead"},
    Kind.GROUP: {"teams": ["research", "support"], "limits": ["shared-tokens"]},
    Kind.APP: {"team": "research", "developer": "ada@example.com", "products": [{"product": "chat"}]},
    Kind.PRODUCT: {
        "description": "Chat models",
        "models": ["llama-3.1-8b"],
        "operations": ["/v1/chat/completions"],
        "limits": ["requests-per-minute"],
        "ratePlan": "standard",
        "maxOutputTokens": 4096,
        "policies": [{"policy": "prompt-limit", "mode": "shadow", "settings": {"maxTokens": 8000}}],
    },
    Kind.LIMIT: {"scope": "team", "kind": "tokens", "amount": 1_000_000, "window": "day"},
    Kind.RATE_PLAN: {
        "monthlyFee": 10_000_000,
        "freeTokens": 100_000,
        "prices": {"prompt": 200_000, "completion": 600_000},
    },
    Kind.TEMPLATE_RULE: {"required": ["prompt-limit"], "denied": ["script"]},
    Kind.KEY_VALUE_MAP: {"displayName": "Credentials of the ticket system"},
}
"""Bodies for PUT; names come from the path. Money in millionths of a US dollar."""
