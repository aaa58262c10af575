"""Documents: creating, reading, changing, deleting; preconditions, references, pages, audit."""

import pytest

from services.apimgmt.admin.examples import EXAMPLES
from services.apimgmt.domain import ENTITIES, Kind
from services.apimgmt.store.api import Change
from tests.unit.apimgmt.admin.support import ORGANIZATION, TOKEN, Api

LIMIT = {"scope": "team", "kind": "tokens", "amount": 5, "window": "day"}


@pytest.mark.parametrize("kind", Kind)
async def test_the_examples_can_be_saved_read_changed_and_deleted(api: Api, kind: Kind) -> None:
    for name in ("monthly-budget", "team-tokens", "shared-tokens", "requests-per-minute"):
        assert (await api.put("admin", f"/admin/v1/limits/{name}", LIMIT)).status_code == 201
    cls = ENTITIES[kind]
    path = f"{ORGANIZATION}/{kind.value}/new" if cls.scoped else f"/admin/v1/{kind.value}/new"
    body = dict(EXAMPLES[kind])
    if kind is Kind.APP:
        body["developer"] = "ada@acme"
    made = await api.put("admin", path, body)
    assert made.status_code == 201, made.text
    read = await api.call("admin", "GET", path)
    assert read.json() == made.json()
    assert read.headers["etag"] == made.headers["etag"] == f'"{read.json()["metadata"]["revision"]}"'
    assert body.items() <= read.json().items() or kind in (Kind.APP, Kind.PRODUCT, Kind.RATE_PLAN)
    patched = await api.call(
        "admin", "PATCH", path, json={"displayName": "Other"}, headers={"if-match": read.headers["etag"]}
    )
    assert patched.json()["displayName"] == "Other", patched.text
    again = await api.put("admin", path, patched.json(), patched.headers["etag"])
    assert again.headers["etag"] == patched.headers["etag"], "sending back what was read changes nothing"
    gone = await api.call("admin", "DELETE", path, headers={"if-match": again.headers["etag"]})
    assert gone.status_code == 204, gone.text
    assert (await api.call("admin", "GET", path)).status_code == 404
    entries = (await api.call("admin", "GET", "/admin/v1/audit", params={"limit": 3})).json()["items"]
    assert [e["action"] for e in entries] == ["delete", "update", "create"]
    assert {e["actor"] for e in entries} == {"admin-token"}
    assert entries[1]["before"]["displayName"] != entries[1]["after"]["displayName"] == "Other"
    assert entries[0]["after"] is None


async def test_changes_need_the_state_that_they_are_made_for(api: Api) -> None:
    path = "/admin/v1/limits/daily"
    new = {"if-none-match": "*"}
    made = await api.call("admin", "PUT", path, json=LIMIT, headers=new)
    assert made.status_code == 201
    assert (await api.call("admin", "PUT", path, json=LIMIT, headers=new)).status_code == 412
    assert (await api.put("admin", path, LIMIT)).status_code == 428
    assert (await api.put("admin", path, LIMIT, '"0"')).status_code == 412
    assert (await api.put("admin", "/admin/v1/limits/none", LIMIT, '"1"')).status_code == 412
    assert (await api.call("admin", "DELETE", path)).status_code == 428
    assert (await api.call("admin", "DELETE", path, headers={"if-match": '"0"'})).status_code == 412
    assert (await api.call("admin", "PATCH", path, json={})).status_code == 428
    assert (await api.put("admin", path, {**LIMIT, "amount": 6}, made.headers["etag"])).json()["amount"] == 6
    assert (await api.put("admin", path, {**LIMIT, "amount": 7}, made.headers["etag"])).status_code == 412
    assert (await api.put("admin", path, {**LIMIT, "amount": 8}, "*")).json()["amount"] == 8
    bad = await api.call("admin", "PUT", path, json=LIMIT, headers={"if-none-match": '"1"'})
    assert (bad.status_code, bad.json()["errors"][0]["path"]) == (400, "If-None-Match")


