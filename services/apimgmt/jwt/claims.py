"""What a token says, held against what its issuer's settings ask for (RFC 7519, section 4.1; RFC 9068)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from services.apimgmt.domain import is_user_name
from services.apimgmt.errors import Refusal, insufficient_scope, invalid_token
from services.apimgmt.jwt.settings import Issuer

CLIENT_CLAIMS = ("azp", "client_id")
"""OpenID Connect Core 1.0, section 2; RFC 9068, section 2.2."""

MAX_CLIENT = 512
"""Longest client that is looked for, characters."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A good token."""

    issuer: str
    client: str
    """An app's `oauthClientId`."""
    user: str
    """Empty: the app's developer."""
    expires: float
    """When it ends, Unix seconds."""
    until: float
    """How long it is accepted: the end, and the skew of clocks."""


class TokenError(Exception):
    """A token that is not accepted."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def refuse(reason: str, message: str) -> TokenError:
    """Return the error of a token that is not accepted."""
    return TokenError(invalid_token(reason, message))


def check(claims: Mapping[str, Any], issuer: Issuer, now: float) -> Verified:
    """Return what the claims of a genuine token say. Raises TokenError."""
    skew = issuer.clock_skew_seconds
    expires = _time(claims, "exp")
    if expires is None:
        raise refuse("token_without_expiry", "The token has no expiry (`exp`).")
    if now >= expires + skew:
        raise refuse("token_expired", "The token has expired.")
    for name in ("nbf", "iat"):
        begin = _time(claims, name)
        if begin is not None and now < begin - skew:
            raise refuse("token_not_yet_valid", f"The token is not valid yet (`{name}`).")
    if claims.get("iss") != issuer.issuer:
        raise refuse("wrong_issuer", "The token is of another issuer.")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(a, str) and a in issuer.audiences for a in audiences):
        raise refuse("wrong_audience", "The token is meant for another audience.")
    check_scopes(claims, issuer.required_scopes)
    return Verified(
        issuer.issuer, client(claims, issuer.client_claim), user(claims, issuer.user_claim), expires, expires + skew
    )


def check_scopes(claims: Mapping[str, Any], required: list[str]) -> None:
    """Raise TokenError unless all required scopes are there."""
    if not required:
        return
    found: set[str] = set()
    for name in ("scope", "scp"):
        value = claims.get(name)
        if isinstance(value, str):
            found.update(value.split())
        elif isinstance(value, list):
            found.update(item for item in value if isinstance(item, str))
    if not found.issuperset(required):
        raise TokenError(insufficient_scope(" ".join(required)))


def client(claims: Mapping[str, Any], claim: str | None) -> str:
    """Return the token's client."""
    for name in (claim,) if claim else CLIENT_CLAIMS:
        value = _text(claims, name)
        if value and len(value) <= MAX_CLIENT:
            return value
    names = " or ".join(f"`{name}`" for name in ((claim,) if claim else CLIENT_CLAIMS))
    raise refuse("token_without_client", f"The token does not name its client ({names}).")


def user(claims: Mapping[str, Any], claim: str | None) -> str:
    """Return the token's user; empty where the settings name no claim."""
    if claim is None:
        return ""
    value = _text(claims, claim)
    if not value or not is_user_name(value):
        raise refuse("token_without_user", f"The token does not name a user (`{claim}`).")
    return value


def _text(claims: Mapping[str, Any], name: str) -> str:
    """Return a claim that is a text. An email address that the issuer has not verified is nobody's."""
    value = claims.get(name)
    if name == "email" and claims.get("email_verified", True) not in (True, "true"):
        return ""
    return value if isinstance(value, str) else ""


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a NumericDate; None if it is not there."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refuse("malformed_token", f"The token's `{name}` is no time.")
    return float(value)
