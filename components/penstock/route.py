"""The component `ModelRoute`: from a model's name to its pools."""

from typing import NotRequired, TypedDict

import pulumi

from ._apply import apply, child_options
from ._naming import slug
from ._shape import conform
from .errors import raise_if
from .manifests import route as manifests


class WeightedPool(TypedDict):
    """A pool and its share of a model's requests."""

    name: str
    """Name of the InferencePool object."""
    weight: NotRequired[int]
    """Share relative to the other pools, 0 to 1,000,000. Default 1. A canary is a pool with a small weight."""
    objective_objects: NotRequired[bool]
    """Whether the pool's picker knows objectives by their InferenceObjectives: an upstream profile. Default false."""


class ModelRouteArgs(TypedDict):
    """Arguments of `ModelRoute`."""

    model: str
    """Name that clients use as `model`; its slug names the HTTPRoute."""
    namespace: str
    """Namespace of Gateway and pools."""
    gateway: str
    """Name of the Gateway object."""
    pools: list[WeightedPool]
    """The model's pools, 1 to 16."""
    listener: NotRequired[str]
    """Name of the Gateway's listener. Default: all listeners."""
    hostnames: NotRequired[list[str]]
    """DNS names that the route serves. Default: the listener's."""
    paths: NotRequired[list[str]]
    """Paths that clients may call, matched exactly. Default all operations that the body router lets through."""
    objective: NotRequired[str]
    """Name of the objective that all of the model's requests get. Default none."""


class ModelRoute(pulumi.ComponentResource):
    """HTTPRoute of one model and its adapters, over weighted pools."""

    route_name: pulumi.Output[str]
    """Name of the HTTPRoute object."""

    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""

    def __init__(self, name: str, args: ModelRouteArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(ModelRouteArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:ModelRoute", name, None, opts)

        apply(f"{name}-route", manifests.route(args), child_options(self))

        self.route_name = pulumi.Output.from_input(slug(args["model"]))
        self.register_outputs({"routeName": self.route_name})
