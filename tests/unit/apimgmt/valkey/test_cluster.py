"""A cluster of two nodes: where keys are, and what happens when they move."""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.apimgmt.domain import Kind
from services.apimgmt.store.api import Change, StoreError, UsageQuery
from services.apimgmt.store.valkey import ValkeyStore, client, layout
from services.apimgmt.store.valkey.slots import SLOTS, read_redirect, read_slots, slot_of
from tests.support.valkey import Server, server
from tests.unit.apimgmt.valkey.calls import NOW, reservation, settlement, window

ORGANIZATIONS = [f"org-{i}" for i in range(12)]


def wait(what: str, done: object) -> None:
    """Wait until `done()`."""
    deadline = time.monotonic() + 20
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def node_id(one: Server) -> str:
    """Its name in the cluster."""
    return one.command("CLUSTER", "MYID").split(b"\r\n")[1].decode()


def agreed(one: Server) -> bool:
    """Whether it sees the whole cluster."""
    info = one.command("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and b"cluster_slots_assigned:16384" in info and b"cluster_size:2" in info


def move(slot: int, source: Server, target: Server) -> None:
    """Move a slot with its keys, while it may be written: until nothing is left behind."""
    target.command("CLUSTER", "SETSLOT", str(slot), "IMPORTING", node_id(source))
    source.command("CLUSTER", "SETSLOT", str(slot), "MIGRATING", node_id(target))
    while names := re.findall(rb"penstock:[^\r]+", source.command("CLUSTER", "GETKEYSINSLOT", str(slot), "50")):
        keys = [name.decode() for name in names]
        done = source.command(
            "MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", "AUTH", target.password, "KEYS", *keys
        )
        assert done in {b"+OK\r\n", b"+NOKEY\r\n"}, done
    for one in (target, source):
        one.command("CLUSTER", "SETSLOT", str(slot), "NODE", node_id(target))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two nodes; the second has the slots of every other organization."""
    with (
        server(tmp_path_factory.mktemp("one"), cluster=True) as one,
        server(tmp_path_factory.mktemp("two"), cluster=True) as two,
    ):
        two.command("CLUSTER", "DELSLOTSRANGE", "0", "16383")
        one.command("CLUSTER", "MEET", "127.0.0.1", str(two.port), str(two.bus_port))
        wait("the nodes do not meet", lambda: b"cluster_known_nodes:2" in two.command("CLUSTER", "INFO"))
        wait("no handshake", lambda: b"handshake" not in one.command("CLUSTER", "NODES"))
        for organization in ORGANIZATIONS[::2]:
            move(slot_of(layout.tag_of(organization)), one, two)
        for node in (one, two):
            wait("the cluster is down", lambda node=node: agreed(node))
        yield [one, two]


@pytest.fixture
async def store(nodes: list[Server]) -> object:
    for node in nodes:
        node.clear()
    opened = nodes[0].store()
    await opened.open()
    yield opened
    await opened.close()


async def spend(store: ValkeyStore, organization: str, amount: int = 5) -> str:
    """One request from begin to end."""
    made = reservation([charge(organization, amount)], organization=organization)
    assert (await store.reserve(made)).granted
    await store.settle(settlement(made, [amount - 1], organization=organization))
    return made.id


def charge(organization: str, amount: int = 0) -> object:
    found = window("a", amount, 10**6)
    return type(found)(f"{organization}|a|", found.slot, 1, found.expires, amount, found.ceiling)


async def test_organizations_live_on_both_nodes(store: ValkeyStore, nodes: list[Server]) -> None:
    ids = [await spend(store, organization) for organization in ORGANIZATIONS]
    held = [node.command("DBSIZE") for node in nodes]
    assert all(int(size[1:]) >= 5 * 6 for size in held)
    assert await store.totals([charge(o) for o in ORGANIZATIONS]) == [4] * 12  # type: ignore[misc]
    found = [orjson.loads(record)["id"] for record in (await store.ledger("", 100))[1]]
    assert sorted(found) == sorted(ids)
    (row,) = await store.usage(UsageQuery(None, 0, int(NOW) + 7200, "all"))
    assert row.sums["requests"] == 12
    await store.change([Change(Kind.ORGANIZATION, "", "acme", {"name": "acme"}, expected=0)], [])
    assert (await store.snapshot())[0] == 1
    assert await store.prune(int(NOW) + 10) == 12


async def test_slots_move_while_requests_run(store: ValkeyStore, nodes: list[Server]) -> None:
    organization = ORGANIZATIONS[0]
    slot, done = slot_of(layout.tag_of(organization)), list[str]()
    stop, progress = asyncio.Event(), asyncio.Event()

    async def spending() -> None:
        while not stop.is_set():
            done.append(await spend(store, organization))
            progress.set()

    spenders = [asyncio.create_task(spending()) for _ in range(4)]
    for source, target in ((nodes[1], nodes[0]), (nodes[0], nodes[1]), (nodes[1], nodes[0]), (nodes[0], nodes[1])):
        for _ in range(20):
            await asyncio.wait_for(progress.wait(), 10)
            progress.clear()
        await asyncio.to_thread(move, slot, source, target)
    stop.set()
    await asyncio.gather(*spenders)
    found = [orjson.loads(record)["id"] for record in (await store.ledger("", 100_000))[1]]
    assert sorted(found) == sorted(done)
    assert await store.totals([charge(organization)]) == [4 * len(done)]  # type: ignore[list-item]


async def test_one_node_is_away(store: ValkeyStore, nodes: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    there, away = ORGANIZATIONS[1], ORGANIZATIONS[0]
    await spend(store, there)
    await spend(store, away)
    monkeypatch.setattr(client, "PATIENCE_S", 0.5)
    nodes[1].kill()
    try:
        with pytest.raises(StoreError):
            await store.totals([charge(away)])  # type: ignore[list-item]
        assert await store.totals([charge(there)]) == [4]  # type: ignore[list-item]
    finally:
        await asyncio.to_thread(nodes[1].start)
    monkeypatch.setattr(client, "PATIENCE_S", 10.0)
    assert await store.totals([charge(away)]) == [4]  # type: ignore[list-item]


async def test_settings_that_do_not_fit_the_server(nodes: list[Server], tmp_path: Path) -> None:
    alone = ValkeyStore(nodes[0].settings.model_copy(update={"cluster": False}), nodes[0].environ)
    client_of_alone = alone._client  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match="set cluster: true"):
        await client_of_alone.run("x", ("GET", f"{layout.prefix_of(ORGANIZATIONS[0])}held"))
    await alone.close()
    with server(tmp_path / "single") as single:
        wrong = ValkeyStore(single.settings.model_copy(update={"cluster": True}), single.environ)
        with pytest.raises(StoreError, match="set cluster: false"):
            await wrong.open()
        await wrong.close()


@pytest.mark.parametrize("tag", ["acme", ":directory", "", "a-b"])
def test_slots_are_the_servers(nodes: list[Server], tag: str) -> None:
    told = nodes[0].command("CLUSTER", "KEYSLOT", f"penstock:{{{tag}}}:x" if tag else "")
    assert told == b":%d\r\n" % slot_of(tag)


@given(st.lists(st.tuples(st.integers(0, SLOTS - 1), st.integers(0, SLOTS - 1)), max_size=5))
@settings(max_examples=50, derandomize=True, deadline=None)
def test_slot_maps(ranges: list[tuple[int, int]]) -> None:
    reply = [[low, high, [b"10.0.0.%d" % i, 7000 + i, b"id"]] for i, (low, high) in enumerate(map(sorted, ranges))]
    found = read_slots(reply, "asked")
    assert len(found) == SLOTS
    for i, (low, high) in enumerate(map(sorted, ranges[-1:])):
        last = len(ranges) - 1 + i
        assert found[low] == found[high] == (f"10.0.0.{last}", 7000 + last)


def test_nodes_without_an_address_are_the_one_that_was_asked() -> None:
    assert read_slots([[0, 0, [b"", 7000, b"id"]]], "asked")[0] == ("asked", 7000)
    assert read_redirect("MOVED 12 10.0.0.1:7000", "asked") == (12, ("10.0.0.1", 7000))
    assert read_redirect("ASK 12 :7000", "asked") == (12, ("asked", 7000))
