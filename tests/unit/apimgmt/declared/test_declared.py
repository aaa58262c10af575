import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.apimgmt import declared, keys
from services.apimgmt.domain import KeyPurpose, Kind
from services.apimgmt.settings import Settings
from services.apimgmt.store.api import Change, Store
from services.apimgmt.store.sqlite import SqliteStore
from services.extproc.config import ConfigError
from tests.unit.apimgmt.admin.support import DECLARED, NOW, PEPPER, settings, sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = SqliteStore(sqlite(tmp_path))
    await store.open()
    yield store
    await store.close()


def without(folder: Path, kind: str, *names: str, **changes: Any) -> Settings:
    return settings(folder, **{kind: [item for item in DECLARED[kind] if item["name"] not in names], **changes})


async def issue(store: Store, app: str = "", developer: str = "ada@acme") -> str:
    purpose = KeyPurpose.API if app else KeyPurpose.PERSONAL
    _, record = keys.issue(PEPPER, organization="acme", developer=developer, app=app, purpose=purpose, now=NOW)
    await store.put_keys([record], [], new=True)
    return record.id


APP = {
    "name": "bot",
    "organization": "acme",
    "team": "research",
    "developer": "ada@acme",
    "products": [{"product": "chat"}],
}


async def test_all_of_it_is_applied_in_one_step_and_only_once(store: Store, tmp_path: Path) -> None:
    config = settings(tmp_path)
    first = await declared.apply(store, config, NOW)
    revision, documents = await store.snapshot()
    assert len(first.created) == len(documents) == len(list(config.entities()))
    assert not first.changed
    assert not first.removed
    assert all(document.declared for document in documents)
    assert {document.revision for document in documents} == {revision}
    entries = await store.audit(None, 0, 100)
    assert len(entries) == len(documents)
    assert {(entry.actor, entry.action) for entry in entries} == {("declared", "create")}
    second = await declared.apply(store, config, NOW)
    assert not second.differences
    assert len(second.unchanged) == len(documents)
    assert (await store.snapshot())[0] == revision


