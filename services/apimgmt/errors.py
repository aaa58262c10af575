"""Refusals: what API management answers in place of the model. One place, so that codes stay stable and one shape.

Sources: OpenAI API reference, "Error codes" (401 with code `invalid_api_key`; `error.type` and `error.code`); RFC 9110
(section 11.6.1: a 401 carries `WWW-Authenticate`; 10.2.3: `Retry-After`); RFC 6750 (section 3: `error` of a Bearer
challenge). No text repeats a credential; a key is named by its id.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.extproc.api import Reply, deny

REALM = "penstock"

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"

MAX_QUOTED = 64
"""Most characters of a client's text that an error repeats."""

RETRY_AFTER_S = 1
"""What a client is told to wait while the store is away."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request ends here. `reply()` makes the answer; the admin API makes problem details of it."""

    status: int
    code: str
    """OpenAI's `error.code`: a stable word for programs."""
    message: str
    type: str = INVALID_REQUEST
    param: str | None = None
    reason: str = ""
    """What it was exactly, for metrics and for Envoy's response code details. Default the code."""
    headers: Mapping[str, str] = field(default_factory=dict)

    def reply(self) -> Reply:
        """Return the answer in OpenAI's shape."""
        reply = deny(
            self.status, self.message, type=self.type, param=self.param, code=self.code, headers=self.headers or None
        )
        return Reply(reply.status, reply.body, reply.headers, self.reason or self.code)


def quoted(text: str) -> str:
    """Quote a client's text: shortened, and without what is not printable or not Unicode."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:MAX_QUOTED])
    return f"`{shown}...`" if len(text) > MAX_QUOTED else f"`{shown}`"


def challenge(error: str = "", scope: str = "") -> dict[str, str]:
    """Return the `WWW-Authenticate` header; `error` is a code of RFC 6750, empty where no credential came."""
    value = f'Bearer realm="{REALM}"'
    value += f', error="{error}"' if error else ""
    value += f', scope="{scope}"' if scope else ""
    return {"www-authenticate": value}


# 401: who asks is not known


def missing_credentials() -> Refusal:
    """No credential came."""
    return Refusal(
        401,
        "missing_credentials",
        "No API key came with the request. Send it as `Authorization: Bearer <key>` or `x-api-key: <key>`.",
        headers=challenge(),
    )


def invalid_key(reason: str, message: str) -> Refusal:
    """A key that opens nothing; `reason` for metrics, for example `unknown_key`."""
    return Refusal(401, "invalid_api_key", message, reason=reason, headers=challenge("invalid_token"))


def unknown_key() -> Refusal:
    """No such key, or not its secret: which of the two is not told."""
    return invalid_key("unknown_key", "The API key is not valid. Check that it is complete and from this gateway.")


def malformed_key() -> Refusal:
    """Nothing that this gateway hands out, nor a token that it was told to accept."""
    return invalid_key("malformed_key", "The credential is no API key of this gateway, and no token that it accepts.")


def expired_key(key_id: str) -> Refusal:
    """Past its end. Told only to who has the whole key."""
    return invalid_key("expired_key", f"The API key {key_id} has expired. Create a new one.")


def revoked_key(key_id: str) -> Refusal:
    """Revoked, or rotated and past its grace period. Told only to who has the whole key."""
    return invalid_key("revoked_key", f"The API key {key_id} was revoked. Create a new one.")


def wrong_purpose(key_id: str, opens: str) -> Refusal:
    """A personal key at the models, or an app's key at the admin API."""
    return invalid_key("wrong_purpose", f"The key {key_id} opens {opens} only.")


def ambiguous_credentials() -> Refusal:
    """A header of credentials stands there twice."""
    return invalid_key("ambiguous_credentials", "Credentials came more than once. Send one `Authorization` header.")


def wrong_scheme() -> Refusal:
    """`Authorization` with a scheme that is not served."""
    return invalid_key("wrong_scheme", "The Authorization header is not of the form `Bearer <key>`.")


def too_long() -> Refusal:
    """Longer than any credential."""
    return invalid_key("credential_too_long", "The credential is too long to be an API key or a token.")


def invalid_token(reason: str, message: str) -> Refusal:
    """A JWT or Google token that is not accepted; `reason` for example `token_expired`."""
    return Refusal(401, "invalid_token", message, reason=reason, headers=challenge("invalid_token"))