async def test_all_problems_come_at_once(api: Api) -> None:
    body = {"scope": "galaxy", "kind": "tokens", "amount": 0, "windov": "day"}
    answer = await api.put("admin", "/admin/v1/limits/daily", body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"], problem["type"]) == (422, "invalid", "about:blank")
    errors = {error["path"]: error for error in problem["errors"]}
    assert set(errors) == {"scope", "amount", "windov"}
    assert errors["windov"]["fix"] == "did you mean 'window'?"
    assert all(set(error) == {"path", "value", "expected", "fix"} for error in problem["errors"])


async def test_names_must_lead_somewhere(api: Api) -> None:
    body = {"models": ["*"], "limits": ["burst", "brust"], "ratePlan": "gold"}
    answer = await api.put("admin", "/admin/v1/products/new", body)
    assert answer.status_code == 422
    errors = {error["path"]: error for error in answer.json()["errors"]}
    assert set(errors) == {"limits[1]", "ratePlan"}
    assert errors["limits[1]"]["fix"] == "did you mean 'burst'?"
    foreign = await api.put("admin", f"{ORGANIZATION}/developers/new", {"team": "nowhere"})
    assert "research, support" in foreign.json()["errors"][0]["fix"]
    nowhere = await api.put("admin", "/admin/v1/organizations/none/teams/new", {})
    assert nowhere.json()["errors"][0]["path"] == "organization"


async def test_policies_of_products_are_checked(api: Api) -> None:
    uses = [{"policy": "no-such"}, {"policy": "prompt-limit", "settings": {"bogus": 1}}]
    answer = await api.put("admin", "/admin/v1/products/new", {"models": ["*"], "policies": uses})
    assert answer.status_code == 422, answer.text
    paths = [error["path"] for error in answer.json()["errors"]]
    assert "policies[0].policy" in paths
    assert any(path.startswith("policies[1].settings") for path in paths)


async def test_declared_documents_are_read_only(api: Api) -> None:
    read = await api.call("admin", "GET", "/admin/v1/products/chat")
    assert read.json()["metadata"]["declared"] is True
    tag = {"if-match": read.headers["etag"]}
    for method, body in (("PUT", {"models": ["x"]}), ("PATCH", {"models": ["x"]}), ("DELETE", None)):
        answer = await api.call("admin", method, "/admin/v1/products/chat", json=body, headers=tag)
        assert (answer.status_code, answer.json()["code"]) == (409, "declared"), answer.text
        assert "declared by the stack" in answer.json()["detail"]


async def test_what_others_name_stays(api: Api) -> None:
    made = await api.put("admin", "/admin/v1/limits/daily", LIMIT)
    product = await api.put("admin", "/admin/v1/products/new", {"models": ["*"], "limits": ["daily"]})
    await api.app("ada@acme", "bot", products=[{"product": "new"}])
    limit = await api.call("admin", "DELETE", "/admin/v1/limits/daily", headers={"if-match": made.headers["etag"]})
    assert (limit.status_code, limit.json()["referrers"]) == (409, ["products/new"])
    answer = await api.call("admin", "DELETE", "/admin/v1/products/new", headers={"if-match": product.headers["etag"]})
    assert (answer.status_code, answer.json()["referrers"]) == (409, ["apps/acme/bot"])


async def test_apps_with_keys_stay_until_the_keys_are_revoked(api: Api) -> None:
    made = await api.app("ada@acme", "bot")
    key = (await api.call("ada@acme", "POST", f"{ORGANIZATION}/apps/bot/keys")).json()
    tag = {"if-match": made.headers["etag"]}
    refused = await api.call("ada@acme", "DELETE", f"{ORGANIZATION}/apps/bot", headers=tag)
    assert (refused.status_code, refused.json()["referrers"]) == (409, ["keys"])
    await api.call("ada@acme", "POST", f"{ORGANIZATION}/apps/bot/keys/{key['id']}/revoke")
    assert (await api.call("ada@acme", "DELETE", f"{ORGANIZATION}/apps/bot", headers=tag)).status_code == 204


async def test_pages_go_through_everything_once(api: Api) -> None:
    for number in range(7):
        await api.put("admin", f"/admin/v1/limits/l{number}", LIMIT)
    names, after = [], ""
    for _ in range(10):
        page = (await api.call("admin", "GET", "/admin/v1/limits", params={"limit": 3, "after": after})).json()
        names += [item["name"] for item in page["items"]]
        if page["next"] is None:
            break
        assert len(page["items"]) == 3
        after = page["next"]
    assert names == ["burst", *(f"l{number}" for number in range(7))]


@pytest.mark.parametrize("limit", ["0", "501", "x", "-1"])
async def test_page_sizes_are_bounded(api: Api, limit: str) -> None:
    answer = await api.call("admin", "GET", "/admin/v1/limits", params={"limit": limit})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "limit")


