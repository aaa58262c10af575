"""HTTP to token issuers: bounded in time and size, no redirects, HTTPS unless it is this machine."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson

from services.apimgmt.jwt.settings import is_loopback, is_safe

TIMEOUT_S = 5.0
"""For a whole answer, seconds."""
MAX_BYTES = 256 * 1024
"""Longest answer. Google's and Microsoft's key sets have a few kilobytes."""


class FetchError(Exception):
    """No usable answer. The text holds no secret."""


class Fetcher:
    """One per policy. Use as an async context, or close it."""

    def __init__(self, timeout_s: float = TIMEOUT_S, max_bytes: int = MAX_BYTES) -> None:
        """`timeout_s`, `max_bytes`: bounds of one answer."""
        self._timeout_s, self._max_bytes = timeout_s, max_bytes
        self._clients: dict[bool, httpx2.AsyncClient] = {}

    async def __aenter__(self) -> "Fetcher":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def json(
        self, url: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Return status and JSON object of an answer. Raises FetchError, for redirects and other statuses too.

        Statuses 200 and 400 to 403 are returned: token endpoints tell by them that a token is not good.
        """
        if not is_safe(url):
            raise FetchError(f"{url} is neither HTTPS nor this machine")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._json(url, method, headers or {})
        except TimeoutError:
            raise FetchError(f"{url} took longer than {self._timeout_s:g} s") from None
        except (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, OSError) as error:
            raise FetchError(f"{url}: {type(error).__name__}") from None

    async def _json(self, url: str, method: str, headers: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        client = self._client(urlsplit(url).hostname or "")
        body = bytearray()
        headers = {"accept": "application/json", "accept-encoding": "identity", **headers}
        async with client.stream(method, url, headers=headers) as response:
            if response.status_code != 200 and not 400 <= response.status_code <= 403:
                raise FetchError(f"{url} answered {response.status_code}")
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self._max_bytes:
                    raise FetchError(f"{url} sent more than {self._max_bytes} bytes")
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise FetchError(f"{url} sent no JSON object")
        return response.status_code, found

    def _client(self, host: str) -> httpx2.AsyncClient:
        """Return the client for a host; this machine is never asked through a proxy of the environment."""
        local = is_loopback(host)
        if local not in self._clients:
            self._clients[local] = httpx2.AsyncClient(
                timeout=self._timeout_s, follow_redirects=False, trust_env=not local
            )
        return self._clients[local]
