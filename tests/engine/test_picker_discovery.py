"""The picker's process against a real API server with roles enforced: by the token and Role that its pool renders."""

import asyncio
import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import orjson
import pytest
from penstock.manifests import pool as manifests
from prometheus_client import REGISTRY

from services.extproc.proto import ext_proc_pb2 as pb
from services.kube.credentials import in_cluster
from services.picker.discovery import KubernetesSource
from tests.support.engine.apiserver import CRDS, ApiServer, restartable
from tests.support.envoy import free_port
from tests.support.extproc import DUPLEX, NONE, body, headers

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not CRDS.is_dir(), reason="schemas of third parties are kept beside the repository, not in it"),
]

REPOSITORY = Path(__file__).parents[2]
FULL = b"vllm:num_requests_waiting 100\nvllm:num_requests_running 1\nvllm:kv_cache_usage_perc 1.0\n"
"""Metrics of a replica that has no room."""


@dataclass
class Cluster:
    """A namespace with a pool, as its component declares it."""

    server: ApiServer
    namespace: str
    port: int
    args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        picker = {"image": "example/services:1", "discovery": "kubernetes"}
        self.args |= {"name": "m", "namespace": self.namespace, "target_ports": [self.port], "picker": picker}

    def declare(self, *, selector: dict[str, str] | None = None) -> None:
        """Apply the InferencePool and what lets its picker read."""
        if selector:
            self.args["selector"] = selector
        args: Any = self.args
        access = [manifests.picker_objects(args)["account"], *manifests.picker_access(args).values()]
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        for manifest in (namespace, *access, manifests.pool(args)):
            self.server.apply(manifest)

    def pod(self, name: str, host: str, ready: bool = True, **labels: str) -> None:
        """Create a Pod, or change its state."""
        spec = {"containers": [{"name": "engine", "image": "example/engine:1"}], "terminationGracePeriodSeconds": 30}
        labels = labels or manifests.replica_labels(self.args)  # type: ignore[arg-type]
        meta = {"name": name, "namespace": self.namespace, "labels": labels, "finalizers": ["penstock.dev/test"]}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec | {"nodeName": "node"}}
        self.server.apply(manifest)
        conditions = [{"type": "Ready", "status": str(ready)}]
        status = {"phase": "Running", "podIP": host, "podIPs": [{"ip": host}], "conditions": conditions}
        self.server.set_status(manifest, status)

    def delete(self, name: str) -> None:
        """Delete a Pod gracefully: it stays, with a deletionTimestamp."""
        with self.server.client() as client:
            client.delete(f"/api/v1/namespaces/{self.namespace}/pods/{name}").raise_for_status()

    def objective(self, name: str, priority: int, version: str) -> None:
        """Create or change an InferenceObjective of the pool."""
        meta = {"name": name, "namespace": self.namespace}
        spec = {"poolRef": {"name": "m"}, "priority": priority}
        self.server.apply({"apiVersion": version, "kind": "InferenceObjective", "metadata": meta, "spec": spec})


@dataclass
class Picker:
    """A running picker."""

    process: subprocess.Popen[bytes]
    log: Path
    grpc_port: int
    metrics_port: int

    async def metric(self, name: str) -> float | None:
        """Return a metric by its full name with labels."""
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://127.0.0.1:{self.metrics_port}/metrics")).text
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else None

    def endpoints(self) -> set[str]:
        """Return the hosts in the pool, from what the log says came and went."""
        hosts: set[str] = set()
        for line in self.log.read_text().splitlines():
            record = json.loads(line)
            hosts |= {endpoint.rpartition(":")[0] for endpoint in record.get("come", ())}
            hosts -= {endpoint.rpartition(":")[0] for endpoint in record.get("gone", ())}
        return hosts

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = 20) -> float:
        """Wait for a condition; return how long it took, seconds."""
        began = time.monotonic()
        while True:
            with contextlib.suppress(httpx.TransportError):
                found = condition()
                if await found if asyncio.iscoroutine(found) else found:
                    return time.monotonic() - began
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < began + seconds, f"{what}; log:\n{self.log.read_text()[-3000:]}"
            await asyncio.sleep(0.01)

    async def has(self, *hosts: str) -> float:
        """Wait until these are the replicas."""
        return await self.until(lambda: self.endpoints() == set(hosts), f"expected {hosts}, has {self.endpoints()}")

    async def status(self, objective: str = "") -> int:
        """Ask for a pick: 200, or the status of the refusal."""
        fields = {":method": "POST", ":path": "/v1/completions"}
        if objective:
            fields["x-llm-d-inference-objective"] = objective
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            call = channel.stream_stream(
                "/envoy.service.ext_proc.v3.ExternalProcessor/Process",
                request_serializer=pb.ProcessingRequest.SerializeToString,
                response_deserializer=pb.ProcessingResponse.FromString,
            )()
            await call.write(headers("request", fields, modes=(DUPLEX, NONE)))
            await call.write(body("request", orjson.dumps({"prompt": "x"}), last=True))
            answer = await asyncio.wait_for(call.read(), 10)
            await call.done_writing()
        return int(answer.immediate_response.status.code) if answer.HasField("immediate_response") else 200

    async def sheds(self, objective: str) -> bool:
        """Whether requests of an objective are shed."""
        return await self.status(objective) == 429


