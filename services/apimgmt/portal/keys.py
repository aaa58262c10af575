"""Keys: creating, rotating, revoking. A new key is shown once."""

from typing import Any

import orjson
from fastapi import APIRouter, Response
from pydantic import ValidationError

from services.apimgmt.admin.holders import NewKey
from services.apimgmt.admin.problems import ProblemError, invalid
from services.apimgmt.domain import KeyPurpose
from services.apimgmt.portal import holdings
from services.apimgmt.portal.page import BASE, PortalRoute, Signed, Submitted, Visitor, go, redirect, render
from services.extproc.config import problems_of

LIFETIMES = {"30": "30 days", "90": "90 days", "365": "1 year", "": "No end"}
"""Days that a new key may be made for -> what people read."""
GRACES = {"0": "none: the old key ends now", "3600": "1 hour", "86400": "1 day", "604800": "7 days"}
"""Seconds that an old key works on -> what people read."""

router = APIRouter(prefix=BASE, route_class=PortalRoute, include_in_schema=False)


@router.get("/keys")
async def page(signed: Signed) -> Response:
    """List own keys."""
    return await _page(signed)


@router.post("/keys")
async def create(form: Submitted) -> Response:
    """Make a key of an app, or a personal one."""
    signed, app, days = form.visitor, form.get("app"), form.get("days")
    try:
        if days not in LIFETIMES:
            raise ProblemError(422, "invalid", f"Expected one of the offered lifetimes, not {days[:20]!r}.")
        if not app and form.get("purpose") != "personal":
            raise ProblemError(422, "invalid", "Choose the app that the key is for.")
        wanted = _wanted(form.get("display_name"), int(days) if days else None)
        holder = await holdings.holder_of(signed, f"POST {holdings.APP_KEYS}", app)
        return _issued(signed, await holder.issue(wanted))
    except ProblemError as error:
        return await _page(signed, error)


@router.get("/keys/issued")
async def issued(signed: Signed) -> Response:
    """Show the key that was just made; there is nothing to show a second time."""
    made = signed.flash.get("issued")
    if not made:
        return redirect(f"{BASE}/keys")
    models: list[str] = []
    if made["app"]:
        models, _ = await holdings.models(signed, await holdings.app(signed, made["app"]))
    return render(signed.request, signed, "issued.html", made=made, model=models[0] if models else "MODEL")


@router.get("/keys/{key}/rotate")
async def ask_rotate(signed: Signed, key: str) -> Response:
    """Ask how to rotate."""
    return await _ask(signed, key, "rotate")


@router.post("/keys/{key}/rotate")
async def rotate(form: Submitted, key: str) -> Response:
    """Replace a key."""
    grace = form.get("grace")
    if grace not in GRACES:
        raise ProblemError(422, "invalid", f"Expected one of the offered grace periods, not {grace[:20]!r}.")
    holder, record = await holdings.key_of(form.visitor, key, "rotate")
    return _issued(form.visitor, await holder.rotate(record.id, int(grace)))


@router.get("/keys/{key}/revoke")
async def ask_revoke(signed: Signed, key: str) -> Response:
    """Ask whether to revoke."""
    return await _ask(signed, key, "revoke")


@router.post("/keys/{key}/revoke")
async def revoke(form: Submitted, key: str) -> Response:
    """End a key now."""
    holder, record = await holdings.key_of(form.visitor, key, "revoke")
    await holder.revoke(record.id)
    label = holdings.view(record, form.visitor.context.now).label
    return go(form.visitor, f"{BASE}/keys", notice=f"{label} is revoked and refused everywhere.")


def _wanted(label: str, days: int | None) -> NewKey:
    try:
        return NewKey.model_validate({"displayName": label, "expiresInDays": days})
    except ValidationError as error:
        raise invalid("the key", problems_of(NewKey, error)) from None


def _issued(signed: Visitor, answer: Response) -> Response:
    made: dict[str, Any] = orjson.loads(bytes(answer.body))
    shown = {name: made[name] for name in ("key", "id", "app", "displayName", "expires", "purpose")}
    return go(signed, f"{BASE}/keys/issued", issued=shown)


async def _ask(signed: Visitor, key: str, action: str) -> Response:
    _, record = await holdings.key_of(signed, key, action)
    values: dict[str, Any] = {"key": holdings.view(record, signed.context.now), "graces": GRACES}
    return render(signed.request, signed, f"{action}.html", **values, own_session=record.id == signed.session.key)


async def _page(signed: Visitor, problem: ProblemError | None = None) -> Response:
    apps, now = await holdings.apps(signed), signed.context.now
    found = [holdings.view(record, now) for record in await holdings.own_keys(signed, apps)]
    own = [app for app in apps if app.active and app.developer == signed.principal.developer]
    wanted = signed.request.query_params.get("app", "")
    values: dict[str, Any] = {
        "api": [key for key in found if key.record.purpose is KeyPurpose.API],
        "personal": [key for key in found if key.record.purpose is KeyPurpose.PERSONAL],
        "own": own,
        "wanted": wanted,
        "lifetimes": LIFETIMES,
        "current": signed.session.key,
    }
    return render(signed.request, signed, "keys.html", problem.status if problem else 200, **values, problem=problem)
