"""The directory: which keys open what, how soon changes show, and what holds while the store is away."""

import asyncio
import inspect

import pytest

from services.apimgmt import keycache, keys
from services.apimgmt.call import Caller, Credential
from services.apimgmt.domain import App, Developer, KeyPurpose, Kind
from services.apimgmt.errors import Refusal
from tests.unit.apimgmt.credentials.world import CLIENT, NOW, PEPPER, entities, until, world

UNKNOWN = "psk_" + "a" * 16 + "_" + "A" * 43


def chat(**more) -> App:
    app = next(e for e in entities() if isinstance(e, App))
    return app.model_copy(update=more)


def ada(**more) -> Developer:
    person = next(e for e in entities() if isinstance(e, Developer))
    return person.model_copy(update=more)


async def test_a_key_opens_its_apps_products_and_is_read_once():
    async with world() as w:
        plain, record = w.issue()
        first = await w.find(plain)
        assert isinstance(first, Caller)
        assert (first.organization, first.team, first.user, first.app, first.key) == (
            "acme",
            "search",
            "ada@example.com",
            "chat",
            record.id,
        )
        assert first.credential is Credential.API_KEY
        assert [p.product.name for p in first.products] == ["basic", "vectors"]
        assert w.directory.find_key(plain) is first
        assert w.store.asked["key"] == 1


@pytest.mark.parametrize(
    ("more", "at", "code", "reason"),
    [
        ({"expires": int(NOW) + 10}, 9.9, None, None),
        ({"expires": int(NOW) + 10}, 10, "invalid_api_key", "expired_key"),
        ({"revoked": int(NOW) + 10}, 9.9, None, None),
        ({"revoked": int(NOW) + 10}, 10, "invalid_api_key", "revoked_key"),
    ],
)
async def test_a_remembered_key_ends_when_its_time_has_come(more, at, code, reason):
    async with world() as w:
        plain, record = w.issue()
        w.store.put_key(record.model_copy(update=more))
        assert isinstance(await w.find(plain), Caller)
        w.clock.now = NOW + at
        found = w.directory.find_key(plain)
        if code is None:
            assert isinstance(found, Caller)
        else:
            assert (found.status, found.code, found.reason) == (401, code, reason)
            assert record.id in found.message
            assert plain not in found.message


async def test_a_key_of_an_app_that_was_made_elsewhere_a_moment_ago_works_at_once():
    async with world() as w:
        w.store.put(chat(name="new", oauth_client_id=None))
        plain, _ = w.issue(app="new")
        found = await w.find(plain)
        assert isinstance(found, Caller)
        assert found.app == "new"


async def test_so_does_the_personal_key_of_a_new_developer():
    async with world() as w:
        w.store.put(ada(name="eve@example.com"))
        plain, _ = w.issue(developer="eve@example.com", app="", purpose=KeyPurpose.PERSONAL)
        found = await w.directory.find_person(plain)
        assert isinstance(found, Developer)
        assert found.name == "eve@example.com"


async def test_a_key_without_an_app_is_refused_and_does_not_ask_for_documents_each_time():
    async with world() as w:
        plain, _ = w.issue(app="gone")
        asked = w.store.asked["feed"]
        for _ in range(20):
            assert (await w.find(plain)).status == 403
        assert w.store.asked["feed"] <= asked + 2  # the first answer also tells that the key is new


async def test_a_revoked_key_ends_with_the_next_look_at_the_feed():
    async with world() as w:
        plain, record = w.issue()
        await w.find(plain)
        w.store.put_key(keys.revoke(record, NOW))
        await w.directory.refresh()
        assert (await w.find(plain)).reason == "revoked_key"


async def test_changes_are_followed_within_a_second():
    async with world(poll_s=0.05) as w:
        plain, record = w.issue()
        await w.find(plain)
        w.store.put_key(keys.revoke(record, NOW))
        for _ in range(200):
            if isinstance(await w.find(plain), Refusal):
                break
            await asyncio.sleep(0.005)
        assert (await w.find(plain)).reason == "revoked_key"