@contextlib.contextmanager
def running(cluster: Cluster, folder: Path) -> Iterator[Picker]:
    """Run the picker as its Deployment declares it, with its ServiceAccount's token."""
    args: Any = cluster.args
    deployment = manifests.picker_objects(args)["deployment"]
    declared = deployment["spec"]["template"]["spec"]
    assert declared["automountServiceAccountToken"] is True
    pool_flags = [flag for flag in declared["containers"][0]["args"] if flag.startswith(("--pool", "--replicas"))]
    token = cluster.server.service_account_token(cluster.namespace, declared["serviceAccountName"])
    kubeconfig = cluster.server.kubeconfig(folder / "kubeconfig", token, cluster.namespace)
    (folder / "config.yaml").write_text("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n")
    ports = [free_port(), free_port(), free_port()]
    command = [sys.executable, "-m", "services.picker", f"--config-file={folder}/config.yaml", "--tls-mode=off"]
    command += [f"--{name}-port={port}" for name, port in zip(("grpc", "health", "metrics"), ports, strict=True)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, *pool_flags, f"--kubeconfig={kubeconfig}"], cwd=REPOSITORY, stderr=log)
    try:
        yield Picker(process, folder / "log", ports[0], ports[2])
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(15)
        finally:
            process.kill()
    text = (folder / "log").read_text()
    assert code == 0, text
    assert token not in text
    assert "Traceback" not in text


@pytest.fixture
async def replicas() -> AsyncIterator[int]:
    """Metrics of full replicas on 127.0.0.1 to 127.0.0.3; the port of all three."""

    open_: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(FULL), FULL))
        open_.discard(writer)
        writer.close()

    port = free_port()
    servers = [await asyncio.start_server(answer, f"127.0.0.{n}", port) for n in (1, 2, 3)]
    yield port
    for server in servers:
        server.close()
    for writer in list(open_):
        writer.close()
    await asyncio.gather(*[writer.wait_closed() for writer in open_], return_exceptions=True)


async def test_pods_come_and_go(api_server: ApiServer, replicas: int, tmp_path: Path) -> None:
    cluster = Cluster(api_server, "picker-pods", replicas)
    cluster.declare()
    cluster.pod("a", "127.0.0.1")
    cluster.pod("b", "127.0.0.2", ready=False)
    cluster.pod("stranger", "127.0.0.3", ready=True, set="other")
    with running(cluster, tmp_path) as picker:
        await picker.has("127.0.0.1")
        connected = 'penstock_picker_kubernetes_connected{pool="m"}'

        async def is_connected() -> bool:
            return await picker.metric(connected) == 1

        await picker.until(is_connected, "connected")
        cluster.pod("b", "127.0.0.2")
        times = [await picker.has("127.0.0.1", "127.0.0.2")]
        cluster.pod("a", "127.0.0.1", ready=False)
        times.append(await picker.has("127.0.0.2"))
        cluster.pod("a", "127.0.0.1")
        times.append(await picker.has("127.0.0.1", "127.0.0.2"))
        cluster.delete("b")
        times.append(await picker.has("127.0.0.1"))
        print("seconds from change to pool:", [round(taken, 3) for taken in times])
        assert max(times) < 2, f"a change is followed at once: {times}"


