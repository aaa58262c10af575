"""Cloud Armor in front of the pools: the arguments, and the one resource that they make."""

from typing import Any, NotRequired, TypedDict, cast

import pulumi
import pulumi_gcp as gcp

from .manifests import armor as manifests


class ArmorRule(TypedDict):
    """Allows or denies what matches, before any limit counts."""

    match: str
    """Condition in the rules language, e.g. `request.path.startsWith('/admin')`."""
    action: str
    """`allow`, `deny(403)`, `deny(404)` or `deny(502)`."""
    description: NotRequired[str]
    """What it is for."""
    preview: NotRequired[bool]
    """Only log what it would do. Default false."""


class RateLimit(TypedDict):
    """A limit on requests. Counted for each pool's backend service apart, so a client may use it once per pool.

    Only the first rule that matches a request decides: limits are not added up. A value that a client chooses itself,
    like an invented key, gets a count of its own; what limits such clients is that invented keys are refused.
    """

    count: int
    """Requests in `interval_s` that are let through."""
    interval_s: int
    """Seconds over which requests are counted, 10 to 3600."""
    headers: NotRequired[list[str]]
    """Request headers whose values together are counted apart, at most 3, e.g. `["x-api-key"]`. Requests without the
    header share one count. Exactly one of `headers` and `key`."""
    key: NotRequired[str]
    """Another key: `ALL` (one count for all), `HTTP_PATH` or `SNI`; with `allow_ip_keys` also `IP`, `XFF_IP`,
    `USER_IP`, `REGION_CODE`."""
    match: NotRequired[str]
    """Condition in the rules language. Default: every request."""
    ban_s: NotRequired[int]
    """Seconds that a client stays refused after exceeding the limit. Default: until its rate falls. A limit with a
    ban cannot lose it again; remove the limit and add it anew."""
    status: NotRequired[int]
    """Status of refused requests: 403, 404, 429 or 502. Default 429."""
    description: NotRequired[str]
    """What it is for."""
    preview: NotRequired[bool]
    """Only log what it would do. Default false."""


class Armor(TypedDict):
    """A regional Cloud Armor policy for the backends of the Gateway."""

    rate_limits: NotRequired[list[RateLimit]]
    """Limits, the first match decides."""
    rules: NotRequired[list[ArmorRule]]
    """Rules that come before the limits, the first match decides. An `allow` exempts from all limits."""
    allow_ip_keys: NotRequired[bool]
    """Permit rules that look at the client's address. Default false: behind Private Service Connect every client of
    every consumer has an address of the producer's NAT subnetwork, so such a rule hits all of them or none."""


def make(
    role: str, name: str, project: str, region: str, armor: Armor, opts: pulumi.ResourceOptions
) -> "gcp.compute.RegionSecurityPolicy":
    """Register the policy; backends take it by name through `GCPBackendPolicy`.

    Args:
        role: logical name.
        name: physical name.
        project: the load balancer's project.
        region: the load balancer's region.
        armor: checked arguments.
        opts: with `parent=`.
    """
    return gcp.compute.RegionSecurityPolicy(
        role,
        name=name,
        project=project,
        region=region,
        type=manifests.TYPE,
        description="Rules and rate limits in front of the model pools",
        rules=cast(Any, manifests.rules(armor)),  # checked against the provider's types by tests
        opts=opts,
    )
