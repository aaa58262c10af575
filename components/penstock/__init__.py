"""Pulumi components of the AI inference network on Google Kubernetes Engine.

from penstock import InferenceGateway

InferenceGateway("gateway", {"name": "inference-gateway", "namespace": "inference"})
"""

from ._naming import pool_name, pool_object_names, slug
from .body_router import BodyRouter, BodyRouterArgs, ServedModel
from .errors import ConfigError, ConfigErrors, PenstockError
from .extensions import ExtensionCallout, Extensions, ExtensionsArgs, RoutingCallout
from .gateway import GatewayTls, InferenceGateway, InferenceGatewayArgs
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
    "ConfigError",
    "ConfigErrors",
    "ExtensionCallout",
    "Extensions",
    "ExtensionsArgs",
    "GatewayTls",
    "InferenceGateway",
    "InferenceGatewayArgs",
    "InferencePool",
    "InferencePoolArgs",
    "ModelReplicaSet",
    "ModelReplicaSetArgs",
    "ModelRoute",
    "ModelRouteArgs",
    "Objective",
    "PenstockError",
    "Picker",
    "ReplicaRdma",
    "RoutingCallout",
    "Scorer",
    "SecretKey",
    "ServedModel",
    "WeightedPool",
    "Weights",
    "pool_name",
    "pool_object_names",
    "slug",
]
