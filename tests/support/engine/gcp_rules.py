"""What Google Cloud's APIs do not let change, and what refers to what: the knowledge behind the stand-in for `gcp`.

Source: pulumi-gcp 10.2, whose resources say which inputs force a new resource; reasons as the APIs document them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tests.support.engine.cloud import Entry, references
from tests.support.engine.provider import Refused, Values

_PLACE = ("name", "project", "region", "zone", "location")
"""Part of a resource's identity wherever they occur."""

_EVERYTHING = ("",)

FORCES_NEW: Mapping[str, tuple[str, ...]] = {
    # A grant is its own key: there is nothing in it to change.
    "gcp:artifactregistry/repositoryIamMember:RepositoryIamMember": _EVERYTHING,
    "gcp:projects/iAMMember:IAMMember": _EVERYTHING,
    "gcp:projects/serviceIdentity:ServiceIdentity": _EVERYTHING,
    "gcp:serviceaccount/iAMMember:IAMMember": _EVERYTHING,
    "gcp:storage/bucketIAMMember:BucketIAMMember": _EVERYTHING,
    # Audit configuration is one per service.
    "gcp:projects/iAMAuditConfig:IAMAuditConfig": ("service",),
    # What a certificate proves, and how, is signed into it.
    "gcp:certificatemanager/certificate:Certificate": ("managed", "scope"),
    "gcp:certificatemanager/dnsAuthorization:DnsAuthorization": ("domain", "type"),
    # An address is handed out once; only labels are metadata.
    "gcp:compute/address:Address": (
        "address",
        "addressType",
        "purpose",
        "subnetwork",
        "network",
        "networkTier",
        "description",
        "prefixLength",
    ),
    # The direction and the network decide what a rule's other fields mean.
    "gcp:compute/firewall:Firewall": ("network", "direction"),
    # Clients are bound to address and network; target and access options can move.
    "gcp:compute/forwardingRule:ForwardingRule": (
        "description",
        "ipAddress",
        "ipProtocol",
        "loadBalancingScheme",
        "network",
        "noAutomateDnsZone",
        "portRange",
        "ports",
        "subnetwork",
        "target",
    ),
    # A profile is wired into the network's hardware, the MTU into its instances.
    "gcp:compute/network:Network": ("autoCreateSubnetworks", "description", "mtu", "networkProfile"),
    "gcp:compute/regionSecurityPolicy:RegionSecurityPolicy": ("type",),
    "gcp:compute/resourcePolicy:ResourcePolicy": ("groupPlacementPolicy", "workloadPolicy"),
    "gcp:compute/route:Route": _EVERYTHING,
    "gcp:compute/router:Router": ("network",),
    "gcp:compute/routerNat:RouterNat": ("router", "type"),
    # Consumers are connected to what stands behind the attachment.
    "gcp:compute/serviceAttachment:ServiceAttachment": ("domainNames", "targetService"),
    "gcp:compute/subnetwork:Subnetwork": ("description", "network", "purpose"),
    # Addresses, datapath and several networks are decided when the control plane is made.
    "gcp:container/cluster:Cluster": (
        "clusterIpv4Cidr",
        "defaultMaxPodsPerNode",
        "description",
        "enableAutopilot",
        "enableKubernetesAlpha",
        "enableMultiNetworking",
        "ipAllocationPolicy",
        "network",
        "networkingMode",
        "subnetwork",
    ),
    # Nodes get these when they are made, and a pool does not make some of its nodes in another way.
    "gcp:container/nodePool:NodePool": (
        "cluster",
        "initialNodeCount",
        "maxPodsPerNode",
        "networkConfig.additionalNodeNetworkConfigs",
        "networkConfig.acceleratorNetworkProfile",
        "nodeConfig.advancedMachineFeatures",
        "nodeConfig.bootDisk",
        "nodeConfig.ephemeralStorageLocalSsdConfig",
        "nodeConfig.flexStart",
        "nodeConfig.guestAccelerators",
        "nodeConfig.localNvmeSsdBlockConfig",
        "nodeConfig.localSsdCount",
        "nodeConfig.oauthScopes",
        "nodeConfig.reservationAffinity",
        "nodeConfig.serviceAccount",
        "nodeConfig.shieldedInstanceConfig",
        "nodeConfig.spot",
        "placementPolicy",
        "queuedProvisioning",
    ),
    "gcp:dns/managedZone:ManagedZone": ("dnsName", "visibility"),
    "gcp:dns/recordSet:RecordSet": ("managedZone", "type"),
    "gcp:modelarmor/floorsetting:Floorsetting": ("parent",),
    "gcp:modelarmor/template:Template": ("templateId",),
    "gcp:networkconnectivity/regionalEndpoint:RegionalEndpoint": _EVERYTHING,
    "gcp:serviceaccount/account:Account": ("accountId",),
    "gcp:storage/bucket:Bucket": ("hierarchicalNamespace",),
    # Where data lives and how the runtime is paid is fixed for an organization's life.
    "gcp:apigee/organization:Organization": (
        "analyticsRegion",
        "billingType",
        "disableVpcPeering",
        "projectId",
        "runtimeType",
    ),
    "gcp:apigee/instance:Instance": ("diskEncryptionKeyName", "ipRange", "orgId", "peeringCidrRange"),
    "gcp:apigee/environment:Environment": ("apiProxyType", "deploymentType", "orgId"),
}

