"""What the accelerators of a replica ask of its nodes: resource, labels and toleration, for GPUs and for TPUs.

Sources: GKE, "Run GPUs in GKE Standard node pools" and "Deploy TPU workloads in GKE Standard".
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import ConfigError, did_you_mean
from .accelerators import CATALOGUE, GPU_RESOURCE, TPU, TPU_RESOURCE, Accelerator, Machine, by_type
from .common import Manifest, check_range

if TYPE_CHECKING:
    from ..replica_set import ModelReplicaSetArgs

GPU_TYPE_LABEL = "cloud.google.com/gke-accelerator"
TPU_TYPE_LABEL = "cloud.google.com/gke-tpu-accelerator"
TPU_TOPOLOGY_LABEL = "cloud.google.com/gke-tpu-topology"
"""Labels that GKE puts on nodes with accelerators."""

CHIPS_MAX = 16
"""Most chips of one machine, `a2-megagpu-16g`. Source: Compute Engine, "GPU machine types"."""


def count(args: "ModelReplicaSetArgs") -> int:
    """Return the GPUs, or TPU chips, of one node."""
    return args.get("accelerator", {}).get("count", 1)


def devices(args: "ModelReplicaSetArgs") -> int:
    """Return the devices of one node that vLLM counts: GPUs, or the TensorCores that a TPU shows as devices."""
    known = tpu(args)
    return count(args) * (known.devices_per_chip if known else 1)


def tpu(args: "ModelReplicaSetArgs") -> Accelerator | None:
    """Return the replica's entry in the catalogue of accelerators if that is a TPU, else None."""
    known = by_type(args.get("accelerator", {}).get("type"))
    return known if known and known.kind == TPU else None


def resource(args: "ModelReplicaSetArgs") -> str:
    """Return the resource that the container asks for, which is also the taint that GKE puts on the nodes."""
    return TPU_RESOURCE if tpu(args) else GPU_RESOURCE


def toleration(args: "ModelReplicaSetArgs") -> Manifest:
    """Return the pod's toleration of nodes with its accelerators."""
    return {"key": resource(args), "operator": "Exists", "effect": "NoSchedule"}


def machine(args: "ModelReplicaSetArgs") -> Machine | None:
    """Return the machine that has exactly these accelerators, None if there is none or their type is not known."""
    known = by_type(args.get("accelerator", {}).get("type"))
    found = (item for item in known.machines if item.chips == count(args)) if known else iter(())
    return max(found, key=lambda item: item.rdma_nics, default=None)


def node_labels(args: "ModelReplicaSetArgs") -> dict[str, str]:
    """Return the labels of nodes with these accelerators; of a TPU's, GKE asks for both.

    A topology tells nodes of the same type apart: with all chips of one machine, it is that of a slice of one machine.
    """
    kind, found = args.get("accelerator", {}).get("type"), machine(args)
    if kind is None:
        return {}
    if tpu(args) and found:
        return {TPU_TYPE_LABEL: kind, TPU_TOPOLOGY_LABEL: found.topologies[0]}
    return {GPU_TYPE_LABEL: kind}


def problems(args: "ModelReplicaSetArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why no node has these accelerators, or vLLM cannot use them together."""
    kind, where = args.get("accelerator", {}).get("type"), f"{path}.accelerator"
    several = args.get("nodes", 1) > 1
    yield from check_range(f"{where}.count", count(args), 1, CHIPS_MAX, "GPUs or TPU chips")
    if (several or tpu(args)) and machine(args) is None:
        yield from _whole_machines(where, by_type(kind), count(args))
    if tpu(args) and several:
        expected = "one node: vLLM joins the machines of a TPU slice by Ray only, which replicas run without"
        fix = "Use a larger machine, or GPUs for replicas of several nodes"
        yield ConfigError(f"{path}.nodes", args.get("nodes"), expected, fix)
    if kind is not None and kind.startswith("tpu") and not tpu(args):
        types = [item.type for item in CATALOGUE.values() if item.kind == TPU]
        yield ConfigError(f"{where}.type", kind, "a TPU type of the catalogue", did_you_mean(kind, types))


def _whole_machines(path: str, known: Accelerator | None, chips: int) -> Iterator[ConfigError]:
    """Yield an error where whole machines are needed: for several of them, and by GKE for each with TPUs."""
    if known is not None:
        sizes = " or ".join(str(size) for size in sorted({item.chips for item in known.machines}))
        what, fix = "GPUs", "A replica of several nodes uses whole machines"
        if known.kind == TPU:
            what, fix = "chips", "Use that number: GKE gives a pod all TPU chips of a node or none"
        yield ConfigError(f"{path}.count", chips, f"all {what} of a machine with {known.type}: {sizes}", fix)
