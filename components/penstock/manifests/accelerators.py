"""The accelerators that a node pool may have, and the machines that carry them. Knows nothing of Pulumi.

Figures come from Compute Engine, "GPU machine types" and "TPU machine types"; GKE, "About GPUs", "Plan TPUs" and
"About Ironwood (TPU7x)"; Cluster Toolkit's examples gke-a3-ultragpu, gke-a4 and gke-a4x.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from ..errors import ConfigError, did_you_mean

GPU = "gpu"
TPU = "tpu"
"""Kinds of accelerators."""

GPU_RESOURCE, TPU_RESOURCE = "nvidia.com/gpu", "google.com/tpu"
"""Resources that pods ask for, and keys of the taints that GKE puts on the nodes."""

POOL_LABEL = "penstock.dev/pool"
"""Label of every node: the short name of its pool. Model replicas choose their nodes by it."""
CPU_POOL = "cpu"
"""Value of `POOL_LABEL` on the nodes of orchestrators and callouts."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine type that carries an accelerator."""

    machine_type: str
    """Compute Engine's name."""
    chips: int
    """GPUs, or TPU chips, of one machine."""
    rdma_nics: int = 0
    """RDMA interfaces, each a rail of its own. Interfaces for GPUDirect-TCPX(O) do not count: they are no RDMA."""
    local_ssds: int = 0
    """Local SSD disks that are used as ephemeral storage."""
    spot_or_flex_only: bool = False
    """Whether the machine cannot be had on demand. Source: Compute Engine, "A3 machine series"."""
    topologies: tuple[str, ...] = ()
    """TPU slices that machines of this type make up, each of one machine or more. Source: GKE, "Plan TPUs"."""

    def hosts(self, topology: str) -> int:
        """Return how many machines a TPU slice of `topology`, e.g. `4x4`, has."""
        return slice_chips(topology) // self.chips


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One kind of chip, and how GKE sells it.

    `machine_type`, `count`, `rdma_nics` and `local_ssds` are those of the first machine, which is the default one.
    """

    kind: str
    """`gpu` or `tpu`."""
    type: str
    """GPU type, or TPU type, as GKE labels its nodes: `cloud.google.com/gke-accelerator`, `.../gke-tpu-accelerator`."""
    memory_gib_per_chip: int
    """Memory of one chip in GiB, as vendors name it; what a model can use is less."""
    machines: tuple[Machine, ...]
    """Machine types, the default first."""
    disk_type: str = "pd-balanced"
    """Boot disk; the newest machines take Hyperdisk only."""
    architecture: str = "amd64"
    """Of the host; images must have been built for it. GKE taints arm64 nodes."""
    minimum_version: str | None = None
    """Oldest GKE version that knows the machines; None: every version that GKE still supports."""
    flex_compact: bool = False
    """Whether flex-start and COMPACT placement go together. Source: Cluster Toolkit, module gke-node-pool."""
    reservation_only: bool = False
    """Whether it can be had in reservations only, and neither as spot nor by flex-start. Source: AI Hypercomputer,
    "Create an AI-optimized MIG with A4X"; Compute Engine, "About Flex-start VMs"."""
    workload_policy: bool = False
    """Whether several machines are placed by a workload policy. Source: Cluster Toolkit, gke-a4x; GKE, "About Ironwood
    (TPU7x)"."""
    devices_per_chip: int = 1
    """Devices that a framework sees of one chip. Source: Cloud TPU, "TPU7x (Ironwood)": two TensorCores, each a device
    of its own; earlier TPUs with several TensorCores show them as one."""
    domain: int = 0
    """Machines of one NVLink domain, the most that a pool has; 0 without such domains."""

    @property
    def machine_type(self) -> str:
        """Machine type of the default machine."""
        return self.machines[0].machine_type

    @property
    def count(self) -> int:
        """Chips of the default machine."""
        return self.machines[0].chips

    @property
    def rdma_nics(self) -> int:
        """RDMA interfaces of the default machine."""
        return self.machines[0].rdma_nics

    @property
    def local_ssds(self) -> int:
        """Local SSD disks of the default machine."""
        return self.machines[0].local_ssds

    @property
    def resource(self) -> str:
        """Name of the resource that pods ask for, and key of the taint that GKE puts on the nodes."""
        return GPU_RESOURCE if self.kind == GPU else TPU_RESOURCE

    def machine(self, machine_type: str | None = None) -> Machine | None:
        """Return the machine of that type, the default one without a type, or None if there is none."""
        found = (item for item in self.machines if machine_type in (None, item.machine_type))
        return next(found, None)


def slice_chips(topology: str) -> int:
    """Return the chips of a TPU topology: `2x4` has 8."""
    return prod(int(side) for side in topology.split("x"))


_HYPERDISK = "hyperdisk-balanced"
_PODSLICE = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_IRONWOOD = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
"""Slices of TPU7x up to 512 chips; larger ones serve no single model replica."""


def _podslice(prefix: str) -> tuple[Machine, ...]:
    """Return the machines of TPU v5e and v6e: only those with four chips make up slices of several machines."""
    return (
        Machine(f"{prefix}-4t", 4, topologies=_PODSLICE),
        Machine(f"{prefix}-1t", 1, topologies=("1x1",)),
        Machine(f"{prefix}-8t", 8, topologies=("2x4",)),
    )


