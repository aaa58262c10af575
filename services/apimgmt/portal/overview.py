"""The first page: this month at a glance, and what to do next."""

from typing import Any

from fastapi import APIRouter, Response

from services.apimgmt.domain import Approval
from services.apimgmt.portal import holdings, usage
from services.apimgmt.portal.page import BASE, PortalRoute, Signed, redirect, render

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@router.get("/")
@router.get(BASE)
async def entrance() -> Response:
    """Send the browser to the portal."""
    return redirect(f"{BASE}/")


@router.get(f"{BASE}/")
async def page(signed: Signed) -> Response:
    """Show the overview."""
    now = signed.context.now
    apps = await holdings.apps(signed)
    own = [app for app in apps if app.developer == signed.principal.developer]
    keys = [holdings.view(record, now) for record in await holdings.own_keys(signed, apps)]
    asked = usage.window("month", now)
    rows = usage.daily(await usage.sums(signed, asked, "mine", "day"), asked)
    steps = {
        "app": bool(own),
        "product": any(s.status is Approval.APPROVED for app in own for s in app.products),
        "key": any(key.usable and key.record.app for key in keys),
        "request": any(row["requests"] for row in rows),
    }
    values: dict[str, Any] = {
        "own": own,
        "keys": [key for key in keys if key.usable and key.record.app],
        "charts": [usage.requests_chart(rows, asked), usage.tokens_chart(rows, asked), usage.cost_chart(rows, asked)],
        "steps": steps,
    }
    return render(signed.request, signed, "overview.html", **values)
