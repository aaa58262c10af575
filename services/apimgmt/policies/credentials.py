"""Credentials: who asks, by API key, JWT or Google token.

They come as `Authorization: Bearer <credential>` or `x-api-key: <credential>`, never in cookies or the URL, which end
up in logs and are sent by browsers of their own accord.
"""

import time
from collections.abc import Awaitable, Callable
from typing import ClassVar

from pydantic import Field, model_validator

from services.apimgmt import errors, identity
from services.apimgmt.call import Call, Caller, Credential
from services.apimgmt.directory import Directory, Lookup
from services.apimgmt.errors import Refusal
from services.apimgmt.jwt import google
from services.apimgmt.jwt.cache import TokenCache, digest_of
from services.apimgmt.jwt.claims import Verified
from services.apimgmt.jwt.fetch import Fetcher
from services.apimgmt.jwt.settings import GOOGLE_ISSUER, Google, Issuer
from services.apimgmt.jwt.verifier import Verifier
from services.apimgmt.policies.api import Policy, Stage, Tools
from services.extproc.api import Answer, Headers, Reply
from services.extproc.config import ConfigModel

MAX_CREDENTIAL = 16 * 1024
"""Longest credential, characters: JWTs with many groups have some thousand."""

BEARER = "bearer"
"""The one scheme, in any case (RFC 9110, section 11.1; RFC 6750, section 2.1)."""

KEY_BEGINNINGS = ("psk_", "psp_")


class CredentialsSettings(ConfigModel):
    """Settings of `credentials`."""

    issuers: list[Issuer] = Field(default_factory=list)
    """Providers whose JWTs are accepted beside API keys."""
    google: Google | None = None
    """Google's tokens."""
    forward: bool = False
    """Whether replicas get `Authorization` and `x-api-key`. They need not: the identity is in headers of its own."""

    @model_validator(mode="after")
    def _once(self) -> "CredentialsSettings":
        names = [issuer.issuer for issuer in self.issuers] + ([GOOGLE_ISSUER] if self.google else [])
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected each issuer once (twice: {', '.join(twice)}); tokens name only their issuer")
        open_ended = [issuer.issuer for issuer in self.issuers if issuer.organizations is None]
        open_ended += [GOOGLE_ISSUER] if self.google and self.google.organizations is None else []
        if len(names) > 1 and open_ended:
            raise ValueError(
                f"of several issuers each needs `organizations` (missing: {', '.join(open_ended)}): otherwise who runs "
                "one of them could be anybody's client"
            )
        return self


