"""Model replicas on TPUs against what is known to keep them from being scheduled, or vLLM from starting."""

import penstock
import pytest

from tests.support.arguments import declared, of_kind

V5E, V6E, V7 = "tpu-v5-lite-podslice", "tpu-v6e-slice", "tpu7x"


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


def pod(kind=V6E, count=8, preview=False, **changes):
    graph = declared("ModelReplicaSet", preview=preview, accelerator={"type": kind, "count": count}, **changes)
    return of_kind(graph, "Deployment")["spec"]["template"]["spec"]


@pytest.mark.parametrize(
    ("kind", "count", "topology"),
    [
        *((kind, *shape) for kind in (V5E, V6E) for shape in ((1, "1x1"), (4, "2x2"), (8, "2x4"))),
        (V7, 4, "2x2x1"),
    ],
)
def test_trap_gke_asks_for_type_and_topology_and_all_chips_of_the_node(kind, count, topology, preview):
    found = pod(kind, count, preview)
    assert found["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": kind,
        "cloud.google.com/gke-tpu-topology": topology,
    }
    assert found["containers"][0]["resources"]["limits"]["google.com/tpu"] == str(count)
    assert found["tolerations"] == [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}]


@pytest.mark.parametrize(("kind", "count", "size"), [(V6E, 8, 8), (V5E, 4, 4), (V7, 4, 8)])
def test_trap_tensor_parallel_counts_devices_of_which_a_tpu7x_chip_has_two(kind, count, size, preview):
    assert f"--tensor-parallel-size={size}" in pod(kind, count, preview)["containers"][0]["args"]


def test_nothing_of_nvidia_is_set(preview):
    text = str(pod(preview=preview)).lower()
    assert not [word for word in ("nvidia", "nccl", "cuda", "gke-accelerator") if word in text]


def test_trap_the_tpus_device_is_open_to_root_only_who_has_no_capability(preview):
    found = pod(preview=preview)
    assert found["securityContext"]["runAsUser"] == 0
    assert "runAsNonRoot" not in found["securityContext"]
    security = found["containers"][0]["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert penstock.ModelReplicaSet.pod_security_level({"accelerator": {"type": V6E, "count": 8}}) == "baseline"


def test_weights_that_are_mounted_belong_to_the_pods_user(preview):
    weights = {"bucket": "models", "path": "llama", "project": "p", "project_number": "1"}
    volumes = {item["name"]: item for item in pod(preview=preview, source=None, weights=weights)["volumes"]}
    assert "uid=0,gid=0" in volumes["weights"]["csi"]["volumeAttributes"]["mountOptions"]


def test_further_labels_are_asked_for_beside_the_tpus():
    found = pod(node_selector={"penstock.dev/pool": "v6e"})["nodeSelector"]
    assert found["penstock.dev/pool"] == "v6e"
    assert len(found) == 3
