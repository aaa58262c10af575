"""Keys: made, read, hashed, rotated, revoked."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.apimgmt import keys
from services.apimgmt.domain import KeyPurpose
from services.apimgmt.store.api import Conflict
from services.extproc.config import ConfigError
from tests.support.apimgmt_store import MemoryStore
from tests.unit.apimgmt.credentials.world import NOW, PEPPER

OWNER = {"organization": "acme", "developer": "ada@example.com"}


def issue(**more):
    return keys.issue(PEPPER, **{**OWNER, "app": "chat", "now": NOW, **more})


def test_a_key_has_the_agreed_form_and_is_nowhere_in_its_record():
    plain, record = issue()
    assert re.fullmatch(r"psk_[a-z2-7]{16}_[A-Za-z0-9_-]{43}", plain)
    assert len(plain) == keys.KEY_CHARS
    assert plain[4:20] == record.id
    assert plain[21:] not in record.model_dump_json()
    assert record.digest == keys.digest(PEPPER, plain)
    assert (record.created, record.expires, record.revoked) == (int(NOW), None, None)


def test_a_personal_key_has_a_prefix_of_its_own():
    plain, record = issue(app="", purpose=KeyPurpose.PERSONAL)
    assert plain.startswith("psp_")
    assert keys.parse(plain) == (KeyPurpose.PERSONAL, record.id)


def test_keys_do_not_repeat():
    assert len({issue()[0] for _ in range(1000)}) == 1000


def test_another_pepper_makes_another_digest():
    plain, record = issue()
    assert keys.matches(PEPPER, plain, record.digest)
    assert not keys.matches(b"x" * 32, plain, record.digest)
    assert not keys.matches(PEPPER, plain[:-1] + ("A" if plain[-1] != "A" else "B"), record.digest)


@pytest.mark.parametrize(
    "more", [{"app": ""}, {"purpose": KeyPurpose.PERSONAL}, {"expires": int(NOW)}, {"expires": int(NOW) - 1}]
)
def test_keys_that_make_no_sense_are_not_made(more):
    with pytest.raises(ValueError, match=r"expected"):
        issue(**more)


GOOD = "psk_abcdefghijklmnop_" + "A" * 43


@pytest.mark.parametrize(
    "text",
    [
        "",
        "psk_",
        GOOD[:-1],
        GOOD + "A",
        GOOD + "\n",
        " " + GOOD,
        GOOD.replace("psk_", "psx_"),
        GOOD.replace("psk_", "PSK_"),
        GOOD.replace("psk_", "sk-"),
        GOOD.replace("abc", "ABC"),
        GOOD.replace("abc", "ab1"),
        GOOD.replace("AAAA", "AA=A", 1),
        GOOD.replace("AAAA", "AA\u0410A", 1),
        GOOD.replace("abc", "ab\u0661"),
        GOOD.replace("AAAA", "AA\udcffA", 1),
        GOOD.replace("p_A", "p-A"),
        "x" * 100_000,
    ],
)
def test_what_is_no_key_is_not_read_as_one(text):
    assert keys.parse(GOOD) is not None
    assert keys.parse(text) is None


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(max_size=200))
def test_reading_and_hashing_never_fail(text):
    assert keys.parse(text) is None
    assert len(keys.digest(PEPPER, text)) == 64


@pytest.mark.parametrize("value", [None, "", "   ", "x" * 31, " " * 40 + "x" * 31])
def test_a_pepper_that_is_missing_or_short_is_named_and_not_shown(value):
    with pytest.raises(ConfigError) as caught:
        keys.read_pepper({} if value is None else {"PENSTOCK_KEY_PEPPER": value})
    assert "PENSTOCK_KEY_PEPPER" in str(caught.value)
    assert "at least 32 bytes" in str(caught.value)
    assert "xxx" not in str(caught.value)


def test_a_pepper_is_read_as_it_is():
    assert keys.read_pepper({"PENSTOCK_KEY_PEPPER": "x" * 32}) == b"x" * 32


class TestRotation:
    def test_the_old_key_works_until_its_grace_period_ends(self):
        _, record = issue(display_name="laptop")
        plain, new, old = keys.rotate(PEPPER, record, now=NOW, grace_s=60)
        assert keys.matches(PEPPER, plain, new.digest)
        assert (new.app, new.developer, new.display_name) == (record.app, record.developer, "laptop")
        assert (old.revoked, old.replaced_by) == (int(NOW) + 60, new.id)
        assert keys.state(old, NOW + 59.9) is keys.KeyState.IN_GRACE
        assert keys.state(old, NOW + 60) is keys.KeyState.REVOKED

    def test_the_new_key_lives_as_long_as_the_old_one_did(self):
        _, record = issue(expires=int(NOW) + 1000)
        _, new, old = keys.rotate(PEPPER, record, now=NOW + 900)
        assert new.expires == int(NOW) + 1900
        assert keys.ends(old) == NOW + 1000

    def test_an_earlier_revocation_stays(self):
        _, record = issue()
        record = record.model_copy(update={"revoked": int(NOW) + 10})
        assert keys.rotate(PEPPER, record, now=NOW, grace_s=60)[2].revoked == int(NOW) + 10

    def test_a_key_that_does_not_work_is_not_rotated(self):
        _, record = issue(expires=int(NOW) + 10)
        with pytest.raises(ValueError, match="is expired"):
            keys.rotate(PEPPER, record, now=NOW + 10)
        with pytest.raises(ValueError, match="is revoked"):
            keys.rotate(PEPPER, keys.revoke(record, NOW), now=NOW)

    def test_a_key_is_rotated_once(self):
        _, record = issue()
        _, new, old = keys.rotate(PEPPER, record, now=NOW)
        with pytest.raises(ValueError, match=new.id):
            keys.rotate(PEPPER, old, now=NOW)

    @pytest.mark.parametrize("grace", [-1, keys.MAX_GRACE_S + 1])
    def test_the_grace_period_has_bounds(self, grace):
        with pytest.raises(ValueError, match="grace period"):
            keys.rotate(PEPPER, issue()[1], now=NOW, grace_s=grace)


def test_revoking_ends_a_grace_period_and_keeps_an_earlier_end():
    _, record = issue()
    in_grace = record.model_copy(update={"revoked": int(NOW) + 60})
    assert keys.revoke(in_grace, NOW).revoked == int(NOW)
    assert keys.revoke(keys.revoke(record, NOW), NOW + 5).revoked == int(NOW)


async def test_what_is_stored_is_in_the_audit_trail_without_digests():
    store = MemoryStore()
    _, record = issue()
    await keys.save_new(store, record, actor="admin-token", now=NOW)
    _, new, old = keys.rotate(PEPPER, record, now=NOW, grace_s=0)
    await keys.save_rotation(store, new, old, actor="admin-token", now=NOW)
    revoked = await keys.save_revocation(store, new.id, actor="admin-token", now=NOW)
    assert await keys.save_revocation(store, new.id, actor="admin-token", now=NOW + 9) == revoked
    assert [(e.action, e.name) for e in store.entries] == [
        ("issue", record.id),
        ("issue", new.id),
        ("rotate", record.id),
        ("revoke", new.id),
    ]
    assert store.entries[2].before["revoked"] is None
    assert store.entries[2].after["replacedBy"] == new.id
    assert not any(r.digest in repr(store.entries) for r in (record, new))
    with pytest.raises(Conflict):
        await keys.save_new(store, record, actor="admin-token", now=NOW)
    with pytest.raises(Conflict, match="does not exist"):
        await keys.save_revocation(store, "a" * 16, actor="admin-token", now=NOW)
