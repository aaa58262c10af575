"""Documents, keys, feed, audit trail and notes on a real server."""

import asyncio

import pytest

from services.apimgmt.domain import KeyPurpose, KeyRecord, Kind
from services.apimgmt.store.api import AuditEntry, Change, Conflict
from services.apimgmt.store.valkey import ValkeyStore, directory, directory_scripts
from tests.support.valkey import Server

NONE: list[AuditEntry] = []


def team(name: str, *, expected: int | None = None, gone: bool = False, organization: str = "acme") -> Change:
    """Put or delete a team. Empty lists and large numbers must come back as they were."""
    body = None if gone else {"name": name, "limits": [], "nested": {}, "large": 2**53 - 1}
    return Change(Kind.TEAM, organization, name, body, expected=expected)


def entry(name: str, organization: str = "acme") -> AuditEntry:
    """Return an audit entry."""
    return AuditEntry(1_800_000_000, "admin-token", "create", "teams", organization, name, after={"name": name})


def key(number: int, *, app: str = "app", developer: str = "ada", purpose: KeyPurpose = KeyPurpose.API) -> KeyRecord:
    """Return a key."""
    given = {"purpose": purpose, "app": app, "developer": developer}
    return KeyRecord(id=f"key{number:013}", digest="d" * 64, organization="acme", created=1, **given)  # type: ignore[arg-type]


async def test_changes_are_all_made_or_none(store: ValkeyStore) -> None:
    first = await store.change([team("a", expected=0), team("b")], [entry("a"), entry("b", "")])
    with pytest.raises(Conflict, match="teams/acme/a: is there already"):
        await store.change([team("c"), team("a", expected=0)], [entry("c")])
    with pytest.raises(Conflict, match="changed meanwhile"):
        await store.change([team("a", expected=first + 7)], NONE)
    with pytest.raises(Conflict, match="is gone"):
        await store.change([team("x", expected=3, gone=True)], NONE)
    revision, documents = await store.snapshot()
    assert (revision, [d.name for d in documents]) == (first, ["a", "b"])
    found = await store.get(Kind.TEAM, "acme", "a")
    assert found is not None
    assert (found.body, found.revision, found.updated) == (team("a").body, first, 1_800_000_000)
    assert await store.change([team("a", expected=first, gone=True)], NONE) == first + 1
    assert await store.get(Kind.TEAM, "acme", "a") is None
    assert [e.name for e in await store.audit(None, 0, 10)] == ["b", "a"]


async def test_one_of_many_changes_with_the_same_expectation_wins(store: ValkeyStore) -> None:
    revision = await store.change([team("a")], NONE)
    answers = await asyncio.gather(
        *[store.change([team("a", expected=revision)], [entry("a")]) for _ in range(20)], return_exceptions=True
    )
    assert sorted(isinstance(answer, Conflict) for answer in answers) == [False] + [True] * 19
    assert len(await store.audit("acme", 0, 100)) == 1


async def test_a_repeated_transaction_is_made_once(store: ValkeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory.secrets, "token_hex", lambda _: "same")
    first = await store.change([team("a", expected=0)], [entry("a")])
    assert await store.change([team("a", expected=0)], [entry("a")]) == first
    assert len(await store.audit(None, 0, 10)) == 1


async def test_pages(store: ValkeyStore) -> None:
    names = [("acme", f"t{i}") for i in range(5)] + [("zoo", "t0")]
    await store.change([team(name, organization=organization) for organization, name in names], NONE)
    first = await store.page(Kind.TEAM, None, "", 4)
    rest = await store.page(Kind.TEAM, None, f"{first[-1].organization}/{first[-1].name}", 4)
    assert [(d.organization, d.name) for d in [*first, *rest]] == names
    assert [d.name for d in await store.page(Kind.TEAM, "acme", "acme/t2", 9)] == ["t3", "t4"]
    assert [d.name for d in await store.page(Kind.TEAM, "zoo", "acme/t2", 9)] == ["t0"]
    assert await store.page(Kind.APP, None, "", 9) == []


