"""Usage, statement, ledger and audit trail; the installation's own state; export and import."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from services.apimgmt.domain import Kind
from services.apimgmt.policies import REGISTRY
from services.apimgmt.store.api import Change, Settlement
from tests.unit.apimgmt.admin.conftest import serve
from tests.unit.apimgmt.admin.support import DECLARED, NOW, Api, settings

HOUR = NOW // 3600 * 3600


async def use(api: Api, number: int, user: str, team: str, organization: str = "acme", **more: Any) -> None:
    record = {
        "id": f"r{number}", "time": NOW * 1000, "organization": organization, "team": team, "user": user, "app": "bot",
        "key": "k", "product": "chat", "agent": "", "model": "m", "outcome": "ok", "promptTokens": 10,
        "cachedTokens": 0, "completionTokens": 5, "reasoningTokens": 0, "costMicros": 20, "latencyMs": 7,
        "estimated": False, **more,
    }  # fmt: skip
    text = json.dumps(record).encode()
    await api.context.store.settle(Settlement(record["id"], organization, float(NOW), (), (), text, record))


@pytest.fixture
async def used(api: Api) -> Api:
    await use(api, 1, "ada@acme", "research")
    await use(api, 2, "lead@acme", "research")
    await use(api, 3, "bob@acme", "support", agent="=cmd()")
    await use(api, 4, "eve@other", "research", "other")
    return api


async def users(api: Api, who: str, **parameters: Any) -> list[str]:
    answer = await api.call(who, "GET", "/admin/v1/usage", params={"by": "organization,user", **parameters})
    assert answer.status_code == 200, answer.text
    return [f"{row['user']}" for row in answer.json()["items"]]


async def test_each_role_sees_its_part_of_usage(used: Api) -> None:
    assert sorted(await users(used, "admin")) == ["ada@acme", "bob@acme", "eve@other", "lead@acme"]
    assert sorted(await users(used, "admin", organization="other")) == ["eve@other"]
    assert sorted(await users(used, "lead@acme")) == ["ada@acme", "lead@acme"]
    assert await users(used, "ada@acme") == ["ada@acme"]
    assert await users(used, "ada@acme", model="none") == []


@pytest.mark.parametrize(
    ("who", "parameters"),
    [
        ("ada@acme", {"user": "bob@acme"}),
        ("ada@acme", {"organization": "other"}),
        ("lead@acme", {"team": "support"}),
        ("lead@acme", {"organization": "other", "team": "research"}),
    ],
)
async def test_nobody_sees_more_by_asking(used: Api, who: str, parameters: dict[str, str]) -> None:
    assert (await used.call(who, "GET", "/admin/v1/usage", params=parameters)).status_code == 403


async def test_sums_are_exact(used: Api) -> None:
    answer = (await used.call("admin", "GET", "/admin/v1/usage", params={"by": "organization", "bucket": "all"})).json()
    acme = next(row for row in answer["items"] if row["organization"] == "acme")
    assert (acme["requests"], acme["promptTokens"], acme["completionTokens"], acme["costMicros"]) == (3, 30, 15, 60)
    assert (answer["until"], answer["bucket"]) == (HOUR + 3600, "all")


async def test_csv_holds_no_formulas(used: Api) -> None:
    for parameters, headers in (({"format": "csv"}, {}), ({}, {"accept": "text/csv"})):
        asked = {"by": ["agent", "user"], "bucket": "hour", **parameters}
        answer = await used.call("admin", "GET", "/admin/v1/usage", params=asked, headers=headers)
        assert answer.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(answer.text.splitlines()))
        assert {row["agent"] for row in rows} == {"", "'=cmd()"}
        assert {row["requests"] for row in rows} == {"1"}


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("usage", {"by": "nothing"}),
        ("usage", {"since": "yesterday"}),
        ("usage", {"since": "-1"}),
        ("usage", {"since": "9" * 40}),
        ("usage", {"since": "2026-01-02", "until": "2026-01-01"}),
        ("usage", {"since": "2020-01-01", "bucket": "hour"}),
        ("usage", {"bucket": "year"}),
        ("usage", {"format": "xml"}),
        ("statement", {"month": "2026-13"}),
        ("statement", {}),
        ("audit", {"after": "x"}),
        ("audit", {"limit": "0"}),
        ("ledger", {"limit": "1000"}),
    ],
)
async def test_parameters_that_mean_nothing_are_named(api: Api, path: str, parameters: dict[str, str]) -> None:
    answer = await api.call("admin", "GET", f"/admin/v1/{path}", params=parameters)
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["path"] in {"by", "since", "bucket", "format", "month", "after", "limit"}


async def test_the_statement_of_a_month(used: Api) -> None:
    answer = await used.call("admin", "GET", "/admin/v1/statement", params={"month": "2026-09", "by": "team"})
    found = answer.json()
    assert {line["team"]: line["requests"] for line in found["lines"]} == {"research": 3, "support": 1}
    assert found["amountMicros"] == sum(line["amountMicros"] for line in found["lines"]) == 80


async def test_the_ledger_is_read_record_by_record(used: Api) -> None:
    ids, after = [], ""
    for _ in range(10):
        page = (await used.call("admin", "GET", "/admin/v1/ledger", params={"limit": 3, "after": after})).json()
        if not page["items"]:
            break
        ids += [record["id"] for record in page["items"]]
        after = page["next"]
    assert sorted(ids) == ["r1", "r2", "r3", "r4"]


async def test_the_audit_trail_goes_back_in_pages(api: Api) -> None:
    total = sum(len(items) for items in DECLARED.values())
    seen, after = [], 0
    for _ in range(20):
        page = (await api.call("admin", "GET", "/admin/v1/audit", params={"limit": 5, "after": after})).json()
        seen += [entry["sequence"] for entry in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == total
    mine = (await api.call("admin", "GET", "/admin/v1/audit", params={"organization": "other"})).json()["items"]
    assert {entry["organization"] for entry in mine} == {"other"}


async def test_the_declared_diff_shows_what_is_not_applied(api: Api, tmp_path: Path) -> None:
    empty = (await api.call("admin", "GET", "/admin/v1/declared/diff")).json()
    assert empty["items"] == []
    limits = [{**DECLARED["limits"][0], "amount": 7}]
    api.context.settings = settings(tmp_path, limits=limits)
    found = (await api.call("admin", "GET", "/admin/v1/declared/diff")).json()["items"]
    assert [(d["action"], d["kind"], d["name"], d["fields"]) for d in found] == [
        ("update", "limits", "burst", [{"path": "amount", "before": 100, "after": 7}])
    ]
    api.context.settings = settings(tmp_path, limits=[])
    refused = await api.call("admin", "GET", "/admin/v1/declared/diff")
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "organizations[0].limits[0]")


async def test_policies_come_with_the_schemas_of_their_settings(api: Api) -> None:
    items = (await api.call("admin", "GET", "/admin/v1/policies")).json()["items"]
    assert [item["name"] for item in items] == list(REGISTRY)
    assert all(item["settings"]["type"] == "object" for item in items)


async def test_an_export_can_be_imported_into_an_empty_store(used: Api, tmp_path: Path) -> None:
    key = await used.personal_key("ada@acme")
    answer = await used.call("admin", "GET", "/admin/v1/export")
    assert answer.status_code == 200
    lines = answer.text.splitlines()
    assert json.loads(lines[0])["type"] == "header"
    assert key not in answer.text
    full = await used.call("admin", "POST", "/admin/v1/import", content=answer.content)
    assert (full.status_code, full.json()["code"]) == (409, "conflict")
    other = tmp_path / "other"
    async with serve(settings(other, **{kind: [] for kind in DECLARED})) as empty:
        broken = await empty.call("admin", "POST", "/admin/v1/import", content=b'{"type":"nonsense"}\n')
        assert broken.status_code == 422
        counts = (await empty.call("admin", "POST", "/admin/v1/import", content=answer.content)).json()
        assert counts["records"] == 4
        assert counts["documents"] == sum(len(items) for items in DECLARED.values())
        me = await empty.client.get("/admin/v1/me", headers={"authorization": f"Bearer {key}"})
        assert me.json()["developer"] == "ada@acme", "keys go on working"
        audit = (await empty.call("admin", "GET", "/admin/v1/audit", params={"limit": 1})).json()["items"][0]
        assert (audit["action"], audit["actor"]) == ("import", "admin-token")


async def test_an_import_leaves_a_store_with_documents_alone(api: Api) -> None:
    before = await api.context.store.snapshot()
    await api.context.store.change([Change(Kind.LIMIT, "", "burst", None)], [])
    revision, _ = await api.context.store.snapshot()
    await api.call("admin", "POST", "/admin/v1/import", content=b"x" * 100)
    assert (await api.context.store.snapshot())[0] == revision
    assert before[0] < revision
