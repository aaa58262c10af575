"""Entries of key-value maps: written, replaced and deleted, never read back."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from services.apimgmt.admin import shapes
from services.apimgmt.admin.access import PREFIX, Access, Guarded
from services.apimgmt.admin.edit import save
from services.apimgmt.admin.problems import ProblemError, not_found
from services.apimgmt.admin.shapes import problem_responses
from services.apimgmt.domain import KeyValueMap, Kind
from services.apimgmt.store.api import Conflict, Document
from services.extproc.config import ConfigModel

MAX_ENTRIES, MAX_VALUE = 1000, 512 * 1024
"""Entries of one map, and characters of one value."""

ATTEMPTS = 5
"""How often an entry is written again because another one was written meanwhile."""

router = APIRouter(prefix=PREFIX, tags=[Kind.KEY_VALUE_MAP.value])

NamePath = Annotated[str, Path(max_length=63, description="The map.")]
EntryPath = Annotated[str, Path(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="The entry.")]
_ENTRY = "/keyValueMaps/{name}/entries/{entry}"


class EntryValue(ConfigModel):
    """A value, which is sealed before it reaches the store."""

    value: str = Field(max_length=MAX_VALUE, examples=["a token of another system"])


@router.put(
    _ENTRY,
    summary="Set an entry; its value cannot be read again",
    status_code=204,
    responses=problem_responses(400, 404, 409, 422),
    openapi_extra=shapes.json_body("EntryValue", {"value": "a token of another system"}),
)
async def put(access: Guarded, name: NamePath, entry: EntryPath, request: Request) -> Response:
    """Set a value. Works on declared maps, too: the stack declares the map, its values belong here."""
    seal = access.context.seal
    if seal is None:
        raise ProblemError(503, "no_sealing_key", "this process has no key to seal values with")
    value = shapes.parse(EntryValue, await shapes.read_json(request), f"the entry {entry}").value
    try:
        sealed = seal(name, entry, value)
    except ValueError as error:
        raise ProblemError(422, "invalid", str(error)) from None
    await _change(access, name, entry, sealed)
    return Response(status_code=204)


@router.delete(_ENTRY, summary="Delete an entry", status_code=204, responses=problem_responses(404, 409))
async def delete(access: Guarded, name: NamePath, entry: EntryPath) -> Response:
    """Delete an entry. Policies that use it fail from then on as they do for one that is missing."""
    await _change(access, name, entry, None)
    return Response(status_code=204)


async def _change(access: Access, name: str, entry: str, sealed: str | None) -> None:
    for attempt in range(ATTEMPTS):
        document = await access.document(Kind.KEY_VALUE_MAP, "", name)
        try:
            await save(access, document, _changed(document, entry, sealed), declared=document.declared)
        except Conflict:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            return


def _changed(document: Document, entry: str, sealed: str | None) -> KeyValueMap:
    current = KeyValueMap.model_validate(dict(document.body))
    entries = dict(current.entries)
    if sealed is None:
        if entries.pop(entry, None) is None:
            raise not_found(f"keyValueMaps/{document.name}/entries/{entry}")
    else:
        entries[entry] = sealed
    if len(entries) > MAX_ENTRIES:
        raise ProblemError(409, "full", f"a map has at most {MAX_ENTRIES} entries")
    return current.model_copy(update={"entries": entries})
