"""What `AcceleratorPool` refuses: every combination that GKE refuses too, only later. Knows nothing of Pulumi.

Sources, where none is named: Cluster Toolkit, modules/compute/gke-node-pool (preconditions, June 2026); GKE, "About
flex-start provisioning mode", "Define compact placement for GKE nodes", "Plan TPUs".
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._naming import check_label
from ..errors import ConfigError
from . import versions
from .accelerators import CATALOGUE, GPU, POOL_LABEL, TPU, Accelerator, Machine, check_machine, check_topology
from .common import check_range, check_word
from .location import check_labels, check_name, check_place
from .node_pool import COMPUTE_CLASS, DRIVER, hosts
from .node_pool_capacity import capacity_problems
from .rdma import DRANET, DRANET_NODE_LABEL, MODES, ROCE, check_mode

if TYPE_CHECKING:
    from ..accelerator_pool import AcceleratorPoolArgs

NAME_MAX = 40
"""Longest name of a node pool. Source: GKE API v1, NodePool."""
SHORT_MAX = 24
PODS_MIN, PODS_MAX = 8, 256
"""Pods per node of a Standard cluster. Source: GKE, "Configure maximum Pods per node"."""
DISK_MIN_GIB, DISK_MAX_GIB = 50, 65536

DRIVERS = (DRIVER, "LATEST", "INSTALLATION_DISABLED")
EFFECTS = ("NO_SCHEDULE", "PREFER_NO_SCHEDULE", "NO_EXECUTE")
"""Values of the API. Source: GKE API v1, GPUDriverInstallationConfig, NodeTaint."""

_NO_TOPOLOGY = "no topology: only TPU slices and NVLink domains have one"


def problems(args: "AcceleratorPoolArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot make a node pool."""
    limit = NAME_MAX - len(args["pool"]) - 1
    yield from check_name(f"{path}.pool", args["pool"], SHORT_MAX, "so that names with it stay short")
    yield from check_name(f"{path}.name", args["name"], limit, f"`<name>-{args['pool']}` has at most {NAME_MAX}")
    yield from check_place(path, args)
    if not args["zones"]:
        return
    yield from _node_problems(args, path)
    accelerator = CATALOGUE.get(args["accelerator"])
    machine = accelerator.machine(args.get("machine_type")) if accelerator else None
    if accelerator is None or machine is None:
        yield from check_machine(path, args["accelerator"], args.get("machine_type"))
        return
    kind_problems = _tpu_problems if accelerator.kind == TPU else _gpu_problems
    found = list(kind_problems(args, accelerator, machine, path))
    yield from found
    yield from _rdma_problems(args, machine, path)
    if any(error.path == f"{path}.topology" for error in found):
        return  # how many machines a slice has is not known
    yield from capacity_problems(args, accelerator, machine, path)
    yield from _version_problems(args, accelerator, path)


def _node_problems(args: "AcceleratorPoolArgs", path: str) -> Iterator[ConfigError]:
    """Yield what is wrong with nodes of any kind."""
    yield from check_labels(f"{path}.labels", args.get("labels", {}))
    pods, disk = args.get("max_pods_per_node", PODS_MIN), args.get("disk_gib", DISK_MIN_GIB)
    yield from check_range(f"{path}.max_pods_per_node", pods, PODS_MIN, PODS_MAX, "pods")
    yield from check_range(f"{path}.disk_gib", disk, DISK_MIN_GIB, DISK_MAX_GIB, "GiB of boot disk")
    if "compute_class" in args:
        yield from check_label(f"{path}.compute_class", args["compute_class"], what="a class's name")
    owned = {POOL_LABEL: "pool", COMPUTE_CLASS: "compute_class", **dict.fromkeys(DRANET_NODE_LABEL, "rdma")}
    for key, value in args.get("node_labels", {}).items():
        if key in owned:
            fix = f"Remove it, `{owned[key]}` sets it"
            yield ConfigError(f"{path}.node_labels.{key}", value, "a label of your own", fix)
    for index, taint in enumerate(args.get("taints", [])):
        where, effect = f"{path}.taints[{index}]", taint.get("effect", EFFECTS[0])
        yield from check_word(f"{where}.effect", effect, EFFECTS, "an effect of the GKE API")
        if taint["key"] in {COMPUTE_CLASS, *(item.resource for item in CATALOGUE.values())}:
            yield ConfigError(f"{where}.key", taint["key"], "a taint that is not set without a word", "Remove it")


