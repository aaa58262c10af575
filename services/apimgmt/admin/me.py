"""Who am I, and what does this API offer."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from services.apimgmt.admin.access import PREFIX, Guarded
from services.apimgmt.domain import Role

router = APIRouter(prefix=PREFIX, tags=["me"])


class Me(BaseModel):
    """Who asks."""

    role: Role
    actor: str = Field(description="As in the audit trail.", examples=["developer:acme/ada@example.com"])
    organization: str = Field(description="Empty for the admin token.", examples=["acme"])
    team: str = Field(examples=["research"])
    developer: str = Field(examples=["ada@example.com"])


@router.get("/me", summary="Who am I?")
async def me(access: Guarded) -> Me:
    """Tell whose credential this is."""
    who = access.principal
    return Me(role=who.role, actor=who.actor, organization=who.organization, team=who.team, developer=who.developer)


@router.get("/openapi.json", summary="This description", response_model=dict[str, Any])
async def openapi(request: Request, access: Guarded) -> JSONResponse:
    """Return the OpenAPI document."""
    return JSONResponse(request.app.openapi())
