"""The component `ComputeClass`: nodes from whichever capacity there is, tried in an order."""

from typing import NotRequired, TypedDict

import pulumi

from ._apply import apply, child_options
from ._shape import conform
from .accelerator_pool import Reservation
from .errors import raise_if
from .manifests import compute_class as manifests


class CapacityChoice(TypedDict):
    """One way to get nodes: pools that exist, or pools that GKE makes of an accelerator's machines."""

    node_pools: NotRequired[list[str]]
    """Names of node pools that exist; an AcceleratorPool joins by its `compute_class`. Nothing else beside it."""
    accelerator: NotRequired[str]
    """Name in the catalogue, e.g. `h100-high`."""
    machine_type: NotRequired[str]
    """Machine type of that accelerator. Default the catalogue's first."""
    topology: NotRequired[str]
    """TPU slice, e.g. `2x4`. Default the machine's own."""
    spot: NotRequired[bool]
    """Spot machines. Default false."""
    flex_start: NotRequired[bool]
    """Machines when capacity comes, for at most seven days. Default false."""
    max_run_duration_s: NotRequired[int]
    """Seconds that a node lives. Default GKE's."""
    reservation: NotRequired[Reservation]
    """Reservation to use, by name. Default none."""
    zones: NotRequired[list[str]]
    """Zones of the nodes. Default the cluster's."""


class ComputeClassArgs(TypedDict):
    """Arguments of `ComputeClass`."""

    name: str
    """Name of the class, a DNS label: pods select the node label `cloud.google.com/compute-class` with it."""
    choices: list[CapacityChoice]
    """What to try, the best first, at most 10."""
    when_unsatisfiable: NotRequired[str]
    """Without capacity `DoNotScaleUp` lets pods wait, `ScaleUpAnyway` takes any machine. Default `DoNotScaleUp`."""
    move_back: NotRequired[bool]
    """Whether pods move to nodes of an earlier choice once it has capacity; that restarts replicas. Default false."""
    node_service_account: NotRequired[pulumi.Input[str]]
    """Email of the service account of nodes that GKE makes. Default the cluster's default for such nodes."""


class ComputeClass(pulumi.ComponentResource):
    """The cluster-scoped ComputeClass object; what selects it are the pods."""

    class_name: pulumi.Output[str]
    """Name of the class."""

    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""

    def __init__(self, name: str, args: ComputeClassArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(ComputeClassArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:ComputeClass", name, None, opts)

        apply(f"{name}-class", manifests.compute_class(args), child_options(self))

        self.class_name = pulumi.Output.from_input(args["name"])
        self.register_outputs({"className": self.class_name})
