"""The admin API's application. The portal's router and others are mounted in it."""

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI

from services.apimgmt.admin import apps, describe, entities, insight, keys, maps, me, problems, reports, transfer
from services.apimgmt.admin.access import PREFIX
from services.apimgmt.admin.context import AdminContext
from services.apimgmt.admin.shield import Shield
from services.apimgmt.domain import Kind

DESCRIPTION = """\
Manage organizations, teams, developers, apps, keys, products and limits; read usage, audit trail and ledger.

Send `Authorization: Bearer KEY` with a personal key (`psp_...`) or the admin token. Documents have revisions: `GET`
answers with an `ETag`, changes need it as `If-Match`, and `If-None-Match: *` makes sure that a document is new. Lists
are cut to `limit` items; `next` is what to send as `after` for more. Errors are problem details (RFC 9457). What the
stack declares can be read here and changed there.
"""

VERSION = "1.0.0"
"""Of the API, not of the service."""

LARGE = {f"{PREFIX}/import": 256 * 1024 * 1024}
"""Routes that take large bodies, bytes; they read them in pieces."""


def create_app(context: AdminContext, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """Return the application. `routers` see `request.app.state.context`, and look after their own sign-in."""
    app = FastAPI(
        title="Penstock admin API",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        separate_input_output_schemas=False,
    )
    app.state.context = context
    problems.install(app)
    app.add_middleware(Shield, large=LARGE)
    for router in (*api_routers(), *routers):
        app.include_router(router)
    describe.complete(app)
    return app


def api_routers() -> Sequence[APIRouter]:
    """Return the routers of the admin API itself."""
    documents = [entities.router_of(kind) for kind in Kind]
    return (
        me.router,
        *documents,
        apps.router,
        *keys.routers,
        maps.router,
        reports.router,
        insight.router,
        transfer.router,
    )