async def test_a_change_is_shown_field_by_field(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await declared.apply(store, settings(tmp_path), NOW)
    limits = [{**DECLARED["limits"][0], "amount": 200}]
    products = [{"name": "chat", "models": ["*"], "policies": [{"policy": "cache"}]}, *DECLARED["products"][1:]]
    with caplog.at_level(logging.INFO, "penstock.apimgmt.declared"):
        diff = await declared.apply(store, settings(tmp_path, limits=limits, products=products), NOW)
    assert str(diff.changed[0]) == "~ limits/burst: amount: 100 -> 200"
    assert diff.changed[1].fields[0].path == "policies[0]"
    assert "~ limits/burst: amount: 100 -> 200" in caplog.text
    assert "0 created, 2 changed, 0 removed" in caplog.text
    entry = (await store.audit(None, 0, 2))[1]
    assert ((entry.before or {})["amount"], (entry.after or {})["amount"]) == (100, 200)


async def test_what_vanishes_is_deleted(store: Store, tmp_path: Path) -> None:
    await declared.apply(store, settings(tmp_path), NOW)
    diff = await declared.apply(store, without(tmp_path, "products", "secret"), NOW)
    assert [str(d) for d in diff.removed] == ["- products/secret"]
    assert await store.get(Kind.PRODUCT, "", "secret") is None
    assert (await store.audit(None, 0, 1))[0].action == "delete"


async def test_a_document_of_the_api_is_taken_over(store: Store, tmp_path: Path) -> None:
    body = {"name": "chat", "models": ["mine"], "displayName": "made by hand"}
    await store.change([Change(Kind.PRODUCT, "", "chat", body)], [])
    diff = await declared.apply(store, settings(tmp_path), NOW)
    taken = diff.changed[0]
    assert taken.note == "taken over from the admin API"
    assert "models: ['mine'] -> ['*']" in str(taken)
    document = await store.get(Kind.PRODUCT, "", "chat")
    assert document is not None
    assert document.declared
    assert document.body["models"] == ["*"]


async def test_documents_of_the_api_stay(store: Store, tmp_path: Path) -> None:
    await declared.apply(store, settings(tmp_path), NOW)
    await store.change([Change(Kind.APP, "acme", "bot", APP)], [])
    assert not (await declared.apply(store, settings(tmp_path), NOW)).differences
    assert await store.get(Kind.APP, "acme", "bot") is not None


async def test_names_that_lead_nowhere_or_stand_twice_are_all_named(store: Store, tmp_path: Path) -> None:
    products = [
        {"name": "chat", "models": ["*"], "limits": ["brust"], "ratePlan": "gold"},
        {"name": "chat", "models": ["*"]},
    ]
    app = {**APP, "team": "nowhere", "developer": "bob@acme", "products": [{"product": "chat"}, {"product": "none"}]}
    with pytest.raises(ConfigError) as caught:
        await declared.apply(store, settings(tmp_path, products=products, apps=[app]), NOW)
    problems = {problem.path: problem for problem in caught.value.problems}
    assert set(problems) == {
        "products[0].limits[0]", "products[0].ratePlan", "products[1].name",
        "apps[0].team", "apps[0].products[1].product",
    }  # fmt: skip
    assert problems["products[0].limits[0]"].fix == "did you mean 'burst'?"
    assert "name one of: standard" in problems["products[0].ratePlan"].fix
    assert (await store.snapshot())[1] == []


async def test_declared_documents_may_name_those_of_the_api(store: Store, tmp_path: Path) -> None:
    limit = {"name": "daily", "scope": "key", "kind": "requests", "amount": 1, "window": "day"}
    await store.change([Change(Kind.LIMIT, "", "daily", limit)], [])
    products = [{"name": "chat", "models": ["*"], "limits": ["daily"]}]
    await declared.apply(store, settings(tmp_path, products=products), NOW)


async def test_what_the_api_still_names_is_not_let_go(store: Store, tmp_path: Path) -> None:
    await declared.apply(store, settings(tmp_path), NOW)
    await store.change([Change(Kind.APP, "acme", "bot", APP)], [])
    before = await store.snapshot()
    with pytest.raises(ConfigError) as caught:
        await declared.apply(store, without(tmp_path, "products", "chat"), NOW)
    problem = caught.value.problems[0]
    assert (problem.path, problem.value) == ("products", "products/chat")
    assert "still named by apps/acme/bot (products[0].product)" in problem.expected
    assert await store.snapshot() == before


async def test_an_app_with_a_key_is_kept_inactive_until_the_key_is_gone(store: Store, tmp_path: Path) -> None:
    await declared.apply(store, settings(tmp_path, apps=[APP]), NOW)
    key = await issue(store, "bot")
    gone = without(tmp_path, "products", "chat")
    diff = await declared.apply(store, gone, NOW)
    assert [str(d) for d in diff.removed] == ["- products/chat"]
    assert [d.note for d in diff.changed] == ["kept, inactive: keys depend on it"]
    app = await store.get(Kind.APP, "acme", "bot")
    assert app is not None
    assert (app.body["active"], app.body["products"], app.declared) == (False, [], True)
    assert not (await declared.apply(store, gone, NOW)).differences, "the second time changes nothing"
    await keys.save_revocation(store, key, actor="test", now=NOW)
    diff = await declared.apply(store, gone, NOW + 1)
    assert [str(d) for d in diff.removed] == ["- apps/acme/bot"]


async def test_a_kept_app_comes_back_active(store: Store, tmp_path: Path) -> None:
    await declared.apply(store, settings(tmp_path, apps=[APP]), NOW)
    await issue(store, "bot")
    await declared.apply(store, settings(tmp_path), NOW)
    await declared.apply(store, settings(tmp_path, apps=[APP]), NOW)
    app = await store.get(Kind.APP, "acme", "bot")
    assert app is not None
    assert app.body["active"] is True


async def test_a_whole_organization_can_vanish_around_a_key(store: Store, tmp_path: Path) -> None:
    await declared.apply(store, settings(tmp_path, apps=[APP]), NOW)
    await issue(store, "bot")
    bare = {kind: [] for kind in DECLARED}
    await declared.apply(store, settings(tmp_path, **bare), NOW)
    _, documents = await store.snapshot()
    left = {(d.kind, d.name) for d in documents}
    assert left == {
        (Kind.APP, "bot"), (Kind.DEVELOPER, "ada@acme"), (Kind.TEAM, "research"), (Kind.ORGANIZATION, "acme")
    }  # fmt: skip
    bodies = {d.kind: d.body for d in documents}
    assert bodies[Kind.DEVELOPER]["active"] is bodies[Kind.APP]["active"] is False
    assert (bodies[Kind.ORGANIZATION]["limits"], bodies[Kind.ORGANIZATION]["ratePlan"]) == ([], None)
    assert not (await declared.apply(store, settings(tmp_path, **bare), NOW)).differences


async def test_a_developer_with_a_personal_key_is_kept_inactive(store: Store, tmp_path: Path) -> None:
    await declared.apply(store, settings(tmp_path), NOW)
    await issue(store, developer="bob@acme")
    await declared.apply(store, without(tmp_path, "developers", "bob@acme", "ada@acme"), NOW)
    bob = await store.get(Kind.DEVELOPER, "acme", "bob@acme")
    assert bob is not None
    assert bob.body["active"] is False
    assert await store.get(Kind.DEVELOPER, "acme", "ada@acme") is None


async def test_values_of_maps_outlive_the_file(store: Store, tmp_path: Path) -> None:
    await declared.apply(store, settings(tmp_path), NOW)
    body = {"name": "tickets", "displayName": "", "entries": {"token": "sealed-secret"}}
    await store.change([Change(Kind.KEY_VALUE_MAP, "", "tickets", body, declared=True)], [])
    assert not (await declared.apply(store, settings(tmp_path), NOW)).differences, "values are no difference"
    diff = await declared.apply(store, settings(tmp_path, keyValueMaps=[]), NOW)
    assert [d.note for d in diff.changed] == ["has values: left to the admin API"]
    kept = await store.get(Kind.KEY_VALUE_MAP, "", "tickets")
    assert kept is not None
    assert (kept.body["entries"], kept.declared) == ({"token": "sealed-secret"}, False)
    assert not (await declared.apply(store, settings(tmp_path, keyValueMaps=[]), NOW)).differences
    assert not any("sealed-secret" in repr(entry) for entry in await store.audit(None, 0, 100))
    assert "sealed-secret" not in str(diff)


async def test_of_several_that_start_at_once_one_wins(tmp_path: Path) -> None:
    stores = [SqliteStore(sqlite(tmp_path)) for _ in range(4)]
    for store in stores:
        await store.open()
    try:
        diffs = await asyncio.gather(*(declared.apply(store, settings(tmp_path), NOW) for store in stores))
        assert sorted(len(diff.differences) > 0 for diff in diffs) == [False, False, False, True]
        entries = await stores[0].audit(None, 0, 500)
        assert len(entries) == len(list(settings(tmp_path).entities()))
    finally:
        for store in stores:
            await store.close()


async def test_declared_products_keep_declared_template_rules(store: Store, tmp_path: Path) -> None:
    rules = [{"name": "strict", "required": ["prompt-limit"], "denied": ["no-such"]}]
    with pytest.raises(ConfigError) as caught:
        await declared.apply(store, settings(tmp_path, templateRules=rules), NOW)
    assert [problem.path for problem in caught.value.problems] == [
        "templateRules[0].denied[0]", "products[0].policies", "products[1].policies", "products[2].policies"
    ]  # fmt: skip


async def test_template_rules_of_the_api_do_not_keep_a_process_from_starting(store: Store, tmp_path: Path) -> None:
    rule = {"name": "strict", "required": ["prompt-limit"]}
    await store.change([Change(Kind.TEMPLATE_RULE, "", "strict", rule)], [])
    assert (await declared.apply(store, settings(tmp_path), NOW)).created
