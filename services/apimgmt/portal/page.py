"""How every page is served: who asks, what forms carry, what a response may load, and errors as pages."""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from services.apimgmt.admin.access import RULES, Access, Reach
from services.apimgmt.admin.auth import Principal, person_of
from services.apimgmt.admin.context import AdminContext
from services.apimgmt.admin.problems import ProblemError, not_found
from services.apimgmt.domain import Role
from services.apimgmt.portal import formats, sessions, snippets, static, words
from services.apimgmt.portal.sessions import Seals, Session
from services.apimgmt.portal.throttle import Throttle
from services.apimgmt.store.api import Conflict, StoreError

BASE = "/portal"
SIGN_IN = f"{BASE}/sign-in"
MAX_FIELDS = 40
"""Fields of a form."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
"""Of every page (Content Security Policy Level 3). The admin server adds the others."""

_LOCAL = re.compile(r"/portal/[A-Za-z0-9/_.?=&%-]*", re.ASCII)

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters.update(formats.FILTERS)
TEMPLATES.filters.update(words.FILTERS)
TEMPLATES.globals.update(base=BASE, asset=static.url, curl=snippets.curl, program=snippets.program)


class SignInNeededError(Exception):
    """There is no session, or it is over."""


@dataclass(slots=True)
class State:
    """What the portal keeps in this process."""

    seals: Seals
    throttle: Throttle
    tries: int = 0
    """Requests of the try-it page that are under way."""


def state_of(context: AdminContext) -> State:
    """Return the portal's state, made when it is first asked for."""
    state = context.extras.get("portal")
    if not isinstance(state, State):
        state = context.extras["portal"] = State(Seals(context.pepper), Throttle())
    return state


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody signed in."""

    request: Request
    context: AdminContext
    session: Session
    principal: Principal

    @property
    def seals(self) -> Seals:
        """What checks cookies and forms."""
        return state_of(self.context).seals

    @property
    def flash(self) -> Mapping[str, Any]:
        """What waits to be shown once (`go`)."""
        waiting = self.request.cookies.get(cookie_name(self.request, "flash"), "")
        return self.seals.open(self.session, waiting, self.context.now) if waiting else {}

    @property
    def leads(self) -> bool:
        """Whether the person sees more than own things."""
        return self.principal.role is not Role.DEVELOPER

    def access(self, route: str) -> Access:
        """Return the rights that a route of the admin API gives, e.g. `GET /usage`. Raises ProblemError (403)."""
        reach = RULES[route].reach(self.principal.role)
        if reach is Reach.NONE:
            raise ProblemError(403, "forbidden", f"the role {self.principal.role} may not {route}")
        return Access(self.context, self.principal, reach)


@dataclass(frozen=True, slots=True)
class Submission:
    """A form that was sent from one of our own pages."""

    visitor: Visitor
    fields: Mapping[str, str]

    def get(self, name: str) -> str:
        """Return a field without blanks around it; empty if it is missing."""
        return self.fields.get(name, "").strip()


async def visitor(request: Request) -> Visitor:
    """Return who is signed in. The key is looked up each time: a session ends at once with its key and its owner."""
    context: AdminContext = request.app.state.context
    session = state_of(context).seals.read(request.cookies.get(cookie_name(request, "session"), ""), context.now)
    if session is None or await sessions.ended(context.store, session):
        raise SignInNeededError
    record = await context.store.key(session.key)
    if record is None:
        raise SignInNeededError
    try:
        return Visitor(request, context, session, await person_of(context, record))
    except ProblemError:
        raise SignInNeededError from None


Signed = Annotated[Visitor, Depends(visitor)]


async def submission(request: Request, signed: Signed) -> Submission:
    """Return the form that was sent. Raises ProblemError (400, 403, 415)."""
    fields = await read_form(request)
    if not signed.seals.accepts(signed.session.id, fields.get("token", "")):
        raise forged()
    return Submission(signed, fields)


Submitted = Annotated[Submission, Depends(submission)]
"""Annotation of the parameter that every handler of a form has."""


async def read_form(request: Request) -> Mapping[str, str]:
    """Return the fields of an urlencoded form. Raises ProblemError (400, 403, 415)."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise forged()  # Fetch Metadata Request Headers (W3C): browsers say where a request comes from
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise ProblemError(415, "unsupported_media_type", "expected a form (application/x-www-form-urlencoded)")
    try:
        text = (await request.body()).decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"))
    except ValueError:
        raise ProblemError(400, "bad_request", "the form cannot be read") from None


