"""How connections prove who they are: not at all, by a password, or by a token of Google's IAM.

Memorystore for Valkey with IAM takes an OAuth access token as the password of AUTH
(https://docs.cloud.google.com/memorystore/docs/valkey/about-iam-auth). Tokens live an hour; they come from the metadata
server (https://cloud.google.com/compute/docs/access/authenticate-workloads), and are never logged.
"""

import json
import time
from collections.abc import Mapping

import httpx2

from services.apimgmt.store.api import StoreError
from services.apimgmt.store.valkey.link import Broken

METADATA_HOST = "metadata.google.internal"
"""Name of the metadata server; the environment's GCE_METADATA_HOST replaces it."""

TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105 - a path
HEADERS = {"Metadata-Flavor": "Google"}

RENEW_BEFORE_S = 300.0
"""A token is replaced this long before it ends. The metadata server renews its own copy at the same age."""

FETCH_S = 2.0


class Password:
    """A password that stays, or none."""

    renews = False

    def __init__(self, value: str | None) -> None:
        self._value = value

    async def get(self) -> str | None:
        """Return what AUTH sends; None for no AUTH."""
        return self._value

    def forget(self) -> None:
        """The server refused it."""

    def remaining(self) -> float:
        """Seconds until it should be replaced."""
        return float("inf")


class IamToken(Password):
    """The access token of the pod's service account, fetched again before it ends."""

    renews = True

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(None)
        self._url = f"http://{environ.get('GCE_METADATA_HOST') or METADATA_HOST}{TOKEN_PATH}"
        self._until = 0.0

    async def get(self) -> str | None:
        """Return a token that is good for some minutes. Raises Broken if there is none to be had now."""
        if self._value is None or self.remaining() <= 0:
            await self.fetch()
        return self._value

    def forget(self) -> None:
        """Fetch another next time."""
        self._value = None

    def remaining(self) -> float:
        """Seconds until it should be replaced."""
        return self._until - time.monotonic()

    async def fetch(self) -> None:
        """Ask the metadata server. Raises Broken."""
        try:
            async with httpx2.AsyncClient(timeout=FETCH_S, trust_env=False) as client:
                answer = await client.get(self._url, headers=HEADERS)
            if answer.status_code != httpx2.codes.OK:
                raise Broken(f"the metadata server answers {answer.status_code} when asked for an access token")
            found = json.loads(answer.content)
            token, lifetime = str(found["access_token"]), float(found["expires_in"])
        except httpx2.HTTPError as error:
            raise Broken(
                f"the metadata server cannot be reached for an access token ({type(error).__name__})"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise Broken("the metadata server's answer holds no access token") from None
        self._value = token
        self._until = time.monotonic() + max(lifetime - RENEW_BEFORE_S, lifetime / 2)


def password_for(mode: str, environ: Mapping[str, str]) -> Password:
    """Return what `auth` of the settings asks for. Raises StoreError if the environment lacks it."""
    if mode == "iam":
        return IamToken(environ)
    if mode == "none":
        return Password(None)
    value = environ.get("PENSTOCK_STORE_PASSWORD")
    if not value:
        raise StoreError("store: auth is password, but PENSTOCK_STORE_PASSWORD is not set; set it, or auth: none")
    return Password(value)
