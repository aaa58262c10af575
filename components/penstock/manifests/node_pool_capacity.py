"""How a node pool may get its machines: number, spot, flex-start, queue, reservation, and what excludes what.

Part of `node_pool_checks`, which names the sources. Knows nothing of Pulumi.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .accelerators import TPU, Accelerator, Machine
from .common import check_range, check_word
from .node_pool import hosts

if TYPE_CHECKING:
    from ..accelerator_pool import AcceleratorPoolArgs

NODES_MAX = 1000
"""Most nodes in a node pool and zone. Source: GKE, "Quotas and limits"."""
RUN_MIN_S = 600
RUN_MAX_S = 120 * 24 * 3600
FLEX_RUN_MAX_S = 7 * 24 * 3600
"""Limits of a node's life: seven days by flex-start or queue, 120 otherwise. Source: GKE, "About flex-start
provisioning mode"; Compute Engine, "Limit the run time of a VM"."""

LOCATION_POLICIES = ("ANY", "BALANCED")
"""Source: GKE API v1, NodePoolAutoscaling."""


def capacity_problems(
    args: "AcceleratorPoolArgs", accelerator: Accelerator, machine: Machine, path: str
) -> Iterator[ConfigError]:
    """Yield what is wrong with the pool's size, and with how it gets its machines."""
    size = list(_size_problems(args, path))
    yield from size
    if not size:
        yield from _together_problems(args, accelerator, machine, path)
    yield from _flex_start_problems(args, accelerator, path)
    yield from _queued_problems(args, path)
    yield from _reservation_problems(args, path)
    yield from _spot_problems(args, machine, path)
    if accelerator.reservation_only and "reservation" not in args:
        expected = f"a reservation: {machine.machine_type} cannot be had in any other way"
        yield ConfigError(f"{path}.reservation", None, expected, "Name the reservation")
    if args.get("compact") and len(args["zones"]) > 1:
        yield ConfigError(f"{path}.zones", args["zones"], "one zone: COMPACT placement works within one", "Leave one")
    if "max_run_duration_s" in args:
        most = FLEX_RUN_MAX_S if args.get("flex_start") or args.get("queued") else RUN_MAX_S
        yield from check_range(f"{path}.max_run_duration_s", args["max_run_duration_s"], RUN_MIN_S, most, "seconds")


def _size_problems(args: "AcceleratorPoolArgs", path: str) -> Iterator[ConfigError]:
    """Yield an error unless there is either a fixed number of nodes or an autoscaler with limits that make sense."""
    if ("nodes" in args) == ("max_nodes" in args):
        given = {field: args[field] for field in ("nodes", "max_nodes") if field in args}
        fix = "Give `nodes` for a fixed number, or `max_nodes` for an autoscaler"
        yield ConfigError(f"{path}.max_nodes", given or None, "exactly one of `nodes` and `max_nodes`", fix)
    elif "nodes" in args:
        yield from _fixed_problems(args, path)
    else:
        low, high, policy = args.get("min_nodes", 0), args["max_nodes"], args.get("location_policy", "ANY")
        yield from check_range(f"{path}.max_nodes", high, 1, NODES_MAX, "nodes")
        if not 0 <= low <= high:
            yield ConfigError(f"{path}.min_nodes", low, f"0 to `max_nodes`, {high}", "Lower it, or raise `max_nodes`")
        yield from check_word(f"{path}.location_policy", policy, LOCATION_POLICIES, "a policy of the autoscaler")


def _fixed_problems(args: "AcceleratorPoolArgs", path: str) -> Iterator[ConfigError]:
    nodes, zones = args["nodes"], len(args["zones"])
    yield from check_range(f"{path}.nodes", nodes, 0, NODES_MAX, "nodes")
    if nodes % zones:
        expected = f"a multiple of {zones}: every zone gets the same number"
        yield ConfigError(f"{path}.nodes", nodes, expected, "Change the number, leave a zone, or use `max_nodes`")
    for field in ("min_nodes", "per_zone", "location_policy"):
        if field in args:
            fix = "Remove it, or give `max_nodes` in the place of `nodes`"
            yield ConfigError(f"{path}.{field}", args[field], "an autoscaler that it would limit", fix)


