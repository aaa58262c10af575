"""The keys of one issuer (RFC 7517): fetched, kept, fetched again.

They are fetched every `REFRESH_S` beside requests. A token with an unknown key id has them fetched at once, but not
more often than every `MIN_INTERVAL_S`, however many such tokens come. A key that left the set is good for `RETAIN_S`
more, since tokens that it signed are under way; when the issuer cannot be reached, what is known is good for
`MAX_AGE_S`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK

from services.apimgmt.jwt.fetch import Fetcher, FetchError
from services.apimgmt.jwt.settings import Issuer

REFRESH_S = 300.0
MIN_INTERVAL_S = 10.0
RETAIN_S = 300.0
MAX_AGE_S = 24 * 3600.0

MAX_KEYS = 100
"""Most keys of a set that are looked at."""
MIN_RSA_BITS = 2048
"""RFC 7518, section 3.3."""

DISCOVERY = "/.well-known/openid-configuration"
"""OpenID Connect Discovery 1.0, section 4."""

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
"""Curve -> the one algorithm that uses it (RFC 7518, section 3.4; RFC 8037, section 3.1)."""

logger = logging.getLogger("penstock.apimgmt.jwt")


class IssuerAway(Exception):
    """The keys of an issuer cannot be had."""


@dataclass(slots=True)
class Key:
    """One public key."""

    id: str
    algorithms: frozenset[str]
    """That it may verify."""
    key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
    until: float = float("inf")
    """When it stops to be accepted, since it left the set (monotonic seconds)."""


class KeySet:
    """The keys of one issuer. `start` begins to refresh them; without it they are fetched when they are missing."""

    def __init__(self, issuer: Issuer, fetcher: Fetcher, monotonic: Callable[[], float]) -> None:
        self.issuer = issuer
        self._fetcher, self._monotonic = fetcher, monotonic
        self._keys: dict[str, Key] = {}
        self._loaded = self._tried = float("-inf")
        """When the set was fetched last, and when that was last begun (monotonic seconds)."""
        self._failed = ""
        """Why it could not be fetched last."""
        self._fetching: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to fetch the keys."""
        self._task = asyncio.create_task(self._follow(), name="jwks")

    async def stop(self) -> None:
        """End it."""
        tasks = [task for task in (self._task, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = self._fetching = None

    def find(self, key_id: str | None, algorithm: str) -> Key | None:
        """Return the key of a token. One without key id needs a set with a single key that fits."""
        now = self._monotonic()
        if now - self._loaded > MAX_AGE_S:
            return None
        if key_id is not None:
            key = self._keys.get(key_id)
            return key if key is not None and now < key.until and algorithm in key.algorithms else None
        fitting = [key for key in self._keys.values() if now < key.until and algorithm in key.algorithms]
        return fitting[0] if len(fitting) == 1 else None

    async def fetch_for(self, key_id: str | None, algorithm: str) -> Key | None:
        """Return the key of a token that `find` did not find; fetches the set if that was not done just now.

        Raises:
            IssuerAway: the issuer did not answer last time, so that nobody knows whether the key exists.
        """
        if self._monotonic() - self._tried >= MIN_INTERVAL_S or self._fetching is not None:
            await asyncio.shield(self._shared())
        key = self.find(key_id, algorithm)
        if key is None and self._failed:
            raise IssuerAway(self.issuer.issuer)
        return key

    def _shared(self) -> "asyncio.Task[None]":
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch(), name="jwks-fetch")
        return self._fetching

    async def _follow(self) -> None:
        while True:
            await asyncio.shield(self._shared())
            await asyncio.sleep(MIN_INTERVAL_S if self._failed else REFRESH_S)

    async def _fetch(self) -> None:
        self._tried = self._monotonic()
        try:
            self._take(await self._document())
            self._failed = ""
        except FetchError as error:
            if not self._failed:
                logger.error(
                    "keys of a token issuer cannot be fetched",
                    extra={"issuer": self.issuer.issuer, "error": str(error)},
                )
            self._failed = str(error)
        finally:
            self._fetching = None

    async def _document(self) -> dict[str, Any]:
        uri = self.issuer.jwks_uri or await self._discover()
        return await self._ok(uri)

    async def _discover(self) -> str:
        url = self.issuer.issuer.rstrip("/") + DISCOVERY
        found = await self._ok(url)
        if found.get("issuer") != self.issuer.issuer:
            raise FetchError(f"{url} is of another issuer")  # OpenID Connect Discovery 1.0, section 4.3
        uri = found.get("jwks_uri")
        if not isinstance(uri, str):
            raise FetchError(f"{url} names no jwks_uri")
        return uri

    async def _ok(self, url: str) -> dict[str, Any]:
        status, found = await self._fetcher.json(url)
        if status != 200:
            raise FetchError(f"{url} answered {status}")
        return found

    def _take(self, document: Mapping[str, Any]) -> None:
        listed = document.get("keys")
        if not isinstance(listed, list):
            raise FetchError("the key set has no list of keys")
        allowed = frozenset(self.issuer.algorithms)
        now = self._loaded = self._monotonic()
        found = [key for key in (_read(item, allowed) for item in listed[:MAX_KEYS]) if key is not None]
        keys = {key.id: key for key in found}
        for old in self._keys.values():
            if old.id not in keys and now < old.until:
                old.until = min(old.until, now + RETAIN_S)
                keys[old.id] = old
        self._keys = keys


def _read(item: object, allowed: frozenset[str]) -> Key | None:
    """Read one key; None if it is not one for signatures that are allowed."""
    if not isinstance(item, dict) or "d" in item or item.get("use", "sig") != "sig":
        return None
    operations = item.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    algorithms = _algorithms(item) & allowed
    key_id = item.get("kid", "")
    if not algorithms or not isinstance(key_id, str):
        return None
    try:
        key = PyJWK(item, algorithm=min(algorithms)).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        return None
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey):
        return None
    return Key(key_id, algorithms, key)


def _algorithms(item: Mapping[str, Any]) -> frozenset[str]:
    """Return what a key may verify, by its type and its own `alg`."""
    kind = item.get("kty")
    if kind == "RSA":
        fitting = _RSA
    elif kind in ("EC", "OKP") and isinstance(item.get("crv"), str):
        fitting = frozenset({_CURVES.get(item["crv"], "")})
    else:
        return frozenset()
    own = item.get("alg")
    return fitting if own is None else fitting & {own} if isinstance(own, str) else frozenset()
