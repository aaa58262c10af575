"""Apps: creating them, and seeing what they may use."""

from typing import Any

from fastapi import APIRouter, Response

from services.apimgmt.admin import shapes
from services.apimgmt.admin.apps import prepare_app
from services.apimgmt.admin.edit import save
from services.apimgmt.admin.problems import ProblemError
from services.apimgmt.domain import App, Kind
from services.apimgmt.portal import holdings
from services.apimgmt.portal.page import BASE, PortalRoute, Signed, Submitted, Visitor, go, render

MAX_DISPLAY_NAME = 100

router = APIRouter(prefix=BASE, route_class=PortalRoute, include_in_schema=False)


@router.get("/apps")
async def page(signed: Signed) -> Response:
    """List the apps."""
    return await _page(signed)


@router.post("/apps")
async def create(form: Submitted) -> Response:
    """Create an own app."""
    signed, name = form.visitor, form.get("name")
    try:
        await _create(signed, name, form.get("display_name")[:MAX_DISPLAY_NAME])
    except ProblemError as error:
        return await _page(signed, error, name, form.get("display_name"))
    notice = "The app is there. Subscribe it to a product, then create a key."
    return go(signed, f"{BASE}/apps/{name}", notice=notice)


@router.get("/apps/{name}")
async def one(signed: Signed, name: str) -> Response:
    """Show one app with its products and keys."""
    app = await holdings.app(signed, name)
    now = signed.context.now
    keys = [holdings.view(record, now) for record in await holdings.app_keys(signed, app)]
    snapshot = await holdings.snapshot(signed)
    titles = {name: holdings.shown(product) for name, product in snapshot.products.items()}
    return render(signed.request, signed, "app.html", app=app, keys=keys, titles=titles)


async def _create(signed: Visitor, name: str, display_name: str) -> None:
    who, access = signed.principal, signed.access(holdings.SAVE_APP)
    data = {"name": name, "organization": who.organization, "team": who.team, "developer": who.developer}
    app = shapes.parse(App, {**data, "displayName": display_name}, f"the app {name[:63]}")
    if await signed.context.store.get(Kind.APP, app.organization, app.name) is not None:
        raise ProblemError(409, "exists", f"There is an app {app.name} already. Choose another name.")
    await save(access, None, await prepare_app(access, None, app))


async def _page(signed: Visitor, problem: ProblemError | None = None, name: str = "", display: str = "") -> Response:
    apps, status = await holdings.apps(signed), problem.status if problem else 200
    snapshot = await holdings.snapshot(signed)
    titles = {name: holdings.shown(product) for name, product in snapshot.products.items()}
    values: dict[str, Any] = {"apps": apps, "titles": titles, "name": name, "display_name": display, "problem": problem}
    return render(signed.request, signed, "apps.html", status, **values)
