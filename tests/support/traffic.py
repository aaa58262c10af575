"""Arguments of the parts of the traffic chain in their modes, for tests to vary."""

from collections.abc import Mapping
from typing import Any

from tests.support.arguments import IMAGE

CLOUD: Mapping[str, Any] = {
    "name": "penstock-dev",
    "project": "producer-1",
    "project_number": "123456789012",
    "region": "us-central1",
}
NETWORK = "projects/producer-1/global/networks/main"
SUBNETWORK = "projects/producer-1/regions/us-central1/subnetworks/nodes"
CLIENT_NETWORK = "projects/client-1/global/networks/clients"
CLIENT_SUBNETWORK = "projects/client-1/regions/us-central1/subnetworks/clients"

FILTERS: Mapping[str, Any] = {
    "responsible_ai": {"HATE_SPEECH": "HIGH", "DANGEROUS": "MEDIUM_AND_ABOVE"},
    "prompt_injection": "MEDIUM_AND_ABOVE",
    "malicious_links": True,
    "sensitive_data": {"basic": True},
}
TEMPLATE: Mapping[str, Any] = {"name": "base", "filters": FILTERS}

MODEL_ARMOR: Mapping[str, Any] = {
    "mode": "model_armor",
    "namespace": "inference",
    "streaming": "unscreened",
    "templates": [TEMPLATE],
    "image": None,
    **CLOUD,
}
NEMO: Mapping[str, Any] = {
    "mode": "nemo",
    "templates": None,
    "nemo": {"url": "http://nemo.guardrails.svc:8000", "config_id": "default"},
}
SHARED: Mapping[str, Any] = {
    "mode": "bundled",
    "namespace": "inference",
    "served_by": "api-management",
    "templates": [TEMPLATE],
}

APIGEE: Mapping[str, Any] = {
    "mode": "apigee",
    "namespace": "default",
    "image": None,
    "template_rules": [{"name": "always", "required": ["SpikeArrest"], "denied": ["JavaScript"]}],
    "apigee": {"environment": {"name": "llm"}, "network": NETWORK, "subnetwork": SUBNETWORK},
    **CLOUD,
}
BRIDGE: Mapping[str, Any] = {
    "hostname": "llm.internal.example.com",
    "service_attachment": "projects/producer-1/regions/us-central1/serviceAttachments/llm",
    "client": {
        "project": "client-1",
        "hostname": "llm.example.com",
        "network": CLIENT_NETWORK,
        "subnetwork": CLIENT_SUBNETWORK,
    },
}
BRIDGED: Mapping[str, Any] = {
    **APIGEE["apigee"],
    "environment_group": {"name": "clients", "hostnames": ["llm.example.com"]},
    "instance": {"name": "runtime"},
    "bridge": BRIDGE,
}

MEMORYSTORE: Mapping[str, Any] = {
    "store": {"kind": "memorystore", "memorystore": {"network": NETWORK, "subnetwork": SUBNETWORK}},
    **CLOUD,
}
VALKEY: Mapping[str, Any] = {
    "store": {
        "kind": "valkey",
        "valkey": {"image": "valkey/valkey:8.1.4", "password_secret": {"name": "valkey", "key": "word"}},
    }
}

RULES: Mapping[str, Any] = {
    "namespace": "inference",
    "proxy_range": "10.9.0.0/23",
    "multi_node": ["llama-a"],
    "api_server_ranges": ["10.0.0.0/20"],
    "google_api_clients": ["llama-a", "guardrails"],
    "regional_api_ranges": ["10.0.0.0/20"],
    "hub_clients": ["gemma-a"],
    "store": "valkey",
    "egress": [{"name": "nemo", "workloads": ["guardrails"], "namespace": "nemo", "ports": [8000]}],
}


def with_apigee(**changes: Any) -> dict[str, Any]:
    """Return arguments of mode `apigee` with `changes` of its settings; a change to None takes a setting away."""
    settings = {**APIGEE["apigee"], **changes}
    return {**APIGEE, "apigee": {key: value for key, value in settings.items() if value is not None}}


def with_rules(**changes: Any) -> dict[str, Any]:
    """Return arguments of SecurityBase with `changes` of the network's rules, without audit."""
    return {"network": {**RULES, **changes}, "audit": None}


VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "armor": ("Guardrails", MODEL_ARMOR),
    "armor-refuse": ("Guardrails", {**MODEL_ARMOR, "streaming": "refuse", "image": IMAGE}),
    "armor-callout": (
        "Guardrails",
        {**MODEL_ARMOR, "streaming": "callout", "image": IMAGE, "floor": {"filters": FILTERS}},
    ),
    "armor-backend": ("Guardrails", {"backends": ["builtin", "model_armor"], **CLOUD}),
    "nemo": ("Guardrails", NEMO),
    "replica": ("Guardrails", {"mode": "replica", "templates": None}),
    "off": ("Guardrails", {"mode": "off", "templates": None}),
    "guardrails-shared": ("Guardrails", {**SHARED, "image": None}),
    "management-shared": ("ApiManagement", {"guardrails": SHARED}),
    "memorystore": ("ApiManagement", MEMORYSTORE),
    "valkey": ("ApiManagement", VALKEY),
    "apigee": ("ApiManagement", APIGEE),
    "apigee-new": (
        "ApiManagement",
        with_apigee(
            organization={"create": True, "analytics_region": "us-central1"},
            templates=[{"name": "all", "rule": "always", "templates": []}],
        ),
    ),
    "bridge": ("ApiManagement", {**APIGEE, "apigee": BRIDGED}),
    "security": ("SecurityBase", with_rules()),
}
"""Shapes of the components, by a name for the test's id: component and changes of its valid arguments."""
