"""Files that pages load: one stylesheet, one script, one icon. Their addresses change with their content."""

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request, Response

from services.apimgmt.admin.problems import not_found

FILES = {
    "portal.css": "text/css; charset=utf-8",
    "portal.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

_CONTENT = {name: Path(__file__).with_name("static").joinpath(name).read_bytes() for name in FILES}
_VERSION = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in _CONTENT.items()}

router = APIRouter(include_in_schema=False)


def url(name: str) -> str:
    """Return the address of a file."""
    return f"/portal/static/{name}?v={_VERSION[name]}"


@router.get("/portal/static/{name}")
async def file(request: Request, name: str) -> Response:
    """Return a file, to be kept for a year if it was asked for by its version."""
    if name not in FILES:
        raise not_found(f"static/{name[:40]}")
    current = request.query_params.get("v") == _VERSION[name]
    kept = "public, max-age=31536000, immutable" if current else "no-cache"
    return Response(_CONTENT[name], headers={"content-type": FILES[name], "cache-control": kept})
