"""Signing in with a personal key, and out."""

import logging

from fastapi import APIRouter, Request, Response

from services.apimgmt.admin.auth import person
from services.apimgmt.admin.context import AdminContext
from services.apimgmt.admin.problems import ProblemError
from services.apimgmt.portal import sessions
from services.apimgmt.portal.page import (
    BASE,
    SIGN_IN,
    PortalRoute,
    SignInNeededError,
    Submitted,
    forged,
    local,
    read_form,
    redirect,
    render,
    set_cookie,
    state_of,
    visit,
    visitor,
)

VISIT_S = 3600
"""How long a sign-in form holds, seconds."""

router = APIRouter(prefix=BASE, route_class=PortalRoute, include_in_schema=False)

logger = logging.getLogger("penstock.apimgmt.portal")


@router.get("/sign-in")
async def form(request: Request) -> Response:
    """Show the form; who is signed in already is sent on."""
    after = local(request.query_params.get("next", ""))
    try:
        await visitor(request)
    except SignInNeededError:
        return _form(request, after)
    return redirect(after)


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Begin a session."""
    context: AdminContext = request.app.state.context
    state, fields = state_of(context), await read_form(request)
    if not state.seals.accepts(visit(request), fields.get("token", "")):
        raise forged()
    after, address = local(fields.get("next", "")), request.client.host if request.client else ""
    wait = state.throttle.wait(address, context.now)
    if wait:
        text = f"Too many attempts failed. Try again in {wait} seconds."
        response = _form(request, after, 429, text)
        response.headers["retry-after"] = str(wait)
        return response
    try:
        who = await person(context, fields.get("key", "").strip())
    except ProblemError as error:
        state.throttle.failed(address, context.now)
        logger.info("a sign-in failed", extra={"address": address, "reason": error.detail})
        return _form(request, after, 401, f"That did not work: {error.detail}.")
    session = sessions.begin(who.key, context.now)
    response = redirect(after)
    set_cookie(request, response, "session", state.seals.write(session), sessions.SESSION_S)
    set_cookie(request, response, "visit", "", 0)
    return response


@router.post("/sign-out")
async def sign_out(form: Submitted) -> Response:
    """End the session, wherever its cookie may be."""
    signed = form.visitor
    await sessions.end(signed.context.store, signed.session, signed.context.now)
    response = redirect(SIGN_IN)
    set_cookie(signed.request, response, "session", "", 0)
    return response


def _form(request: Request, after: str, status: int = 200, wrong: str = "") -> Response:
    context: AdminContext = request.app.state.context
    known = visit(request)
    token = state_of(context).seals.token(known)
    response = render(request, None, "sign_in.html", status, after=after, wrong=wrong, token=token)
    set_cookie(request, response, "visit", known, VISIT_S)
    return response
