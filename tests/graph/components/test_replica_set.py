"""What replica sets and pools register in their many forms, with preview off and on."""

import penstock
import pytest

from cli.diagram.topology import topology
from cli.graph.recorder import record
from tests.support.arguments import IMAGE, args_of, children, declared

GROUP = {"nodes": 2, "accelerator": {"count": 8}, "rdma": {"mode": "dranet"}}
WEIGHTS = {"bucket": "models", "path": "llama", "project": "p", "project_number": "42"}
TO_ZERO = {"replicas": None, "autoscaling": {"max": 4, "min": 0, "by": "keda", "project": "p"}}


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


def named(graph):
    return {resource.name.removeprefix("it-"): resource for resource in children(graph)}


def waits_for(graph, name):
    return {key.rpartition("::it-")[2] for key in named(graph)[name].dependencies}


def test_several_nodes_are_a_leader_worker_set(preview):
    found = named(declared("ModelReplicaSet", preview=preview, **GROUP))
    assert set(found) == {"service-account", "leader-worker-set", "budget"}
    assert found["leader-worker-set"].type == "kubernetes:leaderworkerset.x-k8s.io/v1:LeaderWorkerSet"


@pytest.mark.parametrize(
    ("changes", "roles"),
    [
        ({"monitoring": True}, {"monitoring"}),
        ({"replicas": None, "autoscaling": {"max": 2}}, {"monitoring", "autoscaler"}),
        (TO_ZERO, {"monitoring", "autoscaler", "trigger-authentication"}),
        ({"source": None, "weights": WEIGHTS}, {"weights-reader", "weights-lister"}),
        ({"source": None, "weights": WEIGHTS | {"path": None}}, {"weights-reader"}),
        ({"source": None, "weights": WEIGHTS | {"grant": False}}, set()),
    ],
    ids=lambda value: str(sorted(value)),  # a set has another order in each process
)
def test_what_is_asked_for_is_added_and_no_more(changes, roles, preview):
    found = set(named(declared("ModelReplicaSet", preview=preview, **changes)))
    assert found == {"service-account", "deployment", "budget"} | roles


def test_only_the_models_folder_can_be_read_and_before_the_replicas_start(preview):
    graph = declared("ModelReplicaSet", preview=preview, source=None, weights=WEIGHTS | {"adapters_path": "lora"})
    reader, lister = named(graph)["weights-reader"].inputs, named(graph)["weights-lister"].inputs
    pool = "projects/42/locations/global/workloadIdentityPools/p.svc.id.goog"
    member = f"principal://iam.googleapis.com/{pool}/subject/ns/inference/sa/m1-a"
    assert (reader["bucket"], reader["role"], reader["member"]) == ("models", "roles/storage.objectViewer", member)
    objects = "projects/_/buckets/models/objects"
    assert reader["condition"]["expression"] == (
        f'resource.name.startsWith("{objects}/llama/") || resource.name.startsWith("{objects}/lora/")'
    )
    assert (lister["role"], lister["member"]) == ("roles/storage.legacyBucketReader", member)
    assert "condition" not in lister
    assert {"weights-reader", "weights-lister", "service-account"} <= waits_for(graph, "deployment")


def test_the_autoscaler_comes_after_what_it_scales(preview):
    graph = declared("ModelReplicaSet", preview=preview, **TO_ZERO)
    assert "deployment" in waits_for(graph, "trigger-authentication")
    assert "trigger-authentication" in waits_for(graph, "autoscaler")


def test_tpus_of_one_machine_are_a_deployment_and_the_diagram_names_them(preview):
    def program():
        penstock.ModelReplicaSet("set", args_of("ModelReplicaSet", accelerator={"type": "tpu-v6e-slice", "count": 8}))
        penstock.InferencePool("pool", args_of("InferencePool"))

    graph = record(program, "test", preview=preview)
    assert "LeaderWorkerSet" not in {resource.inputs.get("kind") for resource in graph.resources}
    assert [card.lines[:2] for card in topology(graph).pools] == [("3 replicas", "each 8 tpu-v6e-slice")]


@pytest.mark.parametrize("picker", [{"image": IMAGE, "discovery": "kubernetes"}, {"profile": "gaie-1.5"}], ids=str)
def test_a_picker_that_reads_the_pool_comes_after_it(picker, preview):
    """Its Service is awaited until the picker is ready, which it never is without the pool: not the other way round."""
    graph = declared("InferencePool", preview=preview, picker=picker)
    assert "replicas" not in named(graph)
    assert waits_for(graph, "pool") == set()
    assert {"pool", "picker-role-binding"} <= waits_for(graph, "picker-deployment")
    assert "pool" in waits_for(graph, "picker-service")


def test_a_picker_that_goes_by_dns_comes_before_its_pool(preview):
    graph = declared("InferencePool", preview=preview)
    assert "picker-service" in waits_for(graph, "pool")
    assert "pool" not in waits_for(graph, "picker-deployment")


def test_metrics_with_a_token(preview):
    graph = declared(
        "InferencePool", preview=preview, picker={"profile": "gaie-1.5", "metrics_auth": True}, monitoring=True
    )
    found = named(graph)
    assert found["picker-metrics-secret"].type == "kubernetes:core/v1:Secret"
    assert found["picker-reviews"].type == "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole"
    assert found["picker-monitoring"].type == "kubernetes:monitoring.googleapis.com/v1:PodMonitoring"
