"""The part `gateway`: the namespace and everything in it, the entry's address, and the way in from other networks."""

from collections.abc import Mapping
from typing import Any

import penstock
import pulumi
from penstock.manifests import guardrails as screening

from infra.parts.platform import Platform
from infra.plan import Plan

_NO_DIGEST = f"@sha256:{'0' * 64}"
"""What stands in example environments for a digest that only your own registry knows."""


def declare(plan: Plan, platform: Platform) -> dict[str, Any]:
    """Declare all components on a platform and return the stack's outputs."""
    _warn(plan)
    subnetwork = {"address.subnetwork": platform.outputs.get("subnetwork")}
    gateway = plan.gateway.declare(_options(platform, platform.needed), subnetwork)
    inside = _options(platform, gateway.namespace_resources())

    router = plan.body_router.declare(inside)
    if plan.security:
        plan.security.declare(inside)
    claims = [plan.claims.declare(inside)] if plan.claims else []
    served = _options(platform, [*gateway.namespace_resources(), *platform.needed, *claims])
    for replica_set in plan.replica_sets:
        replica_set.declare(served)
    policy = {"security_policy": gateway.security_policy}
    pools: Mapping[str, pulumi.Resource] = {one.name: one.declare(inside, policy) for one in plan.pools}
    for route in plan.routes:
        wanted = [pools[pool["name"]] for pool in route.args["pools"]]
        route.declare(_options(platform, [*gateway.namespace_resources(), *wanted]))
    published = _publish(plan, platform, gateway)
    callouts = _callouts(plan, platform, gateway, published)
    plan.extensions.declare(_options(platform, [*gateway.namespace_resources(), router, *callouts]))
    return {
        "gateway": gateway.gateway_name,
        "namespace": gateway.namespace,
        "models": [model["name"] for model in plan.body_router.args["models"]],
        **_addresses(plan, gateway),
        **_outside(plan, published),
    }


def _publish(plan: Plan, platform: Platform, gateway: penstock.InferenceGateway) -> penstock.ServicePublication | None:
    if plan.publication is None:
        return None
    wired = {
        "gateway_metadata": gateway.gateway_metadata,
        "address": gateway.address,
        "nat_subnetworks": platform.outputs.get("pscSubnetworks"),
    }
    return plan.publication.declare(pulumi.ResourceOptions(), wired)


def _callouts(
    plan: Plan,
    platform: Platform,
    gateway: penstock.InferenceGateway,
    published: penstock.ServicePublication | None,
) -> list[pulumi.Resource]:
    """Declare API management and guardrails; the chain waits for both, since it names their Services."""
    network = platform.outputs.get("network")
    wired = {
        "apigee.network": network,
        "apigee.subnetwork": platform.outputs.get("subnetwork"),
        "apigee.bridge.service_attachment": published.attachment if published else None,
        "store.memorystore.network": network,
        "store.memorystore.subnetwork": platform.outputs.get("subnetwork"),
    }
    options = _options(platform, gateway.namespace_resources())
    made: list[pulumi.Resource] = []
    if plan.guardrails:
        made.append(plan.guardrails.declare(options))
    if plan.api_management:
        made.append(plan.api_management.declare(options, wired))
    return made


def _addresses(plan: Plan, gateway: penstock.InferenceGateway) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "hostname" in plan.gateway.args:
        found["hostname"] = plan.gateway.args["hostname"]
    if "address" in plan.gateway.args:
        found["address"] = gateway.address
    if "certificate" in plan.gateway.args.get("tls", {}):
        found["dnsRecords"] = gateway.dns_records
    return found


def _outside(plan: Plan, published: penstock.ServicePublication | None) -> dict[str, Any]:
    """Declare the consumers' endpoints and return what they are reached by."""
    if published is None:
        return {}
    found: dict[str, Any] = {"attachment": published.attachment}
    endpoints = {
        planned.args["name"]: planned.declare(pulumi.ResourceOptions(), {"attachment": published.attachment}).address
        for planned in plan.endpoints
    }
    return found | ({"endpoints": endpoints} if endpoints else {})


def _warn(plan: Plan) -> None:
    """Say which pods would not start: what is declared stays in the inventory, but nobody shall be surprised."""
    text = "the image of Penstock's services does not hold `{}` yet: its pods will not start"
    if plan.guardrails and screening.has_engine(plan.guardrails.args):  # type: ignore[arg-type]
        pulumi.log.warn(text.format("services.guardrails"))
    images = {plan.body_router.args["image"], *(planned.args["image"] for planned in plan.replica_sets)}
    for image in sorted(str(image) for image in images):
        if image.endswith(_NO_DIGEST):
            name = image.partition("@")[0]
            pulumi.log.warn(
                f"the digest of {name} is all zeros, an example: set that of your own build, or no pod can start"
            )


def _options(platform: Platform, depends_on: list[pulumi.Resource]) -> pulumi.ResourceOptions:
    providers = [platform.provider] if platform.provider else None
    return pulumi.ResourceOptions(providers=providers, depends_on=depends_on or None)
