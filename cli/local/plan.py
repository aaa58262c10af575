"""From the recorded graph of an environment to everything that runs on this machine for it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from cli.graph.model import Graph
from cli.local.bypass import absent_module
from cli.local.coverage import unrealized
from cli.local.engines import ENGINES
from cli.local.gateway import TrafficBuilder, pool_replicas
from cli.local.management import localized
from cli.local.model import LOOPBACK, Piece, Plan, PlanError
from cli.local.objects import WORKLOADS, Object, Objects
from cli.local.pods import Workshop, pieces_of
from cli.local.ports import PortAllocator
from cli.local.secrets import LocalSecrets

SECRETS = "secrets.json"
"""File of made-up Secrets in an environment's folder."""
_SOURCE_FLAG = "--replicas="


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line chooses. `port` None takes a free one; `replicas` None takes what is declared."""

    root: Path
    state_dir: Path
    port: int | None = None
    replicas: int | None = None
    engine: str = "simulator"
    python: str = sys.executable


def make_plan(graph: Graph, options: Options, ports: PortAllocator, environ: Mapping[str, str]) -> Plan:
    """Return the plan for `graph`. Raises `PlanError` with every problem found."""
    declared = Objects.of_graph(graph)
    secrets = LocalSecrets(options.state_dir / SECRETS)
    # The gateway's own port is taken first: it is the one that people remember.
    port = options.port or ports.take()
    local = localized(declared, options.state_dir, ports, secrets, environ.get("PATH"), port)
    objects = local.objects
    shop = Workshop(
        objects=objects,
        secrets=secrets,
        root=options.root,
        state_dir=options.state_dir,
        python=options.python,
        engine=ENGINES[options.engine],
        ports=ports,
        replicas=options.replicas,
        environ=environ,
    )
    admin_port = ports.take()
    pieces, problems = _pieces(shop)
    try:
        traffic = TrafficBuilder(objects, pieces, ports, port).build()
    except PlanError as error:
        # A pod that cannot run explains the Services and pools that miss it.
        raise PlanError(problems or error.problems) from error
    if problems:
        raise PlanError(problems)
    pieces = [_with_objectives(shop, _with_replicas(shop, pieces, piece)) for piece in (*local.pieces, *pieces)]
    return Plan(
        environment=graph.environment,
        pieces=tuple(pieces),
        traffic=traffic,
        files={**shop.files, **local.files},
        folders=tuple(shop.folders),
        warnings=(*unrealized(graph, declared), *local.notes),
        admin_port=admin_port,
    )


def _pieces(shop: Workshop) -> tuple[list[Piece], list[str]]:
    pieces: list[Piece] = []
    problems: list[str] = []
    declared = (item for kind in WORKLOADS for item in shop.objects.of(kind))
    for workload in (item for item in declared if not absent_module(item)):
        try:
            pieces += pieces_of(shop, workload)
        except PlanError as error:
            problems += error.problems
    order = ("callout", "store", "picker", "replica", "envoy")
    return sorted(pieces, key=lambda piece: order.index(piece.kind)), problems


def _with_replicas(shop: Workshop, pieces: list[Piece], picker: Piece) -> Piece:
    """Point a picker's `--replicas=` at a file with the replicas of the pools that name it."""
    if picker.kind != "picker" or not any(arg.startswith(_SOURCE_FLAG) for arg in picker.command):
        return picker
    path = shop.state_dir / "mounts" / picker.name / "replicas.yaml"
    listed = [
        {"name": piece.name, "address": LOOPBACK, "port": piece.ports[int(target["number"])]}
        for pool in _pools_of(shop.objects, picker)
        for piece in pool_replicas(shop.objects, pieces, pool)
        for target in pool.spec["targetPorts"]
    ]
    shop.files[path] = yaml.safe_dump({"replicas": listed}, sort_keys=False)
    command = [f"{_SOURCE_FLAG}file:{path}" if arg.startswith(_SOURCE_FLAG) else arg for arg in picker.command]
    return replace(picker, command=tuple(command))


def _with_objectives(shop: Workshop, picker: Piece) -> Piece:
    """Give a picker that reads InferenceObjectives from the API server a file with those of its pools."""
    if not picker.stands_in:
        return picker
    pools = {(pool.namespace, pool.name) for pool in _pools_of(shop.objects, picker)}
    found = [
        {"name": item.name, "priority": item.spec.get("priority", 0)}
        for item in shop.objects.of("InferenceObjective")
        if (item.namespace, (item.spec.get("poolRef") or {}).get("name")) in pools
    ]
    path = shop.state_dir / "mounts" / picker.name / "objectives.yaml"
    shop.files[path] = yaml.safe_dump({"objectives": found}, sort_keys=False)
    return replace(picker, command=(*picker.command, f"--objectives-file={path}"))


def _pools_of(objects: Objects, picker: Piece) -> list[Object]:
    found: list[Object] = []
    for pool in objects.of("InferencePool"):
        name = (pool.spec.get("endpointPickerRef") or {}).get("name", "")
        service = objects.get("Service", pool.namespace, name)
        selector = (service.spec.get("selector") or {}) if service else {}
        if picker.workload in {workload.key for workload in objects.workloads(pool.namespace, selector)}:
            found.append(pool)
    return found
