"""The program: settings, then components, then exports. Wiring only."""

from collections.abc import Mapping
from typing import Any

import penstock
import pulumi
import pulumi_kubernetes as k8s

from infra.plan import Plan, load
from infra.settings import Settings, read


def main() -> None:
    """Read `pulumi.Config`, check it, declare everything and export the outputs.

    Raises:
        penstock.ConfigErrors: everything that is wrong with the configuration, before anything is registered.
    """
    settings, plan = load(read())
    for name, value in build(settings, plan).items():
        pulumi.export(name, value)


def build(settings: Settings, plan: Plan) -> dict[str, Any]:
    """Declare all components and return the stack's outputs."""
    provider = _provider(settings)
    gateway = penstock.InferenceGateway("gateway", plan.gateway, _options(provider))
    in_namespace = gateway.namespace_resources()

    router = penstock.BodyRouter("body-router", plan.body_router, _options(provider, in_namespace))
    for served in plan.replica_sets:
        penstock.ModelReplicaSet(served["name"], served, _options(provider, in_namespace))
    pools: Mapping[str, pulumi.Resource] = {
        args["name"]: penstock.InferencePool(args["name"], args, _options(provider, in_namespace))
        for args in plan.pools
    }
    for route in plan.routes:
        wanted = [pools[pool["name"]] for pool in route["pools"]]
        penstock.ModelRoute(penstock.slug(route["model"]), route, _options(provider, [*in_namespace, *wanted]))
    penstock.Extensions("extensions", plan.extensions, _options(provider, [*in_namespace, router]))
    return {
        "gateway": gateway.gateway_name,
        "namespace": gateway.namespace,
        "models": [model["name"] for model in plan.body_router["models"]],
    }


def _provider(settings: Settings) -> pulumi.ProviderResource | None:
    """Return an explicit provider if the cluster is configured; else the ambient kubeconfig counts."""
    cluster, kubeconfig = settings.kubernetes, settings.kubeconfig
    if kubeconfig is None and cluster.context is None and cluster.cluster_identifier is None:
        return None
    return k8s.Provider(
        "kubernetes",
        kubeconfig=pulumi.Output.secret(kubeconfig.get_secret_value()) if kubeconfig else None,
        context=cluster.context,
        cluster_identifier=cluster.cluster_identifier,
    )


def _options(
    provider: pulumi.ProviderResource | None, depends_on: list[pulumi.Resource] | None = None
) -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions(providers=[provider] if provider else None, depends_on=depends_on or None)
