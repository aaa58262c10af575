"""The OpenAPI description: what FastAPI cannot see, since documents are read and checked by the domain's own models."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.apimgmt.admin.holders import KeyChange, NewKey, Rotation
from services.apimgmt.admin.maps import EntryValue
from services.apimgmt.domain import ENTITIES

BODIES: tuple[type[BaseModel], ...] = (*ENTITIES.values(), NewKey, Rotation, KeyChange, EntryValue)
"""Models of request bodies."""

BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A personal key (`psp_...`), or the admin token of the installation.",
}

ETAG = {"description": "The revision, for `If-Match`.", "schema": {"type": "string"}, "example": '"17"'}


def _precondition(name: str, text: str, example: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": text, "schema": {"type": "string"}, "example": example}


IF_MATCH = _precondition("If-Match", "The ETag that was read; required where the document exists.", '"17"')
IF_NONE_MATCH = _precondition("If-None-Match", "`*`: only if there is none yet.", "*")


def complete(app: FastAPI) -> None:
    """Make `app.openapi()` describe bodies, credentials and preconditions as well."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(generate())
        return app.openapi_schema or {}

    vars(app)["openapi"] = openapi


def _complete(document: dict[str, Any]) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _, bodies = models_json_schema([(m, "validation") for m in BODIES], ref_template="#/components/schemas/{model}")
    for name, schema in bodies.get("$defs", {}).items():
        schemas.setdefault(name, schema)
    schemas["MergePatch"] = {"type": "object", "description": "RFC 7396: null removes a field.", "title": "MergePatch"}
    components["securitySchemes"] = {"bearer": BEARER}
    document["security"] = [{"bearer": []}]
    for path, operations in document["paths"].items():
        if path.endswith("/{name}"):
            _preconditions(operations)


def _preconditions(operations: dict[str, Any]) -> None:
    for method, operation in operations.items():
        if method in ("put", "patch", "delete"):
            operation.setdefault("parameters", []).append(IF_MATCH)
        if method == "put":
            operation["parameters"].append(IF_NONE_MATCH)
        for status in ("200", "201"):
            if status in operation["responses"]:
                operation["responses"][status]["headers"] = {"ETag": ETAG}
