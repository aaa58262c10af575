"""Replicas and objectives from the Kubernetes API: `--replicas kubernetes`.

The InferencePool says which Pods (`selector`) and ports (`targetPorts`) are replicas; a Pod counts while it is ready,
has an address and is not being deleted. InferenceObjectives of the pool say what requests are worth. All are watched;
while the API server is away, the last view stays in use.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from services.extproc.config import ConfigError, Problem
from services.kube.collection import Collection
from services.kube.credentials import Credentials, CredentialsError, from_kubeconfig, in_cluster
from services.picker import observe
from services.picker.objectives import DEFAULT_PRIORITY
from services.picker.pool import Address
from services.picker.sources import DnsSource, FileSource, Source

POOL_GROUP = "inference.networking.k8s.io"
POOLS = f"/apis/{POOL_GROUP}/v1/namespaces/{{}}/inferencepools"
"""InferencePool v1. Source: Gateway API Inference Extension v1.5."""

OBJECTIVES = (
    "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/{}/inferenceobjectives",
    "/apis/llm-d.ai/v1alpha2/namespaces/{}/inferenceobjectives",
)
"""InferenceObjective v1alpha2: until Gateway API Inference Extension v1.5, and since llm-d-router v0.9. An objective
that is in both is worth what the second says."""

PODS = "/api/v1/namespaces/{}/pods"

MAX_ENDPOINTS = 10_000
"""Most endpoints of a pool: more than one picker is made for, and a wrong selector should not fill the memory."""

logger = logging.getLogger("penstock.picker")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What is needed of an InferencePool."""

    selector: Mapping[str, str]
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Objective:
    """What is needed of an InferenceObjective: the pool it is for, and its priority."""

    pool: str
    priority: int


def pool_spec(item: Mapping[str, Any]) -> PoolSpec:
    """Read an InferencePool. Raises KeyError, TypeError or ValueError if it is none."""
    spec = item["spec"]
    return PoolSpec(dict(spec["selector"]["matchLabels"]), tuple(int(port["number"]) for port in spec["targetPorts"]))


def pod_host(item: Mapping[str, Any]) -> str:
    """Return the address of a Pod that can take requests; empty for one that cannot."""
    status = item.get("status") or {}
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    leaving = item["metadata"].get("deletionTimestamp") or status.get("phase") in ("Failed", "Succeeded")
    return str(status.get("podIP") or "") if ready and not leaving else ""


def objective(item: Mapping[str, Any]) -> Objective:
    """Read an InferenceObjective."""
    spec = item.get("spec") or {}
    reference = spec.get("poolRef") or {}
    whole = (
        reference.get("group", POOL_GROUP) == POOL_GROUP and reference.get("kind", "InferencePool") == "InferencePool"
    )
    return Objective(reference.get("name", "") if whole else "", int(spec.get("priority") or DEFAULT_PRIORITY))


