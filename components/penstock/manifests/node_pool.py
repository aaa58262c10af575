"""The arguments of a node pool with accelerators, and of the workload policy that places some of them.

Keys are the provider's: pulumi-gcp 10.2, `gcp.container.NodePool` and `gcp.compute.ResourcePolicy`. Arguments have
passed `node_pool_checks`. Knows nothing of Pulumi.
"""

from typing import TYPE_CHECKING, Any

from .accelerators import CATALOGUE, GPU, POOL_LABEL, TPU, Accelerator, Machine
from .cluster import hardened
from .location import gcp_labels
from .rdma import DRANET, DRANET_NODE_LABEL, DRANET_PROFILE

if TYPE_CHECKING:
    from ..accelerator_pool import AcceleratorPoolArgs, Reservation

DISK_GIB = 200
MAX_PODS = 32
LOCATION_POLICY = "ANY"
DRIVER = "DEFAULT"
EFFECT = "NO_SCHEDULE"

COMPUTE_CLASS = "cloud.google.com/compute-class"
"""Label and taint of a ComputeClass's nodes, and what its pods select. Source: GKE, "About custom ComputeClasses"."""
RESERVATION_KEY = "compute.googleapis.com/reservation-name"
"""Key of a reservation by name. Source: GKE, "Consume reserved zonal resources"."""


def pool_name(args: "AcceleratorPoolArgs") -> str:
    """Return the name of the node pool."""
    return f"{args['name']}-{args['pool']}"


def policy_name(args: "AcceleratorPoolArgs") -> str:
    """Return the name of the pool's own workload policy."""
    return f"{pool_name(args)}-workload-policy"


def chosen(args: "AcceleratorPoolArgs") -> tuple[Accelerator, Machine]:
    """Return the accelerator and the machine that `args` name. Both must exist."""
    accelerator = CATALOGUE[args["accelerator"]]
    machine = accelerator.machine(args.get("machine_type"))
    if machine is None:
        raise LookupError(f"{args['accelerator']} has no machine type {args.get('machine_type')}")
    return accelerator, machine


def hosts(args: "AcceleratorPoolArgs") -> int:
    """Return how many machines make up one TPU slice; 1 for GPUs and for slices of a single machine."""
    accelerator, machine = chosen(args)
    return machine.hosts(args.get("topology", machine.topologies[0])) if accelerator.kind == TPU else 1


def needs_policy(args: "AcceleratorPoolArgs") -> bool:
    """Tell whether a workload policy places the machines: NVLink domains, TPU7x slices of several machines."""
    accelerator, _ = chosen(args)
    return accelerator.workload_policy and (accelerator.kind == GPU or hosts(args) > 1)


def own_policy(args: "AcceleratorPoolArgs") -> bool:
    """Tell whether the pool has a workload policy of its own."""
    return needs_policy(args) and args.get("workload_policy") is None


def workload_policy(args: "AcceleratorPoolArgs") -> dict[str, Any]:
    """Return the arguments of the workload policy: which machines are wired together.

    Source: Cluster Toolkit, gke-a4x (`1x72`); GKE, "About Ironwood (TPU7x)", "Workload policy for multi-host node
    pools".
    """
    accelerator, machine = chosen(args)
    topology = args.get("topology") or f"1x{accelerator.domain * machine.chips}"
    return {
        "name": policy_name(args),
        "project": args["project"],
        "region": args["region"],
        "workload_policy": {"type": "HIGH_THROUGHPUT", "accelerator_topology": topology},
    }


def node_pool(args: "AcceleratorPoolArgs", policy: Any, networks: Any) -> dict[str, Any]:
    """Return the arguments of the node pool.

    Args:
        args: of the component.
        policy: name of the workload policy, None without one.
        networks: `[{network, subnetwork}]` of the nodes' further interfaces, None without.
    """
    on_request = bool(args.get("flex_start") or args.get("queued"))
    found: dict[str, Any] = {
        "name": pool_name(args),
        "project": args["project"],
        "location": args["region"],
        "node_locations": list(args["zones"]),
        "cluster": args["cluster"],
        "max_pods_per_node": args.get("max_pods_per_node", MAX_PODS),
        # GKE never repairs nodes that have a set lifetime. Source: Cluster Toolkit, gke-node-pool
        "management": {"auto_repair": not on_request, "auto_upgrade": True},
        "network_config": _network(args, networks),
        "node_config": _node(args),
        **_size(args),
        **_placement(args, policy),
    }
    if not on_request and hosts(args) == 1:
        # No spare machine is to be had for a surge; GKE replaces slices and nodes on request in ways of its own
        found["upgrade_settings"] = {"strategy": "SURGE", "max_surge": 0, "max_unavailable": 1}
    if args.get("queued"):
        found["queued_provisioning"] = {"enabled": True}
    return found