async def test_objectives_of_both_groups_change_what_is_shed(
    api_server: ApiServer, replicas: int, tmp_path: Path
) -> None:
    cluster = Cluster(api_server, "picker-objectives", replicas)
    cluster.declare()
    cluster.pod("full", "127.0.0.1")
    old, new = "inference.networking.x-k8s.io/v1alpha2", "llm-d.ai/v1alpha2"
    cluster.objective("batch", -1, old)
    with running(cluster, tmp_path) as picker:
        await picker.has("127.0.0.1")
        await picker.until(lambda: picker.sheds("batch"), "batch is shed by a full pool")
        assert await picker.status() == 200
        cluster.objective("batch", 5, new)

        async def served() -> bool:
            return not await picker.sheds("batch")

        await picker.until(served, "the newer group wins")
        cluster.objective("batch", -3, new)
        await picker.until(lambda: picker.sheds("batch"), "shed again")


async def test_another_selector_swaps_the_replicas(api_server: ApiServer, replicas: int, tmp_path: Path) -> None:
    cluster = Cluster(api_server, "picker-selector", replicas)
    cluster.declare(selector={"color": "blue"})
    cluster.pod("blue", "127.0.0.1", color="blue")
    cluster.pod("green", "127.0.0.2", color="green")
    with running(cluster, tmp_path) as picker:
        await picker.has("127.0.0.1")
        cluster.declare(selector={"color": "green"})
        await picker.has("127.0.0.2")
        came = [json.loads(line) for line in picker.log.read_text().splitlines() if '"come"' in line]
        assert [record["replicas"] for record in came] == [1, 1], "never none in between"


async def test_the_view_is_kept_while_the_api_server_is_stopped(replicas: int, tmp_path: Path) -> None:
    for name in ("server", "picker"):
        (tmp_path / name).mkdir()
    with restartable(tmp_path / "server") as (server, outage):
        cluster = Cluster(server, "default", replicas)
        cluster.declare()
        cluster.pod("a", "127.0.0.1")
        cluster.pod("b", "127.0.0.2")
        connected = 'penstock_picker_kubernetes_connected{pool="m"}'
        with running(cluster, tmp_path / "picker") as picker:
            await picker.has("127.0.0.1", "127.0.0.2")

            async def connection(value: int) -> bool:
                return await picker.metric(connected) == value

            await picker.until(lambda: connection(1), "connected")
            with outage():
                await picker.until(lambda: connection(0), "the loss is noticed")
                assert picker.endpoints() == {"127.0.0.1", "127.0.0.2"}
                assert await picker.status() == 200, "requests are served from the last view"
                age = 'penstock_picker_kubernetes_view_age_seconds{pool="m"}'

                async def aged() -> bool:
                    return (await picker.metric(age) or 0) > 1

                await picker.until(aged, "the view grows old")
            await asyncio.to_thread(cluster.pod, "b", "127.0.0.2", False)
            await picker.has("127.0.0.1")
            await picker.until(lambda: connection(1), "connected again", 30)


async def test_a_pods_own_credentials_and_a_token_that_is_replaced(api_server: ApiServer, tmp_path: Path) -> None:
    cluster = Cluster(api_server, "picker-token", 8000)
    cluster.declare(selector={"color": "red"})
    cluster.pod("red", "10.0.0.7", color="red")
    host, _, port = api_server.url.removeprefix("https://").rpartition(":")
    shutil.copy(api_server.ca, tmp_path / "ca.crt")
    (tmp_path / "token").write_text("expired")
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    source = KubernetesSource(in_cluster(tmp_path, environ), "m", "picker-token", backoff_s=(0.05, 0.1))
    refused = {"resource": "inferencepools", "reason": "refused"}

    def refusals() -> float:
        return REGISTRY.get_sample_value("penstock_picker_watch_restarts_total", refused) or 0.0

    before = refusals()
    await source.start()
    try:
        async with asyncio.timeout(20):
            while refusals() == before:
                assert await source.read() is None, "nobody is known by that token"
                await source.wait()
            account = manifests.picker_objects(cluster.args)["account"]  # type: ignore[arg-type]
            (tmp_path / "new").write_text(api_server.service_account_token("picker-token", account["metadata"]["name"]))
            (tmp_path / "new").replace(tmp_path / "token")
            while (found := await source.read()) is None:
                await source.wait()
        assert [address.endpoint for address in found] == ["10.0.0.7:8000"]
    finally:
        await source.stop()
