"""CustomResourceDefinitions that endpoint pickers read and GKE does not install. Knows nothing of Pulumi.

GKE brings the InferencePool's, never these two: their API group changed with the picker's release, so which one is
right depends on the picker. They are written out here, and small, because the alternatives lose something: a manifest
that is fetched needs the network in previews and may change, and a chart hides them from previews and schema checks.
Pickers from upstream watch both kinds and do not become ready while one is missing.
"""

from collections.abc import Iterator

from .._labels import PART_OF
from .common import INFERENCE_API, Manifest, manifest

VERSION = "v1alpha2"

_NAME_253: Manifest = {"type": "string", "minLength": 1, "maxLength": 253}
_POOL_REF: Manifest = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "group": {"type": "string", "maxLength": 253, "default": INFERENCE_API},
        "kind": {"type": "string", "minLength": 1, "maxLength": 63, "default": "InferencePool"},
        "name": _NAME_253,
    },
}
_OBJECTIVE: Manifest = {
    "type": "object",
    "required": ["poolRef"],
    "properties": {"poolRef": _POOL_REF, "priority": {"type": "integer", "format": "int32"}},
}
_MATCH: Manifest = {
    "type": "object",
    "required": ["model"],
    "properties": {
        "model": {
            "type": "object",
            "required": ["value"],
            "properties": {
                "type": {"type": "string", "enum": ["Exact"], "default": "Exact"},
                "value": {"type": "string", "minLength": 1},
            },
        }
    },
}
_TARGET: Manifest = {
    "type": "object",
    "required": ["modelRewrite"],
    "properties": {
        "modelRewrite": {"type": "string"},
        "weight": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 1_000_000},
    },
}
_REWRITE: Manifest = {
    "type": "object",
    "required": ["poolRef", "rules"],
    "properties": {
        "poolRef": _POOL_REF,
        "rules": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "matches": {"type": "array", "items": _MATCH},
                    "targets": {"type": "array", "minItems": 1, "items": _TARGET},
                },
            },
        },
    },
}
"""Specifications by Gateway API Inference Extension 1.5 and llm-d-router 0.10, which differ in their group only."""

_KINDS = {"InferenceObjective": _OBJECTIVE, "InferenceModelRewrite": _REWRITE}


def definitions(group: str) -> Iterator[Manifest]:
    """Yield both definitions of an API group; status is the picker's business and not looked at."""
    for kind, spec in _KINDS.items():
        plural = f"{kind.lower()}s"
        names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
        status = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        schema = {"type": "object", "properties": {"spec": spec, "status": status}}
        version = {
            "name": VERSION,
            "served": True,
            "storage": True,
            "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": schema},
        }
        body = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
        name, tags = f"{plural}.{group}", {PART_OF: "penstock"}
        yield manifest("apiextensions.k8s.io/v1", "CustomResourceDefinition", name, None, tags, spec=body)
