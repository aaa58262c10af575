"""Pulumi components of the AI inference network on Google Kubernetes Engine.

from penstock import InferenceGateway

InferenceGateway("gateway", {"name": "inference-gateway", "namespace": "inference"})
"""

from ._naming import pool_name, pool_object_names, slug
from .accelerator_pool import AcceleratorPool, AcceleratorPoolArgs, NodeInterface, NodeTaint, Reservation
from .addons import ClusterAddons, ClusterAddonsArgs
from .api_management import (
    ApiManagement,
    ApiManagementArgs,
    ApiProduct,
    ManagementStore,
    Memorystore,
    TemplateRule,
    UsageLimit,
    Valkey,
)
from .apigee_settings import (
    ApigeeBridge,
    ApigeeClient,
    ApigeeEnvironment,
    ApigeeEnvironmentGroup,
    ApigeeInstance,
    ApigeeOperator,
    ApigeeOrganization,
    ApigeeSettings,
    ApigeeTemplate,
)
from .armor import Armor, ArmorRule, RateLimit
from .body_router import BodyRouter, BodyRouterArgs, ServedModel
from .callout_workload import CalloutWorkload
from .certificate import GatewayCertificate
from .cluster import (
    AuthorizedNetwork,
    CpuPool,
    ImageRepository,
    InferenceCluster,
    InferenceClusterArgs,
    MaintenanceWindow,
    kubernetes_provider,
)
from .compute_class import CapacityChoice, ComputeClass, ComputeClassArgs
from .endpoint import DnsPeering, PrivateEndpoint, PrivateEndpointArgs
from .errors import ConfigError, ConfigErrors, PenstockError
from .extensions import ExtensionCallout, Extensions, ExtensionsArgs, RoutingCallout
from .gateway import GatewayAddress, GatewayTls, InferenceGateway, InferenceGatewayArgs, SslPolicy
from .guardrails import (
    FloorSetting,
    GuardrailFilters,
    Guardrails,
    GuardrailsArgs,
    GuardrailTemplate,
    NemoServer,
    SensitiveData,
)
from .management_settings import (
    DeveloperPortal,
    LedgerExport,
    ManagedApp,
    ManagedDeveloper,
    ManagedGroup,
    ManagedOrganization,
    ManagedSubscription,
    ManagedTeam,
    ManagementAdmin,
    PolicyUse,
    RatePlan,
    TokenEstimation,
    TokenPrices,
    UsageLedger,
)
from .model_bucket import ModelBucket, ModelBucketArgs
from .model_routing import ModelAlias, PromptClassifier, PromptRoute
from .network import ExistingNetwork, ProducerNetwork, ProducerNetworkArgs
from .pool import InferencePool, InferencePoolArgs, Objective, Picker, Scorer
from .publication import Consumer, ServicePublication, ServicePublicationArgs
from .rdma import NodeNetwork, RdmaNetwork, RdmaNetworkArgs
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
from .security import AuditedService, AuditRules, Egress, LogArchive, NetworkRules, SecurityBase, SecurityBaseArgs

__all__ = [
    "Accelerator",
    "AcceleratorPool",
    "AcceleratorPoolArgs",
    "Adapter",
    "ApiManagement",
    "ApiManagementArgs",
    "ApiProduct",
    "ApigeeBridge",
    "ApigeeClient",
    "ApigeeEnvironment",
    "ApigeeEnvironmentGroup",
    "ApigeeInstance",
    "ApigeeOperator",
    "ApigeeOrganization",
    "ApigeeSettings",
    "ApigeeTemplate",
    "Armor",
    "ArmorRule",
    "AuditRules",
    "AuditedService",
    "AuthorizedNetwork",
    "Autoscaling",
    "BodyRouter",
    "BodyRouterArgs",
    "CalloutWorkload",
    "CapacityChoice",
    "ClusterAddons",
    "ClusterAddonsArgs",
    "ComputeClass",
    "ComputeClassArgs",
    "ConfigError",
    "ConfigErrors",
    "Consumer",
    "CpuPool",
    "DeveloperPortal",
    "DnsPeering",
    "Egress",
    "ExistingNetwork",
    "ExtensionCallout",
    "Extensions",
    "ExtensionsArgs",
    "FloorSetting",
    "GatewayAddress",
    "GatewayCertificate",
    "GatewayTls",
    "GuardrailFilters",
    "GuardrailTemplate",
    "Guardrails",
    "GuardrailsArgs",
    "ImageRepository",
    "InferenceCluster",
    "InferenceClusterArgs",
    "InferenceGateway",
    "InferenceGatewayArgs",
    "InferencePool",
    "InferencePoolArgs",
    "LedgerExport",
    "LogArchive",
    "MaintenanceWindow",
    "ManagedApp",
    "ManagedDeveloper",
    "ManagedGroup",
    "ManagedOrganization",
    "ManagedSubscription",
    "ManagedTeam",
    "ManagementAdmin",
    "ManagementStore",
    "Memorystore",
    "ModelAlias",
    "ModelBucket",
    "ModelBucketArgs",
    "ModelReplicaSet",
    "ModelReplicaSetArgs",
    "ModelRoute",
    "ModelRouteArgs",
    "NemoServer",
    "NetworkRules",
    "NodeInterface",
    "NodeNetwork",
    "NodeTaint",
    "Objective",
    "PenstockError",
    "Picker",
    "PolicyUse",
    "PrivateEndpoint",
    "PrivateEndpointArgs",
    "ProducerNetwork",
    "ProducerNetworkArgs",
    "PromptClassifier",
    "PromptRoute",
    "RateLimit",
    "RatePlan",
    "RdmaNetwork",
    "RdmaNetworkArgs",
    "ReplicaRdma",
    "Reservation",
    "RoutingCallout",
    "Scorer",
    "SecretKey",
    "SecurityBase",
    "SecurityBaseArgs",
    "SensitiveData",
    "ServedModel",
    "ServicePublication",
    "ServicePublicationArgs",
    "SslPolicy",
    "TemplateRule",
    "TokenEstimation",
    "TokenPrices",
    "UsageLedger",
    "UsageLimit",
    "Valkey",
    "WeightedPool",
    "Weights",
    "kubernetes_provider",
    "pool_name",
    "pool_object_names",
    "slug",
]