CATALOGUE: Mapping[str, Accelerator] = {
    "l4": Accelerator(
        GPU,
        "nvidia-l4",
        24,
        (
            Machine("g2-standard-12", 1, local_ssds=1),
            Machine("g2-standard-8", 1, local_ssds=1),
            Machine("g2-standard-16", 1, local_ssds=1),
            Machine("g2-standard-32", 1, local_ssds=1),
            Machine("g2-standard-24", 2, local_ssds=2),
            Machine("g2-standard-48", 4, local_ssds=4),
            Machine("g2-standard-96", 8, local_ssds=8),
        ),
    ),
    "a100-40": Accelerator(
        GPU,
        "nvidia-tesla-a100",
        40,
        (
            Machine("a2-highgpu-1g", 1, local_ssds=1),
            Machine("a2-highgpu-2g", 2, local_ssds=2),
            Machine("a2-highgpu-4g", 4, local_ssds=4),
            Machine("a2-highgpu-8g", 8, local_ssds=8),
            Machine("a2-megagpu-16g", 16, local_ssds=8),
        ),
    ),
    "a100-80": Accelerator(
        GPU,
        "nvidia-a100-80gb",
        80,
        (
            Machine("a2-ultragpu-1g", 1, local_ssds=1),
            Machine("a2-ultragpu-2g", 2, local_ssds=2),
            Machine("a2-ultragpu-4g", 4, local_ssds=4),
            Machine("a2-ultragpu-8g", 8, local_ssds=8),
        ),
    ),
    "h100-high": Accelerator(
        GPU,
        "nvidia-h100-80gb",
        80,
        (
            Machine("a3-highgpu-8g", 8, local_ssds=16),
            Machine("a3-highgpu-1g", 1, local_ssds=2, spot_or_flex_only=True),
            Machine("a3-highgpu-2g", 2, local_ssds=4, spot_or_flex_only=True),
            Machine("a3-highgpu-4g", 4, local_ssds=8, spot_or_flex_only=True),
        ),
    ),
    "h100-mega": Accelerator(GPU, "nvidia-h100-mega-80gb", 80, (Machine("a3-megagpu-8g", 8, local_ssds=16),)),
    "h200-ultra": Accelerator(
        GPU,
        "nvidia-h200-141gb",
        141,
        (Machine("a3-ultragpu-8g", 8, rdma_nics=8, local_ssds=32),),
        disk_type=_HYPERDISK,
        minimum_version="1.31.4-gke.1183000",
        flex_compact=True,
    ),
    "b200": Accelerator(
        GPU,
        "nvidia-b200",
        180,
        (Machine("a4-highgpu-8g", 8, rdma_nics=8, local_ssds=32),),
        disk_type=_HYPERDISK,
        minimum_version="1.32.2-gke.1422000",
        flex_compact=True,
    ),
    "gb200": Accelerator(
        GPU,
        "nvidia-gb200",
        186,
        (Machine("a4x-highgpu-4g", 4, rdma_nics=4, local_ssds=4),),
        disk_type=_HYPERDISK,
        architecture="arm64",
        minimum_version="1.33.0-gke.0",
        reservation_only=True,
        workload_policy=True,
        domain=18,
    ),
    "tpu-v5e": Accelerator(
        TPU,
        "tpu-v5-lite-podslice",
        16,
        _podslice("ct5lp-hightpu"),
    ),
    "tpu-v6e": Accelerator(
        TPU,
        "tpu-v6e-slice",
        32,
        _podslice("ct6e-standard"),
        disk_type=_HYPERDISK,
        minimum_version="1.31.2-gke.1115000",
    ),
    "tpu-v7": Accelerator(
        TPU,
        "tpu7x",
        192,
        (Machine("tpu7x-standard-4t", 4, topologies=_IRONWOOD),),
        disk_type=_HYPERDISK,
        minimum_version="1.34.0-gke.2201000",
        workload_policy=True,
        devices_per_chip=2,
    ),
}
"""Accelerators by the name that settings use."""


def check_machine(path: str, name: str, machine_type: str | None) -> Iterator[ConfigError]:
    """Yield an error unless the catalogue has `name`, and machines of `machine_type` (None: the default) carry it.

    `path` is that of the object with the fields `accelerator` and `machine_type`.
    """
    known = CATALOGUE.get(name)
    if known is None:
        yield from check_accelerator(f"{path}.accelerator", name)
    elif known.machine(machine_type) is None:
        fix = did_you_mean(str(machine_type), [machine.machine_type for machine in known.machines])
        yield ConfigError(f"{path}.machine_type", machine_type, f"a machine type with {name}", fix)


def check_topology(path: str, machine: Machine, topology: str | None) -> Iterator[ConfigError]:
    """Yield an error unless machines of this type make up the TPU slice `topology`, or none is named."""
    if topology is not None and topology not in machine.topologies:
        known = ", ".join(machine.topologies)
        fix = f"Use one of: {known}" if known else "Remove it"
        yield ConfigError(path, topology, f"a TPU slice of {machine.machine_type}", fix)


def by_type(label: str | None) -> Accelerator | None:
    """Return the accelerator whose nodes GKE labels with that type, None if there is none in the catalogue."""
    return next((item for item in CATALOGUE.values() if item.type == label), None)


def check_accelerator(path: str, name: str) -> Iterator[ConfigError]:
    """Yield an error unless `name` is in the catalogue. Names are short: the closest one is often quite another."""
    if name not in CATALOGUE:
        fix = f"Use one of: {', '.join(CATALOGUE)}"
        yield ConfigError(path, name, "an accelerator of the catalogue", fix)
