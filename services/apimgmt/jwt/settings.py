"""Which tokens are accepted: settings of the policy `credentials`."""

import ipaddress
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from services.apimgmt.domain import Name
from services.extproc.config import ConfigModel

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures with a public key (RFC 7518, section 3.1; RFC 8037). `none` and HMAC cannot be chosen: the keys of a set
are public, so anybody could sign with them as a shared secret (RFC 8725, section 2.1)."""

GOOGLE_ISSUER = "https://accounts.google.com"
GOOGLE_KEYS = "https://www.googleapis.com/oauth2/v3/certs"
"""`jwks_uri` of https://accounts.google.com/.well-known/openid-configuration."""
GOOGLE_TOKEN_INFO = "https://oauth2.googleapis.com/tokeninfo"  # noqa: S105 - an address


def is_safe(url: str) -> bool:
    """Tell whether what comes from `url` can be trusted: HTTPS, or this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(host)
    return parts.scheme == "http" and is_loopback(host)


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this machine by its name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _safe(value: str) -> str:
    if not is_safe(value) or any(c.isspace() for c in value):
        raise ValueError("expected an https:// URL (http:// only of this machine), for example https://id.example.com")
    return value


Url = Annotated[str, AfterValidator(_safe)]


class Issuer(ConfigModel):
    """An OAuth or OpenID Connect provider whose JWTs are accepted."""

    issuer: Url
    """Exactly as in the claim `iss`."""
    audiences: list[str] = Field(min_length=1)
    """The claim `aud` has to name one of these."""
    jwks_uri: Url | None = None
    """Where the keys are. Default what `<issuer>/.well-known/openid-configuration` says."""
    algorithms: list[Algorithm] = Field(default=["RS256", "ES256"], min_length=1)
    clock_skew_seconds: int = Field(default=60, ge=0, le=600)
    """How far this clock and the issuer's may be apart."""
    client_claim: str | None = None
    """The claim that names the client, which is an app's `oauthClientId`. Default `azp`, then `client_id`."""
    user_claim: str | None = None
    """The claim that names the user for limits and ledger. Default the app's developer."""
    required_scopes: list[str] = Field(default_factory=list)
    """All of them have to be in `scope` or `scp`."""
    organizations: list[Name] | None = Field(default=None, min_length=1)
    """Organizations whose apps its tokens may be of: who runs an issuer can name any client. Default all."""


class Google(ConfigModel):
    """Google's identity tokens and access tokens."""

    audiences: list[str] = Field(min_length=1)
    """The claim `aud` of identity tokens has to name one of these."""
    access_tokens: bool = True
    """Whether access tokens (`ya29...`) are accepted: of OAuth clients that are an app's `oauthClientId`."""
    client_claim: str | None = None
    """As of an issuer; `email` serves for identity tokens of service accounts."""
    user_claim: str | None = None
    clock_skew_seconds: int = Field(default=60, ge=0, le=600)
    required_scopes: list[str] = Field(default_factory=list)
    """Of access tokens."""
    organizations: list[Name] | None = Field(default=None, min_length=1)
    """As of an issuer."""
    jwks_uri: Url = GOOGLE_KEYS
    token_info_uri: Url = GOOGLE_TOKEN_INFO

    def issuer(self) -> Issuer:
        """Return the issuer of identity tokens."""
        return Issuer(
            issuer=GOOGLE_ISSUER,
            audiences=self.audiences,
            jwks_uri=self.jwks_uri,
            algorithms=["RS256"],
            clock_skew_seconds=self.clock_skew_seconds,
            client_claim=self.client_claim,
            user_claim=self.user_claim,
        )
