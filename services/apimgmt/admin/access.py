"""Who may do what: the one table of the admin API, and the check that every route goes through.

A role reaches a part of what there is (`Reach`). A route that the table does not name is closed to everybody.
"""

import enum
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from services.apimgmt.admin.auth import Principal, authenticate
from services.apimgmt.admin.context import AdminContext
from services.apimgmt.admin.problems import ProblemError, not_found
from services.apimgmt.domain import Kind, Role
from services.apimgmt.store.api import Document

PREFIX = "/admin/v1"


class Reach(enum.Enum):
    """The part of the documents, keys or usage that a role gets at through a route."""

    NONE = "none"
    OWN = "own"
    """What belongs to the person."""
    TEAM = "team"
    """What belongs to the person's team."""
    ORGANIZATION = "organization"
    """The person's organization itself."""
    PUBLIC = "public"
    """Products that every developer may see."""
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Rule:
    """What team leads and developers reach through one route. Administrators reach everything."""

    team_lead: Reach
    developer: Reach

    def reach(self, role: Role) -> Reach:
        """Return what `role` reaches."""
        if role is Role.ADMIN:
            return Reach.ALL
        return self.team_lead if role is Role.TEAM_LEAD else self.developer


_ADMIN = Rule(Reach.NONE, Reach.NONE)
_ANYBODY = Rule(Reach.ALL, Reach.ALL)
_OWN = Rule(Reach.OWN, Reach.OWN)
_TEAM_OR_OWN = Rule(Reach.TEAM, Reach.OWN)
_TEAM = Rule(Reach.TEAM, Reach.TEAM)
_TEAM_LEAD = Rule(Reach.TEAM, Reach.NONE)
_ORGANIZATION = Rule(Reach.ORGANIZATION, Reach.ORGANIZATION)
_PUBLIC = Rule(Reach.PUBLIC, Reach.PUBLIC)

_SCOPE = "/organizations/{organization}"
_APP = f"{_SCOPE}/apps/{{app}}"
_PERSON = f"{_SCOPE}/developers/{{developer}}"


def _documents(path: str, read: Rule, write: Rule) -> dict[str, Rule]:
    """Return the rules of a collection's five routes, and of the list over all organizations if it is in one."""
    one = f"{path}/{{name}}"
    return {
        f"GET {path.removeprefix(_SCOPE)}": read,
        f"GET {path}": read,
        f"GET {one}": read,
        f"PUT {one}": write,
        f"PATCH {one}": write,
        f"DELETE {one}": write,
    }


RULES: dict[str, Rule] = {
    "GET /openapi.json": _ANYBODY,
    "GET /me": _ANYBODY,
    **_documents("/organizations", _ORGANIZATION, _ADMIN),
    **_documents(f"{_SCOPE}/teams", _TEAM, _ADMIN),
    **_documents(f"{_SCOPE}/developers", _TEAM_OR_OWN, _ADMIN),
    **_documents(f"{_SCOPE}/groups", _ADMIN, _ADMIN),
    **_documents(f"{_SCOPE}/apps", _TEAM_OR_OWN, _TEAM_OR_OWN),
    **_documents("/products", _PUBLIC, _ADMIN),
    **_documents("/limits", _ADMIN, _ADMIN),
    **_documents("/ratePlans", _ADMIN, _ADMIN),
    **_documents("/templateRules", _ADMIN, _ADMIN),
    **_documents("/keyValueMaps", _ADMIN, _ADMIN),
    "PUT /keyValueMaps/{name}/entries/{entry}": _ADMIN,
    "DELETE /keyValueMaps/{name}/entries/{entry}": _ADMIN,
    "GET /subscriptions": _TEAM_OR_OWN,
    f"PUT {_APP}/subscriptions/{{product}}": _TEAM_OR_OWN,
    f"POST {_APP}/subscriptions/{{product}}/approve": _ADMIN,
    f"POST {_APP}/subscriptions/{{product}}/revoke": _TEAM_LEAD,
    f"GET {_APP}/keys": _TEAM_OR_OWN,
    f"POST {_APP}/keys": _TEAM_OR_OWN,
    f"GET {_APP}/keys/{{key}}": _TEAM_OR_OWN,
    f"PATCH {_APP}/keys/{{key}}": _TEAM_OR_OWN,
    f"POST {_APP}/keys/{{key}}/rotate": _TEAM_OR_OWN,
    f"POST {_APP}/keys/{{key}}/revoke": _TEAM_OR_OWN,
    f"GET {_PERSON}/keys": _OWN,
    f"POST {_PERSON}/keys": _OWN,
    f"GET {_PERSON}/keys/{{key}}": _OWN,
    f"PATCH {_PERSON}/keys/{{key}}": _OWN,
    f"POST {_PERSON}/keys/{{key}}/rotate": _OWN,
    f"POST {_PERSON}/keys/{{key}}/revoke": _OWN,
    "GET /usage": _TEAM_OR_OWN,
    "GET /statement": _ADMIN,
    "GET /ledger": _ADMIN,
    "GET /audit": _ADMIN,
    "GET /declared/diff": _ADMIN,
    "GET /templateRules:violations": _ADMIN,
    "GET /policies": _ADMIN,
    "GET /export": _ADMIN,
    "POST /import": _ADMIN,
}
"""`METHOD path` below `PREFIX` -> rule."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who asks, and what of it the route in question may touch. Handlers get at documents only past `sees`."""

    context: AdminContext
    principal: Principal
    reach: Reach

    @property
    def is_admin(self) -> bool:
        """Whether the caller is an administrator."""
        return self.principal.role is Role.ADMIN

    def sees(self, document: Document) -> bool:
        """Tell whether the caller gets at a document through this route."""
        who, body = self.principal, document.body
        if self.reach is Reach.ALL:
            return True
        if self.reach is Reach.PUBLIC:
            return document.kind is Kind.PRODUCT and bool(body.get("public"))
        if self.reach is Reach.ORGANIZATION:
            return document.kind is Kind.ORGANIZATION and document.name == who.organization
        if document.organization != who.organization:
            return False
        if self.reach is Reach.TEAM:
            team = document.name if document.kind is Kind.TEAM else body.get("team")
            return bool(who.team) and team == who.team
        if self.reach is Reach.OWN:
            owner = document.name if document.kind is Kind.DEVELOPER else body.get("developer")
            return bool(who.developer) and owner == who.developer
        return False

    async def document(self, kind: Kind, organization: str, name: str) -> Document:
        """Return a document that the caller sees. Raises ProblemError (404)."""
        found = await self.context.store.get(kind, organization, name)
        if found is None or not self.sees(found):
            raise not_found(f"{kind}/{organization}/{name}" if organization else f"{kind}/{name}")
        return found


async def guard(request: Request) -> Access:
    """Tell who asks, and whether the route is open to the role. Raises ProblemError (401, 403, 404)."""
    context: AdminContext = request.app.state.context
    principal = await authenticate(context, request.headers.get("authorization"))
    path = request.scope["route"].path.removeprefix(PREFIX)
    rule = RULES.get(f"{request.method} {path}")
    reach = rule.reach(principal.role) if rule else Reach.NONE
    if reach is Reach.NONE:
        raise ProblemError(403, "forbidden", f"the role {principal.role} may not {request.method} {path}")
    organization = request.path_params.get("organization")
    if principal.role is not Role.ADMIN and organization not in (None, principal.organization):
        raise not_found(f"organizations/{organization}")
    return Access(context, principal, reach)


Guarded = Annotated[Access, Depends(guard)]
"""Annotation of a handler's parameter: every handler of the admin API has one."""
