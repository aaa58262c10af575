"""API management on this machine: Penstock's own stands in for Apigee, and a server of here for the declared store.

Objects are rewritten before a plan is made of them; what is declared stays as it is for the report of what has no
effect here.
"""

import copy
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cli.local.model import LOOPBACK, Check, Piece, Unrealized
from cli.local.objects import Object, Objects
from cli.local.ports import PortAllocator
from cli.local.secrets import LocalSecrets

MODULE = "services.apimgmt"
GUARDRAILS = "services.guardrails"

ADMIN_PORT = 9010
ADMIN_TOKEN = "PENSTOCK_ADMIN_TOKEN"  # noqa: S105 - a variable's name

_NAME = "api-management"
_PORTS = {"grpc": 9006, "health": 9007, "metrics": 9090, "admin": ADMIN_PORT}
"""As the component `ApiManagement` declares them."""
_DATA, _CONFIG = "/var/lib/penstock", "/etc/penstock/config"
_SERVERS = ("valkey-server", "redis-server")
_STORE = f"{_NAME}-store"
_SECRET = (_STORE, "password")
_UNITS = {"minute": "minute", "hour": "hour", "day": "day", "month": "month"}
"""Apigee's `timeUnit` -> window of a limit."""


def claim_folder(state_dir: Path, claim: str) -> Path:
    """Return the folder of a claimed volume: it outlives the run, and is shared by all pods that claim it."""
    return state_dir / "volumes" / claim


@dataclass(frozen=True, slots=True)
class Localized:
    """Objects to plan from, pieces beside them, and what is not as declared."""

    objects: Objects
    pieces: tuple[Piece, ...]
    files: Mapping[Path, str]
    notes: tuple[Unrealized, ...]


def localized(
    objects: Objects, state_dir: Path, ports: PortAllocator, secrets: LocalSecrets, path: str | None, port: int
) -> Localized:
    """Return what stands for API management here.

    `path` is where executables are looked for, `port` that of the gateway, which the portal shows.
    """
    notes: list[Unrealized] = []
    raws = [copy.deepcopy(dict(item.raw)) for item in objects]
    for backend in objects.of("ApigeeBackendService"):
        raws = [*(_redirected(raw, backend) for raw in raws), *_stand_in(objects, backend)]
        reason = (
            f"Penstock's API management stands in for it, with the {len(objects.of('APIProduct'))} declared products"
        )
        notes.append(Unrealized("Apigee", reason, (backend.name,)))
    server = next((found for name in _SERVERS if (found := shutil.which(name, path=path))), None)
    pieces: list[Piece] = []
    files: dict[Path, str] = {}
    for workload in [raw for raw in raws if raw["kind"] == "Deployment" and _runs(raw, MODULE)]:
        config_map = _config_map(raws, workload)
        settings = yaml.safe_load(config_map["data"]["config.yaml"])
        if settings["store"]["kind"] == "valkey":
            if server and not pieces:
                piece, config = _server(server, state_dir, ports, secrets)
                pieces.append(piece)
                files.update(config)
            settings["store"] = _store(workload, pieces)
            stands = f"{Path(server).name} of this machine stands in for it" if server else "SQLite stands in for it"
            notes.append(Unrealized("the store of API management", stands, (workload["metadata"]["name"],)))
        if settings["store"]["kind"] == "sqlite":
            settings["store"]["path"] = str(_moved(settings["store"]["path"], workload, state_dir))
        settings["portal"] = {**settings.get("portal", {}), "endpoint": f"http://{LOOPBACK}:{port}"}
        config_map["data"]["config.yaml"] = yaml.safe_dump(settings, sort_keys=False)
    return Localized(Objects(raws), tuple(pieces), files, tuple(notes))


def declared_apps(piece: Piece) -> list[dict[str, Any]]:
    """Return the apps in the configuration that API management was started with, in the order of declaration."""
    flag = "--config-file="
    file = next(word.removeprefix(flag) for word in piece.command if word.startswith(flag))
    found: list[dict[str, Any]] = yaml.safe_load(Path(file).read_text()).get("apps") or []
    return found


def _runs(raw: Mapping[str, Any], module: str) -> bool:
    command = _container(raw).get("command") or []
    return [str(word) for word in command[1:3]] == ["-m", module]


