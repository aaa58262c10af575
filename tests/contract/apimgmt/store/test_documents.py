"""Documents, audit, change feed, notes."""

import asyncio

import pytest

from services.apimgmt.domain import Kind
from services.apimgmt.store.api import Change, Conflict, Store, StoreError
from tests.contract.apimgmt.store.conftest import Opener
from tests.contract.apimgmt.store.support import entry, key


def product(name: str, expected: int | None = None, **body: object) -> Change:
    return Change(Kind.PRODUCT, "", name, {"name": name, **body}, expected=expected)


def team(organization: str, name: str) -> Change:
    return Change(Kind.TEAM, organization, name, {"name": name, "organization": organization})


async def test_what_was_put_is_read_back_as_it_was(store: Store) -> None:
    body = {"name": "gold", "displayName": "Gold – für alle 🥇", "models": ["*"], "deep": {"n": [1, 2.5, None, True]}}
    revision = await store.change([Change(Kind.PRODUCT, "", "gold", body, declared=True)], [entry()])
    found = await store.get(Kind.PRODUCT, "", "gold")
    assert found is not None
    assert (found.kind, found.organization, found.name, found.body) == (Kind.PRODUCT, "", "gold", body)
    assert (found.revision, found.declared) == (revision, True)
    assert found.updated > 1_600_000_000
    assert await store.snapshot() == (revision, [found])
    assert await store.get(Kind.LIMIT, "", "gold") is None
    assert await store.get(Kind.PRODUCT, "acme", "gold") is None


async def test_a_change_is_made_as_a_whole_or_not_at_all(store: Store) -> None:
    first = await store.change([product("gold")], [entry("gold")])
    with pytest.raises(Conflict, match="silver"):
        await store.change([product("iron"), product("silver", expected=7)], [entry("iron")])
    revision, documents = await store.snapshot()
    assert (revision, [d.name for d in documents]) == (first, ["gold"])
    assert [a.name for a in await store.audit(None, 0, 10)] == ["gold"]
    assert (await store.feed(first)).documents is False


@pytest.mark.parametrize(
    ("stored", "expected", "body", "works"),
    [
        (False, None, {"name": "x"}, True),
        (False, 0, {"name": "x"}, True),
        (False, 1, {"name": "x"}, False),
        (True, 0, {"name": "x"}, False),
        (True, 1, {"name": "x"}, True),
        (True, 2, {"name": "x"}, False),
        (True, 1, None, True),
        (True, 2, None, False),
        (True, None, None, True),
        (False, 1, None, False),
        (False, None, None, True),
    ],
)
async def test_a_change_may_expect_a_revision(
    store: Store, stored: bool, expected: int | None, body: dict[str, str] | None, works: bool
) -> None:
    if stored:
        assert await store.change([product("x")], []) == 1
    change = Change(Kind.PRODUCT, "", "x", body, expected=expected)
    if works:
        assert await store.change([change], []) == 1 + stored
        assert (await store.get(Kind.PRODUCT, "", "x") is None) is (body is None)
    else:
        with pytest.raises(Conflict, match="x"):
            await store.change([change], [])


async def test_of_many_changes_that_expect_the_same_revision_one_is_made(store: Store, another: Opener) -> None:
    revision = await store.change([product("gold", n=0)], [])
    stores = [store, await another()]
    tries = [stores[n % 2].change([product("gold", revision, n=n)], []) for n in range(8)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(isinstance(r, Conflict) for r in results) == [False] + [True] * 7


async def test_pages_follow_organization_and_name(store: Store) -> None:
    names = [("b", "z"), ("a", "x"), ("a-b", "y"), ("a", "w"), ("b", "a")]
    await store.change([team(*name) for name in names] + [product("p")], [])
    found, after = [], ""
    while page := await store.page(Kind.TEAM, None, after, 2):
        assert len(page) <= 2
        found += [(d.organization, d.name) for d in page]
        after = f"{page[-1].organization}/{page[-1].name}"
    assert found == sorted(names)
    of_a = await store.page(Kind.TEAM, "a", "", 10)
    assert [d.name for d in of_a] == ["w", "x"]
    assert [d.name for d in await store.page(Kind.TEAM, "a", "a/w", 10)] == ["x"]
    assert [d.name for d in await store.page(Kind.PRODUCT, None, "", 10)] == ["p"]
    assert await store.page(Kind.PRODUCT, None, "/p", 10) == []


async def test_the_feed_tells_what_changed_since(store: Store, another: Opener) -> None:
    other = await another()
    start = (await other.feed(0)).revision
    documents = await store.change([product("gold")], [])
    keys = await store.put_keys([key(1), key(2)], [], new=True)
    assert documents < keys
    feed = await other.feed(start)
    assert (feed.revision, feed.documents, sorted(feed.keys), feed.everything) == (
        keys,
        True,
        [key(1).id, key(2).id],
        False,
    )
    feed = await other.feed(documents)
    assert (feed.revision, feed.documents, sorted(feed.keys)) == (keys, False, [key(1).id, key(2).id])
    feed = await other.feed(keys)
    assert (feed.revision, feed.documents, list(feed.keys), feed.everything) == (keys, False, [], False)
    await store.touch({key(1).id: 5})
    assert (await other.feed(keys)).revision == keys


async def test_who_asks_from_an_unknown_revision_is_told_to_forget_everything(store: Store) -> None:
    revision = await store.change([product("gold")], [])
    feed = await store.feed(revision + 1000)
    assert (feed.revision, feed.everything) == (revision, True)


async def test_audit_is_read_from_the_newest(store: Store) -> None:
    entries = [entry(f"p{n}", "acme" if n % 2 else "zen", after={"n": n, "name": "ü"}) for n in range(6)]
    await store.change([product("p")], entries[:3])
    await store.put_keys([key(1)], entries[3:], new=True)
    found = await store.audit(None, 0, 4)
    assert [a.name for a in found] == ["p5", "p4", "p3", "p2"]
    assert found[0].after == {"n": 5, "name": "ü"}
    assert found[0].before is None
    assert [a.name for a in await store.audit(None, found[-1].sequence, 4)] == ["p1", "p0"]
    acme = await store.audit("acme", 0, 2)
    assert [a.name for a in acme] == ["p5", "p3"]
    assert [a.name for a in await store.audit("acme", acme[-1].sequence, 2)] == ["p1"]


async def test_a_note_has_one_writer_at_a_time(store: Store, another: Opener) -> None:
    assert await store.note("export") == (0, b"")
    assert await store.put_note("export", b"\x00\xff", 0) == 1
    other = await another()
    assert await other.note("export") == (1, b"\x00\xff")
    with pytest.raises(Conflict, match="export"):
        await other.put_note("export", b"mine", 0)
    tries = [s.put_note("export", b"x", 1) for s in (store, other)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(map(str, map(type, results))) == sorted(map(str, (int, Conflict)))
    assert await store.note("export") == (2, b"x")


async def test_everything_is_there_after_a_restart(store: Store, another: Opener) -> None:
    revision = await store.change([product("gold"), team("acme", "red")], [entry()])
    await store.put_keys([key(1)], [], new=True)
    other = await another()
    assert {(d.kind, d.name) for d in (await other.snapshot())[1]} == {(Kind.PRODUCT, "gold"), (Kind.TEAM, "red")}
    assert (await other.get(Kind.PRODUCT, "", "gold")).revision == revision  # type: ignore[union-attr]
    assert await other.key(key(1).id) == key(1)


async def test_a_bad_cursor_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="cursor"):
        await store.ledger("no such cursor", 10)
