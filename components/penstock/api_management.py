"""The component `ApiManagement`: keys, products, limits and policies in front of the models."""

from typing import NotRequired, TypedDict

import pulumi

from . import _apigee, _store
from ._callout import declare
from ._shape import conform
from .apigee_settings import ApigeeSettings
from .callout_workload import CalloutWorkload
from .errors import raise_if
from .guardrails import GuardrailsArgs
from .management_settings import (
    DeveloperPortal,
    ManagedApp,
    ManagedDeveloper,
    ManagedGroup,
    ManagedOrganization,
    ManagedTeam,
    ManagementAdmin,
    PolicyUse,
    RatePlan,
    RequestRecording,
    RequestTracing,
    TokenEstimation,
    UsageLedger,
)
from .manifests import api_management as manifests
from .replica_set import SecretKey


class UsageLimit(TypedDict):
    """A limit; of all that apply to a request the strictest wins."""

    name: str
    """Its name, a DNS label; errors name it."""
    scope: str
    """Whose use is counted together: `organization`, `group`, `team`, `user`, `key`, or `model` of an organization."""
    kind: str
    """`requests`, `tokens`, `concurrent` (requests at once) or `cost` (millionths of a US dollar)."""
    amount: int
    """How much, in units of the kind."""
    window: NotRequired[str]
    """`minute`, `hour`, `day` or `month`; all kinds but `concurrent` have one."""
    models: NotRequired[list[str]]
    """Models that count. Default all."""
    rolling: NotRequired[bool]
    """Whether the window is the time just past, rather than one of the calendar (UTC). Default false. Bundled only."""
    mode: NotRequired[str]
    """`enforce` or `shadow`, which counts but never refuses. Default `enforce`. Bundled only."""


class ApiProduct(TypedDict):
    """What a key opens."""

    name: str
    """Its name, a DNS label."""
    models: list[str]
    """Models, by the names that clients use. Apigee: handed to its policies as the attribute `models`."""
    operations: NotRequired[list[str]]
    """Paths. Default every inference path."""
    limits: NotRequired[list[str]]
    """Names of the limits that bind its keys. Apigee: at most one, of kind `requests` and scope `key`."""
    display_name: NotRequired[str]
    """Name that developers see. Default the name."""
    approval: NotRequired[str]
    """`auto` or `manual` approval of new keys. Default `auto`."""
    description: NotRequired[str]
    """What developers read about it. Bundled only, as all that follows."""
    public: NotRequired[bool]
    """Whether the portal shows it to every developer. Default true."""
    rate_plan: NotRequired[str]
    """What its use costs, one of `rate_plans`. Default the organization's plan."""
    max_output_tokens: NotRequired[int]
    """Cap of an answer: reserved where a request names no `max_tokens`. Default none."""
    policies: NotRequired[list[PolicyUse]]
    """Changes to the chain of all products: a policy replaces the one of its name, or joins at its place."""


class TemplateRule(TypedDict):
    """What an administrator asks of the policies of all products."""

    name: str
    """Its name, a DNS label."""
    required: NotRequired[list[str]]
    """Policies that have to be there."""
    allowed: NotRequired[list[str]]
    """Policies that may be there. Default all that are not denied."""
    denied: NotRequired[list[str]]
    """Policies that may not be there."""


class Memorystore(TypedDict):
    """A Memorystore for Valkey instance, with TLS and IAM authentication."""

    node_type: NotRequired[str]
    """`SHARED_CORE_NANO`, `STANDARD_SMALL`, `HIGHMEM_MEDIUM` or `HIGHMEM_XLARGE`. Default `STANDARD_SMALL`."""
    replicas: NotRequired[int]
    """Copies beside the primary, 0 to 5. Default 1."""
    deletion_protection: NotRequired[bool]
    """Refuse its deletion. Default true."""
    connection_policy: NotRequired[bool]
    """Make the network's service connection policy for Memorystore; a network has one per region. Default true."""
    network: pulumi.Input[str]
    """URI of the cluster's network, `projects/P/global/networks/N`."""
    subnetwork: NotRequired[pulumi.Input[str]]
    """URI of the subnetwork that the endpoint's address comes from; needed for the connection policy."""


class Valkey(TypedDict):
    """One Valkey pod in the namespace: clear text behind NetworkPolicies, durable, but not highly available."""

    image: str
    """Image, pinned by tag or digest, e.g. `valkey/valkey:8.1.4`."""
    password_secret: SecretKey
    """Secret with the password. The password itself never passes through here."""
    storage_gib: NotRequired[int]
    """Size of its volume in GiB. Default 10."""
    memory: NotRequired[str]
    """Memory request and limit. Default `1Gi`."""


class ManagementStore(TypedDict):
    """Where keys, counters and the ledger are."""

    kind: str
    """`sqlite` (in the one pod, on a volume), `memorystore` or `valkey`."""
    storage_gib: NotRequired[int]
    """Size of SQLite's volume in GiB. Default 10."""
    memorystore: NotRequired[Memorystore]
    """The instance of kind `memorystore`."""
    valkey: NotRequired[Valkey]
    """The pod of kind `valkey`."""


