"""From a Deployment or LeaderWorkerSet to local processes: arguments, environment, mounted files, ports and readiness.

The rules are those of docs/architecture.md, "What `penstock local` does to a pod".
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.local.bypass import without_absent
from cli.local.engines import Engine, is_model_server, model_names
from cli.local.management import claim_folder
from cli.local.model import LOOPBACK, Check, Kind, Piece, PlanError
from cli.local.objects import ROLE_LABEL, Object, Objects
from cli.local.ports import PortAllocator
from cli.local.secrets import LocalSecrets
from cli.local.stand_in import alone, group_variables, is_upstream_picker, picker_command

_PORT_FLAG = re.compile(r"--(?:[a-z0-9-]+-)?port")
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
"""`$(NAME)`, with `$$` as the escape. Source: Kubernetes API, Container.args."""

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE")
"""What a process gets of the caller's environment: nothing that could be a credential."""

_CLAIM = "persistentVolumeClaim"
_SOURCES_OF_FILES = ("configMap", "emptyDir", _CLAIM)


@dataclass(kw_only=True)
class Workshop:
    """What is needed to turn pods into processes; collects the files and folders that they mount."""

    objects: Objects
    root: Path
    """Folder that `services` is imported from."""
    state_dir: Path
    python: str
    engine: Engine
    ports: PortAllocator
    secrets: LocalSecrets
    replicas: int | None = None
    """Overrides the replica count of model replica sets."""
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    files: dict[Path, str] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)


def pieces_of(shop: Workshop, workload: Object) -> list[Piece]:
    """Return one piece per replica of `workload`. Raises `PlanError` for a pod that cannot run here."""
    container = _container(workload)
    kind = _kind(workload, container)
    count = shop.objects.replica_count(workload)
    if kind == "replica" and shop.replicas is not None:
        count = shop.replicas
    single = count == 1 and kind != "replica"
    names = [workload.name] if single else [f"{workload.name}-{index}" for index in range(count)]
    return [_piece(shop, workload, container, kind, name) for name in names]


def _container(workload: Object) -> Mapping[str, Any]:
    containers = (workload.pod_template.get("spec") or {}).get("containers") or []
    if not containers:
        raise PlanError([f"{workload}: spec.template.spec.containers is empty; a pod needs a container"])
    first: Mapping[str, Any] = containers[0]
    return first


def _kind(workload: Object, container: Mapping[str, Any]) -> Kind:
    role = workload.pod_labels.get(ROLE_LABEL) or workload.labels.get(ROLE_LABEL)
    if role == "replica" or (role is None and is_model_server(_argv(container))):
        return "replica"
    return "picker" if role == "picker" else "callout"


def _argv(container: Mapping[str, Any]) -> list[str]:
    return [*(container.get("command") or []), *(container.get("args") or [])]


def _piece(shop: Workshop, workload: Object, container: Mapping[str, Any], kind: Kind, name: str) -> Piece:
    mounts = _mounts(shop, workload, container, name)
    env = _environment(shop, workload, container, kind, name, mounts)
    env = {**group_variables(workload), **env}
    argv = [_relocate(_expand(arg, env), mounts) for arg in _argv(container)]
    argv, env = alone(workload, argv, env)
    processes = int(flag_value(argv, "--processes") or 1)
    ports = {port: shop.ports.take(processes) for port in _container_ports(container)}
    argv = without_absent(_localize_ports(argv, ports))
    models: tuple[str, ...] = ()
    stands_in = kind == "picker" and is_upstream_picker(argv)
    if stands_in:
        argv = picker_command(shop.python, argv)
    elif kind == "replica":
        models = model_names(argv)
        argv = shop.engine.command(shop, workload, argv, name, next(iter(ports.values()), 0))
    elif argv[:2] in (["python", "-m"], ["python3", "-m"]):
        argv[0] = shop.python
    else:
        raise PlanError(
            [f"{workload}: cannot run {' '.join(argv[:3]) or 'the image of its entrypoint'!r} on this machine; it runs "
             "`python -m services.<name>` and `vllm serve`"]
        )  # fmt: skip
    check = _check(workload, container, ports)
    return Piece(
        name=name,
        kind=kind,
        command=tuple(argv),
        env={**_inherited(shop, kind), "PYTHONUNBUFFERED": "1", **env},
        port=next(iter(ports.values()), check.port),
        check=check,
        ports=ports,
        processes=processes,
        workload=workload.key,
        models=models,
        stands_in=stands_in,
    )


def _inherited(shop: Workshop, kind: Kind) -> dict[str, str]:
    """A replica also gets the settings of its engine."""
    prefixes = shop.engine.variables if kind == "replica" else ()
    return {key: value for key, value in shop.environ.items() if key in _INHERITED or key.startswith(prefixes)}


def _container_ports(container: Mapping[str, Any]) -> list[int]:
    ports = [int(port["containerPort"]) for port in container.get("ports") or []]
    if not ports and is_model_server(_argv(container)):
        ports = [int(flag_value(_argv(container), "--port") or 8000)]
    return ports


def _environment(
    shop: Workshop, workload: Object, container: Mapping[str, Any], kind: Kind, name: str, mounts: Mapping[str, Path]
) -> dict[str, str]:
    """Return the declared environment.

    What comes from a Secret is the caller's variable of that name; else, of a callout, a value made here.
    """
    fields = {
        "status.podIP": LOOPBACK,
        "status.hostIP": LOOPBACK,
        "metadata.name": name,
        "metadata.namespace": workload.namespace,
        "spec.nodeName": "localhost",
    }
    env: dict[str, str] = {}
    for entry in container.get("env") or []:
        source = entry.get("valueFrom") or {}
        value = entry.get("value", "")
        if "fieldRef" in source:
            value = fields.get(source["fieldRef"]["fieldPath"], "")
        elif "configMapKeyRef" in source:
            value = _config_map(shop, workload, source["configMapKeyRef"]["name"]).get(
                source["configMapKeyRef"]["key"], ""
            )
        elif source:
            made = _made(shop, source, kind)
            if entry["name"] not in shop.environ and made is None:
                continue
            value = shop.environ.get(entry["name"], made)
        env[entry["name"]] = _relocate(_expand(str(value), env), mounts)
    return env


