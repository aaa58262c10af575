"""What `AcceleratorPool` and `ComputeClass` declare, with preview off and on."""

import penstock
import pulumi
import pytest
from penstock.manifests.accelerators import CATALOGUE

from cli.graph import gcp_types
from cli.graph.model import UNKNOWN
from cli.graph.recorder import record
from tests.support.arguments import args_of, declared, of_kind

POOL = "gcp:container/nodePool:NodePool"
POLICY = "gcp:compute/resourcePolicy:ResourcePolicy"
SLICE = {"accelerator": "tpu-v6e", "topology": "4x4", "max_nodes": 4}
GB200 = {"accelerator": "gb200", "max_nodes": None, "nodes": 18, "reservation": {"name": "r", "block": "b"}}
IRONWOOD = {"accelerator": "tpu-v7", "topology": "2x2x4", "max_nodes": 4}


def interfaces(count):
    return [{"name": f"n{i}", "network": f"net-{i}", "subnetwork": f"sub-{i}"} for i in range(count)]


SHAPES = [
    {},
    {"max_nodes": None, "nodes": 2, "compact": True, "reservation": {"name": "r", "block": "b", "sub_block": "s"}},
    {"rdma": "roce", "node_networks": interfaces(9), "driver_version": "LATEST"},
    {"rdma": "dranet", "flex_start": True, "queued": True, "max_run_duration_s": 86400},
    {"accelerator": "l4", "spot": True, "image_streaming": True, "local_ssd": False, "secure_boot": False},
    {"taints": [{"key": "team", "value": "a"}], "node_labels": {"team": "a"}, "labels": {"team": "a"}},
    {"compute_class": "h200", "per_zone": True, "min_nodes": 1},
    SLICE,
    GB200,
    IRONWOOD,
    *({"accelerator": name, "spot": True} for name, item in CATALOGUE.items() if not item.reservation_only),
]


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


def pool(**changes):
    (found,) = (item for item in declared("AcceleratorPool", **changes).resources if item.type == POOL)
    return found.inputs


@pytest.mark.parametrize("changes", SHAPES, ids=lambda item: str(item)[:60])
def test_every_argument_is_one_of_the_provider(changes, preview):
    verdicts = list(gcp_types.judge(declared("AcceleratorPool", preview=preview, **changes)))
    assert verdicts
    assert [(item.resource.key, item.errors) for item in verdicts if item.status != "ok"] == []


def test_nodes_of_a_pool():
    inputs = pool()
    assert inputs["name"] == "llm-h200"
    assert inputs["location"] == "us-central1"
    assert inputs["nodeLocations"] == ["us-central1-a"]
    assert inputs["maxPodsPerNode"] == 32
    assert inputs["networkConfig"] == {"enablePrivateNodes": True}
    assert inputs["upgradeSettings"] == {"strategy": "SURGE", "maxSurge": 0, "maxUnavailable": 1}
    assert "placementPolicy" not in inputs
    assert "queuedProvisioning" not in inputs
    node = inputs["nodeConfig"]
    assert node["machineType"] == "a3-ultragpu-8g"
    assert node["diskType"] == "hyperdisk-balanced"
    assert node["labels"] == {"penstock.dev/pool": "h200"}
    assert node["resourceLabels"] == {"part-of": "penstock"}
    assert node["gvnic"] == {"enabled": True}
    assert node["ephemeralStorageLocalSsdConfig"] == {"localSsdCount": 32}
    assert node["workloadMetadataConfig"] == {"mode": "GKE_METADATA"}
    assert node["guestAccelerators"] == [
        {
            "type": "nvidia-h200-141gb",
            "count": 8,
            "gpuDriverInstallationConfig": {"gpuDriverVersion": "DEFAULT"},
        }
    ]


def test_gke_sets_the_taint_of_accelerators_itself():
    assert "taints" not in pool()["nodeConfig"]
    found = pool(taints=[{"key": "team", "value": "a", "effect": "NO_EXECUTE"}, {"key": "b"}])["nodeConfig"]["taints"]
    assert found == [
        {"key": "team", "value": "a", "effect": "NO_EXECUTE"},
        {"key": "b", "value": "", "effect": "NO_SCHEDULE"},
    ]


def test_autoscaler_counts_all_zones_together_and_takes_what_capacity_there_is():
    inputs = pool(min_nodes=1)
    assert inputs["autoscaling"] == {"totalMinNodeCount": 1, "totalMaxNodeCount": 4, "locationPolicy": "ANY"}
    assert inputs["initialNodeCount"] == 1
    assert "nodeCount" not in inputs


def test_autoscaler_counts_by_zone_on_request():
    inputs = pool(min_nodes=1, per_zone=True, location_policy="BALANCED", zones=["us-central1-a", "us-central1-b"])
    assert inputs["autoscaling"] == {"minNodeCount": 1, "maxNodeCount": 4, "locationPolicy": "BALANCED"}
    assert inputs["initialNodeCount"] == 1