class ApiManagementArgs(TypedDict):
    """Arguments of `ApiManagement`."""

    mode: str
    """`bundled`: Penstock's service, the workload `api-management`. `apigee`: Apigee, by its operator."""
    namespace: str
    """Namespace of the Gateway."""
    products: NotRequired[list[ApiProduct]]
    """API products."""
    limits: NotRequired[list[UsageLimit]]
    """Limits, which products name."""
    template_rules: NotRequired[list[TemplateRule]]
    """Rules for policies; Penstock's names in mode `bundled`, Apigee's (`SpikeArrest`) in mode `apigee`."""
    fail_open: NotRequired[bool]
    """Whether requests go on unchecked when the callout cannot be asked. Default false."""
    timeout_ms: NotRequired[int]
    """Milliseconds per message, 10 to 10,000. Default 1,000."""
    policies: NotRequired[list[PolicyUse]]
    """The chain of all products, in order; mode `bundled`, as are the next ones. Credentials and access are always part
    of it, validation and limits unless `mode: off` takes them out."""
    organizations: NotRequired[list[ManagedOrganization]]
    """Organizations. Others can be made over the admin API, as can teams, developers, groups and apps."""
    teams: NotRequired[list[ManagedTeam]]
    """Teams."""
    developers: NotRequired[list[ManagedDeveloper]]
    """People."""
    groups: NotRequired[list[ManagedGroup]]
    """Shared budgets."""
    apps: NotRequired[list[ManagedApp]]
    """Apps, which hold keys."""
    rate_plans: NotRequired[list[RatePlan]]
    """What use costs."""
    key_value_maps: NotRequired[list[str]]
    """Names of maps whose values policies' settings may refer to; values are set over the admin API."""
    estimation: NotRequired[TokenEstimation]
    """How tokens are guessed before they are counted."""
    ledger: NotRequired[UsageLedger]
    """The usage ledger."""
    recording: NotRequired[RequestRecording]
    """Requests kept for replay. Default none."""
    tracing: NotRequired[RequestTracing]
    """Spans. Default none."""
    portal: NotRequired[DeveloperPortal]
    """The developer portal."""
    admin: NotRequired[ManagementAdmin]
    """Admin API and portal's port."""
    store: NotRequired[ManagementStore]
    """Where mode `bundled` keeps its state. Default SQLite."""
    pepper_secret: NotRequired[SecretKey]
    """Secret with the key that API keys are hashed with, mode `bundled`. Default `api-management`, key `pepper`."""
    guardrails: NotRequired[GuardrailsArgs]
    """Arguments of guardrails that this workload serves too (their `served_by` is `api-management`)."""
    workload: NotRequired[CalloutWorkload]
    """Pods of the workload `api-management`."""
    apigee: NotRequired[ApigeeSettings]
    """Settings of mode `apigee`."""
    name: NotRequired[str]
    """Physical base name of cloud resources, e.g. `penstock-prod`. Needed for Apigee and Memorystore, as are project,
    project_number and region."""
    project: NotRequired[str]
    """Project id of the Gateway."""
    project_number: NotRequired[str]
    """Number of the project."""
    region: NotRequired[str]
    """Region of the Gateway."""
    labels: NotRequired[dict[str, str]]
    """Further labels of cloud resources."""
    image: NotRequired[pulumi.Input[str]]
    """Image of Penstock's services, pinned by tag or digest; for mode `bundled`."""


class ApiManagement(pulumi.ComponentResource):
    """The workload `api-management` with its store, or Apigee's resources and objects, by mode."""

    mode: pulumi.Output[str]
    """Who manages."""
    service_attachment: pulumi.Output[str]
    """URI of the Apigee instance's service attachment, to which clients of a bridge connect; empty without one."""

    SERVICE_NAME = manifests.NAME
    SERVICE_PORT = manifests.GRPC_PORT
    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""
    callouts = staticmethod(manifests.callouts)
    """Returns the entries of the traffic chain by the arguments alone."""
    cluster_features = staticmethod(manifests.cluster_features)
    """Names the features that the cluster's minimum version depends on."""
    calls_google_apis = staticmethod(manifests.calls_google_apis)
    """Tells whether the workload calls Google APIs, and so needs the way out to them."""

    def __init__(self, name: str, args: ApiManagementArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(ApiManagementArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:ApiManagement", name, None, opts)

        self.mode = pulumi.Output.from_input(args["mode"])
        self.service_attachment = pulumi.Output.from_input("")
        if args["mode"] == manifests.APIGEE:
            self.service_attachment = _apigee.declare(name, args, self)
        else:
            store = _store.declare(name, args, self)
            made = manifests.callout(args, store.address)
            stream_timeout_s = args.get("workload", {}).get("stream_timeout_s", manifests.STREAM_TIMEOUT_S)
            declare(name, made, stream_timeout_s, self, store.resources)
        self.register_outputs({"mode": self.mode, "serviceAttachment": self.service_attachment})
