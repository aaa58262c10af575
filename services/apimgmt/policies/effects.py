"""What a script or an external service may do to a request: refuse it, set some headers, replace its body.

One place, so that both are held to the same bounds. Anything outside of them is an `EffectError`: the policy failed.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator

from services.apimgmt.call import Call
from services.bodyrouter.headers import NEVER_ALLOWED, canonical
from services.extproc.api import Reply, deny
from services.extproc.visible import CREDENTIAL_HEADERS
from services.remote.json_service import BadAnswer

MAX_MESSAGE = 500
"""Longest message of a denial, characters."""

MAX_HEADER_VALUE = 1024
"""Longest header value, characters."""

KEPT_FIELDS = ("model", "stream", "stream_options")
"""Fields that a replaced body keeps from the request: by these the route was chosen and the answer will be read."""

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
_VALUE = re.compile(r"[ -~]*")
_CONNECTION = frozenset(
    {
        *("host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "te"),
        *("keep-alive", "upgrade", "trailer", "expect", "forwarded", "via"),
    }
)
"""Headers that say how a message is read and where it came from (RFC 9110, RFC 9112)."""


_TRUSTED = (*NEVER_ALLOWED, "x-forwarded-", "x-envoy-")


class EffectError(BadAnswer):
    """A script or an external service asked for what it may not. The text holds nothing of the request."""


def _settable(value: str) -> str:
    name = canonical(value)
    if not _HEADER.fullmatch(name):
        raise ValueError("expected a header name, for example x-tier")
    if name.startswith(_TRUSTED) or name in CREDENTIAL_HEADERS:
        raise ValueError("this header decides model, replica or identity; no policy may set it")
    if name in _CONNECTION:
        raise ValueError("this header says how the message is read; no policy may set it")
    return name


SettableHeader = Annotated[str, AfterValidator(_settable)]
"""Name of a request header that a policy may be allowed to set."""


def denial(status: Any, message: Any, code: Any, default_code: str) -> Reply:
    """Return an error answer.

    Args:
        status: 400 to 599; None is 403.
        message: up to 500 characters; None says that the request was refused.
        code: a snake_case word; None is `default_code`.
        default_code: see above.
    """
    status, code = 403 if status is None else status, default_code if code is None else code
    if type(status) is not int or not 400 <= status <= 599:
        raise EffectError("status: expected 400 to 599")
    if type(code) is not str or not _CODE.fullmatch(code):
        raise EffectError("code: expected a word of a-z, 0-9 and _, for example outside_hours")
    if message is None:
        message = "The request was refused by a policy."
    if type(message) is not str or len(message) > MAX_MESSAGE or not _is_text(message):
        raise EffectError(f"message: expected at most {MAX_MESSAGE} characters of text")
    return deny(status, message, code=code, type="invalid_request_error" if status < 500 else "server_error")


def set_headers(call: Call, headers: Any, allowed: frozenset[str]) -> None:
    """Set request headers whose names are in `allowed`. All or none."""
    if not isinstance(headers, dict):
        raise EffectError("headers: expected an object of names and strings")
    found = {canonical(str(name)): value for name, value in headers.items()}
    for name, value in found.items():
        if name not in allowed:
            raise EffectError("headers: a name that the policy's setHeaders does not list")
        if type(value) is not str or len(value) > MAX_HEADER_VALUE or not _VALUE.fullmatch(value):
            raise EffectError(f"headers: expected values of at most {MAX_HEADER_VALUE} printable ASCII characters")
    for name, value in found.items():
        call.set_header(name, value)


def replace_body(call: Call, body: Any) -> None:
    """Send `body` in place of the request's; `KEPT_FIELDS` stay as they are."""
    if not isinstance(body, dict):
        raise EffectError("body: expected an object")
    kept = {name: call.body[name] for name in KEPT_FIELDS if name in call.body}
    changed = {name: value for name, value in body.items() if name not in KEPT_FIELDS} | kept
    target = call.edit()
    target.clear()
    target.update(changed)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
