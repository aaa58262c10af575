"""Google's access tokens: opaque texts that only Google can tell about.

Source: Google identity documentation, "OpenID Connect" (token info endpoint); google-auth-library-nodejs, whose
`getTokenInfo` sends the token in the Authorization header of a POST, which keeps it out of URLs and logs.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from services.apimgmt import errors
from services.apimgmt.errors import Refusal
from services.apimgmt.jwt import claims as claims_
from services.apimgmt.jwt.claims import TokenError, Verified, refuse
from services.apimgmt.jwt.fetch import Fetcher, FetchError
from services.apimgmt.jwt.settings import GOOGLE_ISSUER, Google

PREFIX = "ya29."
"""All of Google's access tokens begin so."""

CLIENT_CLAIMS = ("azp", "aud")
"""Client that a token was issued to. An email address would not do: any application that a user signs in to holds
access tokens with the user's address, and could use them here."""

MAX_ASKED = 16
"""Most tokens that Google is asked about at a time."""
MAX_WAITING = 500


class AccessTokens:
    """Asks Google about access tokens. What was answered is remembered by `TokenCache`."""

    def __init__(self, google: Google, fetcher: Fetcher, clock: Callable[[], float]) -> None:
        self._google, self._fetcher, self._clock = google, fetcher, clock
        self._slots = asyncio.Semaphore(MAX_ASKED)
        self._waiting = 0

    async def verify(self, token: str) -> Verified | Refusal:
        """Return what Google says about a token, or why it is not accepted."""
        if self._waiting >= MAX_WAITING:
            return errors.issuer_away("Google")
        self._waiting += 1
        try:
            async with self._slots:
                headers = {"authorization": f"Bearer {token}"}
                status, found = await self._fetcher.json(self._google.token_info_uri, "POST", headers)
            return self._read(status, found)
        except FetchError:
            return errors.issuer_away("Google")
        except TokenError as error:
            return error.refusal
        finally:
            self._waiting -= 1

    def _read(self, status: int, found: dict[str, Any]) -> Verified:
        if status != 200:
            raise refuse("google_token_invalid", "Google does not know the access token, or it has expired.")
        ends = found.get("exp")
        if not isinstance(ends, str | int) or not str(ends).isdecimal():
            raise refuse("token_without_expiry", "The token has no expiry (`exp`).")
        expires = float(ends)
        if self._clock() >= expires:
            raise refuse("token_expired", "The token has expired.")
        claims_.check_scopes(found, self._google.required_scopes)
        client = next((found[name] for name in CLIENT_CLAIMS if isinstance(found.get(name), str)), "")
        if not client or len(client) > claims_.MAX_CLIENT:
            raise refuse("token_without_client", "The token does not name its client.")
        return Verified(GOOGLE_ISSUER, client, claims_.user(found, self._google.user_claim), expires, expires)
