"""What `AcceleratorPool` refuses because GKE would: each combination once, with path, value, expectation and fix."""

import pytest
from penstock.manifests.accelerators import CATALOGUE

from tests.support.arguments import problems

ZONES = ["us-central1-a", "us-central1-b"]
L4 = {"accelerator": "l4"}
V5E, V6E, V7 = ({"accelerator": name} for name in ("tpu-v5e", "tpu-v6e", "tpu-v7"))
GB200 = {"accelerator": "gb200", "max_nodes": 18, "reservation": {"name": "r"}}
SLICE = {**V6E, "topology": "4x4", "max_nodes": 4}
FIXED = {"max_nodes": None, "nodes": 2}


def interfaces(count):
    return [{"network": f"net-{number}", "subnetwork": f"sub-{number}"} for number in range(count)]


REFUSED = {
    # what: changes to an autoscaled pool of h200-ultra in one zone; path, value, words of expected, words of fix
    "name too long": ({"name": "l" * 36}, "name", "l" * 36, "at most 40", "by 1 char"),
    "pool name too long": ({"pool": "p" * 25}, "pool", "p" * 25, "at most 24", "by 1 char"),
    "pool name not a label": ({"pool": "H200"}, "pool", "H200", "RFC 1035", "Rename"),
    "no zones": ({"zones": []}, "zones", [], "one zone", "zones of us-central1"),
    "zone elsewhere": ({"zones": ["us-east1-b"]}, "zones[0]", "us-east1-b", "of us-central1", "us-central1-a"),
    "unknown accelerator": ({"accelerator": "h200"}, "accelerator", "h200", "catalogue", "h200-ultra"),
    "another's machine": (
        {"machine_type": "a3-megagpu-8g"},
        "machine_type",
        "a3-megagpu-8g",
        "h200-ultra",
        "a3-ultragpu-8g",
    ),
    "labels": ({"labels": {"Team": "x"}}, "labels.Team", "x", "lower-case", "Rename"),
    "few pods": ({"max_pods_per_node": 7}, "max_pods_per_node", 7, "8 to 256", "at least 8"),
    "many pods": ({"max_pods_per_node": 257}, "max_pods_per_node", 257, "8 to 256", "at most 256"),
    "small disk": ({"disk_gib": 10}, "disk_gib", 10, "GiB", "at least 50"),
    "pool label": (
        {"node_labels": {"penstock.dev/pool": "x"}},
        "node_labels.penstock.dev/pool",
        "x",
        "your own",
        "`pool`",
    ),
    "class label": (
        {"node_labels": {"cloud.google.com/compute-class": "x"}},
        "node_labels.cloud.google.com/compute-class",
        "x",
        "your own",
        "`compute_class`",
    ),
    "DRANET label": (
        {"node_labels": {"cloud.google.com/gke-networking-dra-driver": "true"}},
        "node_labels.cloud.google.com/gke-networking-dra-driver",
        "true",
        "your own",
        "`rdma`",
    ),
    "class name": ({"compute_class": "A b"}, "compute_class", "A b", "RFC 1035", "Rename"),
    "taint of GKE": ({"taints": [{"key": "nvidia.com/gpu"}]}, "taints[0].key", "nvidia.com/gpu", "taint", "Remove"),
    "taint effect": (
        {"taints": [{"key": "a", "effect": "NoSchedule"}]},
        "taints[0].effect",
        "NoSchedule",
        "effect",
        "NO_",
    ),
    "driver version": ({"driver_version": "latest"}, "driver_version", "latest", "install drivers", "LATEST"),
    # size
    "no size": ({"max_nodes": None}, "max_nodes", None, "exactly one of", "`nodes`"),
    "two sizes": ({"nodes": 2}, "max_nodes", {"nodes": 2, "max_nodes": 4}, "exactly one of", "`nodes`"),
    "min over max": ({"min_nodes": 5}, "min_nodes", 5, "`max_nodes`, 4", "raise"),
    "max of none": ({"max_nodes": 0}, "max_nodes", 0, "from 1", "at least 1"),
    "location policy": ({"location_policy": "any"}, "location_policy", "any", "autoscaler", "ANY"),
    "uneven zones": ({**FIXED, "zones": ZONES, "nodes": 3}, "nodes", 3, "multiple of 2", "`max_nodes`"),
    "negative nodes": ({**FIXED, "nodes": -1}, "nodes", -1, "from 0", "at least 0"),
    "min with nodes": ({**FIXED, "min_nodes": 1}, "min_nodes", 1, "autoscaler", "`max_nodes`"),
    "policy with nodes": ({**FIXED, "location_policy": "ANY"}, "location_policy", "ANY", "autoscaler", "Remove"),
    "per zone with nodes": ({**FIXED, "per_zone": True}, "per_zone", True, "autoscaler", "Remove"),
    # flex-start
    "flex-start with a fixed number": ({**FIXED, "flex_start": True}, "flex_start", True, "autoscaler", "`max_nodes`"),
    "flex-start with spot": ({"flex_start": True, "spot": True}, "flex_start", True, "`spot`", "Remove one"),
    "flex-start with a reservation": (
        {"flex_start": True, "reservation": {"name": "r"}},
        "flex_start",
        True,
        "no reservation",
        "Remove one",
    ),
    "flex-start with COMPACT on other families": (
        {"accelerator": "h100-mega", "flex_start": True, "compact": True},
        "flex_start",
        True,
        "h200-ultra and b200",
        "`compact`",
    ),
    "flex-start of A4X": ({**GB200, "flex_start": True}, "flex_start", True, "reservations only", "reservation"),
    "flex-start of a slice of several machines": (
        {**SLICE, "flex_start": True},
        "flex_start",
        True,
        "`queued`",
        "one machine",
    ),
    "more than seven days by flex-start": (
        {"flex_start": True, "max_run_duration_s": 604801},
        "max_run_duration_s",
        604801,
        "604800",
        "at most 604800",
    ),
    "more than 120 days": (
        {"max_run_duration_s": 120 * 86400 + 1},
        "max_run_duration_s",
        10368001,
        "seconds",
        "at most",
    ),
    # queued
    "queued with a fixed number": ({**FIXED, "queued": True}, "queued", True, "autoscaler", "`max_nodes`"),
    "queued with a minimum": ({"queued": True, "min_nodes": 1}, "min_nodes", 1, "0:", "Remove"),
    "queued with spot": ({"queued": True, "spot": True}, "queued", True, "no spot", "Remove one"),
    "queued with a reservation": ({"queued": True, "reservation": {}}, "queued", True, "no reservation", "Remove one"),
    "queued with COMPACT": ({"queued": True, "compact": True}, "queued", True, "no COMPACT", "`compact`"),
    # spot and reservation
    "spot with a reservation": ({"spot": True, "reservation": {}}, "spot", True, "no reservation", "Remove one"),
    "small A3 High on demand": (
        {"accelerator": "h100-high", "machine_type": "a3-highgpu-4g"},
        "machine_type",
        "a3-highgpu-4g",
        "spot or flex-start",
        "`flex_start`",
    ),
    "A4X without a reservation": ({**GB200, "reservation": None}, "reservation", None, "a reservation", "Name"),
    "block without reservation": ({"reservation": {"block": "b"}}, "reservation.name", None, "reservation", "Name it"),
    "sub-block without block": (
        {"reservation": {"name": "r", "sub_block": "s"}},
        "reservation.block",
        None,
        "block",
        "Name the block",
    ),
    "block of a shared reservation": (
        {"reservation": {"name": "r", "block": "b", "project": "other-project"}},
        "reservation.project",
        "other-project",
        "own project",
        "Leave the block",
    ),
    "reservation in two zones": ({"zones": ZONES, "reservation": {"name": "r"}}, "zones", ZONES, "one zone", "Leave"),
    # placement
    "COMPACT in two zones": ({"zones": ZONES, "compact": True}, "zones", ZONES, "one zone: COMPACT", "Leave one"),
    "COMPACT of A4X": ({**GB200, "compact": True}, "compact", True, "workload policy", "Remove"),
    "two NVLink domains": ({**GB200, "max_nodes": 19}, "max_nodes", 19, "at most 18", "pool for each domain"),
    "another NVLink domain": ({**GB200, "topology": "1x64"}, "topology", "1x64", "`1x72`", "Remove"),
    "workload policy of others": ({"workload_policy": "p"}, "workload_policy", "a policy", "has none", "`compact`"),
    "topology of GPUs": ({"topology": "2x4"}, "topology", "2x4", "only TPU slices", "`compact`"),
    # TPU
    "drivers of TPUs": ({**V6E, "driver_version": "LATEST"}, "driver_version", "LATEST", "no driver", "Remove"),
    "local SSD of TPUs": ({**V6E, "local_ssd": True}, "local_ssd", True, "no local SSD", "Remove"),
    "COMPACT of TPUs": ({**V6E, "compact": True}, "compact", True, "wired together", "`topology`"),
    "RDMA of TPUs": ({**V6E, "rdma": "dranet"}, "rdma", "dranet", "no RDMA interface", "h200-ultra"),
    "topology of another machine": (
        {**V5E, "machine_type": "ct5lp-hightpu-8t", "topology": "4x4"},
        "topology",
        "4x4",
        "slice of ct5lp-hightpu-8t",
        "2x4",
    ),
    "flat topology of TPU7x": ({**V7, "topology": "4x4"}, "topology", "4x4", "tpu7x-standard-4t", "4x4x4"),
    "part of a slice": ({**SLICE, "max_nodes": 3}, "max_nodes", 3, "4 nodes", "Set it to 4"),
    "two slices": ({**SLICE, "max_nodes": None, "nodes": 8}, "nodes", 8, "4 nodes", "one more pool"),
    "slice kept in part": ({**SLICE, "min_nodes": 2}, "max_nodes", 4, "all or none", "`min_nodes` to 0"),
    "slice in two zones": ({**SLICE, "zones": ZONES}, "zones", ZONES, "one zone: a TPU slice", "Leave one"),
    "workload policy of one TPU7x machine": (
        {**V7, "workload_policy": "p"},
        "workload_policy",
        "a policy",
        "several machines",
        "Remove",
    ),
    # RDMA
    "unknown mode": ({"rdma": "tcpx"}, "rdma", "tcpx", "`roce` or `dranet`", "roce"),
    "RDMA of machines without": ({**L4, "rdma": "roce"}, "rdma", "roce", "no RDMA interface", "b200"),
    "roce without networks": ({"rdma": "roce"}, "node_networks", None, "each rail", "RdmaNetwork"),
    "dranet with networks": (
        {"rdma": "dranet", "node_networks": interfaces(9)},
        "node_networks",
        "interfaces",
        "no interfaces",
        "cannot have both",
    ),
    "networks without mode": (
        {"node_networks": interfaces(9)},
        "node_networks",
        "interfaces",
        "mode `roce`",
        "`rdma: roce`",
    ),
    "rails missing": ({"rdma": "roce", "node_networks": interfaces(8)}, "node_networks", 8, "9 interfaces", "8 rails"),
    "rails of another machine": (
        {**GB200, "rdma": "roce", "node_networks": interfaces(9)},
        "node_networks",
        9,
        "5 interfaces",
        "4 rails",
    ),
    # versions
    "too old for the machine": (
        {"cluster_version": "1.31.0-gke.1"},
        "cluster_version",
        "1.31.0-gke.1",
        "`h200-ultra`",
        "1.31.4-gke.1183000",
    ),
    "too old for DRANET": (
        {"cluster_version": "1.33.0-gke.1", "rdma": "dranet"},
        "cluster_version",
        "1.33.0-gke.1",
        "`dranet`",
        "1.34.1-gke.1829001",
    ),
    "too old for flex-start of GPUs": (
        {"cluster_version": "1.32.0-gke.1", "flex_start": True},
        "cluster_version",
        "1.32.0-gke.1",
        "`flex-start-gpu`",
        "1.32.2-gke.1652000",
    ),
    "too old for flex-start of TPUs": (
        {**V6E, "cluster_version": "1.32.9-gke.1", "flex_start": True},
        "cluster_version",
        "1.32.9-gke.1",
        "`flex-start-tpu`",
        "1.33.0-gke.1712000",
    ),
}