async def test_values_of_maps_are_written_and_never_read(api: Api) -> None:
    api.context.seal = lambda name, entry, value: f"sealed:{name}:{entry}:{value[::-1]}"
    entry = "/admin/v1/keyValueMaps/tickets/entries/token"
    assert (await api.call("admin", "PUT", entry, json={"value": "hush-hush"})).status_code == 204
    document = await api.context.store.get(Kind.KEY_VALUE_MAP, "", "tickets")
    assert document is not None
    assert document.body["entries"] == {"token": "sealed:tickets:token:hsuh-hsuh"}
    assert document.declared, "values of declared maps are set here, the map stays declared"
    for path in ("/admin/v1/keyValueMaps/tickets", "/admin/v1/keyValueMaps", "/admin/v1/audit"):
        text = (await api.call("admin", "GET", path)).text
        assert "token" in text
        assert "hush" not in text
        assert "sealed" not in text
    refused = await api.put("admin", "/admin/v1/keyValueMaps/new", {"entries": {"a": "b"}})
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "entries")
    assert (await api.call("admin", "DELETE", entry)).status_code == 204
    assert (await api.call("admin", "DELETE", entry)).status_code == 404
    api.context.seal = None
    assert (await api.call("admin", "PUT", entry, json={"value": "x"})).status_code == 503


async def test_names_of_body_and_path_agree(api: Api) -> None:
    answer = await api.put("admin", "/admin/v1/limits/daily", {**LIMIT, "name": "weekly"})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "name")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b'"\\ud800"', b"\xff", b"null", b'{"a":NaN}'])
async def test_bodies_that_are_no_object_are_refused(api: Api, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = await api.call("admin", "PUT", "/admin/v1/limits/daily", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


async def test_every_answer_has_security_headers_and_none_for_other_origins(api: Api) -> None:
    for who, path in (("admin", "/admin/v1/me"), ("admin", "/nowhere"), ("admin", "/admin/v1/limits/none")):
        answer = await api.call(who, "GET", path, headers={"origin": "https://evil.example"})
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert TOKEN not in answer.text


async def test_large_bodies_are_refused_with_and_without_a_length(api: Api) -> None:
    large = b'{"displayName":"' + b"x" * 2**20 + b'"}'

    async def pieces():  # type: ignore[no-untyped-def]
        for start in range(0, len(large), 65_536):
            yield large[start : start + 65_536]

    for content in (large, pieces()):
        answer = await api.call("admin", "PUT", "/admin/v1/limits/daily", content=content)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_template_rules_bind_new_products_and_list_old_ones(api: Api) -> None:
    rule = await api.put("admin", "/admin/v1/templateRules/strict", {"required": ["prompt-limit"]})
    assert rule.status_code == 201
    refused = await api.put("admin", "/admin/v1/products/new", {"models": ["*"]})
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "policies")
    assert "prompt-limit is required" in refused.json()["errors"][0]["expected"]
    policies = [{"policy": "prompt-limit", "settings": {"maxTokens": 10}}]
    assert (
        await api.put("admin", "/admin/v1/products/new", {"models": ["*"], "policies": policies})
    ).status_code == 201
    found = (await api.call("admin", "GET", "/admin/v1/templateRules:violations")).json()["items"]
    assert {violation["product"] for violation in found} == {"chat", "gated", "secret"}
    unknown = await api.put("admin", "/admin/v1/templateRules/other", {"denied": ["no-such"]})
    assert (unknown.status_code, unknown.json()["errors"][0]["path"]) == (422, "denied[0]")


async def test_maps_that_policies_use_stay(api: Api) -> None:
    made = await api.put("admin", "/admin/v1/keyValueMaps/mine", {})
    use = {"policy": "prompt-limit", "mode": "off", "settings": {"maxTokens": "${kvm:mine/most}"}}
    body = {"name": "old", "models": ["*"], "policies": [use]}
    await api.context.store.change([Change(Kind.PRODUCT, "", "old", body)], [])
    answer = await api.call(
        "admin", "DELETE", "/admin/v1/keyValueMaps/mine", headers={"if-match": made.headers["etag"]}
    )
    assert (answer.status_code, answer.json()["referrers"]) == (409, ["products/old"])