# 400


def conflicting_credentials() -> Refusal:
    """Two headers that name different credentials (RFC 6750, section 3.1: `invalid_request`)."""
    return Refusal(
        400,
        "conflicting_credentials",
        "Authorization and x-api-key carry different credentials. Send one of them.",
        headers=challenge("invalid_request"),
    )


# 403: who asks is known, and may not


def insufficient_scope(scopes: str) -> Refusal:
    """A token without the scopes that its issuer's settings ask for, separated by spaces."""
    return Refusal(
        403,
        "insufficient_scope",
        f"The token lacks a scope that is required here: {scopes}.",
        headers=challenge("insufficient_scope", scopes),
    )


def missing_model() -> Refusal:
    """A request whose body names no model, and no header does."""
    return Refusal(400, "missing_required_parameter", "Missing required parameter: 'model'.", param="model")


def unknown_client(client: str) -> Refusal:
    """A valid token whose client is no app."""
    text = f"No app is registered for the token's client {quoted(client)}."
    return Refusal(403, "unknown_client", text)


def inactive(what: str, name: str) -> Refusal:
    """`what` is `app` or `developer`."""
    return Refusal(403, f"{what}_inactive", f"The {what} {name} is not active. Ask an administrator.")


def broken_account(what: str, name: str) -> Refusal:
    """The app's organization, team or developer is gone, so nobody could be charged."""
    text = f"The {what} {name} of this credential does not exist any more. Ask an administrator."
    return Refusal(403, "account_incomplete", text, reason=f"{what}_missing")


def model_not_allowed(model: str, hint: str = "") -> Refusal:
    """No approved product has the model; `hint` is a sentence that tells what would help."""
    text = (
        f"This credential has no access to the model {quoted(model)}. {hint or 'Subscribe to a product that has it.'}"
    )
    return Refusal(403, "model_not_allowed", text, param="model")


def operation_not_allowed(operation: str, hint: str = "") -> Refusal:
    """No approved product has the operation."""
    hint = hint or "Subscribe to a product that has it."
    return Refusal(403, "operation_not_allowed", f"This credential has no access to {quoted(operation)}. {hint}")


def operation_not_allowed_for(operation: str, model: str, hint: str = "") -> Refusal:
    """Some approved product has the operation and another the model, but none has both."""
    text = f"This credential has no access to {quoted(operation)} with the model {quoted(model)}."
    hint = hint or "Subscribe to a product that has it."
    return Refusal(403, "operation_not_allowed", f"{text} {hint}")


# 503: not known now


def store_away() -> Refusal:
    """The store cannot be asked whether the credential is good."""
    return Refusal(
        503,
        "credentials_unavailable",
        "The credential cannot be checked at the moment. Try again.",
        type=SERVER_ERROR,
        headers={"retry-after": str(RETRY_AFTER_S)},
    )


def issuer_away(issuer: str) -> Refusal:
    """The keys of a token's issuer cannot be had."""
    return Refusal(
        503,
        "issuer_unavailable",
        f"The token cannot be checked at the moment: {quoted(issuer)} does not answer. Try again.",
        type=SERVER_ERROR,
        headers={"retry-after": str(RETRY_AFTER_S)},
    )


def invalid_body(what: str) -> Refusal:
    """A body that cannot be read; `what` continues "The request body is"."""
    return Refusal(400, "invalid_json", f"The request body is {what}.")


def duplicate_parameter(name: str) -> Refusal:
    """A key stands twice in an object of the body: servers disagree on which of them counts."""
    text = f"The request body has {quoted(name)} more than once in one object; send it once."
    return Refusal(400, "duplicate_parameter", text, param=name[:MAX_QUOTED])


def broken_product(name: str) -> Refusal:
    """The product's policies cannot be compiled: its requests cannot be checked, so they end here."""
    text = f"The policies of the product {name} cannot be used. Ask an administrator."
    return Refusal(500, "product_misconfigured", text, type=SERVER_ERROR)


def ledger_away() -> Refusal:
    """The store cannot reserve: nothing is spent that cannot be counted."""
    return Refusal(
        503,
        "ledger_unavailable",
        "The use of this request cannot be booked at the moment. Try again.",
        type=SERVER_ERROR,
        headers={"retry-after": str(RETRY_AFTER_S)},
    )