_NAMED: Mapping[tuple[str, str], str] = {
    ("gcp:compute/routerNat:RouterNat", "router"): "projects/{project}/regions/{region}/routers/{}",
    ("gcp:container/nodePool:NodePool", "cluster"): "projects/{project}/locations/{location}/clusters/{}",
    ("gcp:dns/recordSet:RecordSet", "managedZone"): "projects/{project}/managedZones/{}",
    ("gcp:storage/bucketIAMMember:BucketIAMMember", "bucket"): "{}",
}
"""References by name alone, as the identifier of what they mean."""


def forces_new(type_: str, path: str) -> bool:
    """Tell whether a change at `path` of the inputs needs another resource."""
    for prefix in (*_PLACE, *FORCES_NEW.get(type_, ())):
        if not prefix or path == prefix or path.startswith((f"{prefix}.", f"{prefix}[")):
            return True
    return False


def refers_to(type_: str, inputs: Values) -> list[str]:
    """Return the identifiers of what a resource must not outlive."""
    found = references(inputs)
    for (owner, key), template in _NAMED.items():
        if owner == type_ and key in inputs:
            found.add(template.format(inputs[key].rpartition("/")[2], **inputs))
    return sorted(found)


def refuse(type_: str, inputs: Values, entries: Mapping[str, Entry]) -> None:
    """Refuse what needs something that does not exist yet, although it may outlive it.

    Raises:
        Refused: an identity that IAM does not know, an API that is off, ...
    """
    member = str(inputs.get("member", ""))
    if ".svc.id.goog/" in member:
        # Made with the first cluster of a project that uses Workload Identity; until then IAM refuses its members.
        pool = member.partition("/workloadIdentityPools/")[2].partition("/")[0]
        if not any(
            entry["inputs"].get("workloadIdentityConfig", {}).get("workloadPool") == pool for entry in entries.values()
        ):
            raise Refused(f"Error 400: Identity Pool does not exist ({pool})")
    account = member.removeprefix("serviceAccount:")
    own = account != member and account.endswith(f"@{inputs.get('project')}.iam.gserviceaccount.com")
    if own and f"projects/{inputs['project']}/serviceAccounts/{account}" not in entries:
        raise Refused(f"Error 400: Service account {account} does not exist")
    if type_ == "gcp:compute/serviceAttachment:ServiceAttachment":
        _refuse_attachment(inputs, entries)


def refuse_deletion(type_: str, inputs: Values) -> None:
    """Refuse to delete what is protected. Raises `Refused`."""
    if type_ == "gcp:container/cluster:Cluster" and inputs.get("deletionProtection", True):
        raise Refused("Cannot destroy cluster because deletion_protection is set to true")


def _refuse_attachment(inputs: Values, entries: Mapping[str, Entry]) -> None:
    for subnetwork in references(inputs.get("natSubnets", [])):
        if entries.get(subnetwork, {}).get("inputs", {}).get("purpose") != "PRIVATE_SERVICE_CONNECT":
            raise Refused(f"Error 400: `{subnetwork}` must have the purpose PRIVATE_SERVICE_CONNECT")
        if any(_uses(entry, subnetwork) for entry in entries.values()):
            raise Refused(f"Error 400: NAT subnetwork `{subnetwork}` is used by another attachment")


def _uses(entry: Entry, subnetwork: str) -> bool:
    return subnetwork in references(entry["inputs"].get("natSubnets", []))


def identity(type_: str, inputs: Values) -> str:
    """Return an identifier for a type for which none is written down: place, kind and what names it there."""
    keys = ("name", "accountId", "templateId", "service", "role", "member", "bucket", "repository", "domain", "parent")
    place = [str(inputs.get(key)) for key in ("project", "region", "zone", "location") if key in inputs]
    named = [str(inputs[key]) for key in keys if key in inputs]
    title = inputs.get("condition", {}).get("title", "")
    return "/".join(_parts([*place, type_.rpartition(":")[2], *named, title]))


def _parts(values: Iterable[Any]) -> Iterable[str]:
    return (str(value) for value in values if value)
