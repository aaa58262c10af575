"""Pulumi components of the AI inference network on Google Kubernetes Engine.

from penstock import InferenceGateway

InferenceGateway("gateway", {"name": "inference-gateway", "namespace": "inference"})
"""

from ._naming import pool_name, pool_object_names, slug
from .body_router import BodyRouter, BodyRouterArgs, ServedModel
from .callout_workload import CalloutWorkload
from .errors import ConfigError, ConfigErrors, PenstockError
from .extensions import ExtensionCallout, Extensions, ExtensionsArgs, RoutingCallout
from .gateway import GatewayTls, InferenceGateway, InferenceGatewayArgs
from .guardrails import (
    FloorSetting,
    GuardrailFilters,
    Guardrails,
    GuardrailsArgs,
    GuardrailTemplate,
    NemoServer,
    SensitiveData,
)
from .pool import InferencePool, InferencePoolArgs, Objective, Picker, Scorer
from .replica_set import (
    Accelerator,
    Adapter,
    Autoscaling,
    ModelReplicaSet,
    ModelReplicaSetArgs,
    ReplicaRdma,
    SecretKey,
    Weights,
)
from .route import ModelRoute, ModelRouteArgs, WeightedPool

__all__ = [
    "Accelerator",
    "Adapter",
    "Autoscaling",
    "BodyRouter",
    "BodyRouterArgs",
    "CalloutWorkload",
    "ConfigError",
    "ConfigErrors",
    "ExtensionCallout",
    "Extensions",
    "ExtensionsArgs",
    "FloorSetting",
    "GatewayTls",
    "GuardrailFilters",
    "GuardrailTemplate",
    "Guardrails",
    "GuardrailsArgs",
    "InferenceGateway",
    "InferenceGatewayArgs",
    "InferencePool",
    "InferencePoolArgs",
    "ModelReplicaSet",
    "ModelReplicaSetArgs",
    "ModelRoute",
    "ModelRouteArgs",
    "NemoServer",
    "Objective",
    "PenstockError",
    "Picker",
    "ReplicaRdma",
    "RoutingCallout",
    "Scorer",
    "SecretKey",
    "SensitiveData",
    "ServedModel",
    "WeightedPool",
    "Weights",
    "pool_name",
    "pool_object_names",
    "slug",
]
