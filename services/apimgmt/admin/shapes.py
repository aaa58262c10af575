"""How documents look on the wire: bodies with `metadata`, ETags, pages; and how requests are read."""

import types
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import orjson
from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError, create_model

from services.apimgmt.admin.problems import ProblemDetails, ProblemError, bad_parameter, invalid
from services.apimgmt.differences import public
from services.apimgmt.domain import ENTITIES, Entity, Kind
from services.apimgmt.store.api import Document
from services.extproc.config import ConfigModel, problems_of

DEFAULT_PAGE, MAX_PAGE = 100, 500
"""Items of a list."""

M = TypeVar("M", bound=BaseModel)


class Metadata(ConfigModel):
    """What the store knows of a document. Ignored when a document is sent back."""

    revision: int = Field(description="Grows with each change; the ETag.", examples=[17])
    declared: bool = Field(description="From the stack's config: read only here.")
    updated: int = Field(description="When it was changed last, Unix seconds.", examples=[1_790_000_000])


def _document_model(cls: type[Entity]) -> type[Entity]:
    fields: dict[str, Any] = {"metadata": (Metadata, ...)}
    if cls.kind is Kind.KEY_VALUE_MAP:
        fields["entries"] = (list[str], Field(description="Names only: values cannot be read."))
    return create_model(f"{cls.__name__}Document", __base__=cls, __doc__=cls.__doc__, **fields)


DOCUMENT_MODELS: Mapping[Kind, type[Entity]] = {kind: _document_model(cls) for kind, cls in ENTITIES.items()}
"""What a document looks like when it is read, for the OpenAPI description."""


def _page_model(name: str, item: type[BaseModel]) -> type[BaseModel]:
    following = Field(description="Send as `after` for the next page; null on the last.")
    fields: dict[str, Any] = {"items": (types.GenericAlias(list, (item,)), ...), "next": (str | None, following)}
    return create_model(name, __doc__="A part of a list.", **fields)


PAGE_MODELS: Mapping[Kind, type[BaseModel]] = {
    kind: _page_model(f"{ENTITIES[kind].__name__}Page", model) for kind, model in DOCUMENT_MODELS.items()
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI description says of errors."""
    texts = {
        400: "A parameter or the body cannot be read",
        401: "No valid credential",
        403: "The role may not do this",
        404: "There is none that the caller may see",
        409: "Declared, still referred to, or changed meanwhile",
        412: "It is not in the state that `If-Match` or `If-None-Match` asks for",
        422: "It cannot be saved; `errors` has all problems",
        428: "`If-Match` is missing",
    }
    return {
        status: {
            "model": ProblemDetails,
            "description": texts[status],
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
        }
        for status in sorted({401, 403, *statuses})
    }


def json_body(schema: str, example: Mapping[str, Any], media_type: str = "application/json") -> dict[str, Any]:
    """Return `openapi_extra` of a route that reads its body by itself."""
    content = {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": dict(example)}}
    return {"requestBody": {"required": True, "content": content}}


def render(document: Document) -> dict[str, Any]:
    """Return a document as it is answered."""
    metadata = {"revision": document.revision, "declared": document.declared, "updated": document.updated}
    return {**public(document.kind, document.body), "metadata": metadata}


def etag(document: Document) -> str:
    """Return the entity tag (RFC 9110, section 8.8.3)."""
    return f'"{document.revision}"'


def answer(document: Document, status: int = 200) -> JSONResponse:
    """Return one document with its ETag."""
    return JSONResponse(render(document), status, {"etag": etag(document)})


def page(items: Sequence[Any], following: str | None) -> JSONResponse:
    """Return a part of a list."""
    return JSONResponse({"items": list(items), "next": following})


async def read_json(request: Request) -> dict[str, Any]:
    """Return the body as a JSON object. Raises ProblemError (400, 415)."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind not in ("application/json", "application/merge-patch+json"):
        raise ProblemError(415, "unsupported_media_type", f"expected application/json, got {kind[:100]}")
    try:
        data = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise ProblemError(400, "bad_request", f"the body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise ProblemError(400, "bad_request", f"expected a JSON object, got {type(data).__name__}")
    return data


def parse(model: type[M], data: Mapping[str, Any], what: str) -> M:
    """Return `data` as a model. Raises ProblemError (422) with all problems."""
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        raise invalid(what, problems_of(model, error)) from None


def merge(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def check_preconditions(request: Request, current: Document | None) -> None:
    """Hold a change to `If-Match` and `If-None-Match` (RFC 9110, section 13.1; RFC 6585, section 3)."""
    match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
    if none_match is not None:
        if none_match.strip() != "*":
            raise bad_parameter("If-None-Match", none_match[:80], "expected `*`", "send `*`, or `If-Match: ETAG`")
        if current is not None:
            raise ProblemError(412, "exists", "If-None-Match: *: there is one of this name already")
    if match is not None:
        tags = [tag.strip() for tag in match.split(",")]
        if current is None or (etag(current) not in tags and "*" not in tags):
            raise ProblemError(412, "changed", "If-Match: it changed meanwhile, or is gone; read it again")
    elif current is not None:
        raise ProblemError(428, "if_match_required", "send the ETag of what you have read as `If-Match`")
