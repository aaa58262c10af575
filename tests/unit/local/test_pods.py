"""Deployments become processes by the rules of docs/architecture.md."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.graph.model import UNKNOWN
from cli.local.model import Piece, Plan, PlanError
from tests.support.local_manifests import (
    callout,
    chain,
    declaration,
    deployment,
    extension,
    gateway,
    manifest,
    pool,
    replicas,
    route,
)

PlanOf = Callable[..., Plan]


def piece(plan: Plan, name: str) -> Piece:
    return next(item for item in plan.pieces if item.name == name)


def test_callout_gets_local_ports_loopback_address_and_its_mounted_file(plan_of: PlanOf, tmp_path: Path) -> None:
    plan = plan_of(declaration(route(), *callout("guard")))
    guard = piece(plan, "guard")
    mounted = tmp_path / "state" / "mounts" / "guard" / "config" / "config.yaml"
    assert guard.command == (
        "python3", "-m", "services.guard", f"--config-file={mounted}", "--address=127.0.0.1",
        f"--grpc-port={guard.ports[9004]}", f"--health-port={guard.ports[9005]}",
    )  # fmt: skip
    assert plan.files[mounted] == "models: []\n"
    assert (guard.kind, guard.check.kind, guard.check.port, guard.check.target) == (
        "callout", "grpc", guard.ports[9005], "readiness"
    )  # fmt: skip


def test_every_port_is_handed_out_once(plan_of: PlanOf) -> None:
    plan = plan_of(declaration(route(), *callout("guard")))
    taken = [port for item in plan.pieces for port in item.ports.values()]
    taken += [plan.admin_port, *(listener.port for listener in plan.traffic.listeners)]
    assert len(taken) == len(set(taken))


def test_processes_get_consecutive_ports_and_an_endpoint_each(plan_of: PlanOf) -> None:
    plan = plan_of(
        declaration(
            route(), *callout("guard", args=("--processes=3",)), extension("GCPRoutingExtension", "r", chain("guard"))
        )
    )
    guard = piece(plan, "guard")
    cluster = next(item for item in plan.traffic.clusters if item.name == "service/ns/guard:9004")
    assert [end.port - guard.ports[9004] for end in cluster.endpoints] == [0, 1, 2]
    spans = {port + worker for port in guard.ports.values() for worker in range(3)}
    others = {port for item in plan.pieces if item is not guard for port in item.ports.values()}
    assert not spans & others


def test_vllm_becomes_the_simulator_with_the_same_arguments(plan_of: PlanOf) -> None:
    first = piece(plan_of(declaration(route())), "a-0")
    assert first.command == (
        "python3", "-m", "services.modelserver", "org/model", "--served-model-name", "m", "--lora-modules",
        "lora=org/lora", "--host=127.0.0.1", f"--port={first.port}", "--sim-replica-id=a-0",
    )  # fmt: skip
    assert first.models == ("m", "lora")
    assert (first.kind, first.check.kind, first.check.target) == ("replica", "http", "/health")


def test_replicas_overrides_model_replica_sets_only(plan_of: PlanOf) -> None:
    plan = plan_of(declaration(route(), *callout("guard", replicas=2)), replicas=3)
    assert [item.name for item in plan.pieces if item.kind == "replica"] == ["a-0", "a-1", "a-2"]
    assert [item.name for item in plan.pieces if item.kind == "callout"] == ["guard-0", "guard-1"]


def test_picker_reads_the_replicas_of_its_pool_from_a_file(plan_of: PlanOf) -> None:
    plan = plan_of([gateway(), route(), replicas("a"), replicas("b"), *pool("a"), *pool("b")])
    picker = piece(plan, "b-picker")
    (source,) = [arg for arg in picker.command if arg.startswith("--replicas=")]
    text = plan.files[Path(source.removeprefix("--replicas=file:"))]
    assert f"port: {piece(plan, 'b-1').port}" in text
    assert "name: a-0" not in text


def test_processes_do_not_see_the_callers_credentials(plan_of: PlanOf) -> None:
    plan = plan_of(declaration(route()))
    assert all("OPENAI_API_KEY" not in item.env for item in plan.pieces)


def test_settings_of_the_engine_reach_replicas_alone(plan_of: PlanOf) -> None:
    plan = plan_of(declaration(route()), environ={"PENSTOCK_SIM_SEED": "1", "HF_TOKEN": "secret"})
    assert "PENSTOCK_SIM_SEED" in piece(plan, "a-0").env
    assert "PENSTOCK_SIM_SEED" not in piece(plan, "a-picker").env
    assert all("HF_TOKEN" not in item.env for item in plan.pieces)


def test_a_secret_comes_from_the_callers_variable_of_its_name(plan_of: PlanOf) -> None:
    item = replicas("a")
    container = item["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}}]
    manifests = [gateway(), route(), item, *pool("a")]
    assert piece(plan_of(manifests, environ={"HF_TOKEN": "t"}), "a-0").env["HF_TOKEN"] == "t"
    assert "HF_TOKEN" not in piece(plan_of(manifests, environ={"PATH": "/bin"}), "a-0").env


def test_variables_expand_as_in_kubernetes(plan_of: PlanOf) -> None:
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)$$(A)$(NONE)"}]
    container = {
        "command": ["python", "-m", "services.x"],
        "args": ["$(B)"],
        "env": env,
        "ports": [{"containerPort": 1}],
    }
    plan = plan_of(declaration(route(), deployment("x", "callout", container)))
    assert piece(plan, "x").command[-1] == "1$(A)$(NONE)"


def test_what_cannot_run_is_refused_by_name_all_at_once(plan_of: PlanOf) -> None:
    strange = deployment("strange", "callout", {"command": ["/bin/server"], "ports": [{"containerPort": 1}]})
    container = {"command": ["python", "-m", "services.x"], "volumeMounts": [{"name": "c", "mountPath": "/c"}]}
    missing = deployment("missing", "callout", container, volumes=[{"name": "c", "configMap": {"name": "gone"}}])
    with pytest.raises(PlanError) as caught:
        plan_of(declaration(route(), strange, missing))
    assert len(caught.value.problems) == 2
    assert "Deployment ns/strange: cannot run '/bin/server'" in caught.value.problems[0]
    assert "ConfigMap ns/gone is not declared" in caught.value.problems[1]


@pytest.fixture
def vllm(tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "vllm"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_engine_vllm_runs_the_declared_arguments(plan_of: PlanOf, vllm: Path) -> None:
    plan = plan_of(declaration(route()), engine="vllm", environ={"PATH": str(vllm.parent)})
    first = piece(plan, "a-0")
    assert first.command[:3] == (str(vllm), "serve", "org/model")
    assert first.command[-2:] == ("--host=127.0.0.1", f"--port={first.port}")


def test_engine_vllm_serves_another_model_under_the_declared_name(plan_of: PlanOf, vllm: Path) -> None:
    environ = {"PENSTOCK_VLLM": str(vllm), "PENSTOCK_VLLM_MODEL": "/tiny", "PATH": "/none"}
    first = piece(plan_of(declaration(route()), engine="vllm", environ=environ), "a-0")
    assert first.command[:5] == (str(vllm), "serve", "/tiny", "--served-model-name", "m")


def test_engine_vllm_without_vllm_tells_the_fix(plan_of: PlanOf) -> None:
    with pytest.raises(PlanError, match=r"\$PENSTOCK_VLLM"):
        plan_of(declaration(route()), engine="vllm", environ={"PATH": "/nowhere"})


def test_unknown_values_and_duplicates_are_refused(plan_of: PlanOf) -> None:
    twice = [manifest("Service", "s", spec={"x": UNKNOWN}), manifest("Service", "s", spec={})]
    with pytest.raises(PlanError) as caught:
        plan_of(declaration(route(), *twice))
    assert caught.value.problems == [
        "Service ns/s: spec.x is not known before an update",
        "Service ns/s is declared twice; give one of them another name",
    ]
