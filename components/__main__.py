"""Component host: serves the components to stacks in any Pulumi language (`pulumi package add`)."""

from importlib.metadata import version

import penstock
from pulumi import ComponentResource
from pulumi.provider.experimental import component_provider_host

COMPONENTS: list[type[ComponentResource]] = [
    penstock.BodyRouter,
    penstock.Extensions,
    penstock.InferenceGateway,
    penstock.InferencePool,
    penstock.ModelReplicaSet,
    penstock.ModelRoute,
]

if __name__ == "__main__":
    component_provider_host(COMPONENTS, "penstock", version=version("penstock-components"))
