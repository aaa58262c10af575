"""Products: what there is, and asking for it."""

from fastapi import APIRouter, Response

from services.apimgmt.admin.apps import request_subscription
from services.apimgmt.admin.problems import ProblemError
from services.apimgmt.domain import Approval
from services.apimgmt.portal import holdings
from services.apimgmt.portal.page import BASE, PortalRoute, Signed, Submitted, Visitor, go, render

router = APIRouter(prefix=BASE, route_class=PortalRoute, include_in_schema=False)


@router.get("/products")
async def page(signed: Signed) -> Response:
    """List the products."""
    return await _page(signed)


@router.post("/products/{product}/subscribe")
async def subscribe(form: Submitted, product: str) -> Response:
    """Subscribe an own app."""
    signed, name = form.visitor, form.get("app")
    try:
        access = signed.access(holdings.SUBSCRIBE)
        await request_subscription(access, signed.principal.organization, name[:63], product[:63])
    except ProblemError as error:
        return await _page(signed, error)
    changed = await holdings.app(signed, name)
    status = next(s.status for s in changed.products if s.product == product)
    if status is Approval.PENDING:
        notice = f"{name} asked for {product}. An administrator has to approve it."
    else:
        notice = f"{name} may use {product} now."
    return go(signed, f"{BASE}/apps/{name}", notice=notice)


async def _page(signed: Visitor, problem: ProblemError | None = None) -> Response:
    apps = await holdings.apps(signed)
    found = holdings.products(signed, await holdings.snapshot(signed), apps)
    own = [app for app in apps if app.developer == signed.principal.developer]
    status = problem.status if problem else 200
    return render(signed.request, signed, "products.html", status, products=found, own=own, problem=problem)