class KubernetesSource(Source):
    """The replicas of one InferencePool. `start` begins to watch."""

    def __init__(self, credentials: Credentials, pool: str, namespace: str, **options: Any) -> None:
        """`options` go to every `Collection`."""
        self._credentials, self._name, self._namespace, self._options = credentials, pool, namespace, options
        self._news = asyncio.Event()
        self._tasks: dict[Collection[Any], asyncio.Task[None]] = {}
        self._pools = self._collection(POOLS, pool_spec, "inferencepools", name=pool)
        self._objectives = [
            self._collection(path, objective, "inferenceobjectives", optional=True) for path in OBJECTIVES
        ]
        self._pods: Collection[str] | None = None
        """Pods of the selector in use."""
        self._next: Collection[str] | None = None
        """Pods of a selector that changed, until their first list is complete."""
        self._spec: PoolSpec | None = None
        self._watched: Mapping[str, str] | None = None
        self._last: list[Address] | None = None
        self._complaint = ""
        self._lost_at = time.monotonic()

    async def start(self) -> None:
        """Begin to watch."""
        self._run(self._pools)
        for collection in self._objectives:
            self._run(collection)

    async def stop(self) -> None:
        """End all watches."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    async def wait(self) -> None:
        """Return when something changed, or after a second, in which gauges grow old."""
        try:
            async with asyncio.timeout(1.0):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()
        self._show()

    async def read(self) -> Sequence[Address] | None:
        """As `Source.read`: None until pool, pods and objectives were listed once."""
        self._follow_pool()
        if self._next is not None and self._next.synced:
            self._drop(self._pods)
            self._pods, self._next = self._next, None
        if self._spec is None or self._pods is None or not all(c.synced for c in self._objectives):
            return None
        pods = sorted((name, host) for name, host in self._pods.objects.items() if host)
        ports = self._spec.ports
        found = [
            Address(_label(name, rank, ports), host, port) for name, host in pods for rank, port in enumerate(ports)
        ]
        if len(found) > MAX_ENDPOINTS:
            self._complain(f"{len(found)} endpoints: expected at most {MAX_ENDPOINTS}; the rest is left out")
            found = found[:MAX_ENDPOINTS]
        if found == self._last:
            return None
        self._last = found
        return found

    def objectives(self) -> Mapping[str, int]:
        """Return the priorities by objective."""
        return {
            name: item.priority
            for collection in self._objectives
            for name, item in collection.objects.items()
            if item.pool == self._name
        }

    def _follow_pool(self) -> None:
        """Take the pool's spec in; with another selector, list its Pods while the present ones stay in use."""
        spec = self._pools.objects.get(self._name)
        if spec is None or not spec.ports or not spec.selector:
            if self._pools.synced:
                lacks = "does not exist" if spec is None else "lacks a selector or targetPorts"
                self._complain(f"InferencePool {self._namespace}/{self._name} {lacks}; the last one stays in use")
            return
        self._complaint = ""
        self._spec = spec
        if spec.selector != self._watched:
            self._watched = spec.selector
            self._drop(self._next)
            self._next = self._collection(PODS, pod_host, "pods", selector=spec.selector)
            self._run(self._next)

    def _collection(self, path: str, decode: Callable[[Mapping[str, Any]], T], kind: str, **more: Any) -> Collection[T]:
        def restarted(reason: str) -> None:
            observe.WATCH_RESTARTS.labels(kind, reason).inc()

        return Collection(
            self._credentials,
            path.format(self._namespace),
            decode,
            self._news.set,
            on_restart=restarted,
            **more,
            **self._options,
        )

    def _run(self, collection: Collection[Any]) -> None:
        self._tasks[collection] = asyncio.create_task(collection.run())

    def _drop(self, collection: Collection[Any] | None) -> None:
        if collection is not None:
            self._tasks.pop(collection).cancel()

    def _show(self) -> None:
        """Set the gauges: the view grows old from when one of the two watches that it rests on is lost."""
        now = time.monotonic()
        pods = self._pods or self._next
        connected = self._pools.connected and pods is not None and pods.connected
        if connected:
            self._lost_at = now
        observe.CONNECTED.labels(self._name).set(connected)
        observe.VIEW_AGE_S.labels(self._name).set(now - self._lost_at)

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            logger.error(text)


def _label(name: str, rank: int, ports: Sequence[int]) -> str:
    """Name an endpoint: the Pod's name, with the port's position where there are several. As upstream's picker."""
    return name if len(ports) == 1 else f"{name}-rank-{rank}"


def parse_source(text: str, pool: str, namespace: str, kubeconfig: Path | None = None) -> Source:
    """Return the source that `--replicas` names: `kubernetes`, `dns:HOST:PORT` or `file:PATH`. Raises ConfigError."""
    kind, _, rest = text.partition(":")
    host, _, port = rest.rpartition(":")
    if text == "kubernetes":
        try:
            return KubernetesSource(from_kubeconfig(kubeconfig) if kubeconfig else in_cluster(), pool, namespace)
        except CredentialsError as error:
            problem = Problem("--replicas", text, str(error), "or choose dns:HOST:PORT")
            raise ConfigError("flags", [problem]) from None
    if kind == "file" and rest:
        return FileSource(Path(rest))
    if kind == "dns" and host and port.isascii() and port.isdigit() and 1 <= int(port) <= 65_535:
        return DnsSource(host, int(port))
    expected, fix = "expected kubernetes, dns:HOST:PORT or file:PATH", "for example dns:my-pool-replicas:8000"
    raise ConfigError("flags", [Problem("--replicas", text, expected, fix)])
