"""What providers would answer, offline: identifiers, links and addresses, made from names as the providers make them.

Only what other resources are wired with is made up; the rest of a provider's outputs stays out. Addresses and endpoints
come from ranges that are reserved for documentation, so that none can be taken for a real one.

Source: pulumi-gcp 10.2, sections "Attributes Reference" and "Import"; RFC 5737.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from cli.graph.model import Graph, Resource
from cli.graph.monitor import Function, Outputs
from cli.graph.wire import redact

COMPUTE = "https://www.googleapis.com/compute/v1/"
FORWARDING_RULES = "networking.gke.io/forwarding-rules"
"""Annotation by which a programmed Gateway names its forwarding rules, one for each listener. Undocumented."""
GATEWAY = "kubernetes:gateway.networking.k8s.io/v1:Gateway"
LIST_FORWARDING_RULES = "gcp:compute/getForwardingRules:getForwardingRules"
STACK_REFERENCE = "pulumi:pulumi:StackReference"

_IDS: Mapping[str, str] = {
    "gcp:certificatemanager/certificate:Certificate": "projects/{project}/locations/{location}/certificates/{name}",
    "gcp:certificatemanager/dnsAuthorization:DnsAuthorization": (
        "projects/{project}/locations/{location}/dnsAuthorizations/{name}"
    ),
    "gcp:compute/address:Address": "projects/{project}/regions/{region}/addresses/{name}",
    "gcp:compute/firewall:Firewall": "projects/{project}/global/firewalls/{name}",
    "gcp:compute/forwardingRule:ForwardingRule": "projects/{project}/regions/{region}/forwardingRules/{name}",
    "gcp:compute/network:Network": "projects/{project}/global/networks/{name}",
    "gcp:compute/regionSecurityPolicy:RegionSecurityPolicy": (
        "projects/{project}/regions/{region}/securityPolicies/{name}"
    ),
    "gcp:compute/resourcePolicy:ResourcePolicy": "projects/{project}/regions/{region}/resourcePolicies/{name}",
    "gcp:compute/router:Router": "projects/{project}/regions/{region}/routers/{name}",
    "gcp:compute/serviceAttachment:ServiceAttachment": "projects/{project}/regions/{region}/serviceAttachments/{name}",
    "gcp:compute/subnetwork:Subnetwork": "projects/{project}/regions/{region}/subnetworks/{name}",
    "gcp:container/cluster:Cluster": "projects/{project}/locations/{location}/clusters/{name}",
    "gcp:dns/managedZone:ManagedZone": "projects/{project}/managedZones/{name}",
    "gcp:modelarmor/template:Template": "projects/{project}/locations/{location}/templates/{templateId}",
    "gcp:storage/bucket:Bucket": "{name}",
}
"""Type -> identifier, from inputs. Other types get an identifier of the recorder."""

_ADDRESSED = {"gcp:compute/address:Address": "address", "gcp:compute/forwardingRule:ForwardingRule": "ipAddress"}


class Answers:
    """What providers answer during one recording: outputs, by resource type, and functions, by token.

    Args:
        graph: what a `StackReference` reads: the part of the environment that is updated before.
    """

    def __init__(self, graph: Graph | None = None) -> None:
        self._rules: list[dict[str, Any]] = []
        self._addresses: dict[str, str] = {}
        outputs: dict[str, Outputs] = dict.fromkeys(_IDS, _identified)
        outputs["gcp:compute/address:Address"] = self._reserve
        outputs["gcp:container/cluster:Cluster"] = _cluster
        outputs["gcp:serviceaccount/account:Account"] = _service_account
        outputs["gcp:certificatemanager/dnsAuthorization:DnsAuthorization"] = _dns_authorization
        outputs["gcp:apigee/organization:Organization"] = lambda resource: _named("organizations/{projectId}", resource)
        outputs["gcp:apigee/instance:Instance"] = _apigee_instance
        outputs["gcp:apigee/endpointAttachment:EndpointAttachment"] = lambda resource: {"host": _address(resource.key)}
        outputs["gcp:memorystore/instance:Instance"] = _memorystore
        outputs[GATEWAY] = self._program
        if graph is not None:
            outputs[STACK_REFERENCE] = lambda resource: _stack(resource, graph)
        self.outputs: Mapping[str, Outputs] = outputs
        self.functions: Mapping[str, Function] = {LIST_FORWARDING_RULES: self._list}

    def _reserve(self, resource: Resource) -> dict[str, Any]:
        found = _identified(resource)
        address = resource.inputs.get("address") or found["address"]
        self._addresses[str(resource.inputs.get("name"))] = address
        return found

    def _program(self, resource: Resource) -> dict[str, Any]:
        """Return a programmed Gateway's metadata, which names a forwarding rule for each listener in their order."""
        named = [item["value"] for item in resource.inputs["spec"].get("addresses", [])]
        address = self._addresses.get(named[0], "") if named else _address(resource.key)
        names = []
        for listener in resource.inputs["spec"]["listeners"]:
            names.append(f"gkegw1-{_digest(resource.key)[:4]}-{listener['name']}")
            port = listener["port"]
            rule = {"name": names[-1], "ipAddress": address, "portRange": f"{port}-{port}"}
            self._rules.append(rule | {"loadBalancingScheme": "INTERNAL_MANAGED"})
        metadata = dict(resource.inputs.get("metadata", {}))
        annotations = {**metadata.get("annotations", {}), FORWARDING_RULES: ",".join(names)}
        return {"metadata": metadata | {"annotations": annotations}}

    def _list(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return the forwarding rules of the Gateways that were programmed so far."""
        return {"id": "rules", **args, "rules": list(self._rules)}


def outputs_of(graph: Graph | None = None) -> Mapping[str, Outputs]:
    """Return what providers add to inputs, by resource type; `graph` is as for `Answers`."""
    return Answers(graph).outputs


def _identified(resource: Resource) -> dict[str, Any]:
    """Return `id` and, of Compute Engine's resources, `selfLink` and the address."""
    identifier = _fill(_IDS[resource.type], resource)
    found: dict[str, Any] = {"id": identifier}
    if resource.type.startswith("gcp:compute/"):
        found["selfLink"] = COMPUTE + identifier
    address = _ADDRESSED.get(resource.type)
    if address and address not in resource.inputs:
        found[address] = _address(resource.key)
    if resource.type == "gcp:compute/forwardingRule:ForwardingRule":
        found |= {"pscConnectionId": "1", "pscConnectionStatus": "ACCEPTED"}
    if resource.type == "gcp:storage/bucket:Bucket":
        found["url"] = f"gs://{identifier}"
    return found


def _cluster(resource: Resource) -> dict[str, Any]:
    endpoints = dict(resource.inputs.get("controlPlaneEndpointsConfig", {}))
    name = f"gke-{_digest(resource.key)[:12]}.{resource.inputs.get('location')}.gke.goog"
    endpoints["dnsEndpointConfig"] = {**endpoints.get("dnsEndpointConfig", {}), "endpoint": name}
    return _identified(resource) | {"endpoint": _address(resource.key), "controlPlaneEndpointsConfig": endpoints}


def _service_account(resource: Resource) -> dict[str, Any]:
    project = resource.inputs.get("project")
    email = f"{resource.inputs['accountId']}@{project}.iam.gserviceaccount.com"
    name = f"projects/{project}/serviceAccounts/{email}"
    return {"id": name, "name": name, "email": email, "member": f"serviceAccount:{email}"}


def _apigee_instance(resource: Resource) -> dict[str, Any]:
    """Return an Apigee runtime's service attachment, which lives in a project of Google's; it may only be read."""
    organization, name = resource.inputs.get("orgId"), resource.inputs.get("name")
    identifier = resource.options.get("read", f"{organization}/instances/{name}")
    return {"id": identifier, "serviceAttachment": "projects/apigee-tenant/regions/any/serviceAttachments/apigee"}


def _memorystore(resource: Resource) -> dict[str, Any]:
    """Return a Memorystore instance's endpoint, reader before primary, and the authority of its certificate."""
    addresses = {"READER": _address(f"{resource.key} (reader)"), "PRIMARY": _address(resource.key)}
    connections = [
        {"pscAutoConnection": {"connectionType": f"CONNECTION_TYPE_{kind}", "ipAddress": address, "port": 6379}}
        for kind, address in addresses.items()
    ]
    certificate = "-----BEGIN CERTIFICATE-----\n(offline)\n-----END CERTIFICATE-----\n"
    authorities = [{"caCerts": [{"certificates": [certificate]}]}]
    name = "projects/{project}/locations/{location}/instances/{instanceId}"
    found = {"endpoints": [{"connections": connections}], "managedServerCas": authorities}
    return found | {"id": _fill(name, resource)}


def _dns_authorization(resource: Resource) -> dict[str, Any]:
    name = f"_acme-challenge.{resource.inputs.get('domain')}."
    record = {"name": name, "type": "CNAME", "data": f"{_digest(resource.key)[:12]}.authorize.certificatemanager.goog."}
    return _identified(resource) | {"dnsResourceRecords": [record]}


def _stack(resource: Resource, graph: Graph) -> dict[str, Any]:
    """Return another stack's outputs as its last update left them."""
    secret = [name for name, value in graph.outputs.items() if redact(value) != value]
    name = resource.options.get("read", resource.name)
    return {"name": name, "outputs": dict(graph.outputs), "secretOutputNames": secret}


def _named(template: str, resource: Resource) -> dict[str, Any]:
    name = _fill(template, resource)
    return {"id": name, "name": name.rpartition("/")[2]}


def _fill(template: str, resource: Resource) -> str:
    inputs = {"name": resource.name, "location": "global", **resource.inputs}
    return template.format_map({key: str(value).rpartition("/")[2] for key, value in inputs.items()})


def _address(key: str) -> str:
    """Return an address of 192.0.2.0/24, always the same for one resource."""
    return f"192.0.2.{int(_digest(key)[:8], 16) % 254 + 1}"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