async def test_feed(store: ValkeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    start = (await store.feed(0)).revision
    one = await store.change([team("a")], NONE)
    two = await store.put_keys([key(1), key(2)], NONE, new=True)
    await store.touch({key(1).id: 99})
    seen = await store.feed(start)
    assert (seen.revision, seen.documents, sorted(seen.keys), seen.everything) == (
        two,
        True,
        [key(1).id, key(2).id],
        False,
    )
    assert not (await store.feed(one)).documents
    nothing = await store.feed(two)
    assert (nothing.revision, nothing.documents, list(nothing.keys), nothing.everything) == (two, False, [], False)
    assert (await store.feed(two + 5)).everything, "a revision that this store has not reached"
    monkeypatch.setattr(directory, "MAX_FEED_KEYS", 1)
    assert (await store.feed(start)).everything


async def test_the_feed_forgets_the_oldest(store: ValkeyStore, valkey: Server) -> None:
    some = [key(i) for i in range(directory_scripts.MAX_FEED // 2)]
    first = await store.put_keys(some, NONE, new=True)
    second = await store.put_keys(some, NONE, new=False)
    assert not (await store.feed(second)).everything
    third = await store.put_keys([key(0)], NONE, new=False)
    assert (await store.feed(0)).everything
    assert (await store.feed(first - 1)).everything
    assert list((await store.feed(second)).keys) == [key(0).id]
    assert (await store.feed(third)).keys == ()


async def test_keys_are_listed_by_their_indexes(store: ValkeyStore) -> None:
    many = [key(i, app=f"app{i % 2}", developer=f"dev{i % 3}") for i in range(12)]
    own = [key(100, app="", developer="dev0", purpose=KeyPurpose.PERSONAL)]
    await store.put_keys([*reversed(many), *own], NONE, new=True)
    assert list(await store.keys("acme")) == [*many, *own]
    assert list(await store.keys("acme", limit=3, after=many[4].id)) == many[5:8]
    assert list(await store.keys("acme", app="app1")) == many[1::2]
    assert list(await store.keys("acme", developer="dev0")) == [*many[::3], *own]
    assert list(await store.keys("acme", developer="dev0", app="app0", limit=1, after=many[0].id)) == [many[6]]
    assert list(await store.keys("acme", purpose=KeyPurpose.PERSONAL)) == own
    assert list(await store.keys("acm")) == []
    moved = many[1].model_copy(update={"developer": "dev9"})
    await store.put_keys([moved], NONE, new=False)
    assert list(await store.keys("acme", developer="dev9")) == [moved]
    assert moved.id not in {record.id for record in await store.keys("acme", developer="dev1")}


async def test_a_taken_id_leaves_nothing(store: ValkeyStore) -> None:
    await store.put_keys([key(1)], NONE, new=True)
    with pytest.raises(Conflict, match=key(1).id):
        await store.put_keys([key(2), key(1)], [entry("k")], new=True)
    with pytest.raises(Conflict, match="twice"):
        await store.put_keys([key(3), key(3)], NONE, new=True)
    assert await store.key(key(2).id) is None
    assert await store.audit(None, 0, 10) == []


async def test_last_use(store: ValkeyStore) -> None:
    await store.put_keys([key(1)], NONE, new=True)
    before = (await store.feed(0)).revision
    await store.touch({key(1).id: 120, "unknown": 5})
    await store.touch({key(1).id: 60})
    await store.put_keys([key(1)], NONE, new=False)
    found = await store.key(key(1).id)
    assert found is not None
    assert found.last_used == 120
    assert [record.last_used for record in await store.keys("acme")] == [120]
    assert (await store.feed(0)).revision == before + 1


async def test_audit_pages(store: ValkeyStore) -> None:
    for i in range(6):
        await store.change([team(f"t{i}")], [entry(f"t{i}", "acme" if i % 2 else "zoo")])
    newest = await store.audit(None, 0, 4)
    assert [e.name for e in newest] == ["t5", "t4", "t3", "t2"]
    assert [e.name for e in await store.audit(None, newest[-1].sequence, 4)] == ["t1", "t0"]
    assert [e.name for e in await store.audit("acme", newest[0].sequence, 9)] == ["t3", "t1"]
    assert await store.audit(None, 1, 4) == []
    assert newest[0].after == {"name": "t5"}


async def test_notes(store: ValkeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await store.note("export") == (0, b"")
    assert await store.put_note("export", b"a\nb\x00", 0) == 1
    assert await store.note("export") == (1, b"a\nb\x00")
    with pytest.raises(Conflict):
        await store.put_note("export", b"other", 0)
    assert await store.put_note("export", b"c", 1) == 2
    with pytest.raises(Conflict):
        await store.put_note("export", b"c", 1)
    monkeypatch.setattr(directory.secrets, "token_hex", lambda _: "same")
    assert await store.put_note("export", b"d", 2) == 3
    assert await store.put_note("export", b"d", 2) == 3, "a repeated call"
