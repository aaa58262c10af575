"""Replicas and objectives of a pool from a scripted API server."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.picker.discovery import (
    KubernetesSource,
    Objective,
    PoolSpec,
    objective,
    pod_host,
    pool_spec,
)
from services.picker.pool import Address
from tests.unit.kube.fake import Answer, FakeApi, Listing, Watching, event, fake_api, item

POOLS = "/apis/inference.networking.k8s.io/v1/namespaces/ns/inferencepools"
PODS = "/api/v1/namespaces/ns/pods"
OLD = "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/ns/inferenceobjectives"
NEW = "/apis/llm-d.ai/v1alpha2/namespaces/ns/inferenceobjectives"


def pool(version: int = 1, ports: tuple[int, ...] = (8000,), **labels: str) -> dict[str, Any]:
    spec = {"selector": {"matchLabels": labels or {"set": "a"}}, "targetPorts": [{"number": port} for port in ports]}
    return item("pool", version, spec=spec)


def pod(
    name: str, host: str | None = "10.0.0.1", version: int = 1, ready: str = "True", **metadata: str
) -> dict[str, Any]:
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": ready}]
    made = item(name, version, status={"phase": "Running", "podIP": host, "conditions": conditions})
    made["metadata"] |= metadata
    return made


def changed(made: Mapping[str, Any], kind: str = "MODIFIED") -> bytes:
    rest = {key: value for key, value in made.items() if key != "metadata"}
    line = event(kind, made["metadata"]["name"], made["metadata"]["resourceVersion"], **rest)
    stamp = made["metadata"].get("deletionTimestamp")
    return (
        line if not stamp else line.replace(b'"metadata":{', b'"metadata":{"deletionTimestamp":"%s",' % stamp.encode())
    )


def worth(name: str, priority: int | None, pool: str = "pool", **reference: str) -> dict[str, Any]:
    return item(name, spec={"priority": priority, "poolRef": {"name": pool, **reference}})


class Held:
    """A source, and the replicas it said last."""

    def __init__(self, source: KubernetesSource) -> None:
        self.source = source
        self.endpoints: list[str] | None = None
        self.history: list[list[str]] = []

    async def has(self, *expected: str) -> None:
        deadline = time.monotonic() + 10
        while self.endpoints != list(expected):
            found = await self.source.read()
            if found is not None:
                self.endpoints = [address.endpoint for address in found]
                self.history.append(self.endpoints)
                continue
            assert time.monotonic() < deadline, f"expected {expected}, has {self.endpoints}"
            await self.source.wait()


@contextlib.asynccontextmanager
async def holding(api: FakeApi) -> AsyncIterator[Held]:
    source = KubernetesSource(api.credentials(), "pool", "ns", backoff_s=(0.001, 0.01))
    await source.start()
    try:
        yield Held(source)
    finally:
        await source.stop()


def metric(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"penstock_picker_kubernetes_{name}", {"pool": "pool"})


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with fake_api() as made:
        yield made


async def test_ready_pods_of_the_selector_are_the_replicas(api: FakeApi) -> None:
    api.script(POOLS, Listing([pool()]))
    pods = [
        pod("b", "10.0.0.2"),
        pod("a"),
        pod("cold", "10.0.0.3", ready="False"),
        pod("new", None),
        pod("v6", "fd00::1"),
    ]
    api.script(PODS, Listing(pods))
    async with holding(api) as held:
        await held.has("10.0.0.1:8000", "10.0.0.2:8000", "[fd00::1]:8000")
        assert await held.source.read() is None, "nothing changed"
    assert api.of(PODS)[0].query["labelSelector"] == "set=a"
    assert api.of(POOLS)[0].query["fieldSelector"] == "metadata.name=pool"


async def test_pods_leave_when_they_are_unready_failed_or_on_their_way_out(api: FakeApi) -> None:
    api.script(POOLS, Listing([pool()]))
    api.script(PODS, Listing([pod(name, f"10.0.0.{n}") for n, name in enumerate("abcde")]), Watching([
        changed(pod("a", "10.0.0.0", 2, ready="False")),
        changed(pod("b", "10.0.0.1", 3, deletionTimestamp="2026-01-01T00:00:00Z")),
        changed(pod("c", "10.0.0.2", 4), "DELETED"),
        changed({**pod("d", version=5), "status": {"phase": "Failed", "podIP": "10.0.0.3"}}),
    ]))  # fmt: skip
    async with holding(api) as held:
        await held.has("10.0.0.4:8000")


async def test_each_target_port_is_an_endpoint(api: FakeApi) -> None:
    api.script(POOLS, Listing([pool(ports=(8000, 8001))]))
    api.script(PODS, Listing([pod("a"), pod("b", "10.0.0.2")]))
    async with holding(api) as held:
        found = None
        while found is None:
            await held.source.wait()
            found = await held.source.read()
    assert found == [
        Address("a-rank-0", "10.0.0.1", 8000),
        Address("a-rank-1", "10.0.0.1", 8001),
        Address("b-rank-0", "10.0.0.2", 8000),
        Address("b-rank-1", "10.0.0.2", 8001),
    ]


async def test_another_port_needs_no_other_list(api: FakeApi) -> None:
    api.script(POOLS, Listing([pool()]), Watching([changed(pool(2, (9000,)))]))
    api.script(PODS, Listing([pod("a")]))
    async with holding(api) as held:
        await held.has("10.0.0.1:9000")
    assert len([asked for asked in api.of(PODS) if not asked.watch]) == 1


async def test_another_selector_lists_again_and_keeps_the_replicas_meanwhile(api: FakeApi) -> None:
    edit = asyncio.Event()
    api.script(POOLS, Listing([pool()]), Watching([], "cut"), Watching([changed(pool(2, set="b"))], gate=edit))
    api.script(PODS, Listing([pod("a")]))
    async with holding(api) as held:
        await held.has("10.0.0.1:8000")
        await api.watched[PODS].wait()  # or that watch would take what is scripted for the new selector
        api.script(PODS, Answer(503), Listing([pod("b", "10.0.0.2")]))
        edit.set()
        await held.has("10.0.0.2:8000")
    assert held.history == [["10.0.0.1:8000"], ["10.0.0.2:8000"]], "never an empty list in between"
    assert api.of(PODS)[-1].query["labelSelector"] == "set=b"


async def test_no_list_before_pool_pods_and_objectives_are_known(api: FakeApi) -> None:
    api.script(POOLS, Answer(503), Listing([pool()]))
    api.script(PODS, Answer(403), Listing([pod("a")]))
    api.script(OLD, Answer(500), Listing([worth("batch", -1)]))
    async with holding(api) as held:
        assert await held.source.read() is None
        await held.has("10.0.0.1:8000")
        assert held.source.objectives() == {"batch": -1}


async def test_a_pool_that_does_not_exist_yet_is_named_and_waited_for(
    api: FakeApi, caplog: pytest.LogCaptureFixture
) -> None:
    api.script(POOLS, Listing([]), Watching([], "cut"))
    api.script(PODS, Listing([pod("a")]))
    async with holding(api) as held:
        while not any("InferencePool ns/pool does not exist" in record.message for record in caplog.records):
            assert await held.source.read() is None
            await held.source.wait()
        for writer in list(api.open):
            writer.close()
        api.script(POOLS, Watching([changed(pool(2), "ADDED")]))
        await held.has("10.0.0.1:8000")


async def test_a_pool_that_is_deleted_keeps_its_last_replicas(api: FakeApi, caplog: pytest.LogCaptureFixture) -> None:
    api.script(POOLS, Listing([pool()]), Watching([], "cut"), Watching([changed(pool(2), "DELETED")]))
    api.script(PODS, Listing([pod("a")]))
    async with holding(api) as held:
        await held.has("10.0.0.1:8000")
        while not any("InferencePool ns/pool does not exist" in record.message for record in caplog.records):
            assert await held.source.read() is None
            await held.source.wait()


async def test_objectives_of_both_groups_and_of_this_pool_only(api: FakeApi) -> None:
    api.script(POOLS, Listing([pool()]))
    api.script(PODS, Listing([]))
    api.script(OLD, Listing([worth("chat", 1), worth("batch", -1), worth("other", 9, "elsewhere")]))
    api.script(NEW, Listing([worth("chat", 10), worth("plain", None), worth("import", 5, kind="InferencePoolImport")]))
    async with holding(api) as held:
        await held.has()
        assert held.source.objectives() == {"chat": 10, "batch": -1, "plain": 0}


async def test_without_the_kinds_of_objectives_there_are_none(api: FakeApi) -> None:
    api.script(POOLS, Listing([pool()]))
    api.script(PODS, Listing([pod("a")]))
    api.script(OLD, Answer(404))
    api.script(NEW, Answer(403))
    async with holding(api) as held:
        await held.has("10.0.0.1:8000")
        assert held.source.objectives() == {}


async def test_the_view_grows_old_while_the_server_is_away(api: FakeApi) -> None:
    api.script(POOLS, Listing([pool()]))
    api.script(PODS, Listing([pod("a")]), Watching([], "cut"), *[Answer(503)] * 1000)
    async with holding(api) as held:
        await held.has("10.0.0.1:8000")
        while metric("connected") != 0 or not metric("view_age_seconds"):
            await held.source.wait()
        assert await held.source.read() is None
        api.scripts[PODS].clear()
        while metric("connected") != 1:
            await held.source.wait()
        assert metric("view_age_seconds") == 0


@pytest.mark.parametrize("spec", [{}, {"selector": {}}, {"selector": {"matchLabels": {"a": "b"}}, "targetPorts": 3}])
def test_what_is_no_pool(spec: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        pool_spec({"spec": spec})


def test_what_objects_say() -> None:
    assert pool_spec(pool(ports=(1, 2), x="y")) == PoolSpec({"x": "y"}, (1, 2))
    assert pod_host(item("a")) == ""
    assert pod_host(item("a", status=None)) == ""
    assert objective(item("a")) == Objective("", 0)
    assert objective(worth("a", 3, group="inference.networking.x-k8s.io")) == Objective("", 3)
