"""Replica sets and pools against the CRDs of LeaderWorkerSet, KEDA, managed Prometheus and objectives."""

from dataclasses import replace
from pathlib import Path

import pytest

from cli.graph.schemas import SchemaSet
from tests.support.arguments import IMAGE, declared

CRDS = Path(__file__).parents[4] / "shared" / "crds"

GROUP = {"nodes": 2, "accelerator": {"type": "nvidia-h200-141gb", "count": 8}}
WEIGHTS = {"bucket": "models", "path": "llama", "project": "p", "project_number": "42", "adapters_path": "lora"}
TO_ZERO = {"replicas": None, "autoscaling": {"max": 4, "min": 0, "by": "keda", "project": "p"}}
OBJECTIVES = {"objectives": [{"name": "batch", "priority": -5}]}

SHAPES = [
    ("ModelReplicaSet", GROUP, {"LeaderWorkerSet"}),
    ("ModelReplicaSet", GROUP | {"rdma": {"mode": "roce"}, "topology": "zone"}, {"LeaderWorkerSet"}),
    ("ModelReplicaSet", GROUP | {"rdma": {"mode": "dranet"}}, {"LeaderWorkerSet"}),
    ("ModelReplicaSet", GROUP | {"source": None, "weights": WEIGHTS}, {"LeaderWorkerSet"}),
    ("ModelReplicaSet", GROUP | {"source": None, "weights": WEIGHTS | {"method": "streamer"}}, {"LeaderWorkerSet"}),
    ("ModelReplicaSet", GROUP | TO_ZERO, {"LeaderWorkerSet", "ScaledObject", "PodMonitoring"}),
    ("ModelReplicaSet", TO_ZERO, {"ScaledObject", "PodMonitoring"}),
    ("ModelRoute", {"objective": "batch", "pools": [{"name": "m1-a", "objective_objects": True}]}, {"HTTPRoute"}),
    ("InferencePool", {"leader_only": True, "monitoring": True}, {"InferencePool", "PodMonitoring"}),
    ("InferencePool", {"picker": {"image": IMAGE, "discovery": "kubernetes"}}, {"InferencePool"}),
    (
        "InferencePool",
        {"picker": {"profile": "gaie-1.5", "metrics_auth": True}, "monitoring": True, **OBJECTIVES},
        {"InferencePool", "PodMonitoring", "InferenceObjective"},
    ),
    (
        "InferencePool",
        {"picker": {"profile": "llm-d-router-0.10"}, "target_ports": [8000, 8001], **OBJECTIVES},
        {"InferencePool", "InferenceObjective"},
    ),
]


@pytest.fixture(scope="module")
def schemas():
    if not CRDS.is_dir():
        pytest.skip(f"no CRDs in {CRDS}")
    return SchemaSet.load(CRDS)


def _name(value):
    """Return a name of the case; a set has another order in each process."""
    return "+".join(sorted(value)) if isinstance(value, set) else str(value)[:70]


@pytest.mark.parametrize(("component", "changes", "kinds"), SHAPES, ids=_name)
def test_custom_resources_are_correct_by_schema(schemas, component, changes, kinds):
    judged = [verdict for verdict in schemas.judge(declared(component, **changes)) if verdict.status != "skipped"]
    assert kinds <= {verdict.resource.type.rpartition(":")[2] for verdict in judged}
    for verdict in judged:
        if verdict.resource.type.endswith(":TriggerAuthentication"):
            continue  # no schema of it is at hand
        problem = "\n".join(map(str, verdict.errors))
        assert verdict.status == "ok", f"{verdict.resource.key}: {verdict.status}\n{problem}"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("it-leader-worker-set", {"startupPolicy": "Never"}),
        ("it-leader-worker-set", {"leaderWorkerTemplate": {"size": "2"}}),
        ("it-autoscaler", {"triggers": [{"type": "prometheus", "metadata": {"threshold": 5}}]}),
        ("it-monitoring", {"endpoints": []}),
    ],
)
def test_the_checker_would_notice(schemas, name, wrong):
    graph = declared("ModelReplicaSet", **GROUP, **TO_ZERO)
    resource = next(item for item in graph.resources if item.name == name)
    spec = {**resource.inputs["spec"], **wrong}
    assert schemas.verdict(replace(resource, inputs={**resource.inputs, "spec": spec})).status == "invalid"
