"""ComputeClass: an ordered list of ways to get nodes, of which GKE's autoscaler takes the first that has capacity.

Pods choose a class by the node label `node_pool.COMPUTE_CLASS`; GKE gives them the toleration. Knows nothing of Pulumi.

Source: cloud.google.com/v1; GKE, "About custom ComputeClasses" and "ComputeClass CustomResourceDefinition".
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._labels import PART_OF
from .._naming import check_label
from ..errors import ConfigError
from .accelerators import CATALOGUE, GPU, Accelerator, Machine, check_machine, check_topology
from .common import Manifest, check_range, check_word, manifest
from .node_pool_capacity import FLEX_RUN_MAX_S, RUN_MAX_S, RUN_MIN_S

if TYPE_CHECKING:
    from ..accelerator_pool import Reservation
    from ..compute_class import CapacityChoice, ComputeClassArgs

API = "cloud.google.com/v1"

UNSATISFIABLE = ("DoNotScaleUp", "ScaleUpAnyway")
"""What happens when no choice has capacity: pods wait, or GKE takes any machine, which may lack the accelerator."""
CHOICES_MAX = 10
"""Longer lists loop: the first choice is tried again before the last one was. Source: GKE, "Troubleshoot
ComputeClasses"."""


def compute_class(args: "ComputeClassArgs") -> Manifest:
    """Return the ComputeClass, which is cluster-scoped."""
    choices = args["choices"]
    spec: Manifest = {
        "priorities": [_priority(choice) for choice in choices],
        "whenUnsatisfiable": args.get("when_unsatisfiable", UNSATISFIABLE[0]),
    }
    if any("accelerator" in choice for choice in choices):
        spec["nodePoolAutoCreation"] = {"enabled": True}
        config: Manifest = {"imageType": "cos_containerd"}
        if args.get("node_service_account") is not None:
            config["serviceAccount"] = args["node_service_account"]
        spec["nodePoolConfig"] = config
    if args.get("move_back"):
        spec["activeMigration"] = {"optimizeRulePriority": True}
    return manifest(API, "ComputeClass", args["name"], None, {PART_OF: "penstock"}, spec=spec)


def problems(args: "ComputeClassArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be rendered."""
    yield from check_label(f"{path}.name", args["name"], what="a class's name")
    count, policy = len(args["choices"]), args.get("when_unsatisfiable", UNSATISFIABLE[0])
    if not 1 <= count <= CHOICES_MAX:
        fix = "Leave the least useful ones" if count else "Name node pools or an accelerator"
        yield ConfigError(f"{path}.choices", count, f"1 to {CHOICES_MAX} choices", fix)
    yield from check_word(f"{path}.when_unsatisfiable", policy, UNSATISFIABLE, "a way to go on without capacity")
    for index, choice in enumerate(args["choices"]):
        yield from _choice_problems(choice, f"{path}.choices[{index}]")


def _priority(choice: "CapacityChoice") -> Manifest:
    if choice.get("node_pools"):
        return {"nodepools": list(choice["node_pools"])}
    accelerator = CATALOGUE[choice["accelerator"]]
    machine = accelerator.machine(choice.get("machine_type")) or accelerator.machines[0]
    found: Manifest = {"machineType": machine.machine_type, **_chips(choice, accelerator, machine)}
    if choice.get("spot"):
        found["spot"] = True
    if choice.get("flex_start"):
        found["flexStart"] = {"enabled": True}
    if "max_run_duration_s" in choice:
        found["maxRunDurationSeconds"] = choice["max_run_duration_s"]
    if "reservation" in choice:
        found["reservations"] = {"affinity": "Specific", "specific": [_reservation(choice["reservation"])]}
    if choice.get("zones"):
        found["location"] = {"zones": list(choice["zones"])}
    return found


def _chips(choice: "CapacityChoice", accelerator: Accelerator, machine: Machine) -> Manifest:
    chips: dict[str, Any] = {"type": accelerator.type, "count": machine.chips}
    if accelerator.kind == GPU:
        return {"gpu": chips | {"driverVersion": "default"}}
    return {"tpu": chips | {"topology": choice.get("topology", machine.topologies[0])}}


def _reservation(reservation: "Reservation") -> Manifest:
    found: Manifest = {"name": reservation["name"]}
    if "project" in reservation:
        found["project"] = reservation["project"]
    if "block" in reservation:
        found["reservationBlock"] = {"name": reservation["block"]}
    return found


def _choice_problems(choice: "CapacityChoice", path: str) -> Iterator[ConfigError]:
    if bool(choice.get("node_pools")) == ("accelerator" in choice):
        expected = "either `node_pools` that exist, or an `accelerator` to make pools of"
        yield ConfigError(path, dict(choice), expected, "Give exactly one of them")
        return
    if choice.get("node_pools"):
        for field in sorted(choice.keys() - {"node_pools"}):
            value: Any = choice.get(field)
            yield ConfigError(f"{path}.{field}", value, "nothing beside `node_pools`, which have it", "Remove it")
        return
    accelerator = CATALOGUE.get(choice["accelerator"])
    machine = accelerator.machine(choice.get("machine_type")) if accelerator else None
    if accelerator is None or machine is None:
        yield from check_machine(path, choice["accelerator"], choice.get("machine_type"))
        return
    yield from _capacity_problems(choice, accelerator, machine, path)


def _capacity_problems(
    choice: "CapacityChoice", accelerator: Accelerator, machine: Machine, path: str
) -> Iterator[ConfigError]:
    ways = [field for field in ("spot", "flex_start", "reservation") if field in choice and choice[field] is not False]
    if len(ways) > 1:
        expected = "at most one of `spot`, `flex_start` and `reservation`: they are ways to buy"
        yield ConfigError(path, ways, expected, "Make a choice of each, in the order to try")
    if accelerator.reservation_only and ways != ["reservation"]:
        expected = f"a reservation: {machine.machine_type} cannot be had in any other way"
        yield ConfigError(f"{path}.reservation", None, expected, "Name the reservation")
    if machine.spot_or_flex_only and not {"spot", "flex_start"} & set(ways):
        expected = f"spot or flex-start: {machine.machine_type} cannot be had on demand"
        yield ConfigError(f"{path}.machine_type", machine.machine_type, expected, "Set `spot` or `flex_start`")
    if "reservation" in choice and "name" not in choice["reservation"]:
        expected = "a reservation by name: with any one, machines on demand are taken before the next choice"
        yield ConfigError(f"{path}.reservation.name", None, expected, "Name it")
    if "sub_block" in choice.get("reservation", {}):
        expected = "a reservation or one of its blocks"
        yield ConfigError(f"{path}.reservation.sub_block", choice["reservation"]["sub_block"], expected, "Remove it")
    yield from check_topology(f"{path}.topology", machine, choice.get("topology"))
    if "max_run_duration_s" in choice:
        most = FLEX_RUN_MAX_S if choice.get("flex_start") else RUN_MAX_S
        where = f"{path}.max_run_duration_s"
        yield from check_range(where, choice["max_run_duration_s"], RUN_MIN_S, most, "seconds")
