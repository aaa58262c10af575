"""External callout: asks a service over HTTP whether a request may go on.

Request: `POST` with `{"id", "policy", "request": {"path", "method", "headers", "model", "stream"}, "caller":
{"organization", "team", "user", "app", "key"}, "product", "promptTokens"}`, with `send: body` also `"body"`. Headers
that carry credentials are never among them.

Answer: status 200 and `{"allow": true or false}`. With false also `status` (400 to 599, default 403), `message`,
`code`; with true also `setHeaders` (names that the setting `setHeaders` lists) and `body` (takes the place of the
request's). Everything else, also another status, a redirect, or more than `maxAnswerBytes`, counts as a failure, and a
failure answers 503, or lets the request pass where `failOpen` is set.
"""

import asyncio
import ipaddress
import logging
import re
import ssl
import time
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import httpx2
import orjson
from pydantic import AfterValidator, Field, model_validator

from services.apimgmt.call import Call, Finding, Verdict
from services.apimgmt.conditions import facts
from services.apimgmt.policies import effects
from services.apimgmt.policies.api import Policy, Tools
from services.apimgmt.policies.breaker import Breaker
from services.apimgmt.policies.effects import EffectError, SettableHeader
from services.extproc.api import Answer, Reply, deny
from services.extproc.config import ConfigModel

logger = logging.getLogger("penstock.apimgmt")

UNAVAILABLE, REFUSED = "external_unavailable", "refused_by_service"
"""Codes of a failure, and of a denial that names none."""

_CLUSTER_LOCAL = (".svc", ".svc.cluster.local", ".cluster.local")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_OURS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding"})


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected a URL such as https://policy.example.internal/check")
    if parts.username or parts.password:
        raise ValueError("credentials do not belong into a URL; send a header with ${kvm:map/key}")
    if parts.fragment:
        raise ValueError("expected a URL without a fragment")
    return value


class ExternalSettings(ConfigModel):
    """Settings of `external`."""

    url: Annotated[str, AfterValidator(_url)]
    """`https`, or `http` to this host."""
    plain_http: bool = False
    """Allows `http` to services of the cluster, `*.svc` and `*.cluster.local`."""
    ca_file: str | None = None
    """Authority of the service's certificate, PEM. Default those of the system."""
    send: Literal["headers", "body"] = "headers"
    """Whether the service gets the request's body."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent to the service. Secrets come from key-value maps: `${kvm:<map>/<key>}` (`kvm.py`)."""
    set_headers: list[SettableHeader] = Field(default_factory=list)
    """Request headers that the service may set for the replica."""
    timeout_ms: int = Field(default=500, ge=10, le=10_000)
    """For everything, waiting for a connection included."""
    max_concurrent: int = Field(default=64, ge=1, le=1024)
    """Requests at the service at once; more wait, within `timeoutMs`."""
    failures: int = Field(default=5, ge=1, le=1000)
    """Failures in a row after which the service is left alone."""
    open_seconds: float = Field(default=10, gt=0, le=600)
    """For how long; then one request probes it."""
    max_answer_bytes: int = Field(default=1024 * 1024, ge=256, le=16 * 1024 * 1024)
    fail_open: bool = False

    @model_validator(mode="after")
    def _plain(self) -> "ExternalSettings":
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


class ExternalPolicy(Policy[ExternalSettings]):
    """See the module's text."""

    name: ClassVar[str] = "external"
    settings_model = ExternalSettings

    def __init__(self, settings: ExternalSettings, tools: Tools) -> None:
        super().__init__(settings, tools)
        self._breaker = Breaker(settings.failures, settings.open_seconds, time.monotonic)
        self._slots = asyncio.Semaphore(settings.max_concurrent)
        self._timeout_s = settings.timeout_ms / 1000
        self._allowed = frozenset(settings.set_headers)
        self._headers = {
            **settings.headers,
            "content-type": "application/json",
            "accept-encoding": "identity",  # so that the answer's size is what it takes
        }
        self._tls = _tls(settings)
        self._client: httpx2.AsyncClient | None = None

    async def start(self) -> None:
        """Open the pool; connections are made when they are needed."""
        limits = httpx2.Limits(max_connections=self.settings.max_concurrent, keepalive_expiry=30)
        self._client = httpx2.AsyncClient(
            limits=limits, timeout=None, follow_redirects=False, trust_env=False, verify=self._tls
        )

    async def stop(self) -> None:
        """Close the pool."""
        if self._client is not None:
            await self._client.aclose()

    def check(self, call: Call) -> Answer:
        """Ask the service, unless it is left alone."""
        if not self._breaker.admits():
            return self._unavailable(call)
        return self._ask(call)

    async def _ask(self, call: Call) -> Reply | None:
        breaker = self._breaker
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._slots:
                    answer = await self._post(call)
            reply = self._apply(call, answer)
        except (httpx2.HTTPError, httpx2.InvalidURL, EffectError, TimeoutError, OSError, ValueError) as error:
            if breaker.failed():
                reason = str(error) if isinstance(error, EffectError) else type(error).__name__
                logger.error("an external service is left alone", extra={"url": self._shown, "reason": reason})
            return self._unavailable(call)
        except BaseException:  # given up by the client, or a fault of ours
            breaker.abandoned()
            raise
        if breaker.succeeded():
            logger.warning("an external service is back", extra={"url": self._shown})
        return reply

    async def _post(self, call: Call) -> Any:
        settings, client = self.settings, self._client
        if client is None:
            raise EffectError("the policy was not started")
        content = orjson.dumps({"id": call.id, "policy": self.name, **facts(call, body=settings.send == "body")})
        async with client.stream("POST", settings.url, content=content, headers=self._headers) as response:
            if response.status_code != 200:
                raise EffectError(f"the service answered {response.status_code}, expected 200")
            parts: list[bytes] = []
            size = 0
            async for part in response.aiter_raw():
                size += len(part)
                if size > settings.max_answer_bytes:
                    raise EffectError(f"the answer is larger than {settings.max_answer_bytes} bytes")
                parts.append(part)
        return orjson.loads(b"".join(parts))

    def _apply(self, call: Call, answer: Any) -> Reply | None:
        if not isinstance(answer, dict) or type(answer.get("allow")) is not bool:
            raise EffectError('the answer has no "allow" that is true or false')
        if not answer["allow"]:
            return effects.denial(answer.get("status"), answer.get("message"), answer.get("code"), REFUSED)
        if answer.get("setHeaders") is not None:
            effects.set_headers(call, answer["setHeaders"], self._allowed)
        if answer.get("body") is not None:
            effects.replace_body(call, answer["body"])
        return None

    def _unavailable(self, call: Call) -> Reply | None:
        if self.settings.fail_open:
            call.findings.append(Finding(self.name, Verdict.ERROR, UNAVAILABLE, call.shadow))
            return None
        text = "A service that has to agree to this request does not answer. Try again."
        return deny(503, text, type="server_error", code=UNAVAILABLE, headers={"retry-after": "1"})

    @property
    def _shown(self) -> str:
        """The URL without its query, which may hold a token."""
        return self.settings.url.partition("?")[0]


def _tls(settings: ExternalSettings) -> ssl.SSLContext | bool:
    if urlsplit(settings.url).scheme == "http":
        return False
    if settings.ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cadata=Path(settings.ca_file).read_text(encoding="utf-8"))
    except (OSError, ValueError, ssl.SSLError) as error:
        raise ValueError(f"caFile: {settings.ca_file} cannot be used: {error}") from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
