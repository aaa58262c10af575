"""Finding parts of an OpenAPI document: by JSON pointers, and the request bodies of its operations."""

from collections.abc import Iterator, Mapping
from typing import Any

from services.apimgmt.openapi.documents import DocumentError

_METHODS = frozenset(("get", "put", "post", "delete", "options", "head", "patch", "trace"))


def renewed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema of OpenAPI 3.0 in the words of 3.1 (its own level only)."""
    made = dict(schema)
    if made.pop("nullable", False) is True and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
        if isinstance(made.get("enum"), list) and None not in made["enum"]:
            made["enum"] = [*made["enum"], None]
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        flag = made.get(exclusive)
        if isinstance(flag, bool):
            del made[exclusive]
            if flag and bound in made:
                made[exclusive] = made.pop(bound)
    return made


def resolve(document: Mapping[str, Any], pointer: str) -> object | None:
    """Return what a JSON pointer (`#/components/...`, RFC 6901) names, None if nothing."""
    found: Any = document
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return None
    return found  # type: ignore[no-any-return]


def dotted(pointer: str) -> str:
    """Return a pointer as errors show it, e.g. `components.schemas.Chat`."""
    return pointer.removeprefix("#/").replace("/", ".").replace("~1", "/").replace("~0", "~")


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each path with a POST that takes JSON, and the pointer to the schema of its body. Raises DocumentError."""
    for path, item in document["paths"].items():
        where = f"#/paths/{_escaped(path)}"
        if not isinstance(item, dict):
            raise DocumentError([f"paths.{path}: expected an object with post; correct it"])
        if "post" not in item:
            if not set(item) & _METHODS:
                raise DocumentError([f"paths.{path}: expected the method post; add it (nothing is fetched by $ref)"])
            continue
        pointer = f"{where}/post/requestBody"
        body = resolve(document, pointer)
        if isinstance(body, dict) and isinstance(body.get("$ref"), str):
            pointer = body["$ref"]
            body = resolve(document, pointer) if pointer.startswith("#/") else None
        content = body.get("content") if isinstance(body, dict) else None
        media = content.get("application/json") if isinstance(content, dict) else None
        if not isinstance(media, dict) or "schema" not in media:
            text = (
                f"paths.{path}.post.requestBody: expected content.application/json.schema; add the schema of the body"
            )
            raise DocumentError([text])
        yield path, f"{pointer}/content/application~1json/schema"
