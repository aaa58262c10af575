"""Keys over the API: shown once, listed without secrets, rotated, revoked, kept apart."""

import logging

import pytest

from services.apimgmt import keys
from services.apimgmt.domain import Kind
from tests.unit.apimgmt.admin.support import NOW, ORGANIZATION, PEPPER, Api

BOT = f"{ORGANIZATION}/apps/bot/keys"
ADA = f"{ORGANIZATION}/developers/ada%40acme/keys"


async def test_a_key_is_shown_once_and_stored_hashed(api: Api) -> None:
    await api.app()
    answer = await api.call("ada@acme", "POST", BOT, json={"displayName": "laptop", "expiresInDays": 2})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    parsed = keys.parse(made["key"])
    assert parsed is not None
    assert parsed.id == made["id"]
    record = await api.context.store.key(made["id"])
    assert record is not None
    assert keys.matches(PEPPER, made["key"], record.digest)
    assert (record.app, record.developer, record.expires) == ("bot", "ada@acme", NOW + 2 * 86_400)
    secret = made["key"].split("_", 2)[2]
    for path in (BOT, f"{BOT}/{made['id']}", "/admin/v1/audit"):
        text = (await api.call("admin", "GET", path)).text
        assert made["id"] in text
        assert secret not in text
        assert record.digest not in text


async def test_rotation_leaves_a_grace_period(api: Api) -> None:
    await api.app()
    old = (await api.call("ada@acme", "POST", BOT)).json()
    new = await api.call("ada@acme", "POST", f"{BOT}/{old['id']}/rotate", json={"graceSeconds": 60})
    assert new.status_code == 201
    states = {k["id"]: (k["state"], k["revoked"]) for k in (await api.call("ada@acme", "GET", BOT)).json()["items"]}
    assert states == {old["id"]: ("inGrace", NOW + 60), new.json()["id"]: ("active", None)}
    api.now = NOW + 60
    assert (await api.call("ada@acme", "GET", f"{BOT}/{old['id']}")).json()["state"] == "revoked"
    again = await api.call("ada@acme", "POST", f"{BOT}/{old['id']}/rotate")
    assert (again.status_code, again.json()["code"]) == (409, "not_rotatable")


async def test_revoking_is_at_once_and_for_ever(api: Api) -> None:
    await api.app()
    made = (await api.call("ada@acme", "POST", BOT)).json()
    for _ in range(2):
        answer = await api.call("ada@acme", "POST", f"{BOT}/{made['id']}/revoke")
        assert (answer.status_code, answer.json()["state"]) == (200, "revoked")
    change = await api.call("ada@acme", "PATCH", f"{BOT}/{made['id']}", json={"expires": NOW + 10})
    assert (change.status_code, change.json()["code"]) == (409, "ended")


async def test_label_and_expiry_can_be_changed(api: Api) -> None:
    await api.app()
    made = (await api.call("ada@acme", "POST", BOT)).json()
    body = {"displayName": "server", "expires": NOW + 100}
    changed = (await api.call("ada@acme", "PATCH", f"{BOT}/{made['id']}", json=body)).json()
    assert (changed["displayName"], changed["expires"]) == ("server", NOW + 100)
    changed = (await api.call("ada@acme", "PATCH", f"{BOT}/{made['id']}", json={"expires": None})).json()
    assert (changed["displayName"], changed["expires"]) == ("server", None)
    bad = await api.call("ada@acme", "PATCH", f"{BOT}/{made['id']}", json={"revoked": None, "digest": "x"})
    assert bad.status_code == 422


async def test_a_key_is_found_below_its_own_app_only(api: Api) -> None:
    await api.app()
    await api.app("ada@acme", "other")
    made = (await api.call("ada@acme", "POST", BOT)).json()
    for holder in (f"{ORGANIZATION}/apps/other/keys", ADA):
        for method, end in (("GET", ""), ("PATCH", ""), ("POST", "/rotate"), ("POST", "/revoke")):
            answer = await api.call("ada@acme", method, f"{holder}/{made['id']}{end}", json={})
            assert answer.status_code == 404, (holder, method, end)
    assert (await api.call("ada@acme", "GET", ADA)).json()["items"][0]["purpose"] == "personal"


