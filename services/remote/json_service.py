"""A service that is asked over HTTP while a request waits: `POST` of JSON, answered by status 200 and JSON.

Bounded in time, number and size, behind a circuit breaker. Addresses come from administrators; redirects are not
followed and proxies of the environment not used, so that only the address in the config is reached.
"""

import asyncio
import ipaddress
import logging
import re
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import orjson
from pydantic import AfterValidator, Field, model_validator

from services.extproc.config import ConfigModel
from services.remote.breaker import Breaker

T = TypeVar("T")

logger = logging.getLogger("penstock.remote")

_CLUSTER_LOCAL = (".svc", ".cluster.local")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_OURS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding"})


class BadAnswer(Exception):
    """The service's answer is not what was agreed. The text says what was expected and quotes nothing."""


class Unavailable(Exception):
    """The service did not answer as agreed, or is left alone since it did not before."""


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected a URL such as https://policy.example.internal/check")
    if parts.username or parts.password:
        raise ValueError("credentials do not belong into a URL; send them in a header")
    if parts.fragment:
        raise ValueError("expected a URL without a fragment")
    return value


class RemoteSettings(ConfigModel):
    """Where a service is, and how long it is waited for."""

    url: Annotated[str, AfterValidator(_url)]
    """`https`, or `http` to this host."""
    plain_http: bool = False
    """Allows `http` to services of the cluster, `*.svc` and `*.cluster.local`."""
    ca_file: str | None = None
    """Authority of the service's certificate, PEM. Default those of the system."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent to the service."""
    timeout_ms: int = Field(default=500, ge=10, le=10_000)
    """For everything, waiting for a connection included."""
    max_concurrent: int = Field(default=64, ge=1, le=1024)
    """Requests at the service at once; more wait, within `timeoutMs`."""
    failures: int = Field(default=5, ge=1, le=1000)
    """Failures in a row after which the service is left alone."""
    open_seconds: float = Field(default=10, gt=0, le=600)
    """For how long; then one request probes it."""
    max_answer_bytes: int = Field(default=1024 * 1024, ge=256, le=16 * 1024 * 1024)

    @model_validator(mode="after")
    def _reachable(self) -> "RemoteSettings":
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "http" and not _is_loopback(host):
            if not host.endswith(_CLUSTER_LOCAL):
                raise ValueError("url: plain http leaves the cluster unprotected; use https")
            if not self.plain_http:
                raise ValueError("url: plain http within the cluster needs plainHttp: true; better use https")
        for name, value in self.headers.items():
            if not _NAME.fullmatch(name) or name.lower() in _OURS:
                raise ValueError(f"headers: {name!r} is no header name, or one that is set here")
            if not _VALUE.fullmatch(value):
                raise ValueError(f"headers: the value of {name} has characters that a header cannot have")
        return self


class JsonService:
    """Asks the service of some settings. Belongs to one event loop from `start` on."""

    def __init__(self, settings: RemoteSettings) -> None:
        """Prepare. Raises ValueError for an authority that cannot be used."""
        self.settings = settings
        self._breaker = Breaker(settings.failures, settings.open_seconds, time.monotonic)
        self._slots = asyncio.Semaphore(settings.max_concurrent)
        self._timeout_s = settings.timeout_ms / 1000
        self._headers = {
            **settings.headers,
            "content-type": "application/json",
            "accept-encoding": "identity",  # so that the answer's size is what it takes
        }
        self._tls = _tls(settings)
        self._client: httpx2.AsyncClient | None = None

    def start(self) -> None:
        """Open the pool; connections are made when they are needed."""
        limits = httpx2.Limits(max_connections=self.settings.max_concurrent, keepalive_expiry=30)
        self._client = httpx2.AsyncClient(
            limits=limits, timeout=None, follow_redirects=False, trust_env=False, verify=self._tls
        )

    async def stop(self) -> None:
        """Close the pool."""
        if self._client is not None:
            await self._client.aclose()

    def admits(self) -> bool:
        """Tell whether the service may be asked now; `ask` must follow."""
        return self._breaker.admits()

    async def ask(self, question: Any, read: Callable[[Any], T]) -> T:
        """Return what `read` makes of the service's answer to `question`; both are JSON.

        Raises:
            Unavailable: no answer in time, or not as agreed; `read` says so by BadAnswer.
        """
        breaker = self._breaker
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._slots:
                    answer = await self._post(orjson.dumps(question))
            found = read(answer)
        except (httpx2.HTTPError, httpx2.InvalidURL, BadAnswer, TimeoutError, OSError, ValueError) as error:
            reason = str(error) if isinstance(error, BadAnswer) else type(error).__name__
            if breaker.failed():
                logger.error("a service is left alone", extra={"url": self._shown, "reason": reason})
            raise Unavailable(reason) from None
        except BaseException:  # given up by the client, or a fault of ours
            breaker.abandoned()
            raise
        if breaker.succeeded():
            logger.warning("a service is back", extra={"url": self._shown})
        return found

    async def _post(self, content: bytes) -> Any:
        settings, client = self.settings, self._client
        if client is None:
            raise BadAnswer("not started")
        parts: list[bytes] = []
        size = 0
        async with client.stream("POST", settings.url, content=content, headers=self._headers) as response:
            if response.status_code != 200:
                raise BadAnswer(f"the service answered {response.status_code}, expected 200")
            async for part in response.aiter_raw():
                size += len(part)
                if size > settings.max_answer_bytes:
                    raise BadAnswer(f"the answer is larger than {settings.max_answer_bytes} bytes")
                parts.append(part)
        return orjson.loads(b"".join(parts))

    @property
    def _shown(self) -> str:
        """The URL without its query, which may hold a token."""
        return self.settings.url.partition("?")[0]


def _tls(settings: RemoteSettings) -> ssl.SSLContext | bool:
    if urlsplit(settings.url).scheme == "http":
        return False
    if settings.ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cadata=Path(settings.ca_file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"caFile: {settings.ca_file} cannot be used: {error}") from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
