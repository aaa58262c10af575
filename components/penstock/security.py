"""The component `SecurityBase`: who may talk to whom, and what is recorded about it."""

from typing import NotRequired, TypedDict

import pulumi

from . import _audit
from ._apply import apply, child_options
from ._shape import conform
from .errors import raise_if
from .manifests import security


class Egress(TypedDict):
    """One more way out for some workloads, e.g. from `guardrails` to a NeMo server."""

    name: str
    """Its name, a DNS label; the policy is called `egress-<name>`."""
    workloads: list[str]
    """Workloads by name, e.g. `guardrails` or a replica set."""
    ports: list[int]
    """TCP ports."""
    namespace: NotRequired[str]
    """Namespace whose pods may be reached."""
    range: NotRequired[str]
    """Or addresses that may be reached, in CIDR notation."""


class NetworkRules(TypedDict):
    """Paths that are open in the namespace; every other one is closed, both ways. Needs Dataplane V2."""

    namespace: str
    """Namespace of the Gateway and all workloads."""
    proxy_range: str
    """Range of the proxy-only subnet, from which the load balancer calls callouts, pickers and replicas."""
    replica_ports: NotRequired[list[int]]
    """Ports on which replicas serve. Default 8000."""
    multi_node: NotRequired[list[str]]
    """Replica sets of several nodes, whose pods talk among themselves on any port."""
    api_server_ranges: NotRequired[list[str]]
    """Where the API server is, for pickers that ask it for replicas: the nodes' range, from which GKE takes the control
    plane's internal endpoint, or that of its own subnetwork. Default: pickers may not reach it."""
    google_apis: NotRequired[str]
    """Addresses of Google APIs: `private` or `restricted`, as in the network. Default `private`."""
    google_api_clients: NotRequired[list[str]]
    """Workloads that call Google APIs with an identity of their own: replicas that read a bucket, `guardrails` with
    Model Armor, `api-management` with Memorystore."""
    regional_api_ranges: NotRequired[list[str]]
    """Where the network's endpoints of regional APIs are, e.g. of Model Armor: usually the nodes' range."""
    hub_clients: NotRequired[list[str]]
    """Replica sets that load weights from the hub, hence may reach `hub_hosts` on port 443."""
    hub_hosts: NotRequired[list[str]]
    """Host names of the hub, `*` matches within one label. Default those of Hugging Face."""
    store: NotRequired[str]
    """Store of API management: `valkey` (the pod), `memorystore` (in `store_ranges`) or `none`. Default `none`."""
    store_ranges: NotRequired[list[str]]
    """Where Memorystore's endpoint is: the range of the subnetwork that it was connected in."""
    monitoring_namespaces: NotRequired[list[str]]
    """Namespaces of the collectors of metrics. Default those of managed Prometheus, Standard and Autopilot."""
    egress: NotRequired[list[Egress]]
    """Further ways out."""


class AuditedService(TypedDict):
    """A service whose data accesses are logged."""

    service: str
    """Its name, e.g. `modelarmor.googleapis.com`."""
    log_types: NotRequired[list[str]]
    """`ADMIN_READ`, `DATA_READ`, `DATA_WRITE`. Default all three."""
    exempted_members: NotRequired[list[str]]
    """IAM members whose accesses are not logged."""


class LogArchive(TypedDict):
    """Where the project's audit logs are kept."""

    location: str
    """Location of the log bucket, e.g. `us-central1` or `global`."""
    retention_days: NotRequired[int]
    """Days to keep them, 1 to 3650. Default 365."""
    locked: NotRequired[bool]
    """Make the retention final: neither it nor the bucket can be taken back before all logs are past it. Default no."""
    filter: NotRequired[str]
    """What goes there, in Logging's query language. Default all audit logs."""


class AuditRules(TypedDict):
    """What is logged of a project; administrators' writes always are."""

    project: str
    """Project id."""
    services: NotRequired[list[AuditedService]]
    """Services; the setting of each is replaced as a whole. Default Kubernetes Engine (reads of configuration, writes),
    Cloud Storage, Model Armor and Network Services. Logs of data accesses are billed."""
    archive: NotRequired[LogArchive]
    """Where audit logs are kept. Default the project's `_Default` and `_Required` buckets, 30 and 400 days."""


class SecurityBaseArgs(TypedDict):
    """Arguments of `SecurityBase`: one of its two parts, or both."""

    name: str
    """Physical base name of cloud resources, e.g. `penstock-prod`."""
    network: NotRequired[NetworkRules]
    """NetworkPolicies of the namespace. Default none."""
    audit: NotRequired[AuditRules]
    """Audit logs of the project. Default none."""


class SecurityBase(pulumi.ComponentResource):
    """Default-deny NetworkPolicies with the paths of a request, ways out by name, and audit configuration."""

    policy_count: pulumi.Output[int]
    """Number of NetworkPolicies."""

    problems = staticmethod(security.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""
    cluster_features = staticmethod(security.cluster_features)
    """Names the features that the cluster's minimum version depends on."""

    def __init__(self, name: str, args: SecurityBaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(SecurityBaseArgs, args, name)
        raise_if(security.problems(args, name))
        super().__init__("penstock:index:SecurityBase", name, None, opts)

        policies = security.policies(args["network"]) if args.get("network") is not None else []
        for policy in policies:
            apply(f"{name}-policy-{policy['metadata']['name']}", policy, child_options(self))
        if args.get("audit") is not None:
            _audit.declare(name, args["name"], args["audit"], child_options(self))

        self.policy_count = pulumi.Output.from_input(len(policies))
        self.register_outputs({"policyCount": self.policy_count})
