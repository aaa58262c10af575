"""The component `ServicePublication`: a Gateway, published to other networks by Private Service Connect."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, cast

import pulumi
import pulumi_gcp as gcp

from ._shape import conform
from .errors import raise_if
from .manifests import forwarding_rules
from .manifests import publication as manifests


class Consumer(TypedDict):
    """A consumer that may connect: exactly one of `project` and `network`."""

    project: NotRequired[str]
    """Project identifier or number: endpoints in any of its networks."""
    network: NotRequired[pulumi.Input[str]]
    """URI of a VPC network: endpoints in that network only."""
    limit: int
    """Most endpoints, 1 or more."""


class ServicePublicationArgs(TypedDict):
    """Arguments of `ServicePublication`."""

    name: str
    """What the attachment's name begins with: `<name>-attachment`. At most 52 characters."""
    project: str
    """Project of the load balancer."""
    region: str
    """Region of the load balancer."""
    accept: list[Consumer]
    """Who may connect, all by project or all by network. Everybody else stays pending."""
    reject: NotRequired[list[pulumi.Input[str]]]
    """Who is refused at once instead of staying pending, named in the way of `accept`."""
    port: NotRequired[int]
    """Port of the listener to publish. Default 443."""
    reconcile_connections: NotRequired[bool]
    """Whether a consumer that is no longer accepted is cut off. Default true; false keeps what is connected."""
    propagated_connection_limit: NotRequired[int]
    """Networks that each consumer may reach the service from through Network Connectivity Center. Default 250."""
    domain_name: NotRequired[str]
    """Domain, ending in a dot, for which Google makes DNS entries in consumer networks. It must be verified for the
    project. Default: none; `PrivateEndpoint` makes entries without that."""
    description: NotRequired[str]
    """Description of the attachment."""
    nat_subnetworks: pulumi.Input[list[pulumi.Input[str]]]
    """URIs of subnetworks of purpose PRIVATE_SERVICE_CONNECT in the region, which no other attachment uses."""
    gateway_metadata: NotRequired[pulumi.Input[dict[str, Any]]]
    """Metadata of the live Gateway with its annotations: output of `InferenceGateway`."""
    address: NotRequired[pulumi.Input[str]]
    """The Gateway's IPv4 address: output of `InferenceGateway`; empty when it is not reserved there."""
    forwarding_rule: NotRequired[pulumi.Input[str]]
    """Name of the rule to publish. Default: found by `gateway_metadata` and `address`."""


class ServicePublication(pulumi.ComponentResource):
    """A service attachment in front of the Gateway's forwarding rule.

    No Kubernetes object publishes a Gateway, so its rule is found from outside. An annotation that lists one rule needs
    no lookup; otherwise the region's rules are listed once and the one on the Gateway's address and port is taken. A
    preview in which the Gateway does not exist yet shows the rule as unknown.

    The attachment depends on what `gateway_metadata` depends on: it is made after Gateway and GCPGatewayPolicy, and
    deleted before them. Another rule (a Gateway that is made anew), project or region is another attachment: the old
    one is deleted first, since it holds the NAT subnetworks and its name, and consumers are cut off until their
    endpoints are made again (`PrivateEndpoint` does so when it is refreshed and updated).
    """

    attachment: pulumi.Output[str]
    """URI of the attachment: the target of endpoints."""
    forwarding_rule: pulumi.Output[str]
    """URI of the published forwarding rule."""

    attachment_uri = staticmethod(manifests.attachment_uri)
    """Builds the attachment's URI from the arguments alone, for stacks of consumers."""
    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""

    def __init__(self, name: str, args: ServicePublicationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(ServicePublicationArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:ServicePublication", name, None, opts)

        self.forwarding_rule = self._find(args)
        limit = args.get("propagated_connection_limit")
        made = gcp.compute.ServiceAttachment(
            f"{name}-attachment",
            name=manifests.attachment_name(args),
            project=args["project"],
            region=args["region"],
            description=args.get("description", "The inference gateway"),
            connection_preference="ACCEPT_MANUAL",
            enable_proxy_protocol=False,  # an HTTP proxy would take the preamble for a broken request
            nat_subnets=args["nat_subnetworks"],
            target_service=self.forwarding_rule,
            consumer_accept_lists=[_accepted(consumer) for consumer in args["accept"]],
            consumer_reject_lists=args.get("reject"),
            reconcile_connections=args.get("reconcile_connections", True),
            propagated_connection_limit=limit,
            send_propagated_connection_limit_if_zero=True if limit == 0 else None,
            domain_names=[args["domain_name"]] if "domain_name" in args else None,
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )
        self.attachment = made.name.apply(lambda _: manifests.attachment_uri(args))
        self.register_outputs({"attachment": self.attachment, "forwardingRule": self.forwarding_rule})

    def _find(self, args: ServicePublicationArgs) -> pulumi.Output[str]:
        """Return the URI of the rule; nothing is looked up while an input is unknown."""
        project, region, port = args["project"], args["region"], args.get("port", manifests.PORT)
        if "forwarding_rule" in args:
            named = pulumi.Output.from_input(args["forwarding_rule"])
            return named.apply(lambda rule: forwarding_rules.path(project, region, rule))

        def find(known: list[Any]) -> pulumi.Input[str]:
            metadata, address = known[0] or {}, known[1] or ""
            names = forwarding_rules.annotated(metadata, region)
            if len(names) == 1:
                return forwarding_rules.path(project, region, names[0])
            options = pulumi.InvokeOutputOptions(parent=self)
            listed = gcp.compute.get_forwarding_rules_output(project=project, region=region, opts=options)
            return listed.apply(lambda answer: choose(names, address, list(answer.rules)))

        def choose(names: list[str], address: str, listed: list[Any]) -> str:
            chosen = forwarding_rules.choose(map(_rule, listed), names, address, port)
            if chosen is not None:
                return forwarding_rules.path(project, region, chosen)
            if pulumi.runtime.is_dry_run():  # the update may make it: unknown, as everything that is yet to be made
                return cast(str, pulumi.UNKNOWN)
            raise forwarding_rules.none_found(names, address, port, project, region)

        return pulumi.Output.all(args.get("gateway_metadata"), args.get("address")).apply(find)


def _accepted(consumer: Consumer) -> "gcp.compute.ServiceAttachmentConsumerAcceptListArgs":
    return gcp.compute.ServiceAttachmentConsumerAcceptListArgs(
        connection_limit=consumer["limit"],
        project_id_or_num=consumer.get("project"),
        network_url=consumer.get("network"),
    )


def _rule(listed: Mapping[str, Any]) -> forwarding_rules.Rule:
    return forwarding_rules.Rule(
        name=listed["name"],
        ip_address=listed["ip_address"],
        port_range=listed["port_range"],
        scheme=listed["load_balancing_scheme"],
    )