class CredentialsPolicy(Policy[CredentialsSettings]):
    """Sets `call.caller`, and the headers that tell of it."""

    name: ClassVar[str] = "credentials"
    stage: ClassVar[Stage] = Stage.HEADERS
    settings_model = CredentialsSettings

    def __init__(self, settings: CredentialsSettings, tools: Tools) -> None:
        """Prepare. Extras in use: `directory` (Directory), `clock` and `monotonic` (default those of `time`)."""
        super().__init__(settings, tools)
        clock: Callable[[], float] = tools.extras.get("clock", time.time)
        monotonic: Callable[[], float] = tools.extras.get("monotonic", time.monotonic)
        self._hide = not settings.forward
        self._fetcher = Fetcher()
        issuers = [*settings.issuers, *([settings.google.issuer()] if settings.google else [])]
        self._verifier = Verifier(issuers, self._fetcher, clock, monotonic) if issuers else None
        self._organizations = {i.issuer: frozenset(i.organizations) for i in settings.issuers if i.organizations}
        if settings.google is not None and settings.google.organizations:
            self._organizations[GOOGLE_ISSUER] = frozenset(settings.google.organizations)
        self._tokens = TokenCache(clock, monotonic)
        self._google: google.AccessTokens | None = None
        if settings.google is not None and settings.google.access_tokens:
            self._google = google.AccessTokens(settings.google, self._fetcher, clock)

    async def start(self) -> None:
        """Begin to fetch keys of issuers."""
        if self._verifier is not None:
            self._verifier.start()

    async def stop(self) -> None:
        """End it."""
        if self._verifier is not None:
            await self._verifier.stop()
        await self._tokens.stop()
        await self._fetcher.close()

    def check(self, call: Call) -> Answer:
        """Find the caller."""
        if self._hide:
            identity.hide(call.exchange)
        credential = read(call.exchange.request_headers)
        if isinstance(credential, Refusal):
            return credential.reply()
        found = self._find(credential)
        if isinstance(found, Caller) or isinstance(found, Refusal):  # noqa: SIM101 - a union takes twice as long
            return self._conclude(call, found)
        return self._conclude_later(call, found)

    def _find(self, credential: str) -> Lookup:
        if credential.startswith(KEY_BEGINNINGS):
            return self._directory.find_key(credential)
        if self._google is not None and credential.startswith(google.PREFIX):
            return self._find_google(credential, self._google)
        if self._verifier is not None and credential.count(".") == 2:
            return self._find_jwt(credential, self._verifier)
        return errors.malformed_key()

    def _find_jwt(self, token: str, verifier: Verifier) -> Lookup:
        digest = digest_of(token)
        known = self._tokens.get(digest)
        if isinstance(known, Verified):
            return self._caller(known)
        found = verifier.verify(token)
        if isinstance(found, Verified | Refusal):
            return self._verified(digest, found)
        return self._verified_later(digest, found)

    def _find_google(self, token: str, asked: google.AccessTokens) -> Lookup:
        digest = digest_of(token)
        known = self._tokens.get(digest)
        if known is not None:
            return known if isinstance(known, Refusal) else self._caller(known)
        answer = self._tokens.once(digest, lambda: asked.verify(token))
        return self._verified_later(digest, answer)

    def _verified(self, digest: bytes, found: Verified | Refusal) -> Caller | Refusal:
        """Remember good tokens. Refused JWTs are cheap to judge again, and must not push good ones out."""
        if isinstance(found, Refusal):
            return found
        self._tokens.put(digest, found)
        return self._caller(found)

    async def _verified_later(self, digest: bytes, found: Awaitable[Verified | Refusal]) -> Caller | Refusal:
        return self._verified(digest, await found)

    def _caller(self, token: Verified) -> Caller | Refusal:
        credential = Credential.GOOGLE if token.issuer == GOOGLE_ISSUER else Credential.JWT
        found = self._directory.caller_for_client(token.client, credential, user=token.user, expires=token.expires)
        allowed = self._organizations.get(token.issuer)
        if allowed is not None and isinstance(found, Caller) and found.organization not in allowed:
            return errors.unknown_client(token.client)
        return found

    @property
    def _directory(self) -> Directory:
        directory: Directory = self.tools.extras["directory"]
        return directory

    def _conclude(self, call: Call, found: Caller | Refusal) -> Reply | None:
        if isinstance(found, Refusal):
            return found.reply()
        call.caller = found
        identity.hand_on(call)
        return None

    async def _conclude_later(self, call: Call, found: Awaitable[Caller | Refusal]) -> Reply | None:
        return self._conclude(call, await found)


def read(headers: Headers) -> str | Refusal:
    """Return the credential that came, or why there is none."""
    authorizations = headers.get_all(identity.AUTHORIZATION) if identity.AUTHORIZATION in headers else []
    keys = headers.get_all(identity.API_KEY) if identity.API_KEY in headers else []
    if len(authorizations) > 1 or len(keys) > 1:
        return errors.ambiguous_credentials()
    key = keys[0].strip() if keys else ""
    if not authorizations:
        return _bounded(key)
    token = _bearer(authorizations[0])
    if isinstance(token, Refusal):
        return token
    if key and token and key != token:
        return errors.conflicting_credentials()
    return _bounded(token or key)


def _bearer(value: str) -> str | Refusal:
    """Return what follows the scheme; empty if nothing does."""
    scheme, _, token = value.strip().partition(" ")
    if not scheme:
        return ""
    return token.strip() if scheme.lower() == BEARER else errors.wrong_scheme()


def _bounded(credential: str) -> str | Refusal:
    if not credential:
        return errors.missing_credentials()
    return credential if len(credential) <= MAX_CREDENTIAL else errors.too_long()