def _gpu_problems(
    args: "AcceleratorPoolArgs", accelerator: Accelerator, machine: Machine, path: str
) -> Iterator[ConfigError]:
    driver = args.get("driver_version", DRIVER)
    yield from check_word(f"{path}.driver_version", driver, DRIVERS, "a way to install drivers")
    if args.get("local_ssd") and not machine.local_ssds:
        yield from _no_local_ssd(machine, path)
    topology, domain = args.get("topology"), accelerator.domain * machine.chips
    if topology is not None and not domain:
        yield ConfigError(f"{path}.topology", topology, _NO_TOPOLOGY, "Remove it, `compact` brings nodes close")
    elif topology not in (None, f"1x{domain}"):
        yield ConfigError(f"{path}.topology", topology, f"the NVLink domain `1x{domain}`", "Remove it")
    if accelerator.workload_policy and args.get("compact"):
        expected = "no COMPACT placement: a workload policy places machines of an NVLink domain"
        yield ConfigError(f"{path}.compact", True, expected, "Remove it")
    if accelerator.domain and len(args["zones"]) > 1:
        yield ConfigError(f"{path}.zones", args["zones"], "one zone: an NVLink domain stands in one", "Leave one")
    if args.get("workload_policy") is not None and not accelerator.workload_policy:
        expected = f"no workload policy: {machine.machine_type} has none"
        yield ConfigError(f"{path}.workload_policy", "a policy", expected, "Remove it, `compact` brings nodes close")


def _tpu_problems(
    args: "AcceleratorPoolArgs", accelerator: Accelerator, machine: Machine, path: str
) -> Iterator[ConfigError]:
    if "driver_version" in args:
        expected = "no driver: TPU machines come with theirs"
        yield ConfigError(f"{path}.driver_version", args["driver_version"], expected, "Remove it")
    if args.get("local_ssd"):
        yield from _no_local_ssd(machine, path)
    if args.get("compact"):
        fix = "Remove it, `topology` names the slice"
        yield ConfigError(f"{path}.compact", True, "no COMPACT placement: machines of a slice are wired together", fix)
    topology = args.get("topology")
    if topology is not None and topology not in machine.topologies:
        yield from check_topology(f"{path}.topology", machine, topology)
        return
    several = hosts(args) > 1
    if several and len(args["zones"]) > 1:
        yield ConfigError(f"{path}.zones", args["zones"], "one zone: a TPU slice stands in one", "Leave one")
    if args.get("workload_policy") is not None and not (several and accelerator.workload_policy):
        expected = "no workload policy: only TPU7x slices of several machines have one"
        yield ConfigError(f"{path}.workload_policy", "a policy", expected, "Remove it")


def _no_local_ssd(machine: Machine, path: str) -> Iterator[ConfigError]:
    yield ConfigError(f"{path}.local_ssd", True, f"false: {machine.machine_type} has no local SSD", "Remove it")


def _rdma_problems(args: "AcceleratorPoolArgs", machine: Machine, path: str) -> Iterator[ConfigError]:
    mode, networks = args.get("rdma"), args.get("node_networks")
    if mode is not None:
        yield from check_mode(f"{path}.rdma", mode)
    if mode in MODES and not machine.rdma_nics:
        fix = "Remove it, or choose h200-ultra, b200 or gb200"
        yield ConfigError(f"{path}.rdma", mode, f"no RDMA: {machine.machine_type} has no RDMA interface", fix)
        return
    where = f"{path}.node_networks"
    if mode == ROCE and networks is None:
        fix = "Pass `node_networks` of an RdmaNetwork in mode `roce`"
        yield ConfigError(where, None, "the interfaces of every node: a gVNIC, then each rail", fix)
    elif mode == DRANET and networks is not None:
        fix = "Remove it: with `dranet` GKE makes the networks, and a pool cannot have both"
        yield ConfigError(where, "interfaces", "no interfaces beside mode `dranet`", fix)
    elif mode is None and networks is not None:
        yield ConfigError(where, "interfaces", "mode `roce`, which they are for", "Set `rdma: roce`, or remove it")
    elif isinstance(networks, list):
        yield from interface_problems(where, len(networks), machine)


def interface_problems(path: str, count: int, machine: Machine) -> Iterator[ConfigError]:
    """Yield an error unless `count` interfaces are what a node of that type has beside its first one."""
    if count != machine.rdma_nics + 1:
        expected = f"{machine.rdma_nics + 1} interfaces: a gVNIC and {machine.rdma_nics} rails"
        yield ConfigError(path, count, expected, f"Use an RdmaNetwork with {machine.rdma_nics} rails")


def _version_problems(args: "AcceleratorPoolArgs", accelerator: Accelerator, path: str) -> Iterator[ConfigError]:
    if "cluster_version" not in args:
        return
    features = ["dranet"] if args.get("rdma") == DRANET else []
    if args.get("flex_start") or args.get("queued"):
        features.append("flex-start-gpu" if accelerator.kind == GPU else "flex-start-tpu")
    where = f"{path}.cluster_version"
    yield from versions.problems(where, args["cluster_version"], features, [args["accelerator"]])
