"""How Compute Engine names its resources, known before they exist."""

import pulumi
import pulumi_gcp as gcp

_PREFIX = "https://www.googleapis.com/compute/v1"
"""What the provider writes in front of every `selfLink`."""


def uri(project: str, kind: str, name: str, region: str | None = None) -> str:
    """Return a resource's `selfLink`: `kind` in the plural, in `region` or global."""
    scope = f"regions/{region}" if region else "global"
    return f"{_PREFIX}/projects/{project}/{scope}/{kind}/{name}"


def relative(uri: pulumi.Input[str]) -> pulumi.Output[str]:
    """Return a resource's URI from `projects/` on.

    Network Connectivity, Memorystore and Apigee take no other form, while Compute Engine takes both. Sources: their API
    references, format of `network` and `subnetwork`.
    """
    return pulumi.Output.from_input(uri).apply(lambda text: text[max(text.find("projects/"), 0) :])


def made(resource: "gcp.compute.Network | gcp.compute.Subnetwork", value: str) -> pulumi.Output[str]:
    """Return `value`, known already in previews, to whoever must wait until `resource` is made."""
    return resource.name.apply(lambda _: value)