def _together_problems(
    args: "AcceleratorPoolArgs", accelerator: Accelerator, machine: Machine, path: str
) -> Iterator[ConfigError]:
    """Yield what is wrong with the size of pools whose machines make up one whole."""
    field = "nodes" if "nodes" in args else "max_nodes"
    most = args.get("nodes", args.get("max_nodes", 0))
    slice_hosts = hosts(args)
    if slice_hosts > 1 and (most != slice_hosts or args.get("min_nodes", 0) not in (0, slice_hosts)):
        expected = f"{slice_hosts} nodes, which are the one slice of the pool; an autoscaler adds all or none"
        fix = f"Set it to {slice_hosts}, `min_nodes` to 0; one more slice is one more pool"
        yield ConfigError(f"{path}.{field}", most, expected, fix)
    if accelerator.domain and most > accelerator.domain:
        expected = f"at most {accelerator.domain} nodes: an NVLink domain has no more"
        yield ConfigError(f"{path}.{field}", most, expected, "Make a pool for each domain")


def _flex_start_problems(args: "AcceleratorPoolArgs", accelerator: Accelerator, path: str) -> Iterator[ConfigError]:
    if not args.get("flex_start"):
        return
    where = f"{path}.flex_start"
    if accelerator.reservation_only:
        fix = "Remove it, and name a reservation"
        yield ConfigError(where, True, f"no flex-start: {args['accelerator']} comes from reservations only", fix)
        return
    if "nodes" in args:
        fix = "Give `max_nodes` in the place of `nodes`"
        yield ConfigError(where, True, "an autoscaler: nodes come when there is capacity", fix)
    if args.get("spot"):
        yield ConfigError(where, True, "one of `flex_start` and `spot`: they are two ways to buy", "Remove one")
    if "reservation" in args:
        yield ConfigError(where, True, "no reservation: flex-start has a pool of capacity of its own", "Remove one")
    if args.get("compact") and not accelerator.flex_compact:
        expected = "no COMPACT placement: of flex-start only h200-ultra and b200 can have it"
        yield ConfigError(where, True, expected, "Remove `compact`")
    if accelerator.kind == TPU and hosts(args) > 1 and not args.get("queued"):
        fix = "Set `queued` too, or choose a slice of one machine"
        yield ConfigError(where, True, "`queued` for a slice of several machines: they must come all at once", fix)


def _queued_problems(args: "AcceleratorPoolArgs", path: str) -> Iterator[ConfigError]:
    if not args.get("queued"):
        return
    where = f"{path}.queued"
    if "nodes" in args:
        fix = "Give `max_nodes` in the place of `nodes`"
        yield ConfigError(where, True, "an autoscaler: each ProvisioningRequest brings its nodes", fix)
    if args.get("min_nodes", 0) != 0:
        yield ConfigError(f"{path}.min_nodes", args["min_nodes"], "0: nodes come for a request only", "Remove it")
    if args.get("spot"):
        yield ConfigError(where, True, "no spot: queued nodes are kept until they expire", "Remove one")
    if "reservation" in args:
        yield ConfigError(where, True, "no reservation: reserved capacity needs no queue", "Remove one")
    if args.get("compact"):
        yield ConfigError(where, True, "no COMPACT placement: GKE places nodes of a request itself", "Remove `compact`")


def _reservation_problems(args: "AcceleratorPoolArgs", path: str) -> Iterator[ConfigError]:
    reservation = args.get("reservation")
    if reservation is None:
        return
    where = f"{path}.reservation"
    if "name" not in reservation and reservation:
        yield ConfigError(f"{where}.name", None, "the reservation that it is about", "Name it, or remove the rest")
    if "sub_block" in reservation and "block" not in reservation:
        yield ConfigError(f"{where}.block", None, "the block of the sub-block", "Name the block")
    if "block" in reservation and reservation.get("project", args["project"]) != args["project"]:
        expected = "a reservation of the pool's own project: blocks of shared ones cannot be chosen"
        yield ConfigError(f"{where}.project", reservation["project"], expected, "Leave the block")
    if "name" in reservation and len(args["zones"]) > 1:
        yield ConfigError(f"{path}.zones", args["zones"], "one zone: a reservation is of one", "Leave its zone")


def _spot_problems(args: "AcceleratorPoolArgs", machine: Machine, path: str) -> Iterator[ConfigError]:
    if args.get("spot") and "reservation" in args:
        expected = "no reservation: spot machines never come from one"
        yield ConfigError(f"{path}.spot", True, expected, "Remove one")
    if machine.spot_or_flex_only and not (args.get("spot") or args.get("flex_start")):
        expected = f"spot or flex-start: {machine.machine_type} cannot be had on demand"
        yield ConfigError(f"{path}.machine_type", machine.machine_type, expected, "Set `spot` or `flex_start`")
