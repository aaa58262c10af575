"""Apps and subscriptions: what people may do to their own, and what takes an administrator."""

from typing import Any

import pytest

from tests.unit.apimgmt.admin.support import ORGANIZATION, Api

BOT = f"{ORGANIZATION}/apps/bot"
MINE = {"team": "research", "developer": "ada@acme"}


def statuses(app: dict[str, Any]) -> dict[str, str]:
    return {s["product"]: s["status"] for s in app["products"]}


async def test_new_subscriptions_are_asked_for_not_taken(api: Api) -> None:
    wanted = [{"product": "chat"}, {"product": "gated", "status": "approved"}]
    made = await api.app(products=wanted)
    assert statuses(made.json()) == {"chat": "approved", "gated": "pending"}
    taken = await api.put("ada@acme", BOT, {**MINE, "products": wanted}, made.headers["etag"])
    assert statuses(taken.json()) == {"chat": "approved", "gated": "pending"}


async def test_products_that_are_not_public_cannot_be_asked_for(api: Api) -> None:
    answer = await api.put("ada@acme", BOT, {**MINE, "products": [{"product": "secret"}]})
    assert answer.status_code == 404
    await api.app()
    assert (await api.call("ada@acme", "PUT", f"{BOT}/subscriptions/secret")).status_code == 404
    assert statuses((await api.call("admin", "PUT", f"{BOT}/subscriptions/secret")).json()) == {"secret": "approved"}


async def test_requests_are_approved_and_revoked(api: Api) -> None:
    await api.app()
    gated = f"{BOT}/subscriptions/gated"
    asked = await api.call("ada@acme", "PUT", gated)
    assert statuses(asked.json()) == {"gated": "pending"}
    again = await api.call("ada@acme", "PUT", gated)
    assert again.headers["etag"] == asked.headers["etag"]
    pending = (await api.call("admin", "GET", "/admin/v1/subscriptions", params={"status": "pending"})).json()["items"]
    assert [(s["organization"], s["app"], s["product"]) for s in pending] == [("acme", "bot", "gated")]
    assert (await api.call("lead@acme", "POST", f"{gated}/approve")).status_code == 403
    assert statuses((await api.call("root@acme", "POST", f"{gated}/approve")).json()) == {"gated": "approved"}
    assert statuses((await api.call("lead@acme", "POST", f"{gated}/revoke")).json()) == {"gated": "revoked"}
    refused = await api.call("ada@acme", "PUT", gated)
    assert (refused.status_code, refused.json()["code"]) == (409, "revoked")
    audit = (await api.call("admin", "GET", "/admin/v1/audit", params={"limit": 2})).json()["items"]
    assert [entry["actor"] for entry in audit] == ["developer:acme/lead@acme", "developer:acme/root@acme"]


async def test_revoked_subscriptions_cannot_be_shaken_off(api: Api) -> None:
    await api.app(products=[{"product": "chat"}])
    revoked = await api.call("admin", "POST", f"{BOT}/subscriptions/chat/revoke")
    tag = revoked.headers["etag"]
    dropped = await api.put("ada@acme", BOT, {**MINE, "products": []}, tag)
    assert (dropped.status_code, dropped.json()["errors"][0]["path"]) == (403, "products")
    kept = await api.put("ada@acme", BOT, {**MINE, "products": [{"product": "chat", "status": "approved"}]}, tag)
    assert statuses(kept.json()) == {"chat": "revoked"}
    assert (await api.call("ada@acme", "DELETE", BOT, headers={"if-match": "*"})).status_code == 403
    assert (await api.call("admin", "DELETE", BOT, headers={"if-match": "*"})).status_code == 204


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("team", "support"),
        ("developer", "bob@acme"),
        ("developer", "lead@acme"),
        ("trustedAgent", True),
        ("oauthClientId", "x"),
    ],
)
async def test_fields_that_only_administrators_set(api: Api, field: str, value: object) -> None:
    new = await api.put("ada@acme", BOT, {**MINE, field: value})
    assert (new.status_code, new.json()["errors"][0]["path"]) == (403, field)
    made = await api.app()
    changed = await api.put("ada@acme", BOT, {**MINE, field: value}, made.headers["etag"])
    assert (changed.status_code, changed.json()["errors"][0]["path"]) == (403, field)
    assert (await api.put("admin", BOT, {**MINE, field: value}, made.headers["etag"])).status_code == 200


async def test_owners_switch_apps_off_but_not_on(api: Api) -> None:
    made = await api.app()
    off = await api.put("ada@acme", BOT, {**MINE, "active": False}, made.headers["etag"])
    assert off.json()["active"] is False
    on = await api.put("ada@acme", BOT, {**MINE, "active": True}, off.headers["etag"])
    assert (on.status_code, on.json()["errors"][0]["path"]) == (403, "active")
    assert (await api.call("ada@acme", "DELETE", BOT, headers={"if-match": "*"})).status_code == 403


async def test_team_leads_manage_apps_of_their_team(api: Api) -> None:
    body = {"team": "research", "developer": "ada@acme"}
    made = await api.put("lead@acme", BOT, body)
    assert made.status_code == 201
    assert [a["name"] for a in (await api.call("ada@acme", "GET", "/admin/v1/apps")).json()["items"]] == ["bot"]
    assert (await api.call("bob@acme", "GET", "/admin/v1/apps")).json()["items"] == []
    foreign = await api.put("lead@acme", f"{ORGANIZATION}/apps/x", {"team": "research", "developer": "bob@acme"})
    assert (foreign.status_code, foreign.json()["errors"][0]["path"]) == (403, "developer")
    await api.app("bob@acme", "his")
    assert (await api.call("lead@acme", "GET", f"{ORGANIZATION}/apps/his")).status_code == 404


async def test_names_taken_by_others_cannot_be_overwritten(api: Api) -> None:
    await api.app("bob@acme", "bot")
    for etag in (None, "*"):
        assert (await api.put("ada@acme", BOT, MINE, etag)).status_code == 404
    assert (await api.call("admin", "GET", BOT)).json()["developer"] == "bob@acme"
