"""Routes of the documents: every kind has the same five."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from services.apimgmt.admin import shapes
from services.apimgmt.admin.access import PREFIX, Access, Guarded
from services.apimgmt.admin.apps import prepare_app, refuse_app_removal
from services.apimgmt.admin.edit import refuse_declared, remove, save
from services.apimgmt.admin.examples import EXAMPLES
from services.apimgmt.admin.problems import ProblemError, bad_parameter, not_found
from services.apimgmt.admin.shapes import problem_responses
from services.apimgmt.domain import ENTITIES, Entity, Kind
from services.apimgmt.references import SINGULAR, Key, key_of, label
from services.apimgmt.store.api import Document
from services.extproc.config import Problem

SCAN = 500
"""Documents that are read at once where the caller sees only some."""

Place = tuple[str, str]
"""Organization (empty where the kind has none) and name."""

OrganizationPath = Annotated[str, Path(description="An organization.", examples=["acme"], max_length=63)]
NamePath = Annotated[str, Path(description="Its name.", max_length=255)]
Limit = Annotated[int, Query(ge=1, le=shapes.MAX_PAGE, description="Items at most.")]
After = Annotated[str, Query(max_length=400, description="`next` of the page before.")]


def _scoped(organization: OrganizationPath, name: NamePath) -> Place:
    return organization, name


def _unscoped(name: NamePath) -> Place:
    return "", name


def _organization(organization: OrganizationPath) -> str:
    return organization


def _none() -> str:
    return ""


def router_of(kind: Kind) -> APIRouter:
    """Return the routes of one kind."""
    cls = ENTITIES[kind]
    place = _scoped if cls.scoped else _unscoped
    base = f"/organizations/{{organization}}/{kind.value}" if cls.scoped else f"/{kind.value}"
    router = APIRouter(prefix=PREFIX, tags=[kind.value])
    one, model, what = f"{base}/{{name}}", shapes.DOCUMENT_MODELS[kind], SINGULAR[kind]
    body = shapes.json_body(cls.__name__, EXAMPLES[kind])

    @router.get(
        base,
        summary=f"List {kind.value}",
        response_model=shapes.PAGE_MODELS[kind],
        responses=problem_responses(400),
        operation_id=f"list_{kind.value}",
    )
    async def list_(
        access: Guarded,
        organization: Annotated[str, Depends(_organization if cls.scoped else _none)],
        limit: Limit = shapes.DEFAULT_PAGE,
        after: After = "",
    ) -> Response:
        documents, following = await listed(access, kind, organization, after, limit)
        return shapes.page([shapes.render(document) for document in documents], following)

    if cls.scoped:

        @router.get(
            f"/{kind.value}",
            summary=f"List {kind.value} of all organizations",
            response_model=shapes.PAGE_MODELS[kind],
            responses=problem_responses(400),
            operation_id=f"list_all_{kind.value}",
        )
        async def list_all(access: Guarded, limit: Limit = shapes.DEFAULT_PAGE, after: After = "") -> Response:
            own = "" if access.is_admin else access.principal.organization
            documents, following = await listed(access, kind, own, after, limit)
            return shapes.page([shapes.render(document) for document in documents], following)

    @router.get(
        one,
        summary=f"Read one {what}",
        response_model=model,
        responses=problem_responses(404),
        operation_id=f"get_{kind.value}",
    )
    async def get(access: Guarded, at: Annotated[Place, Depends(place)]) -> Response:
        return shapes.answer(await access.document(kind, *at))

    @router.put(
        one,
        summary=f"Create or replace one {what}",
        response_model=model,
        responses={201: {"model": model, "description": "Created"}, **problem_responses(400, 404, 409, 412, 422, 428)},
        openapi_extra=body,
        operation_id=f"put_{kind.value}",
    )
    async def put(access: Guarded, at: Annotated[Place, Depends(place)], request: Request) -> Response:
        before = await _current(access, kind, at)
        shapes.check_preconditions(request, before)
        return await _write(access, kind, at, before, await shapes.read_json(request))

    @router.patch(
        one,
        summary=f"Change fields of one {what} (JSON merge patch, RFC 7396)",
        response_model=model,
        responses=problem_responses(400, 404, 409, 412, 422, 428),
        openapi_extra=shapes.json_body("MergePatch", {"displayName": "New name"}, "application/merge-patch+json"),
        operation_id=f"patch_{kind.value}",
    )
    async def patch(access: Guarded, at: Annotated[Place, Depends(place)], request: Request) -> Response:
        before = await access.document(kind, *at)
        shapes.check_preconditions(request, before)
        current = dict(before.body)
        if kind is Kind.KEY_VALUE_MAP:
            current.pop("entries", None)
        return await _write(access, kind, at, before, shapes.merge(current, await shapes.read_json(request)))

    @router.delete(
        one,
        summary=f"Delete one {what}",
        status_code=204,
        responses=problem_responses(404, 409, 412, 428),
        operation_id=f"delete_{kind.value}",
    )
    async def delete(access: Guarded, at: Annotated[Place, Depends(place)], request: Request) -> Response:
        document = await access.document(kind, *at)
        shapes.check_preconditions(request, document)
        refuse_declared(document)
        if kind is Kind.APP:
            refuse_app_removal(access, document)
        await remove(access, document)
        return Response(status_code=204)

    return router


async def listed(
    access: Access, kind: Kind, organization: str, after: str, limit: int
) -> tuple[list[Document], str | None]:
    """Return up to `limit` documents that the caller sees, and where to go on."""
    store, found = access.context.store, list[Document]()
    while True:
        documents = await store.page(kind, organization or None, after, SCAN)
        for document in documents:
            if access.sees(document):
                if len(found) == limit:
                    return found, cursor(found[-1])
                found.append(document)
        if len(documents) < SCAN:
            return found, None
        after = cursor(documents[-1])


def cursor(document: Document) -> str:
    """Return what `Store.page` goes on after."""
    return f"{document.organization}/{document.name}"


async def _current(access: Access, kind: Kind, at: Place) -> Document | None:
    """Return what is there before a PUT; what the caller may not see is answered as if it were not there."""
    document = await access.context.store.get(kind, *at)
    if document is not None and not access.sees(document):
        raise not_found(label((kind, *at)))
    return document


async def _write(access: Access, kind: Kind, at: Place, before: Document | None, data: dict[str, Any]) -> Response:
    """Save what a client sent for the document at `at`."""
    if before:
        refuse_declared(before)
    entity = await _entity(access, (kind, *at), before, data)
    document = await save(access, before, entity)
    return shapes.answer(document, 200 if before else 201)


async def _entity(access: Access, key: Key, before: Document | None, data: dict[str, Any]) -> Entity:
    kind, organization, name = key
    data.pop("metadata", None)
    data.setdefault("name", name)
    if ENTITIES[kind].scoped:
        data.setdefault("organization", organization)
    if kind is Kind.KEY_VALUE_MAP:
        if data.pop("entries", None):
            fix = f"PUT {PREFIX}/keyValueMaps/{name}/entries/ENTRY with a value"
            raise ProblemError(
                422,
                "invalid",
                "values are set one by one",
                errors=[Problem("entries", "", "expected no entries here", fix)],
            )
        data["entries"] = dict(before.body.get("entries") or {}) if before else {}
    entity = shapes.parse(ENTITIES[kind], data, f"the {SINGULAR[kind]} {name}")
    if key_of(entity) != key:
        found = label(key_of(entity))
        raise bad_parameter("name", found, f"expected the names of the path, {label(key)}", "send the same names")
    if kind is Kind.APP:
        return await prepare_app(access, before, entity)
    return entity