def test_fixed_nodes_are_shared_out_among_zones():
    inputs = pool(max_nodes=None, nodes=6, zones=["us-central1-a", "us-central1-b"])
    assert inputs["nodeCount"] == 3
    assert "autoscaling" not in inputs
    assert "initialNodeCount" not in inputs


def test_flex_start_has_no_repair_no_reservation_and_an_end():
    inputs = pool(flex_start=True, max_run_duration_s=86400)
    assert inputs["management"] == {"autoRepair": False, "autoUpgrade": True}
    assert inputs["nodeConfig"]["flexStart"] is True
    assert inputs["nodeConfig"]["maxRunDuration"] == "86400s"
    assert inputs["nodeConfig"]["reservationAffinity"] == {"consumeReservationType": "NO_RESERVATION"}
    assert inputs["initialNodeCount"] == 0
    assert "upgradeSettings" not in inputs


def test_queued_nodes_start_from_none():
    inputs = pool(queued=True)
    assert inputs["queuedProvisioning"] == {"enabled": True}
    assert inputs["initialNodeCount"] == inputs["autoscaling"]["totalMinNodeCount"] == 0
    assert inputs["management"]["autoRepair"] is False


@pytest.mark.parametrize(
    ("reservation", "affinity"),
    [
        (None, {"consumeReservationType": "NO_RESERVATION"}),
        ({}, {"consumeReservationType": "ANY_RESERVATION"}),
        ({"name": "r"}, "r"),
        ({"name": "r", "project": "other-project"}, "projects/other-project/reservations/r"),
        ({"name": "r", "block": "b"}, "r/reservationBlocks/b"),
        ({"name": "r", "block": "b", "sub_block": "s"}, "r/reservationBlocks/b/reservationSubBlocks/s"),
    ],
)
def test_reservations(reservation, affinity):
    if isinstance(affinity, str):
        key = "compute.googleapis.com/reservation-name"
        affinity = {"consumeReservationType": "SPECIFIC_RESERVATION", "key": key, "values": [affinity]}
    assert pool(reservation=reservation)["nodeConfig"]["reservationAffinity"] == affinity


def test_roce_attaches_the_gvnic_and_every_rail_in_order(preview):
    """Trap 12: networks are attached in mode `roce` only, never beside GKE's own profile."""
    inputs = pool(preview=preview, rdma="roce", node_networks=interfaces(9))
    attached = inputs["networkConfig"]["additionalNodeNetworkConfigs"]
    assert attached == [{"network": f"net-{i}", "subnetwork": f"sub-{i}"} for i in range(9)]
    assert "acceleratorNetworkProfile" not in inputs["networkConfig"]
    assert "cloud.google.com/gke-networking-dra-driver" not in inputs["nodeConfig"]["labels"]


def test_dranet_leaves_the_networks_to_gke():
    """Trap 12: the profile and the driver's label, never beside networks of one's own."""
    inputs = pool(rdma="dranet")
    assert inputs["networkConfig"] == {"enablePrivateNodes": True, "acceleratorNetworkProfile": "auto"}
    assert inputs["nodeConfig"]["labels"]["cloud.google.com/gke-networking-dra-driver"] == "true"


def with_networks_of_another(preview, count):
    class Maker(pulumi.CustomResource):
        name: pulumi.Output[str]

        def __init__(self) -> None:
            super().__init__("test:index:Maker", "maker", {"name": None if preview else "made"})

    def program():
        made = Maker()
        networks = made.name.apply(
            lambda name: [{"name": "n", "network": f"{name}-{i}", "subnetwork": f"{name}-{i}"} for i in range(count)]
        )
        penstock.AcceleratorPool("it", args_of("AcceleratorPool", rdma="roce", node_networks=networks))

    (found,) = (item for item in record(program, "test", preview=preview).resources if item.type == POOL)
    return found


def test_networks_may_come_from_another_component(preview):
    found = with_networks_of_another(preview, 9)
    attached = found.inputs["networkConfig"]["additionalNodeNetworkConfigs"]
    if preview:
        assert attached == UNKNOWN
    else:
        assert attached[8] == {"network": "made-8", "subnetwork": "made-8"}
    assert "test:index:Maker::maker" in found.dependencies


def test_networks_of_another_component_are_counted_when_they_are_known():
    with pytest.raises(penstock.ConfigErrors, match=r"it\.node_networks: got 5, expected 9 interfaces"):
        with_networks_of_another(False, 5)


def test_compact_placement():
    assert pool(compact=True)["placementPolicy"] == {"type": "COMPACT"}