@pytest.mark.parametrize("what", sorted(REFUSED))
def test_refused(what):
    changes, path, value, expected, fix = REFUSED[what]
    (error,) = problems("AcceleratorPool", **changes)
    assert (error.path, error.value) == (f"args.{path}", value)
    assert expected in error.expected
    assert fix in error.fix
    assert not error.fix.endswith(".")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"zones": ZONES, "nodes": 4, "max_nodes": None},
        {"nodes": 0, "max_nodes": None},
        {"min_nodes": 2, "per_zone": True, "location_policy": "BALANCED", "zones": ZONES},
        {"flex_start": True, "compact": True, "max_run_duration_s": 604800},
        {"flex_start": True, "queued": True},
        {"queued": True},
        {"spot": True, **L4, "zones": ZONES},
        {"accelerator": "h100-high", "machine_type": "a3-highgpu-1g", "spot": True},
        {"accelerator": "h100-high", "machine_type": "a3-highgpu-2g", "flex_start": True},
        {"reservation": {}, "zones": ZONES},
        {"reservation": {"name": "r", "block": "b", "sub_block": "s"}, "compact": True},
        {"reservation": {"name": "r", "project": "other-project"}},
        {"rdma": "roce", "node_networks": interfaces(9)},
        {"rdma": "dranet", "cluster_version": "1.35.2-gke.1842000"},
        GB200,
        {**GB200, "rdma": "roce", "node_networks": interfaces(5), "topology": "1x72", "workload_policy": "p"},
        {**V5E, "machine_type": "ct5lp-hightpu-1t", "zones": ZONES, "max_nodes": 9},
        {**V6E, "flex_start": True},
        SLICE,
        {**SLICE, "flex_start": True, "queued": True},
        {**SLICE, "max_nodes": None, "nodes": 4},
        {**V7, "topology": "2x2x4", "max_nodes": 4, "workload_policy": "p"},
        {"compute_class": "h100", "taints": [{"key": "team", "value": "a"}], "max_run_duration_s": 86400 * 30},
    ],
    ids=lambda item: str(item)[:70],
)
def test_accepted(changes):
    assert [str(error) for error in problems("AcceleratorPool", **changes)] == []


@pytest.mark.parametrize(
    ("name", "machine_type"), [(name, item.machine_type) for name, of in CATALOGUE.items() for item in of.machines]
)
def test_every_machine_of_the_catalogue_can_be_had(name, machine_type):
    how = {"reservation": {"name": "r"}} if CATALOGUE[name].reservation_only else {"spot": True}
    found = problems("AcceleratorPool", accelerator=name, machine_type=machine_type, **how)
    assert [str(error) for error in found] == []


def test_everything_wrong_is_named_at_once():
    found = problems("AcceleratorPool", flex_start=True, queued=True, spot=True, rdma="roce", max_pods_per_node=1)
    paths = [error.path for error in found]
    assert paths == [f"args.{field}" for field in ("max_pods_per_node", "node_networks", "flex_start", "queued")]