def _made(shop: Workshop, source: Mapping[str, Any], kind: Kind) -> str | None:
    """Return a value for a Secret of a callout; those of replicas open doors elsewhere, and cannot be made up."""
    reference = source.get("secretKeyRef")
    return shop.secrets.get(reference["name"], reference["key"]) if reference and kind == "callout" else None


def _expand(text: str, env: Mapping[str, str]) -> str:
    """Expand `$(NAME)`; an unknown name stays as it is, as in Kubernetes."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        return "$" if name is None else env.get(name, match.group(0))

    return _REFERENCE.sub(replace, text)


def _config_map(shop: Workshop, workload: Object, name: str) -> Mapping[str, str]:
    found = shop.objects.get("ConfigMap", workload.namespace, name)
    if found is None:
        raise PlanError([f"{workload}: ConfigMap {workload.namespace}/{name} is not declared; declare it"])
    data: Mapping[str, str] = found.raw.get("data") or {}
    return data


def _mounts(shop: Workshop, workload: Object, container: Mapping[str, Any], name: str) -> dict[str, Path]:
    """Return the local path of each `mountPath`, and note the files to write."""
    volumes = {volume["name"]: volume for volume in (workload.pod_template.get("spec") or {}).get("volumes") or []}
    mounts: dict[str, Path] = {}
    for mount in container.get("volumeMounts") or []:
        volume = volumes.get(mount["name"], {})
        if not any(source in volume for source in _SOURCES_OF_FILES):
            continue
        folder = shop.state_dir / "mounts" / name / mount["name"]
        if _CLAIM in volume:
            folder = claim_folder(shop.state_dir, volume[_CLAIM]["claimName"])
        if folder not in shop.folders:
            shop.folders.append(folder)
        if "configMap" in volume:
            for path, text in _files(_config_map(shop, workload, volume["configMap"]["name"]), volume["configMap"]):
                shop.files[folder / path] = text
        mounts[mount["mountPath"].rstrip("/")] = folder / mount["subPath"] if "subPath" in mount else folder
    return mounts


def _files(data: Mapping[str, str], source: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    items = source.get("items")
    if items is None:
        yield from data.items()
        return
    for item in items:
        yield item["path"], data[item["key"]]


def _relocate(text: str, mounts: Mapping[str, Path]) -> str:
    """Point a value, or the value behind `--flag=`, that begins with a mount path to the local folder."""
    flag, equals, value = text.partition("=") if text.startswith("-") else ("", "", text)
    prefix, colon, rest = value.partition(":")
    for mount_path in sorted(mounts, key=len, reverse=True):
        for lead, path in (("", value), (prefix + colon, rest)):
            if path == mount_path or path.startswith(mount_path + "/"):
                return f"{flag}{equals}{lead}{mounts[mount_path]}{path[len(mount_path) :]}"
    return text


def _localize_ports(argv: Sequence[str], ports: Mapping[int, int]) -> list[str]:
    """Replace N by the local port in `--<x>port=N` and `--<x>port N` where N is a declared container port."""
    result: list[str] = []
    for arg in argv:
        flag, equals, value = arg.partition("=")
        if equals and _PORT_FLAG.fullmatch(flag) and value.isdigit():
            arg = f"{flag}={ports.get(int(value), value)}"
        elif result and _PORT_FLAG.fullmatch(result[-1]) and arg.isdigit():
            arg = str(ports.get(int(arg), arg))
        result.append(arg)
    return result


def flag_value(argv: Sequence[str], flag: str) -> str | None:
    """Return the value of `flag` in `--flag=value` or `--flag value` form; the last one wins."""
    value = None
    for index, arg in enumerate(argv):
        if arg.startswith(flag + "="):
            value = arg[len(flag) + 1 :]
        elif arg == flag and index + 1 < len(argv):
            value = argv[index + 1]
    return value


def _check(workload: Object, container: Mapping[str, Any], ports: Mapping[int, int]) -> Check:
    """Return the readiness check that the container's probe declares; without one, its first port must open."""
    probe = container.get("readinessProbe") or container.get("startupProbe") or {}
    if "grpc" in probe:
        return Check(
            "grpc", _local(workload, container, probe["grpc"]["port"], ports), probe["grpc"].get("service", "")
        )
    if "httpGet" in probe:
        get = probe["httpGet"]
        return Check("http", _local(workload, container, get["port"], ports), get.get("path", "/"))
    if "tcpSocket" in probe:
        return Check("tcp", _local(workload, container, probe["tcpSocket"]["port"], ports))
    if not ports:
        raise PlanError([f"{workload}: neither a readinessProbe nor a port says when it is ready; declare a probe"])
    return Check("tcp", next(iter(ports.values())))


def _local(workload: Object, container: Mapping[str, Any], port: int | str, ports: Mapping[int, int]) -> int:
    """Return the local port for a probe's port, by number or by name."""
    for declared in container.get("ports") or []:
        if port in (declared["containerPort"], declared.get("name")):
            return ports[int(declared["containerPort"])]
    if isinstance(port, int) and port in ports:
        return ports[port]
    raise PlanError([f"{workload}: the probe's port {port!r} is not among the container's ports; declare it there"])
