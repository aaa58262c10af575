"""Upstream's picker, release 1.5, becomes ready with what `InferencePool` renders for it, on a real API server."""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.arguments import declared
from tests.support.engine.apiserver import ApiServer
from tests.support.engine.build import require
from tests.support.engine.definitions import CRDS
from tests.support.engine.processes import start
from tests.support.envoy import free_port

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not CRDS.is_dir(), reason="schemas of third parties are kept beside the repository, not in it"),
]

NAMESPACE = "upstream-picker"
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture(scope="module")
def objects(api_server: ApiServer) -> list[dict[str, Any]]:
    """What the component declares; everything but the InferencePool itself is applied."""
    picker = {"profile": "gaie-1.5", "log_level": "debug"}
    objectives = [{"name": "interactive", "priority": 10}, {"name": "batch", "priority": -1}]
    api = {"objective_api": "gaie-1.5"}
    graph = declared("InferencePool", namespace=NAMESPACE, picker=picker, objectives=objectives, **api)
    made = list(graph.manifests())
    api_server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for manifest in made:
        if manifest["kind"] != "InferencePool":
            api_server.apply(manifest)
    return made


@pytest.fixture(scope="module")
def picker(
    api_server: ApiServer, objects: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple["subprocess.Popen[bytes]", int, Path]]:
    """The picker's process with the rendered flags, configuration and identity, and its health port."""
    binary, folder = require("epp"), tmp_path_factory.mktemp("picker")
    container = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    for name, text in one(objects, "ConfigMap")["data"].items():
        (folder / name).write_text(text)
    mount = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "config")
    ports = {str(port["containerPort"]): str(free_port()) for port in container["ports"]}
    arguments = [local(argument, ports, mount, folder) for argument in container["args"]]

    account = one(objects, "ServiceAccount")["metadata"]["name"]
    token = api_server.service_account_token(NAMESPACE, account)
    environment = {
        "KUBECONFIG": str(api_server.kubeconfig(folder / "kubeconfig", token, NAMESPACE)),
        "PATH": os.defpath,
        "NAMESPACE": NAMESPACE,
        "POD_NAME": "picker-0",
    }
    health = next(port["containerPort"] for port in container["ports"] if port["name"] == "health")
    log = folder / "picker.log"
    with start([str(binary), *arguments], log, environment, folder) as process:
        yield process, int(ports[str(health)]), log


def local(argument: str, ports: Mapping[str, str], mount: str, folder: Path) -> str:
    """Return an argument with free ports of this machine, and with the folder in which the configuration is."""
    flag, equals, value = argument.partition("=")
    return f"{flag}{equals}{ports.get(value, value).replace(mount, str(folder))}"


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [manifest for manifest in objects if manifest["kind"] == kind]
    return found


def health(port: int, service: str) -> int | None:
    """Return the state of a health service; None while nobody answers, or does not know it."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=2).status)
        except grpc.RpcError:
            return None


def test_it_is_ready_once_it_has_read_its_pool(
    api_server: ApiServer, objects: list[dict[str, Any]], picker: tuple["subprocess.Popen[bytes]", int, Path]
) -> None:
    process, port, log = picker
    container = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    service = container["readinessProbe"]["grpc"]["service"]

    await_state(process, log, lambda: health(port, service) not in (None, SERVING))
    api_server.apply(one(objects, "InferencePool"))
    await_state(process, log, lambda: health(port, service) == SERVING)
    # Roles of the ServiceAccount are enough: nothing that it asked for was refused.
    assert not re.findall(r"forbidden|Failed to watch", log.read_text())


def await_state(process: "subprocess.Popen[bytes]", log: Path, met: Any) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert process.poll() is None, f"the picker ended with {process.returncode}:\n{log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"the picker's state never came:\n{log.read_text()[-3000:]}"
        time.sleep(0.1)