def _size(args: "AcceleratorPoolArgs") -> dict[str, Any]:
    """Return number of nodes or limits of the autoscaler. The provider counts fixed and first nodes by zone."""
    zones = len(args["zones"])
    if "nodes" in args:
        return {"node_count": args["nodes"] // zones}
    low, high = args.get("min_nodes", 0), args["max_nodes"]
    per_zone = args.get("per_zone", False)
    prefix = "" if per_zone else "total_"
    limits = {f"{prefix}min_node_count": low, f"{prefix}max_node_count": high}
    return {
        "initial_node_count": low if per_zone else low // zones,
        "autoscaling": limits | {"location_policy": args.get("location_policy", LOCATION_POLICY)},
    }


def _placement(args: "AcceleratorPoolArgs", policy: Any) -> dict[str, Any]:
    placement: dict[str, Any] = {"type": "COMPACT"}
    if policy is not None:
        placement["policy_name"] = policy
    elif hosts(args) > 1:
        placement["tpu_topology"] = args["topology"]
    elif not args.get("compact"):
        return {}
    return {"placement_policy": placement}


def _network(args: "AcceleratorPoolArgs", networks: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"enable_private_nodes": True}
    if networks is not None:
        found["additional_node_network_configs"] = networks
    if args.get("rdma") == DRANET:
        found["accelerator_network_profile"] = DRANET_PROFILE
    return found


def _node(args: "AcceleratorPoolArgs") -> dict[str, Any]:
    accelerator, machine = chosen(args)
    dranet = DRANET_NODE_LABEL if args.get("rdma") == DRANET else {}
    found: dict[str, Any] = {
        **hardened(args["node_service_account"], secure_boot=args.get("secure_boot", True)),
        "machine_type": machine.machine_type,
        "disk_size_gb": args.get("disk_gib", DISK_GIB),
        "disk_type": accelerator.disk_type,
        "labels": {**args.get("node_labels", {}), **dranet, **_class(args), POOL_LABEL: args["pool"]},
        "resource_labels": gcp_labels(args.get("labels")),
        "reservation_affinity": _reservation(args.get("reservation")),
        **_capacity(args),
    }
    if accelerator.kind == GPU:
        driver = {"gpu_driver_version": args.get("driver_version", DRIVER)}
        gpus = {"type": accelerator.type, "count": machine.chips, "gpu_driver_installation_config": driver}
        found["guest_accelerators"] = [gpus]
    if machine.local_ssds and args.get("local_ssd", True):
        found["ephemeral_storage_local_ssd_config"] = {"local_ssd_count": machine.local_ssds}
    if args.get("image_streaming"):
        found["gcfs_config"] = {"enabled": True}
    taints = [
        {"key": item["key"], "value": item.get("value", ""), "effect": item.get("effect", EFFECT)}
        for item in args.get("taints", [])
    ]
    taints += [{"key": key, "value": value, "effect": EFFECT} for key, value in _class(args).items()]
    if taints:
        found["taints"] = taints
    return found


def _class(args: "AcceleratorPoolArgs") -> dict[str, str]:
    """Return the label, and taint, by which nodes belong to a ComputeClass. Source: GKE, "Use ComputeClasses"."""
    return {COMPUTE_CLASS: args["compute_class"]} if "compute_class" in args else {}


def _capacity(args: "AcceleratorPoolArgs") -> dict[str, Any]:
    found: dict[str, Any] = {field: True for field in ("spot", "flex_start") if args.get(field)}
    if "max_run_duration_s" in args:
        found["max_run_duration"] = f"{args['max_run_duration_s']}s"
    return found


def _reservation(reservation: "Reservation | None") -> dict[str, Any]:
    """Return which reservations nodes may use; none without a word, so that reserved capacity is never used by chance.

    Source: GKE, "Consume reserved zonal resources"; of a block: Cluster Toolkit, gke-node-pool.
    """
    if reservation is None:
        return {"consume_reservation_type": "NO_RESERVATION"}
    name = reservation.get("name")
    if name is None:
        return {"consume_reservation_type": "ANY_RESERVATION"}
    if "project" in reservation:
        name = f"projects/{reservation['project']}/reservations/{name}"
    if "block" in reservation:
        name += f"/reservationBlocks/{reservation['block']}"
    if "sub_block" in reservation:
        name += f"/reservationSubBlocks/{reservation['sub_block']}"
    return {"consume_reservation_type": "SPECIFIC_RESERVATION", "key": RESERVATION_KEY, "values": [name]}
