"""The portal's router; the admin server mounts it."""

from fastapi import APIRouter, Request

from services.apimgmt.admin.problems import not_found
from services.apimgmt.portal import apps, keys, limits, overview, products, sign_in, static, try_it, usage
from services.apimgmt.portal.page import BASE, PortalRoute

router = APIRouter(include_in_schema=False)
"""Everything of the portal. Its pages answer 404 while `portal.enabled` is false."""

_rest = APIRouter(prefix=BASE, route_class=PortalRoute, include_in_schema=False)


@_rest.get("/{rest:path}")
async def missing(request: Request, rest: str) -> None:
    """Answer for pages that are not there."""
    raise not_found(rest[:100])


for part in (static, sign_in, overview, products, apps, keys, usage, limits, try_it):
    router.include_router(part.router)
router.include_router(_rest)
