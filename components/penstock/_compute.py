"""How Compute Engine names its resources, known before they exist."""

import pulumi
import pulumi_gcp as gcp

_PREFIX = "https://www.googleapis.com/compute/v1"
"""What the provider writes in front of every `selfLink`."""


def uri(project: str, kind: str, name: str, region: str | None = None) -> str:
    """Return a resource's `selfLink`: `kind` in the plural, in `region` or global."""
    scope = f"regions/{region}" if region else "global"
    return f"{_PREFIX}/projects/{project}/{scope}/{kind}/{name}"


def made(resource: "gcp.compute.Network | gcp.compute.Subnetwork", value: str) -> pulumi.Output[str]:
    """Return `value`, known already in previews, to whoever must wait until `resource` is made."""
    return resource.name.apply(lambda _: value)
