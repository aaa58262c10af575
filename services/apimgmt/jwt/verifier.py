"""JWTs of the issuers that the settings name (RFC 7519, with the advice of RFC 8725).

Signatures are checked by PyJWT; which key and algorithm may be used is decided here, before, by the settings and the
key set, never by the token alone. Times are checked here too, against the injected clock.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import jwt
import orjson

from services.apimgmt import errors
from services.apimgmt.errors import Refusal
from services.apimgmt.jwt import claims as claims_
from services.apimgmt.jwt.claims import TokenError, Verified, refuse
from services.apimgmt.jwt.fetch import Fetcher
from services.apimgmt.jwt.keyset import IssuerAway, Key, KeySet
from services.apimgmt.jwt.settings import Issuer

_JWS = jwt.PyJWS()


class Verifier:
    """Verifies tokens of several issuers."""

    def __init__(
        self, issuers: Sequence[Issuer], fetcher: Fetcher, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        """`clock` is Unix seconds and decides about the tokens' times, `monotonic` about the age of keys."""
        self._clock = clock
        self.key_sets = {issuer.issuer: KeySet(issuer, fetcher, monotonic) for issuer in issuers}

    def start(self) -> None:
        """Begin to fetch keys."""
        for keys in self.key_sets.values():
            keys.start()

    async def stop(self) -> None:
        """End it."""
        for keys in self.key_sets.values():
            await keys.stop()

    def verify(self, token: str) -> Verified | Refusal | Awaitable[Verified | Refusal]:
        """Return what the token says, or why it is not accepted; an awaitable if keys have to be fetched."""
        try:
            keys, key_id, algorithm = self._read(token)
            key = keys.find(key_id, algorithm)
            if key is None:
                return self._verify_later(token, keys, key_id, algorithm)
            return self._check(token, keys.issuer, key, algorithm)
        except TokenError as error:
            return error.refusal

    async def _verify_later(self, token: str, keys: KeySet, key_id: str | None, algorithm: str) -> Verified | Refusal:
        try:
            key = await keys.fetch_for(key_id, algorithm)
            if key is None:
                raise refuse("unknown_signing_key", "The token is signed with a key that its issuer does not have.")
            return self._check(token, keys.issuer, key, algorithm)
        except IssuerAway:
            return errors.issuer_away(keys.issuer.issuer)
        except TokenError as error:
            return error.refusal

    def _read(self, token: str) -> tuple[KeySet, str | None, str]:
        """Return issuer, key id and algorithm that the token names, none of them proved yet."""
        parts = token.split(".")
        if len(parts) != 3 or not token.isascii():
            raise _malformed()
        header, payload = _object(parts[0]), _object(parts[1])
        name = payload.get("iss")
        keys = self.key_sets.get(name) if isinstance(name, str) else None
        if keys is None:
            raise refuse("unknown_issuer", "The token's issuer is not accepted here.")
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in keys.issuer.algorithms:
            raise refuse("algorithm_not_allowed", "The token is signed with an algorithm that is not accepted here.")
        if not isinstance(key_id, str | None) or "crit" in header:  # no extension is understood (RFC 7515, 4.1.11)
            raise _malformed()
        return keys, key_id, algorithm

    def _check(self, token: str, issuer: Issuer, key: Key, algorithm: str) -> Verified:
        try:
            payload = _JWS.decode_complete(token, key.key, algorithms=[algorithm])["payload"]
        except jwt.InvalidSignatureError:
            raise refuse("invalid_signature", "The token's signature is wrong.") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _malformed() from None
        return claims_.check(_parsed(payload), issuer, self._clock())


def _malformed() -> TokenError:
    return refuse("malformed_token", "The token is no JSON Web Token that can be read here.")


def _object(part: str) -> dict[str, Any]:
    """Return a part of a token: base64url without padding (RFC 7515, section 2)."""
    try:
        return _parsed(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise _malformed() from None


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise _malformed()
    return found
