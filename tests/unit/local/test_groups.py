"""Multi-node replicas, autoscaled sets and upstream's picker on one machine, from what the components declare."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import penstock
import pytest
import yaml

from cli.graph.model import Graph
from cli.graph.recorder import record
from cli.local.coverage import unrealized
from cli.local.model import Piece, Plan
from cli.local.objects import Objects
from cli.local.plan import Options, make_plan
from cli.local.ports import PortAllocator
from services.extproc import flags
from services.modelserver import arguments
from services.picker import __main__ as picker
from tests.support.arguments import args_of

GROUP = {"nodes": 2, "accelerator": {"type": "nvidia-h200-141gb", "count": 8}, "rdma": {"mode": "roce"}}
TO_ZERO = {"max": 4, "min": 0, "by": "keda", "project": "p"}
PlanOf = Callable[..., Plan]


def graph_of(replicas: dict[str, Any], pool: dict[str, Any]) -> Graph:
    def program() -> None:
        penstock.InferenceGateway("gateway", args_of("InferenceGateway"))  # type: ignore[arg-type]
        penstock.ModelReplicaSet("set", args_of("ModelReplicaSet", **replicas))  # type: ignore[arg-type]
        penstock.InferencePool("pool", args_of("InferencePool", **pool))  # type: ignore[arg-type]
        penstock.ModelRoute("route", args_of("ModelRoute"))  # type: ignore[arg-type]

    return record(program, "test")


@pytest.fixture
def planned(tmp_path: Path, ports: PortAllocator) -> PlanOf:
    def make(declared: dict[str, Any], pool: dict[str, Any] | None = None, **options: Any) -> Plan:
        chosen = Options(root=tmp_path, state_dir=tmp_path / "state", python="python3", **options)
        return make_plan(graph_of(declared, pool or {}), chosen, ports, {"PATH": "/bin"})

    return make


def of_kind(plan: Plan, kind: str) -> list[Piece]:
    return [piece for piece in plan.pieces if piece.kind == kind]


def listed(plan: Plan) -> list[str]:
    (text,) = [text for path, text in plan.files.items() if path.name == "replicas.yaml"]
    return [entry["name"] for entry in yaml.safe_load(text)["replicas"]]


def test_a_group_is_one_process_its_leader(planned: PlanOf) -> None:
    plan = planned(GROUP | {"replicas": 2}, {"leader_only": True})
    assert [piece.name for piece in of_kind(plan, "replica")] == ["m1-a-0", "m1-a-1"]
    assert listed(plan) == ["m1-a-0", "m1-a-1"]
    leader = of_kind(plan, "replica")[0]
    assert leader.models == ("m1",)
    assert not [arg for arg in leader.command if "node" in arg or "master" in arg or "LWS_" in arg or "parallel" in arg]
    assert not [name for name in leader.env if name.startswith(("NCCL_", "GLOO_", "LD_LIBRARY_PATH"))]
    assert leader.env["LWS_LEADER_ADDRESS"] == "127.0.0.1"
    arguments.parse(list(leader.command[3:]), {})


def test_a_replica_on_tpus_is_a_process_and_its_hardware_is_named(planned: PlanOf) -> None:
    tpu = {"accelerator": {"type": "tpu-v6e-slice", "count": 8}, "replicas": 2}
    assert listed(planned(tpu)) == ["m1-a-0", "m1-a-1"]
    leader = of_kind(planned(tpu), "replica")[0]
    assert leader.models == ("m1",)
    arguments.parse(list(leader.command[3:]), {})
    graph = graph_of(tpu, {})
    found = {item.what: item.objects for item in unrealized(graph, Objects.of_graph(graph))}
    for field in ("nodeSelector", "tolerations", "containers[].resources"):
        assert "m1-a" in found[f"Deployment spec.template.spec.{field}"]


def test_workers_are_said_not_to_be_simulated() -> None:
    graph = graph_of(GROUP, {"leader_only": True})
    found = {item.what: item.reason for item in unrealized(graph, Objects.of_graph(graph))}
    worker = found["LeaderWorkerSet spec.leaderWorkerTemplate.workerTemplate"]
    assert "workers are not simulated" in worker
    assert "this kind is not realized" not in found.values()
    volumes = "LeaderWorkerSet spec.leaderWorkerTemplate.leaderTemplate.spec.volumes[].hostPath"
    assert found[volumes] == "only ConfigMap, emptyDir and claimed volumes are mounted"


@pytest.mark.parametrize(
    ("scaling", "count"), [({"max": 4}, 1), ({"max": 4, "min": 3}, 3), (TO_ZERO, 1)], ids=["hpa", "three", "zero"]
)
@pytest.mark.parametrize("shape", [{}, GROUP], ids=["single", "group"])
def test_an_autoscaled_set_runs_at_its_minimum(
    planned: PlanOf, shape: dict[str, Any], scaling: dict[str, Any], count: int
) -> None:
    plan = planned(shape | {"replicas": None, "autoscaling": scaling})
    assert len(of_kind(plan, "replica")) == count
    assert len(of_kind(planned(shape | {"replicas": None, "autoscaling": scaling}, replicas=2), "replica")) == 2


@pytest.mark.parametrize("profile", ["gaie-1.5", "llm-d-router-0.10"])
def test_penstocks_picker_stands_in_for_upstreams(planned: PlanOf, profile: str) -> None:
    plan = planned({}, {"picker": {"profile": profile}, "objectives": [{"name": "batch", "priority": -3}]})
    (piece,) = of_kind(plan, "picker")
    read = flags.parse("picker", picker.add_arguments, {}, list(piece.command[3:]))
    assert (read.grpc_port, read.health_port) == (piece.ports[9002], piece.ports[9003])
    assert (read.pool_name, read.pool_namespace, read.replicas[:5]) == ("m1-a", "inference", "file:")
    assert yaml.safe_load(plan.files[read.config_file])["kind"] == "EndpointPickerConfig"
    assert yaml.safe_load(plan.files[read.objectives_file]) == {"objectives": [{"name": "m1-a-batch", "priority": -3}]}
    assert listed(plan) == ["m1-a-0", "m1-a-1", "m1-a-2"]


def test_the_stand_in_is_named() -> None:
    graph = graph_of({}, {"picker": {"profile": "gaie-1.5", "metrics_auth": True}, "monitoring": True})
    found = {item.what: item.reason for item in unrealized(graph, Objects.of_graph(graph))}
    assert "stands in" in found["Deployment of upstream's picker"]
    assert "this kind is not realized" not in found.values()


def test_a_picker_that_reads_the_api_gets_the_replicas_as_a_file(planned: PlanOf) -> None:
    plan = planned({}, {"picker": {"image": "penstock/services:0.1.0", "discovery": "kubernetes"}})
    (piece,) = of_kind(plan, "picker")
    assert not any(arg == "--replicas=kubernetes" for arg in piece.command)
    assert listed(plan) == ["m1-a-0", "m1-a-1", "m1-a-2"]
    assert not piece.stands_in