def _container(raw: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = raw["spec"]["template"]["spec"]["containers"][0]
    return found


def _config_map(raws: list[dict[str, Any]], workload: Mapping[str, Any]) -> dict[str, Any]:
    metadata = workload["metadata"]
    wanted = ("ConfigMap", metadata.get("namespace"), metadata["name"])
    return next(r for r in raws if (r["kind"], r["metadata"].get("namespace"), r["metadata"]["name"]) == wanted)


def _server(
    executable: str, state_dir: Path, ports: PortAllocator, secrets: LocalSecrets
) -> tuple[Piece, dict[Path, str]]:
    """Return the piece that runs the server, and its configuration: the password is on no command line."""
    port, folder = ports.take(), claim_folder(state_dir, _STORE)
    file = state_dir / "mounts" / _STORE / "server.conf"
    lines = (
        f"bind {LOOPBACK}",
        f"port {port}",
        f'dir "{folder}"',
        "appendonly yes",
        'save ""',
        "maxmemory-policy noeviction",
        f"requirepass {secrets.get(*_SECRET)}",
    )
    piece = Piece(
        name=_STORE,
        kind="store",
        command=(executable, str(file)),
        env={"PENSTOCK_STORE_PASSWORD": secrets.get(*_SECRET)},
        port=port,
        check=Check("tcp", port),
    )
    return piece, {file: "\n".join(lines) + "\n", folder / ".keep": ""}


def _store(workload: Mapping[str, Any], servers: list[Piece]) -> dict[str, Any]:
    """Point a workload to the server, or else to a file; return the section of its configuration."""
    container, pod = _container(workload), workload["spec"]["template"]["spec"]
    variables = ("PENSTOCK_STORE_ADDRESS", "PENSTOCK_STORE_PASSWORD")
    container["env"] = [entry for entry in container.get("env") or [] if entry["name"] not in variables]
    if servers:
        reference = {"secretKeyRef": {"name": _SECRET[0], "key": _SECRET[1]}}
        container["env"] += [
            {"name": variables[0], "value": servers[0].address},
            {"name": variables[1], "valueFrom": reference},
        ]
        return {"kind": "valkey", "auth": "password", "tls": False}
    container["volumeMounts"] = [*container.get("volumeMounts", []), {"name": "data", "mountPath": _DATA}]
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": f"{_NAME}-data"}}
    pod["volumes"] = [*pod.get("volumes", []), claim]
    return {"kind": "sqlite", "path": f"{_DATA}/{_NAME}.db"}


def _moved(path: str, workload: Mapping[str, Any], state_dir: Path) -> Path:
    """Return where a file in a claimed volume is here: what stands in a file is not moved with the mounts."""
    volumes = {volume["name"]: volume for volume in workload["spec"]["template"]["spec"].get("volumes") or []}
    for mount in _container(workload).get("volumeMounts") or []:
        claim = volumes.get(mount["name"], {}).get("persistentVolumeClaim")
        if claim and path.startswith(mount["mountPath"] + "/"):
            return claim_folder(state_dir, claim["claimName"]) / path[len(mount["mountPath"]) + 1 :]
    return claim_folder(state_dir, _NAME) / Path(path).name


def _redirected(raw: dict[str, Any], backend: Object) -> dict[str, Any]:
    """Let extensions that call Apigee's backend call the Service that stands in for it."""
    for chain in raw.get("spec", {}).get("extensionChains") or []:
        for entry in chain.get("extensions") or []:
            ref = entry.get("backendRef") or {}
            if (ref.get("kind"), ref.get("name")) == (backend.kind, backend.name):
                entry["backendRef"] = {"kind": "Service", "name": backend.name, "port": _PORTS["grpc"]}
                entry.setdefault("authority", f"{backend.name}.{backend.namespace}")
    return raw


def _stand_in(objects: Objects, backend: Object) -> Iterator[dict[str, Any]]:
    """Yield the objects of a workload that does what the declared products ask of Apigee."""
    metadata = {"name": backend.name, "namespace": backend.namespace}
    labels = {"app.kubernetes.io/name": backend.name, "penstock.dev/role": "callout"}
    config = {"store": {"kind": "sqlite", "path": f"{_DATA}/{_NAME}.db"}, **_products(objects)}
    yield {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"config.yaml": yaml.safe_dump(config, sort_keys=False)},
    }
    ports: list[dict[str, Any]] = [{"name": "grpc", "port": _PORTS["grpc"], "appProtocol": "HTTP2"}]
    spec: dict[str, Any] = {"selector": labels, "ports": ports}
    yield {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    pod = {
        "containers": [_stand_in_container()],
        "volumes": [
            {"name": "config", "configMap": {"name": backend.name}},
            {"name": "data", "persistentVolumeClaim": {"claimName": f"{backend.name}-data"}},
        ],
    }
    spec = {"replicas": 1, "template": {"metadata": {"labels": labels}, "spec": pod}}
    yield {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def _stand_in_container() -> dict[str, Any]:
    flags = [f"--{name}-port={port}" for name, port in _PORTS.items()]
    secret = {"PENSTOCK_KEY_PEPPER": "pepper", ADMIN_TOKEN: "admin-token"}
    return {
        "name": _NAME,
        "command": ["python", "-m", MODULE],
        "args": [f"--config-file={_CONFIG}/config.yaml", *flags, "--tls-mode=self-signed"],
        "env": [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": _NAME, "key": key}}} for name, key in secret.items()
        ],
        "ports": [{"name": name, "containerPort": port} for name, port in _PORTS.items()],
        "readinessProbe": {"grpc": {"port": _PORTS["health"], "service": "readiness"}},
        "volumeMounts": [{"name": "config", "mountPath": _CONFIG}, {"name": "data", "mountPath": _DATA}],
    }


def _products(objects: Objects) -> dict[str, Any]:
    """Return products and limits by Apigee's kinds APIProduct and APIOperationSet."""
    products: list[dict[str, Any]] = []
    limits: list[dict[str, Any]] = []
    for item in objects.of("APIProduct"):
        attributes = {entry["name"]: entry["value"] for entry in item.spec.get("attributes") or []}
        product: dict[str, Any] = {
            "name": item.name,
            "displayName": item.spec.get("displayName", item.name),
            "approval": item.spec.get("approvalType", "auto"),
            "models": [name for name in attributes.get("models", "*").split(",") if name],
        }
        for operations in _operations(objects, item):
            product.setdefault("operations", []).extend(
                found["path"] for found in operations.spec.get("restOperations") or []
            )
            quota = operations.spec.get("quota")
            if quota:
                name, window = f"{item.name}-quota", _UNITS.get(quota["timeUnit"], "minute")
                limit = {"name": name, "scope": "key", "kind": "requests", "amount": quota["limit"], "window": window}
                limits.append(limit)
                product["limits"] = [name]
        products.append(product)
    return {"products": products, "limits": limits}


def _operations(objects: Objects, product: Object) -> list[Object]:
    return [
        item
        for item in objects.of("APIOperationSet")
        if product.name in [ref.get("name") for ref in item.spec.get("apiProductRefs") or []]
    ]