def forged() -> ProblemError:
    """Return the answer to a form that did not come from our page."""
    return ProblemError(403, "form_expired", "The form has expired or did not come from this portal. Load it again.")


def cookie_name(request: Request, what: str) -> str:
    """Return a cookie's name. Over TLS the prefix makes browsers refuse what others set (RFC 6265bis, 4.1.3.2)."""
    return f"{'__Host-' if request.url.scheme == 'https' else ''}penstock-{what}"


def set_cookie(request: Request, response: Response, what: str, value: str, seconds: int) -> None:
    """Set a cookie that scripts and other sites get nothing of; 0 seconds delete it."""
    response.set_cookie(
        cookie_name(request, what),
        value,
        max_age=seconds,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def render(request: Request, signed: Visitor | None, template: str, status: int = 200, **values: Any) -> Response:
    """Return a page. A message that waits for it is shown, and gone."""
    context: AdminContext = request.app.state.context
    shown = {
        "title": context.settings.portal.title,
        "endpoint": context.settings.portal.endpoint,
        "who": signed.principal if signed else None,
        "token": signed.seals.token(signed.session.id) if signed else "",
        "path": request.url.path,
        "flash": signed.flash if signed else {},
        "now": context.now,
        "problem": None,
        **values,
    }
    response = HTMLResponse(TEMPLATES.get_template(template).render(shown), status, HEADERS)
    if signed and cookie_name(request, "flash") in request.cookies:
        set_cookie(request, response, "flash", "", 0)
    return response


def go(signed: Visitor, path: str, **flash: Any) -> Response:
    """Send the browser to another page of the portal, which shows `flash` (`notice`, `issued`) once."""
    response = redirect(path)
    if flash:
        sealed = signed.seals.seal(signed.session, flash, signed.context.now)
        set_cookie(signed.request, response, "flash", sealed, sessions.FLASH_S)
    return response


def redirect(path: str) -> Response:
    """Send the browser to another page with GET."""
    return RedirectResponse(path, 303, HEADERS)


def local(path: str) -> str:
    """Return `path` if it is a page of the portal, else the first page."""
    return path if _LOCAL.fullmatch(path) and "//" not in path and ".." not in path else f"{BASE}/"


def visit(request: Request) -> str:
    """Return the id of a visit before the sign-in: what binds the token of the sign-in form to the browser."""
    found = request.cookies.get(cookie_name(request, "visit"), "")
    return found if len(found) == 32 and found.isascii() and found.isalnum() else secrets.token_hex(16)


class PortalRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """Return the handler."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            context: AdminContext = request.app.state.context
            if not context.settings.portal.enabled:
                raise not_found(request.url.path[:100])
            try:
                return await handle(request)
            except SignInNeededError:
                return _to_sign_in(request)
            except ProblemError as error:
                return await failed(request, error)
            except RequestValidationError:
                return await failed(request, ProblemError(400, "bad_request", "The address is not understood."))
            except Conflict:
                return await failed(request, ProblemError(409, "conflict", "It was changed meanwhile. Load it again."))
            except StoreError:
                detail = "The data cannot be read at the moment. Try again in a minute."
                return await failed(request, ProblemError(503, "store_unavailable", detail))

        return handled


async def failed(request: Request, error: ProblemError) -> Response:
    """Return an error as a page."""
    signed = None
    if error.status < 500:
        try:
            signed = await visitor(request)
        except (SignInNeededError, StoreError):
            signed = None
    response = render(request, signed, "error.html", error.status, error=error)
    for name, value in error.headers.items():
        response.headers[name] = value
    return response


def _to_sign_in(request: Request) -> Response:
    where = request.url.path if request.method == "GET" else f"{BASE}/"
    query = "" if where == f"{BASE}/" else f"?next={quote(where)}"
    response = redirect(f"{SIGN_IN}{query}")
    set_cookie(request, response, "session", "", 0)
    return response
