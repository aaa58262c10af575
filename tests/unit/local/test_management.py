"""What stands for API management on one machine: for Apigee, for its store, for its Secrets."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.local.model import Piece, Plan
from cli.local.plan import SECRETS, Options, make_plan
from cli.local.ports import PortAllocator
from cli.local.secrets import LocalSecrets
from services.apimgmt.settings import Settings, SqliteStore, ValkeyStore
from services.extproc.config import parse_config
from tests.support.recordings import recorded

pytestmark = pytest.mark.xdist_group("recordings")

ROOT = Path(__file__).resolve().parents[3]
PlanOf = Callable[..., Plan]


@pytest.fixture
def planned(tmp_path: Path, ports: PortAllocator) -> PlanOf:
    """Plan an environment; `path` is where executables are found."""

    def make(environment: str, path: str = "/nowhere") -> Plan:
        options = Options(root=ROOT, state_dir=tmp_path / "state", python="python3", replicas=1)
        graph = recorded(environment)
        return make_plan(graph, options, ports, {"PATH": path})

    return make


def managed(plan: Plan) -> list[Piece]:
    return [piece for piece in plan.pieces if "services.apimgmt" in piece.command]


def settings(plan: Plan, piece: Piece) -> Settings:
    (file,) = [word.partition("=")[2] for word in piece.command if word.startswith("--config-file=")]
    return parse_config(plan.files[Path(file)], Settings, file)


def passed_by(plan: Plan) -> dict[str, str]:
    return {item.what: item.reason for item in plan.warnings if item.passed_by}


@pytest.fixture
def servers(tmp_path: Path) -> str:
    """A folder with something that is called redis-server."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "redis-server").write_text("#!/bin/sh\n")
    (folder / "redis-server").chmod(0o755)
    return str(folder)


def test_the_embedded_store_is_in_the_claimed_folder_which_outlives_the_run(planned: PlanOf, tmp_path: Path) -> None:
    plan = planned("local")
    (piece,) = managed(plan)
    store = settings(plan, piece).store
    assert isinstance(store, SqliteStore)
    assert store.path == str(tmp_path / "state" / "volumes" / "api-management-data" / "api-management.db")
    assert piece.ports[9010] > 0


def test_example_people_and_products_of_the_stack_reach_the_service(planned: PlanOf) -> None:
    plan = planned("local")
    declared = settings(plan, managed(plan)[0])
    assert [team.name for team in declared.teams] == ["research", "support"]
    assert declared.products[0].models == ["*"]
    assert {limit.counts.value for limit in declared.limits} == {"requests", "tokens", "concurrent", "cost"}


def test_a_declared_server_store_is_a_server_of_this_machine(planned: PlanOf, servers: str) -> None:
    plan = planned("staging", servers)
    (store,) = [piece for piece in plan.pieces if piece.kind == "store"]
    config = plan.files[Path(store.command[1])]
    assert "bind 127.0.0.1" in config
    for piece in managed(plan):
        assert isinstance(settings(plan, piece).store, ValkeyStore)
        assert piece.env["PENSTOCK_STORE_ADDRESS"] == store.address
        assert f"requirepass {piece.env['PENSTOCK_STORE_PASSWORD']}" in config
    assert store.env["PENSTOCK_STORE_PASSWORD"] not in " ".join(store.command)


def test_without_a_server_its_pods_share_a_file(planned: PlanOf) -> None:
    plan = planned("staging")
    stores = [settings(plan, piece).store for piece in managed(plan)]
    assert len(stores) == 2
    assert len({store.path for store in stores if isinstance(store, SqliteStore)}) == 1
    reasons = [item.reason for item in plan.warnings if item.what == "the store of API management"]
    assert "SQLite stands in for it" in reasons


def test_apigee_is_realized_with_the_declared_products_and_quotas(planned: PlanOf) -> None:
    plan = planned("prod")
    (piece,) = managed(plan)
    config = settings(plan, piece)
    declared = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())["config"]["penstock:apiManagement"]
    assert [product.name for product in config.products] == [item["name"] for item in declared["products"]]
    assert [product.models for product in config.products] == [item["models"] for item in declared["products"]]
    quotas = {limit.amount for limit in config.limits}
    assert quotas == {item["amount"] for item in declared["limits"]}
    assert any(extension.name.endswith("/api-management") for extension in plan.traffic.extensions)
    assert not any("pigee" in what for what in passed_by(plan))


def test_guardrails_that_this_version_lacks_are_passed_by_with_a_warning(planned: PlanOf) -> None:
    plan = planned("dev")
    (piece,) = managed(plan)
    lacks = not (ROOT / "services" / "guardrails").exists()
    assert any(word.startswith("--guardrails-file=") for word in piece.command) != lacks
    assert ("guardrails of api-management" in passed_by(plan)) == lacks


def test_secrets_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "state" / SECRETS
    first = LocalSecrets(path).get("api-management", "pepper")
    assert LocalSecrets(path).get("api-management", "pepper") == first
    assert LocalSecrets(path).get("api-management", "other") != first
    assert len(first) >= 32
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_the_callers_variable_wins_and_replicas_get_nothing_made_up(tmp_path: Path, ports: PortAllocator) -> None:
    options = Options(root=ROOT, state_dir=tmp_path, python="python3", replicas=1)
    environ: dict[str, Any] = {"PATH": "/nowhere", "PENSTOCK_KEY_PEPPER": "p" * 40}
    plan = make_plan(recorded("local"), options, ports, environ)
    assert managed(plan)[0].env["PENSTOCK_KEY_PEPPER"] == "p" * 40
    replicas = [piece for piece in plan.pieces if piece.kind == "replica"]
    assert replicas
    assert not any("TOKEN" in name for piece in replicas for name in piece.env)