async def test_who_has_only_the_id_learns_nothing():
    async with world() as w:
        plain, record = w.issue(expires=int(NOW) + 1)
        guess = plain[:21] + "A" * 43
        for text in (guess, UNKNOWN):
            w.clock.now = NOW + 5
            for _ in range(2):
                found = await w.find(text)
                assert (found.status, found.reason) == (401, "unknown_key")
                assert record.id not in found.message
        assert (await w.find(plain)).reason == "expired_key"


async def test_a_key_under_another_pepper_opens_nothing():
    async with world() as w:
        whose = {"organization": "acme", "developer": "ada@example.com", "app": "chat", "now": NOW}
        plain, record = keys.issue(b"another pepper, long enough it is", **whose)
        w.store.put_key(record)
        assert (await w.find(plain)).reason == "unknown_key"


async def test_a_new_key_works_although_it_was_tried_before():
    async with world() as w:
        whose = {"organization": "acme", "developer": "ada@example.com", "app": "chat", "now": NOW}
        plain, record = keys.issue(PEPPER, **whose)
        assert (await w.find(plain)).reason == "unknown_key"
        assert w.directory.find_key(plain).reason == "unknown_key"
        assert w.store.asked["key"] == 1
        w.store.put_key(record)
        w.monotonic.now += keycache.UNKNOWN_S
        assert isinstance(await w.find(plain), Caller)


async def test_lookups_of_one_key_share_a_read():
    async with world() as w:
        plain, _ = w.issue()
        w.store.gate = asyncio.Event()
        found = [w.directory.find_key(plain) for _ in range(50)]
        assert all(inspect.isawaitable(f) for f in found)
        tasks = [asyncio.ensure_future(f) for f in found]
        await asyncio.sleep(0)
        w.store.gate.set()
        assert all(isinstance(c, Caller) for c in await asyncio.gather(*tasks))
        assert w.store.asked["key"] == 1


async def test_a_lookup_that_is_given_up_does_not_end_the_others():
    async with world() as w:
        plain, _ = w.issue()
        w.store.gate = asyncio.Event()
        first, second = (asyncio.ensure_future(w.directory.find_key(plain)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        w.store.gate.set()
        assert isinstance(await second, Caller)


async def test_a_key_that_is_revoked_while_it_is_read_is_read_again():
    async with world() as w:
        plain, record = w.issue()
        await w.directory.refresh()
        w.store.gate, w.store.read_first = asyncio.Event(), True
        found = asyncio.ensure_future(w.directory.find_key(plain))
        await until(lambda: w.store.asked["key"])
        w.store.put_key(keys.revoke(record, NOW))
        await w.directory.refresh()
        w.store.gate.set()
        assert (await found).reason == "revoked_key"
        assert w.store.asked["key"] == 2


async def test_the_cache_is_bounded_and_forgets_the_least_recently_used():
    async with world(max_keys=2) as w:
        first, second, third = (w.issue()[0] for _ in range(3))
        await w.find(first)
        await w.find(second)
        w.directory.find_key(first)
        await w.find(third)
        assert isinstance(w.directory.find_key(first), Caller)
        assert isinstance(w.directory.find_key(third), Caller)
        assert isinstance(await w.find(second), Caller)
        assert w.store.asked["key"] == 4


async def test_ids_that_do_not_exist_are_remembered_within_bounds(monkeypatch):
    monkeypatch.setattr(keycache, "MAX_UNKNOWN", 3)
    async with world() as w:
        texts = [f"psk_{c * 16}_{'A' * 43}" for c in "abcde"]
        for text in texts:
            await w.find(text)
        for text in reversed(texts):
            assert (await w.find(text)).status == 401
        assert w.store.asked["key"] == len(texts) + 2


class TestStoreAway:
    async def test_known_keys_work_for_a_while_and_unknown_ones_are_not_judged(self):
        async with world(grace_s=60, poll_s=0.01) as w:
            plain, _ = w.issue()
            other, _ = w.issue()
            await w.find(plain)
            w.store.away = True
            found = await w.find(other)
            assert (found.status, found.code, found.headers["retry-after"]) == (503, "credentials_unavailable", "1")
            await until(lambda: w.directory.away)
            w.monotonic.now += 60
            assert isinstance(await w.find(plain), Caller)
            assert isinstance(w.directory.caller_for_client(CLIENT, Credential.JWT), Caller)
            w.monotonic.now += 1
            assert (await w.find(plain)).status == 503
            assert w.directory.caller_for_client(CLIENT, Credential.JWT).status == 503
            assert w.directory.caller_for_client("nobody", Credential.JWT).status == 503
            assert (await w.find(plain[:-4] + "AAAA")).status == 401
            w.store.away = False
            await until(lambda: not w.directory.away)
            assert isinstance(await w.find(plain), Caller)
            assert isinstance(await w.find(other), Caller)

    async def test_an_id_that_was_unknown_a_moment_ago_may_exist_by_now(self):
        async with world(poll_s=0.01) as w:
            assert (await w.find(UNKNOWN)).status == 401
            w.store.away = True
            await until(lambda: w.directory.away)
            assert (await w.find(UNKNOWN)).status == 503

    async def test_a_store_that_hangs_is_as_good_as_away(self, monkeypatch):
        monkeypatch.setattr("services.apimgmt.directory.READ_TIMEOUT_S", 0.05)
        async with world() as w:
            plain, _ = w.issue()
            w.store.gate = asyncio.Event()
            assert (await w.find(plain)).status == 503
            w.store.gate.set()
            assert isinstance(await w.find(plain), Caller)

    async def test_too_many_lookups_of_different_keys_are_put_off(self, monkeypatch):
        monkeypatch.setattr(keycache, "MAX_WAITING", 3)
        async with world() as w:
            w.store.gate = asyncio.Event()
            found = [asyncio.ensure_future(w.directory.find_key(f"psk_{c * 16}_{'A' * 43}")) for c in "abcd"]
            assert (await found[3]).status == 503
            w.store.gate.set()
            assert [f.status for f in await asyncio.gather(*found[:3])] == [401] * 3


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (chat(active=False), "app_inactive"),
        (ada(active=False), "developer_inactive"),
    ],
)
async def test_who_is_not_active_is_refused_until_active_again(change, code):
    async with world() as w:
        plain, _ = w.issue()
        await w.find(plain)
        w.store.put(change)
        await w.directory.refresh()
        found = await w.find(plain)
        assert (found.status, found.code) == (403, code)
        assert w.directory.caller_for_client(CLIENT, Credential.JWT).code == code
        w.store.put(change.model_copy(update={"active": True}))
        await w.directory.refresh()
        assert isinstance(await w.find(plain), Caller)


