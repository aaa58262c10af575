"""Declares the objects of one callout; body router, API management and guardrails are all made of them."""

from collections.abc import Sequence

import pulumi

from ._apply import apply, child_options
from ._labels import selector
from .manifests import callout, monitoring


def declare(
    name: str,
    made: callout.Callout,
    stream_timeout_s: int,
    parent: pulumi.Resource,
    needed: Sequence[pulumi.Resource] = (),
) -> pulumi.Resource:
    """Register account, configuration, Deployment, Service, both policies, budget and monitoring of a callout.

    Args:
        name: the component's name, first part of every logical name.
        made: what the objects are made from.
        stream_timeout_s: seconds that one stream to the callout may last.
        parent: the component.
        needed: what the pods need beside their own objects, e.g. a volume claim.

    Returns:
        The Service.
    """
    account = apply(f"{name}-service-account", callout.account(made), child_options(parent))
    config = apply(f"{name}-config", callout.config_map(made), child_options(parent))
    before: list[pulumi.Resource] = [account, config, *needed]
    apply(f"{name}-deployment", callout.deployment(made), child_options(parent, before))
    service = apply(f"{name}-service", callout.service(made), child_options(parent))
    apply(f"{name}-health", callout.health_policy(made), child_options(parent, [service]))
    policy = callout.backend_policy(made, stream_timeout_s)
    apply(f"{name}-backend", policy, child_options(parent, [service]))
    apply(f"{name}-budget", callout.budget(made), child_options(parent))
    if made.monitoring:
        watched = monitoring.pod_monitoring(made.name, made.namespace, selector(made.name))
        apply(f"{name}-monitoring", watched, child_options(parent))
    return service
