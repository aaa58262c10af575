"""Changes of other processes between a check and the change that it was made for."""

from collections.abc import Sequence
from typing import Any

import pytest

from services.apimgmt.domain import Kind
from services.apimgmt.store.api import Change, Document, Store
from tests.unit.apimgmt.admin.support import ORGANIZATION, Api

LIMIT = {"scope": "team", "kind": "tokens", "amount": 5, "window": "day"}
USER = {"name": "user", "models": ["*"], "limits": ["daily"]}


def meddle(monkeypatch: pytest.MonkeyPatch, store: Store, *changes: Change) -> None:
    """Let another process make `changes` right after the next snapshot."""
    snapshot = store.snapshot
    waiting = list(changes)

    async def meddling() -> tuple[int, Sequence[Document]]:
        found = await snapshot()
        if waiting:
            made, waiting[:] = list(waiting), []
            await store.change(made, [])
        return found

    monkeypatch.setattr(store, "snapshot", meddling)


async def actions(api: Api, count: int) -> list[str]:
    items = (await api.call("admin", "GET", "/admin/v1/audit", params={"limit": count})).json()["items"]
    return [f"{entry['action']} {entry['name']}" for entry in items]


async def test_a_deletion_is_taken_back_if_somebody_began_to_use_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await api.put("admin", "/admin/v1/limits/daily", LIMIT)
    meddle(monkeypatch, api.context.store, Change(Kind.PRODUCT, "", "user", USER))
    answer = await api.call("admin", "DELETE", "/admin/v1/limits/daily", headers={"if-match": made.headers["etag"]})
    assert (answer.status_code, answer.json()["referrers"]) == (409, ["products/user"])
    back = (await api.call("admin", "GET", "/admin/v1/limits/daily")).json()
    assert back["amount"] == 5
    assert await actions(api, 2) == ["create daily", "delete daily"]


@pytest.mark.parametrize("existing", [False, True])
async def test_a_change_is_taken_back_if_what_it_names_went_away(
    api: Api, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    await api.put("admin", "/admin/v1/limits/daily", LIMIT)
    before: dict[str, Any] = {}
    if existing:
        before = (await api.put("admin", "/admin/v1/products/user", {"models": ["old"]})).json()
    meddle(monkeypatch, api.context.store, Change(Kind.LIMIT, "", "daily", None))
    answer = await api.put("admin", "/admin/v1/products/user", USER, "*" if existing else None)
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "limits[0]")
    after = await api.call("admin", "GET", "/admin/v1/products/user")
    assert after.status_code == (200 if existing else 404)
    if existing:
        assert after.json()["models"] == before["models"] == ["old"]
    assert await actions(api, 2) == (["update user"] * 2 if existing else ["delete user", "create user"])


async def test_changes_of_others_that_do_no_harm_stand(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    meddle(monkeypatch, api.context.store, Change(Kind.PRODUCT, "", "else", {"name": "else", "models": ["*"]}))
    assert (await api.put("admin", "/admin/v1/limits/daily", LIMIT)).status_code == 201


async def test_a_key_of_an_app_that_goes_meanwhile_is_revoked(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.app()
    store = api.context.store
    put = store.put_keys

    async def late(records: Any, audit: Any, *, new: bool) -> int:
        revision = await put(records, audit, new=new)
        if await store.get(Kind.APP, "acme", "bot"):
            await store.change([Change(Kind.APP, "acme", "bot", None)], [])
        return revision

    await api.personal_key("ada@acme")
    monkeypatch.setattr(store, "put_keys", late)
    answer = await api.call("ada@acme", "POST", f"{ORGANIZATION}/apps/bot/keys")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert [key.revoked is not None for key in await store.keys("acme", app="bot")] == [True]