@pytest.mark.parametrize(
    "body", [{"expires": NOW}, {"expires": NOW - 1}, {"expiresInDays": 0}, {"expires": "soon"}, {"purpose": "personal"}]
)
async def test_keys_cannot_be_asked_for_wrongly(api: Api, body: dict[str, object]) -> None:
    await api.app()
    assert (await api.call("ada@acme", "POST", BOT, json=body)).status_code == 422


async def test_inactive_apps_get_no_keys(api: Api) -> None:
    made = await api.app()
    tag = {"if-match": made.headers["etag"]}
    await api.call("admin", "PATCH", f"{ORGANIZATION}/apps/bot", json={"active": False}, headers=tag)
    answer = await api.call("ada@acme", "POST", BOT)
    assert (answer.status_code, answer.json()["code"]) == (409, "inactive")


async def test_a_new_personal_key_opens_the_api(api: Api) -> None:
    made = (await api.call("ada@acme", "POST", ADA, json={"displayName": "second"})).json()
    headers = {"authorization": f"Bearer {made['key']}"}
    me = await api.client.get("/admin/v1/me", headers=headers)
    assert me.json() == {
        "role": "developer", "actor": "developer:acme/ada@acme", "organization": "acme", "team": "research",
        "developer": "ada@acme",
    }  # fmt: skip
    used = await api.context.store.key(made["id"])
    assert used is not None
    assert used.last_used == NOW
    await api.call("ada@acme", "POST", f"{ADA}/{made['id']}/revoke")
    assert (await api.client.get("/admin/v1/me", headers=headers)).status_code == 401


@pytest.mark.parametrize("what", ["unknown", "expired", "inactive", "api key", "other secret", "gone"])
async def test_keys_that_do_not_open_the_api(api: Api, what: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = await api.personal_key("ada@acme")
    if what == "unknown":
        key = "psp_" + "a" * 16 + "_" + "A" * 43
    elif what == "expired":
        key = (await api.call("ada@acme", "POST", ADA, json={"expires": NOW + 5})).json()["key"]
        api.now = NOW + 5
    elif what in ("inactive", "gone"):
        document = await api.context.store.get(Kind.DEVELOPER, "acme", "ada@acme")
        assert document is not None
        from services.apimgmt.store.api import Change

        body = {**document.body, "active": False} if what == "inactive" else None
        await api.context.store.change([Change(Kind.DEVELOPER, "acme", "ada@acme", body)], [])
    elif what == "api key":
        await api.app()
        key = (await api.call("ada@acme", "POST", BOT)).json()["key"]
    elif what == "other secret":
        key = key[:-3] + ("AAA" if key[-3:] != "AAA" else "BBB")
    answer = await api.client.get("/admin/v1/me", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 401
    assert key not in answer.text
    assert key not in caplog.text


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer a b", "Basic dDp0", "t" * 40, "Bearer " + "t" * 39, "Bearer " + "t" * 41, "Bearer é"],
)
async def test_headers_that_are_no_credential(api: Api, header: str) -> None:
    answer = await api.client.get("/admin/v1/me", headers={"authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="penstock"'


async def test_pages_of_keys(api: Api) -> None:
    await api.app()
    made = {(await api.call("ada@acme", "POST", BOT)).json()["id"] for _ in range(5)}
    first = (await api.call("ada@acme", "GET", BOT, params={"limit": 3})).json()
    rest = (await api.call("ada@acme", "GET", BOT, params={"limit": 3, "after": first["next"]})).json()
    assert [k["id"] for k in first["items"] + rest["items"]] == sorted(made)
    assert rest["next"] is None
