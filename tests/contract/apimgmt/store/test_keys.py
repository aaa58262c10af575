"""API keys."""

import pytest

from services.apimgmt.domain import KeyPurpose
from services.apimgmt.store.api import Conflict, Store
from tests.contract.apimgmt.store.conftest import Opener
from tests.contract.apimgmt.store.support import NOW, entry, key


async def test_a_key_is_read_back_as_it_was(store: Store, another: Opener) -> None:
    full = key(1, displayName="Für CI", expires=NOW + 5, revoked=NOW + 3, replacedBy="k2", lastUsed=NOW - 1)
    await store.put_keys([full, key(2)], [entry("k", "acme", "issue")], new=True)
    other = await another()
    assert await other.key(full.id) == full
    assert await other.key(key(2).id) == key(2)
    assert await other.key("nobody") is None
    assert [a.action for a in await store.audit("acme", 0, 10)] == ["issue"]


async def test_new_keys_never_replace_others(store: Store) -> None:
    await store.put_keys([key(1)], [], new=True)
    with pytest.raises(Conflict):
        await store.put_keys([key(2), key(1, app="other")], [entry()], new=True)
    assert await store.key(key(2).id) is None
    assert await store.key(key(1).id) == key(1)
    assert await store.audit(None, 0, 10) == []


async def test_a_key_can_be_replaced(store: Store) -> None:
    await store.put_keys([key(1)], [], new=True)
    await store.touch({key(1).id: NOW + 60})
    await store.put_keys([key(1, revoked=NOW + 100)], [], new=False)
    assert await store.key(key(1).id) == key(1, revoked=NOW + 100, lastUsed=NOW + 60)


async def test_keys_are_found_by_what_they_belong_to(store: Store) -> None:
    records = [
        key(n, app="a" if n % 2 else "b", developer="ada@x.io" if n % 3 else "bob@x.io", organization="acme")
        for n in range(9)
    ]
    records += [key(9, purpose=KeyPurpose.PERSONAL, app="", developer="ada@x.io"), key(10, organization="zen")]
    await store.put_keys(records, [], new=True)

    def ids(found: object) -> list[int]:
        return [int(record.id[1:]) for record in found]  # type: ignore[attr-defined]

    assert ids(await store.keys("acme")) == list(range(10))
    assert ids(await store.keys("zen")) == [10]
    assert ids(await store.keys("acme", app="a")) == [1, 3, 5, 7]
    assert ids(await store.keys("acme", app="a", developer="bob@x.io")) == [3]
    assert ids(await store.keys("acme", developer="bob@x.io", purpose=KeyPurpose.API)) == [0, 3, 6]
    assert ids(await store.keys("acme", purpose=KeyPurpose.PERSONAL)) == [9]
    assert ids(await store.keys("acme", developer="ada@x.io", purpose=KeyPurpose.PERSONAL)) == [9]
    assert ids(await store.keys("acme", limit=4)) == [0, 1, 2, 3]
    assert ids(await store.keys("acme", after=key(3).id, limit=4)) == [4, 5, 6, 7]
    assert ids(await store.keys("acme", app="a", after=key(3).id)) == [5, 7]


async def test_the_last_use_only_goes_forward(store: Store) -> None:
    await store.put_keys([key(1), key(2)], [], new=True)
    await store.touch({key(1).id: NOW, "nobody": NOW})
    await store.touch({key(1).id: NOW - 60})
    assert await store.key(key(1).id) == key(1, lastUsed=NOW)
    assert [k.last_used for k in await store.keys("acme")] == [NOW, None]
    assert await store.key("nobody") is None


@pytest.mark.parametrize("late", [None, NOW + 200])
async def test_a_revocation_is_not_taken_back(store: Store, another: Opener, late: int | None) -> None:
    """One process rotates with a grace period, or only renames; another one has revoked the key meanwhile."""
    other = await another()
    await store.put_keys([key(1), key(2)], [], new=True)
    read_before = await other.key(key(1).id)
    assert read_before is not None
    await store.put_keys([key(1, revoked=NOW + 100)], [entry("k", "acme", "revoke")], new=False)
    rotated = read_before.model_copy(update={"revoked": late, "display_name": "Ümläut", "replaced_by": key(2).id})
    await other.put_keys([key(3), rotated], [entry("k", "acme", "rotate")], new=False)
    expected = key(1, revoked=NOW + 100, displayName="Ümläut", replacedBy=key(2).id)
    assert await store.key(key(1).id) == expected
    assert list(await store.keys("acme", limit=1)) == [expected]
    assert await store.key(key(3).id) == key(3)
    await other.put_keys([key(1, revoked=NOW + 50)], [], new=False)
    assert await store.key(key(1).id) == key(1, revoked=NOW + 50), "sooner is fine"


async def test_a_digest_never_changes(store: Store) -> None:
    await store.put_keys([key(1)], [], new=True)
    with pytest.raises(Conflict, match=f"{key(1).id}.*digest"):
        await store.put_keys([key(2), key(1, digest="f" * 64, app="other")], [entry()], new=False)
    assert await store.key(key(1).id) == key(1)
    assert await store.key(key(2).id) is None
    assert await store.audit(None, 0, 10) == []
