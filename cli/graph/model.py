"""The recorded graph: what a Pulumi program registers, as plain data.

Feeds previews, golden inventories, schema checks, policies and `penstock local`; knows nothing of Pulumi's runtime.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""Pulumi's wire sentinel for a value that is not known before the update. Source: pulumi/pulumi sdk, `rpc.UNKNOWN`."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One registered resource.

    `inputs` are as sent to the engine: camelCase, None dropped, secrets wrapped by Pulumi's secret envelope,
    unknowns (in preview) as `UNKNOWN`. `parent` and `dependencies` are logical names of other resources in the same
    graph, as `type::name`; `options` holds only what differs from Pulumi's defaults (protect, ignoreChanges, ...).
    `outputs` are what a component registered at its end (`register_outputs`), in the form of `inputs`. `part` names
    the stack's part of an environment that is kept in several stacks (`platform`, `gateway`), else None.
    """

    type: str
    name: str
    parent: str | None
    custom: bool
    inputs: Mapping[str, Any]
    dependencies: tuple[str, ...] = ()
    property_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    part: str | None = None

    @property
    def key(self) -> str:
        """`type::name`, unique in a graph."""
        return f"{self.type}::{self.name}"


@dataclass(frozen=True, slots=True)
class Graph:
    """All that one program registered for one environment, in the order in which it constructed them.

    Parents and dependencies therefore stand before what needs them. An environment of several stacks is one graph:
    its parts follow each other in the order of their updates. `notes` tell what the recording could not
    know (a secret that cannot be decrypted offline) and what the program warns of.
    """

    environment: str
    preview: bool
    resources: tuple[Resource, ...]
    outputs: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def manifests(self) -> Iterator[dict[str, Any]]:
        """Yield each Kubernetes object (`apiVersion`, `kind`, `metadata`, ...) that the program declares."""
        for resource in self.resources:
            if resource.type.startswith("kubernetes:") and "kind" in resource.inputs:
                yield dict(resource.inputs)
