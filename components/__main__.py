"""Component host: serves the components to stacks in any Pulumi language (`pulumi package add`)."""

from importlib.metadata import version

import penstock
from pulumi import ComponentResource
from pulumi.provider.experimental import component_provider_host

COMPONENTS: list[type[ComponentResource]] = [
    item
    for name in penstock.__all__
    if isinstance(item := getattr(penstock, name), type) and issubclass(item, ComponentResource)
]

if __name__ == "__main__":
    component_provider_host(COMPONENTS, "penstock", version=version("penstock-components"))
