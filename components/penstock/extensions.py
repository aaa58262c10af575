"""The component `Extensions`: the one routing and the one traffic extension of a Gateway."""

from typing import NotRequired, TypedDict

import pulumi

from ._apply import apply, child_options
from ._shape import conform
from .errors import raise_if
from .manifests import extensions as manifests


class RoutingCallout(TypedDict):
    """The callout that chooses the route: the body router."""

    name: str
    """Name of the extension, a DNS label; it appears in request logs."""
    service: str
    """Name of the callout's Service."""
    port: int
    """Port of ext_proc on the Service."""
    service_namespace: NotRequired[str]
    """Namespace of the Service. It must be the Gateway's; given only to have that checked."""
    timeout_ms: NotRequired[int]
    """Milliseconds per message, 10 to 10,000. Default 1,000."""


class ExtensionCallout(TypedDict):
    """One callout of the traffic extension: a Service, a Google API service such as Model Armor, or Apigee."""

    name: str
    """Name of the extension, a DNS label; it appears in request logs."""
    events: list[str]
    """What the callout sees: `RequestHeaders`, `RequestBody`, `RequestTrailers` and the same of `Response`."""
    purpose: NotRequired[str]
    """`management` or `guardrails`. Management, which is cheap and decides, has to stand in front. Default: neither."""
    service: NotRequired[str]
    """Name of the callout's Service."""
    port: NotRequired[int]
    """Port of ext_proc on the Service."""
    service_namespace: NotRequired[str]
    """Namespace of the Service or ApigeeBackendService. It must be the Gateway's; given to have that checked."""
    authority: NotRequired[str]
    """`:authority` of the calls. Default `<service>.<namespace>.svc`."""
    google_api_service: NotRequired[str]
    """Host name of a Google API service, e.g. `modelarmor.us-central1.rep.googleapis.com`, instead of a Service."""
    apigee_backend: NotRequired[str]
    """Name of an ApigeeBackendService, instead of a Service."""
    timeout_ms: NotRequired[int]
    """Milliseconds per message, 10 to 10,000. Default 1,000."""
    fail_open: NotRequired[bool]
    """Whether requests go on when the callout fails. Default false: 500."""
    request_body_mode: NotRequired[str]
    """`Streamed` or `FullDuplexStreamed`. Default GKE's, `Streamed`."""
    response_body_mode: NotRequired[str]
    """`Streamed` or `FullDuplexStreamed`. Default GKE's, `Streamed`."""
    metadata: NotRequired[dict[str, str]]
    """Up to 16 entries for the callout; values of at most 1,023 characters."""


class ExtensionsArgs(TypedDict):
    """Arguments of `Extensions`."""

    gateway: str
    """Name of the Gateway object."""
    namespace: str
    """Namespace of the Gateway and of every callout."""
    routing: RoutingCallout
    """The body router."""
    callouts: NotRequired[list[ExtensionCallout]]
    """Callouts after routing, in the order of requests, at most 3. Cheap and deciding ones first."""
    allow_header_only_callouts: NotRequired[bool]
    """Accept a callout that takes response headers without bodies in front of one that takes bodies. Default false:
    Envoy 1.40 cut off 3% to 20% of streamed answers so, with status 200; what GKE's load balancer does is not known."""
    match: NotRequired[str]
    """CEL expression that selects requests. Default: all."""


class Extensions(pulumi.ComponentResource):
    """GCPRoutingExtension `<gateway>-routing` and, with callouts, GCPTrafficExtension `<gateway>-traffic`."""

    routing_extension: pulumi.Output[str]
    """Name of the GCPRoutingExtension object."""
    callout_count: pulumi.Output[int]
    """Number of callouts in the traffic extension."""

    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""

    def __init__(self, name: str, args: ExtensionsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(ExtensionsArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:Extensions", name, None, opts)

        routing = manifests.routing(args)
        apply(f"{name}-routing", routing, child_options(self))
        traffic = manifests.traffic(args)
        if traffic is not None:
            apply(f"{name}-traffic", traffic, child_options(self))

        self.routing_extension = pulumi.Output.from_input(routing["metadata"]["name"])
        self.callout_count = pulumi.Output.from_input(len(args.get("callouts", [])))
        self.register_outputs({"routingExtension": self.routing_extension, "calloutCount": self.callout_count})
