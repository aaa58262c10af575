"""Export and import of the whole store as JSON lines (`store.portable`).

Both run in a thread, with a store of their own: reading and checking a large store would keep requests waiting.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from services.apimgmt.admin.access import PREFIX, Access, Guarded
from services.apimgmt.admin.problems import ProblemError
from services.apimgmt.admin.shapes import problem_responses
from services.apimgmt.store import open_store, portable
from services.apimgmt.store.api import AuditEntry, StoreError

MEDIA_TYPE = "application/jsonl"
CHUNK = 64 * 1024

router = APIRouter(prefix=PREFIX, tags=["installation"])

_LINES = {"content": {MEDIA_TYPE: {"schema": {"type": "string", "description": "One JSON object per line."}}}}


@router.get(
    "/export",
    summary="Export everything but counters, as JSON lines",
    response_class=StreamingResponse,
    responses={200: {"description": "The export; keep it like the store itself", **_LINES}},
)
async def export(access: Guarded) -> Response:
    """Return documents, keys (as digests), audit trail and ledger. No secret is in it that could be used."""
    file = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed when it has been sent
    try:
        await asyncio.to_thread(_export, access, file)
    except BaseException:
        file.close()
        raise
    headers = {"content-disposition": 'attachment; filename="penstock-export.jsonl"'}
    return StreamingResponse(_pieces(file), media_type=MEDIA_TYPE, headers=headers)


@router.post(
    "/import",
    summary="Import an export into a store without documents",
    response_model=dict[str, Any],
    responses=problem_responses(409, 422),
    openapi_extra={"requestBody": {"required": True, **_LINES}},
)
async def import_(request: Request, access: Guarded) -> Response:
    """Write what an export has, all or nothing of its documents. Keys go on working under the same pepper."""
    with tempfile.TemporaryFile("w+b") as file:
        async for chunk in request.stream():
            file.write(chunk)
        file.seek(0)
        try:
            counts = await asyncio.to_thread(_import, access, file)
        except portable.ImportProblem as error:
            raise ProblemError(422, "invalid", str(error)) from None
        except UnicodeDecodeError:
            raise ProblemError(422, "invalid", "import: expected UTF-8 text; nothing was written") from None
        except StoreError as error:
            raise ProblemError(409, "conflict", str(error)) from None
    return JSONResponse(counts)


def _export(access: Access, file: IO[bytes]) -> None:
    class Out:
        def write(self, text: str, /) -> None:
            file.write(text.encode())

    async def run() -> None:
        store = open_store(access.context.settings.store, os.environ)
        await store.open()
        try:
            await portable.export(store, Out())
        finally:
            await store.close()

    asyncio.run(run())
    file.seek(0)


def _import(access: Access, file: IO[bytes]) -> dict[str, int]:
    async def run() -> dict[str, int]:
        store = open_store(access.context.settings.store, os.environ)
        await store.open()
        try:
            found = await portable.import_(store, (line.decode() for line in file))
            counts = {
                "documents": found.documents,
                "keys": found.keys,
                "audit": found.audit,
                "records": found.records,
            }
            entry = AuditEntry(access.context.now, access.principal.actor, "import", "store", "", "", None, counts)
            await store.change([], [entry])
            return counts
        finally:
            await store.close()

    return asyncio.run(run())


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    with file:
        while piece := file.read(CHUNK):
            yield piece
