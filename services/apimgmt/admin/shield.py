"""What every response carries and every request is held to, whoever answers: sizes and security headers."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.apimgmt.admin.problems import ProblemError, response

MAX_BODY = 1024 * 1024
"""Largest request body, bytes."""

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Set where a route has not set its own. Source: OWASP Secure Headers Project."""

HSTS = "max-age=31536000"
"""RFC 6797; only over TLS, where browsers heed it."""


class Shield:
    """ASGI middleware. No CORS headers: browsers of other origins get no answer to read."""

    def __init__(self, app: ASGIApp, large: dict[str, int] | None = None) -> None:
        """`large`: path -> bytes, for routes that take more than MAX_BODY."""
        self._app, self._large = app, large or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._large.get(scope["path"], MAX_BODY)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers.setdefault("strict-transport-security", HSTS)
            await send(message)

        error = ProblemError(413, "too_large", f"the request body is larger than {most} bytes")
        length = Headers(scope=scope).get("content-length")
        if length is not None and (not length.isdigit() or int(length) > most):
            await response(error)(scope, receive, answer)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise error
            return message

        await self._app(scope, counted, answer)
