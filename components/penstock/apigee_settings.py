"""Settings of API management by Apigee."""

from typing import Any, NotRequired, TypedDict

import pulumi


class ApigeeOrganization(TypedDict):
    """The Apigee organization of the project."""

    name: NotRequired[str]
    """Its name. Default the project's id."""
    create: NotRequired[bool]
    """Make it. It takes tens of minutes, a project has only one, and its name is blocked for a while after its end; it
    is therefore protected. Default false: it exists."""
    analytics_region: NotRequired[str]
    """Region of analytics data, for a new one."""
    billing_type: NotRequired[str]
    """`PAYG`, `SUBSCRIPTION` or `EVALUATION`, for a new one. Default `PAYG`."""
    runtime_type: NotRequired[str]
    """`CLOUD` or `HYBRID`, for a new one. Default `CLOUD`."""
    disable_vpc_peering: NotRequired[bool]
    """Connect by Private Service Connect alone, for a new one. Default true."""
    retention: NotRequired[str]
    """`DELETION_RETENTION_UNSPECIFIED` (7 days) or `MINIMUM` (1 day), for a new one. Default 7 days."""


class ApigeeEnvironment(TypedDict):
    """The environment that the extension's proxies run in."""

    name: str
    """Its name, a DNS label."""
    create: NotRequired[bool]
    """Make it, with the property that service extensions need. Default true."""
    type: NotRequired[str]
    """`INTERMEDIATE` or `COMPREHENSIVE`; `BASE` runs no service extensions. Default `INTERMEDIATE`."""


class ApigeeEnvironmentGroup(TypedDict):
    """Host names, and the environment that answers on them."""

    name: str
    """Its name, a DNS label."""
    hostnames: list[str]
    """Host names that clients use."""
    create: NotRequired[bool]
    """Make it. Default true."""


class ApigeeInstance(TypedDict):
    """The runtime in a region."""

    name: str
    """Its name, a DNS label."""
    create: NotRequired[bool]
    """Make it, which takes tens of minutes. Default true."""
    consumer_accept_list: NotRequired[list[str]]
    """Projects, by id or number, whose endpoints it accepts. Default the Gateway's project, and the bridge client's."""


class ApigeeOperator(TypedDict):
    """The Apigee Operator for Kubernetes, which realizes the objects below in the organization."""

    install: NotRequired[bool]
    """Install it, with its service account and roles. Default true; one per cluster."""
    version: NotRequired[str]
    """Version of both charts. Default `1.1.1`."""


class ApigeeTemplate(TypedDict):
    """An ApimTemplate: which policies routes may carry. No public schema exists for it."""

    name: str
    """Its name, a DNS label."""
    rule: str
    """Name of the template rule that it obeys."""
    templates: list[Any]
    """Its `spec.templates`, rendered as given: see the operator's reference for the version in use."""


class ApigeeClient(TypedDict):
    """The client-facing network of a bridge."""

    project: str
    """Project of the endpoint."""
    hostname: str
    """Name by which clients reach Apigee; a host name of the environment group."""
    network: pulumi.Input[str]
    """URI of the network."""
    subnetwork: pulumi.Input[str]
    """URI of the endpoint's subnetwork, in the instance's region."""


class ApigeeBridge(TypedDict):
    """Apigee between a client-facing network and the API-facing network that the Gateway is published in."""

    hostname: str
    """Name in the Gateway's certificate; Apigee checks it."""
    client: NotRequired[ApigeeClient]
    """Where clients are. Default: endpoints are made elsewhere, to the output `service_attachment`."""
    trust_store: NotRequired[str]
    """Apigee truststore with the authority of the Gateway's certificate. Default: public authorities."""
    service_attachment: pulumi.Input[str]
    """URI of the Gateway's publication."""


class ApigeeSettings(TypedDict):
    """API management by Apigee: by service extension, as a bridge, or both."""

    environment: ApigeeEnvironment
    """The environment."""
    organization: NotRequired[ApigeeOrganization]
    """The organization. Default the project's, which exists."""
    environment_group: NotRequired[ApigeeEnvironmentGroup]
    """Host names. Needed for a bridge; service extensions do without."""
    instance: NotRequired[ApigeeInstance]
    """The runtime, and its attachment to the environment. Default: exists and is attached."""
    service_extension: NotRequired[bool]
    """Take part in the Gateway's traffic chain. Default true."""
    any_namespace: NotRequired[bool]
    """Accept a namespace other than `default`, where Apigee's documentation puts Gateway and all (Google's samples use
    another one; not verified here). Default false."""
    operator: NotRequired[ApigeeOperator]
    """The operator."""
    templates: NotRequired[list[ApigeeTemplate]]
    """Policy templates."""
    bridge: NotRequired[ApigeeBridge]
    """Apigee between two networks."""
    network: NotRequired[pulumi.Input[str]]
    """URI of the Gateway's network, for the extension's endpoint group."""
    subnetwork: NotRequired[pulumi.Input[str]]
    """URI of the Gateway's subnetwork, likewise."""
