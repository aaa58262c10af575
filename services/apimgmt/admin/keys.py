"""Routes of keys: of apps, and personal ones."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from services.apimgmt.admin import shapes
from services.apimgmt.admin.access import PREFIX, Guarded
from services.apimgmt.admin.holders import Holder, IssuedKey, KeyChange, KeyInfo, KeyPage, NewKey, Rotation, info
from services.apimgmt.admin.shapes import problem_responses
from services.apimgmt.domain import Kind

Organization = Annotated[str, Path(max_length=63, examples=["acme"])]
Limit = Annotated[int, Query(ge=1, le=shapes.MAX_PAGE, description="Items at most.")]
After = Annotated[str, Query(max_length=64, description="`next` of the page before.")]
KeyId = Annotated[str, Path(max_length=64, description="The key's id, never the key itself.")]


async def _app_holder(
    access: Guarded, organization: Organization, app: Annotated[str, Path(max_length=63, examples=["chat"])]
) -> Holder:
    return Holder(access, await access.document(Kind.APP, organization, app))


async def _person_holder(
    access: Guarded,
    organization: Organization,
    developer: Annotated[str, Path(max_length=255, examples=["ada@example.com"])],
) -> Holder:
    return Holder(access, await access.document(Kind.DEVELOPER, organization, developer))


async def _optional(request: Request, model: type[shapes.M], what: str) -> shapes.M:
    data = await shapes.read_json(request) if await request.body() else {}
    return shapes.parse(model, data, what)


def router_of(base: str, holder_of: Any, tag: str) -> APIRouter:
    """Return the routes of keys below `base`."""
    router = APIRouter(prefix=PREFIX, tags=[tag])
    one, ids, depends = f"{base}/{{key}}", tag.replace(" ", "_"), Depends(holder_of)
    created: dict[int | str, dict[str, Any]] = {
        201: {"model": IssuedKey, "description": "The key itself is in `key`, this once"}
    }

    @router.get(base, summary="List keys", response_model=KeyPage, operation_id=f"list_{ids}")
    async def list_(limit: Limit = shapes.DEFAULT_PAGE, after: After = "", holder: Holder = depends) -> Response:
        records, following = await holder.page(after, limit)
        return shapes.page([info(record, holder.now) for record in records], following)

    @router.post(
        base,
        summary="Issue a key",
        status_code=201,
        response_model=IssuedKey,
        responses={**created, **problem_responses(400, 404, 409, 422)},
        openapi_extra=shapes.json_body("NewKey", {"displayName": "laptop", "expiresInDays": 90}),
        operation_id=f"issue_{ids}",
    )
    async def issue(request: Request, holder: Holder = depends) -> Response:
        return await holder.issue(await _optional(request, NewKey, "the key"))

    @router.get(
        one,
        summary="Read one key's record",
        response_model=KeyInfo,
        responses=problem_responses(404),
        operation_id=f"get_{ids}",
    )
    async def get(key: KeyId, holder: Holder = depends) -> Response:
        return JSONResponse(info(await holder.record(key), holder.now))

    @router.patch(
        one,
        summary="Change a key's label or expiry",
        response_model=KeyInfo,
        responses=problem_responses(400, 404, 409, 422),
        openapi_extra=shapes.json_body("KeyChange", {"displayName": "old laptop"}),
        operation_id=f"change_{ids}",
    )
    async def change(key: KeyId, request: Request, holder: Holder = depends) -> Response:
        return await holder.change(key, shapes.parse(KeyChange, await shapes.read_json(request), "the key"))

    @router.post(
        f"{one}/rotate",
        summary="Replace a key; the old one works on for a grace period",
        status_code=201,
        response_model=IssuedKey,
        responses={**created, **problem_responses(404, 409, 422)},
        openapi_extra=shapes.json_body("Rotation", {"graceSeconds": 86_400}),
        operation_id=f"rotate_{ids}",
    )
    async def rotate(key: KeyId, request: Request, holder: Holder = depends) -> Response:
        return await holder.rotate(key, (await _optional(request, Rotation, "the rotation")).grace_seconds)

    @router.post(
        f"{one}/revoke",
        summary="Revoke a key at once",
        response_model=KeyInfo,
        responses=problem_responses(404),
        operation_id=f"revoke_{ids}",
    )
    async def revoke(key: KeyId, holder: Holder = depends) -> Response:
        return await holder.revoke(key)

    return router


routers = (
    router_of("/organizations/{organization}/apps/{app}/keys", _app_holder, "keys"),
    router_of("/organizations/{organization}/developers/{developer}/keys", _person_holder, "personal keys"),
)
