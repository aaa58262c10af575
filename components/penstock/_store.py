"""Declares the store of bundled API management."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_gcp as gcp

from ._apply import apply, child_options
from ._compute import relative
from ._identity import principal
from .manifests import guardrails
from .manifests import management_store as manifests
from .manifests.location import gcp_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pulumi_gcp.memorystore.outputs import InstanceEndpoint, InstanceManagedServerCa

    from .api_management import ApiManagementArgs

_CONNECT = "roles/memorystore.dbConnectionUser"
"""Role to connect with IAM authentication. Source: Memorystore for Valkey, "Manage IAM authentication"."""

_PRIMARY = "CONNECTION_TYPE_PRIMARY"
"""The connection that takes writes. Source: Memorystore API v1, PscAutoConnection."""


@dataclass(frozen=True)
class Store:
    """What the service's pods need: the store's address (None: a file of their own) and the resources to wait for."""

    address: Any = None
    resources: list[pulumi.Resource] = field(default_factory=list)


def declare(name: str, args: "ApiManagementArgs", parent: pulumi.Resource) -> Store:
    """Register the store, by its kind."""
    kind = manifests.kind(args)
    if kind == manifests.SQLITE:
        return Store(resources=[apply(f"{name}-data", manifests.claim(args), child_options(parent))])
    if kind == manifests.VALKEY:
        account, service, pods = manifests.valkey(args)
        made = apply(f"{name}-valkey-service-account", account, child_options(parent))
        served = apply(f"{name}-valkey-service", service, child_options(parent))
        return Store(
            manifests.valkey_address(args), [apply(f"{name}-valkey", pods, child_options(parent, [made, served]))]
        )
    return _memorystore(name, args, parent)


def _memorystore(name: str, args: "ApiManagementArgs", parent: pulumi.Resource) -> Store:
    settings = args["store"]["memorystore"]
    network = relative(settings["network"])
    labels = gcp_labels(args.get("labels"))
    policies: list[pulumi.Resource] = []
    if settings.get("connection_policy", True):
        policy = gcp.networkconnectivity.ServiceConnectionPolicy(
            f"{name}-store-connections",
            project=args["project"],
            location=args["region"],
            name=f"{args['name']}-memorystore",
            service_class="gcp-memorystore",
            network=network,
            psc_config={"subnetworks": [relative(settings["subnetwork"])]},
            labels=labels,
            opts=child_options(parent),
        )
        policies.append(policy)
    persistence: Any = {"mode": "AOF", "aof_config": {"append_fsync": "EVERY_SEC"}}
    endpoint: Any = {"network": network, "project_id": args["project"]}
    instance = gcp.memorystore.Instance(
        f"{name}-store",
        project=args["project"],
        location=args["region"],
        instance_id=f"{args['name']}-api-management",
        shard_count=1,
        mode="CLUSTER_DISABLED",
        node_type=settings.get("node_type", manifests.NODE_TYPES[1]),
        replica_count=settings.get("replicas", 1),
        authorization_mode="IAM_AUTH",
        transit_encryption_mode="SERVER_AUTHENTICATION",
        deletion_protection_enabled=settings.get("deletion_protection", True),
        persistence_config=persistence,
        desired_auto_created_endpoints=[endpoint],
        engine_configs={"maxmemory-policy": "noeviction"},
        labels=labels,
        opts=child_options(parent, policies),
    )
    grant = _grant(name, args, parent)
    authority = manifests.authority(args, instance.managed_server_cas.apply(_certificates))
    trusted = apply(f"{name}-store-authority", authority, child_options(parent))
    return Store(instance.endpoints.apply(_address), [instance, grant, trusted])


def _grant(name: str, args: "ApiManagementArgs", parent: pulumi.Resource) -> pulumi.Resource:
    """Let the workload connect to the project's instances.

    No condition can narrow it down to this one: Memorystore gives IAM no resource names, so one would never hold.
    Source: IAM, "Resource attributes for IAM Conditions".
    """
    member = principal(args["project"], args["project_number"], args["namespace"], guardrails.HOST)
    role, options = f"{name}-store-user", child_options(parent)
    return gcp.projects.IAMMember(role, project=args["project"], role=_CONNECT, member=member, opts=options)


def _address(endpoints: "Sequence[InstanceEndpoint]") -> str:
    """Return `host:port` of the primary. An instance with cluster mode disabled has a reader's connection, too.

    Nothing can be written by way of the latter. Source: Memorystore for Valkey, "Instance endpoints".
    """
    for endpoint in endpoints:
        for connection in endpoint.connections or []:
            found = connection.psc_auto_connection
            if found and found.ip_address and found.connection_type in (_PRIMARY, None):
                return f"{found.ip_address}:{manifests.PORT}"
    return ""


def _certificates(authorities: "Sequence[InstanceManagedServerCa]") -> str:
    """Return all certificates of the instance's authorities as PEM."""
    chains = [chain for authority in authorities for chain in authority.ca_certs or []]
    return "".join(text for chain in chains for text in chain.certificates or [])