def test_a_tpu_slice_of_several_machines_is_placed_as_one_by_its_topology():
    inputs = pool(**SLICE)
    assert inputs["placementPolicy"] == {"type": "COMPACT", "tpuTopology": "4x4"}
    assert inputs["nodeConfig"]["machineType"] == "ct6e-standard-4t"
    assert "guestAccelerators" not in inputs["nodeConfig"]
    assert "ephemeralStorageLocalSsdConfig" not in inputs["nodeConfig"]
    assert "placementPolicy" not in pool(accelerator="tpu-v6e", machine_type="ct6e-standard-8t")


@pytest.mark.parametrize(("changes", "topology"), [(GB200, "1x72"), (IRONWOOD, "2x2x4")], ids=["gb200", "tpu-v7"])
def test_a_workload_policy_places_what_is_wired_together(changes, topology, preview):
    graph = declared("AcceleratorPool", preview=preview, **changes)
    (policy,) = (item for item in graph.resources if item.type == POLICY)
    assert policy.inputs["name"] == "llm-h200-workload-policy"
    assert policy.inputs["workloadPolicy"] == {"type": "HIGH_THROUGHPUT", "acceleratorTopology": topology}
    (found,) = (item for item in graph.resources if item.type == POOL)
    assert found.inputs["placementPolicy"] == {"type": "COMPACT", "policyName": "llm-h200-workload-policy"}
    assert policy.key in found.dependencies


def test_a_given_workload_policy_is_used_and_none_is_made():
    graph = declared("AcceleratorPool", **GB200, workload_policy="theirs")
    assert [item.type for item in graph.resources if item.custom] == [POOL]
    assert graph.resources[1].inputs["placementPolicy"]["policyName"] == "theirs"


def test_a_single_tpu7x_machine_needs_no_policy():
    graph = declared("AcceleratorPool", accelerator="tpu-v7")
    assert [item.type for item in graph.resources if item.custom] == [POOL]


def test_small_machines_have_their_own_count():
    node = pool(accelerator="h100-high", machine_type="a3-highgpu-2g", spot=True)["nodeConfig"]
    assert (node["machineType"], node["guestAccelerators"][0]["count"], node["spot"]) == ("a3-highgpu-2g", 2, True)
    assert node["ephemeralStorageLocalSsdConfig"] == {"localSsdCount": 4}


def test_a_pool_joins_a_compute_class_by_label_and_taint():
    node = pool(compute_class="h200")["nodeConfig"]
    assert node["labels"]["cloud.google.com/compute-class"] == "h200"
    assert node["taints"] == [{"key": "cloud.google.com/compute-class", "value": "h200", "effect": "NO_SCHEDULE"}]


def test_compute_class_tries_its_choices_in_order(preview):
    choices = [
        {"node_pools": ["llm-h100"]},
        {"accelerator": "h100-high", "reservation": {"name": "r", "project": "p", "block": "b"}},
        {"accelerator": "h100-high", "spot": True, "zones": ["us-central1-a"]},
        {"accelerator": "h100-high", "flex_start": True, "max_run_duration_s": 72000},
        {"accelerator": "tpu-v6e", "topology": "4x4"},
    ]
    graph = declared("ComputeClass", preview=preview, choices=choices, node_service_account="n@p.iam", move_back=True)
    found = of_kind(graph, "ComputeClass", "h100")
    assert found["apiVersion"] == "cloud.google.com/v1"
    assert "namespace" not in found["metadata"]
    gpu = {"type": "nvidia-h100-80gb", "count": 8, "driverVersion": "default"}
    machine = {"machineType": "a3-highgpu-8g", "gpu": gpu}
    assert found["spec"]["priorities"] == [
        {"nodepools": ["llm-h100"]},
        machine
        | {
            "reservations": {
                "affinity": "Specific",
                "specific": [{"name": "r", "project": "p", "reservationBlock": {"name": "b"}}],
            }
        },
        machine | {"spot": True, "location": {"zones": ["us-central1-a"]}},
        machine | {"flexStart": {"enabled": True}, "maxRunDurationSeconds": 72000},
        {"machineType": "ct6e-standard-4t", "tpu": {"type": "tpu-v6e-slice", "count": 4, "topology": "4x4"}},
    ]
    assert found["spec"]["whenUnsatisfiable"] == "DoNotScaleUp"
    assert found["spec"]["nodePoolAutoCreation"] == {"enabled": True}
    assert found["spec"]["nodePoolConfig"] == {"imageType": "cos_containerd", "serviceAccount": "n@p.iam"}
    assert found["spec"]["activeMigration"] == {"optimizeRulePriority": True}


def test_compute_class_of_pools_alone_makes_none():
    spec = of_kind(declared("ComputeClass", choices=[{"node_pools": ["a", "b"]}]), "ComputeClass")["spec"]
    assert spec == {"priorities": [{"nodepools": ["a", "b"]}], "whenUnsatisfiable": "DoNotScaleUp"}
