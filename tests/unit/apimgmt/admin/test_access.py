"""Every route with every role: who gets in, who is told that there is nothing, who is refused."""

import re

import pytest
from fastapi.routing import APIRoute

from services.apimgmt.admin.access import PREFIX, RULES, Access, Reach, Rule
from services.apimgmt.admin.app import create_app
from services.apimgmt.admin.auth import Principal
from services.apimgmt.domain import Kind, Role
from services.apimgmt.store.api import Document
from tests.unit.apimgmt.admin.support import Api

TABLE = """
GET    /me                                              all    all
GET    /openapi.json                                    all    all
*      /organizations                                   organization organization none none
*      /organizations/{organization}/teams              team   team   none   none
*      /organizations/{organization}/developers         team   own    none   none
*      /organizations/{organization}/groups             none   none   none   none
*      /organizations/{organization}/apps               team   own    team   own
*      /products                                        public public none   none
*      /limits                                          none   none   none   none
*      /ratePlans                                       none   none   none   none
*      /templateRules                                   none   none   none   none
*      /keyValueMaps                                    none   none   none   none
PUT    /keyValueMaps/{name}/entries/{entry}             none   none
DELETE /keyValueMaps/{name}/entries/{entry}             none   none
GET    /subscriptions                                   team   own
PUT    /organizations/{organization}/apps/{app}/subscriptions/{product}          team own
POST   /organizations/{organization}/apps/{app}/subscriptions/{product}/approve  none none
POST   /organizations/{organization}/apps/{app}/subscriptions/{product}/revoke   team none
GET    /organizations/{organization}/apps/{app}/keys              team own
POST   /organizations/{organization}/apps/{app}/keys              team own
GET    /organizations/{organization}/apps/{app}/keys/{key}        team own
PATCH  /organizations/{organization}/apps/{app}/keys/{key}        team own
POST   /organizations/{organization}/apps/{app}/keys/{key}/rotate team own
POST   /organizations/{organization}/apps/{app}/keys/{key}/revoke team own
GET    /organizations/{organization}/developers/{developer}/keys              own own
POST   /organizations/{organization}/developers/{developer}/keys              own own
GET    /organizations/{organization}/developers/{developer}/keys/{key}        own own
PATCH  /organizations/{organization}/developers/{developer}/keys/{key}        own own
POST   /organizations/{organization}/developers/{developer}/keys/{key}/rotate own own
POST   /organizations/{organization}/developers/{developer}/keys/{key}/revoke own own
GET    /usage                                           team   own
GET    /statement                                       none   none
GET    /ledger                                          none   none
GET    /audit                                           none   none
GET    /declared/diff                                   none   none
GET    /templateRules:violations                        none   none
GET    /policies                                        none   none
GET    /export                                          none   none
POST   /import                                          none   none
"""
"""Route -> reach of team lead and developer; `*`: of reading, and of writing, for a collection's five routes,
and the list of it over all organizations."""


def expected() -> dict[str, Rule]:
    rules = {}
    for line in TABLE.strip().splitlines():
        method, path, *words = line.split()
        reach = [Reach(word) for word in words]
        if method != "*":
            rules[f"{method} {path}"] = Rule(*reach)
            continue
        read, write = Rule(*reach[:2]), Rule(*reach[2:])
        rules[f"GET {path}"] = rules[f"GET {path}/{{name}}"] = read
        rules[f"GET /{path.rpartition('/')[2]}"] = read
        rules.update({f"{verb} {path}/{{name}}": write for verb in ("PUT", "PATCH", "DELETE")})
    return rules


async def test_the_table_says_what_is_meant() -> None:
    assert expected() == RULES


async def test_every_route_has_a_rule_and_every_rule_a_route(api: Api) -> None:
    routes = await _routes(api)
    assert routes == set(RULES)


async def test_every_route_refuses_who_has_no_credential(api: Api) -> None:
    for route in sorted(await _routes(api)):
        method, path = route.split(" ", 1)
        answer = await api.client.request(method, PREFIX + _filled(path))
        assert answer.status_code == 401, route
        assert answer.headers["www-authenticate"].startswith("Bearer"), route
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("who", "role"), [("lead@acme", Role.TEAM_LEAD), ("ada@acme", Role.DEVELOPER)])
async def test_every_route_refuses_roles_that_reach_nothing(api: Api, who: str, role: Role) -> None:
    for route, rule in sorted(expected().items()):
        method, path = route.split(" ", 1)
        answer = await api.call(who, method, PREFIX + _filled(path))
        if rule.reach(role) is Reach.NONE:
            assert answer.status_code == 403, (route, answer.text)
            assert answer.json()["code"] == "forbidden"
        else:
            assert answer.status_code not in (401, 403, 405, 500), (route, answer.status_code, answer.text)


@pytest.mark.parametrize("who", ["eve@other", "bob@acme"])
async def test_what_belongs_to_others_is_not_there(api: Api, who: str) -> None:
    await api.app("ada@acme", "bot")
    for route, rule in sorted(expected().items()):
        method, path = route.split(" ", 1)
        if rule.developer in (Reach.NONE, Reach.ALL, Reach.PUBLIC) or "{" not in path:
            continue
        if path.endswith("/{name}"):
            path = path.replace(
                "{name}", "ada%40acme" if "/developers" in path else "bot" if "/apps" in path else "research"
            )
            path = path.replace("/organizations/research", "/organizations/acme")
        filled = _filled(path)
        if method == "PUT" and who.endswith("acme") and filled.endswith("/apps/bot"):
            continue  # test_apps.py: taken names
        if filled == "/organizations/acme" and who == "bob@acme":
            continue  # his own
        answer = await api.call(who, method, PREFIX + filled, json={})
        if route.startswith("GET") and path.count("/") == 3 and answer.status_code == 200:
            assert "ada@acme" not in answer.text, route
            assert "bot" not in [item["name"] for item in answer.json()["items"]], route
        else:
            assert answer.status_code == 404, (route, answer.status_code, answer.text)


def test_reach_is_held_to_the_organization() -> None:
    developer = Principal(Role.DEVELOPER, "x", "acme", "research", "ada@acme")
    foreign = Document(Kind.APP, "other", "bot", {"team": "research", "developer": "ada@acme"})
    for reach in (Reach.OWN, Reach.TEAM, Reach.ORGANIZATION, Reach.PUBLIC, Reach.NONE):
        assert not Access(None, developer, reach).sees(foreign)  # type: ignore[arg-type]


def test_nobody_without_team_or_name_gets_at_documents_without() -> None:
    nameless = Principal(Role.DEVELOPER, "x", "acme", "", "")
    document = Document(Kind.APP, "acme", "bot", {"team": "", "developer": ""})
    for reach in (Reach.OWN, Reach.TEAM):
        assert not Access(None, nameless, reach).sees(document)  # type: ignore[arg-type]


async def _routes(api: Api) -> set[str]:
    app = create_app(api.context)
    document = app.openapi()
    found = {f"{m.upper()} {p.removeprefix(PREFIX)}" for p, ms in document["paths"].items() for m in ms}
    direct = {
        f"{method} {route.path.removeprefix(PREFIX)}"
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    assert direct <= found
    return found


def _filled(path: str) -> str:
    names = {"organization": "acme", "developer": "ada%40acme", "app": "bot", "product": "chat"}
    return re.sub(r"{(\w+)}", lambda found: names.get(found[1], "none"), path)