@pytest.mark.parametrize(
    ("kind", "organization", "name", "reason"),
    [
        (Kind.APP, "acme", "chat", "app_missing"),
        (Kind.DEVELOPER, "acme", "ada@example.com", "developer_missing"),
        (Kind.TEAM, "acme", "search", "team_missing"),
        (Kind.ORGANIZATION, "", "acme", "organization_missing"),
    ],
)
async def test_a_key_without_who_pays_is_refused(kind, organization, name, reason):
    async with world() as w:
        plain, _ = w.issue()
        await w.find(plain)
        w.store.drop(kind, organization, name)
        await w.directory.refresh()
        found = await w.find(plain)
        assert (found.status, found.reason) == (403, reason)


async def test_personal_keys_open_the_admin_api_and_not_the_models():
    async with world() as w:
        personal, _ = w.issue(app="", purpose=KeyPurpose.PERSONAL)
        plain, _ = w.issue()
        assert (await w.find(personal)).reason == "wrong_purpose"
        assert (await w.directory.find_person(plain)).reason == "wrong_purpose"
        person = await w.directory.find_person(personal)
        assert (person.organization, person.name) == ("acme", "ada@example.com")
        w.store.put(ada(active=False))
        await w.directory.refresh()
        assert (await w.directory.find_person(personal)).code == "developer_inactive"


async def test_last_use_is_written_by_the_minute_and_not_lost_when_the_store_is_away():
    async with world() as w:
        plain, record = w.issue()
        await w.find(plain)
        w.clock.now += 1
        await w.find(plain)
        w.store.away = True
        await w.directory._touch()
        w.store.away = False
        await w.directory._touch()
        await w.directory._touch()
        assert w.store.used == {record.id: int(NOW) // 60 * 60}
        assert w.store.asked["touch"] == 2
        w.clock.now += 60
        await w.find(plain)
    assert w.store.used == {record.id: int(NOW + 61) // 60 * 60}
