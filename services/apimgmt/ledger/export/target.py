"""Where objects go: S3, Google Cloud Storage, or a folder. Credentials come from the environment, never from settings.

S3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN), a web identity, or the role of the instance.
Google Cloud: Workload Identity by the metadata server, or the file that GOOGLE_APPLICATION_CREDENTIALS names.
Objects are only ever created, never replaced: `If-None-Match: *` (Amazon S3 API, PutObject), or
`x-goog-if-generation-match: 0` (Cloud Storage XML API). So the right to create objects is all that is needed.
"""

import asyncio
import contextlib
import importlib
import re
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import GCSStore, LocalStore, S3Store

from services.apimgmt.settings import ExportTarget
from services.extproc.config import Problem

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSConfig, RetryConfig, S3Config

PUT_S = 60.0
"""How long one object may take, seconds, all attempts included."""

REQUEST_S = 30
"""How long one attempt may take, seconds."""

RETRIES = 2
"""Further attempts for one object after connection errors and 5xx, before the job's own, longer pauses."""

CONTENT_TYPES = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}

_PATH = "ledger.export"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_PREFIX = re.compile(r"(/[\w.=@+ -]+)*/?", re.ASCII)
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,80})</Code>")


class ExportError(Exception):
    """An object cannot be written; the text says why, and holds no secret."""


class Target:
    """One bucket and prefix, or one folder."""

    def __init__(self, settings: ExportTarget, *, put_s: float = PUT_S) -> None:
        """`settings` without problems. Raises ExportError."""
        self._settings, self._put_s = settings, put_s
        try:
            self._objects = _objects(settings)
        except (BaseError, OSError, ValueError) as error:
            raise ExportError(f"{settings.url}: cannot be used ({_reason(error)}); see to its credentials") from None

    async def put(self, name: str, data: bytes | bytearray) -> None:
        """Create an object. One of that name is from an earlier attempt, and stays. Raises ExportError."""
        attributes = None
        if not isinstance(self._objects, LocalStore):
            attributes = {"Content-Type": CONTENT_TYPES[name.rpartition(".")[2]]}
        try:
            async with asyncio.timeout(self._put_s):
                await obstore.put_async(
                    self._objects, name, data, mode="create", use_multipart=False, attributes=attributes
                )
        except AlreadyExistsError:
            return
        except (BaseError, OSError, ValueError) as error:  # OSError has TimeoutError
            raise ExportError(f"{self._settings.url}: {name} cannot be written ({_reason(error)})") from None


def _objects(settings: ExportTarget) -> S3Store | GCSStore | LocalStore:
    url = urlsplit(settings.url)
    if url.scheme == "file":
        return LocalStore(url.path, mkdir=True)
    prefix = url.path.strip("/") or None
    plain = (settings.endpoint or "").startswith("http:")
    client: ClientConfig = {"allow_http": plain, "timeout": timedelta(seconds=REQUEST_S)}
    retry: RetryConfig = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=PUT_S)}
    if url.scheme == "gs":
        google: GCSConfig = {}
        if settings.endpoint is not None:
            google["base_url"] = settings.endpoint.rstrip("/")
        return GCSStore(url.netloc, prefix=prefix, config=google, client_options=client, retry_config=retry)
    amazon: S3Config = {}
    if settings.endpoint is not None:
        amazon["endpoint"] = settings.endpoint
    if settings.region is not None:
        amazon["region"] = settings.region
    return S3Store(url.netloc, prefix=prefix, config=amazon, client_options=client, retry_config=retry)


def _reason(error: Exception) -> str:
    """Return what is safe to show: answers of servers may repeat parts of what was sent."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = str(error)
    details = [*(f"status {found}" for found in _STATUS.findall(text)[:1]), *_CODE.findall(text)[:1]]
    return ", ".join([type(error).__name__.removesuffix("Error"), *details])


def problems(settings: ExportTarget | None) -> list[Problem]:
    """Return everything that is wrong with a target's settings."""
    if settings is None:
        return []
    found = [*_url(settings.url), *_endpoint(settings)]
    if settings.region is not None and not settings.url.startswith("s3:"):
        found.append(Problem(f"{_PATH}.region", settings.region, "belongs to s3:// only", "leave it out"))
    if settings.format == "parquet" and not _has_parquet():
        fix = "install the extra: pip install 'penstock-services[parquet]', or use jsonl"
        found.append(Problem(f"{_PATH}.format", "parquet", "needs a package that is not installed", fix))
    return found


def _url(text: str) -> list[Problem]:
    expected = "expected s3://bucket/prefix, gs://bucket/prefix or file:///folder"
    fix = "correct it; credentials belong into the environment"
    url = _split(text)
    good = url is not None and not (url.query or url.fragment) and _PREFIX.fullmatch(url.path) is not None
    if good and url is not None:
        parts = url.path.strip("/").split("/")
        local = url.scheme == "file" and not url.netloc and parts != [""]
        remote = url.scheme in ("s3", "gs") and _BUCKET.fullmatch(url.netloc) is not None
        good = (local or remote) and not {".", ".."} & set(parts) and (parts == [""] or "" not in parts)
    return [] if good else [Problem(f"{_PATH}.url", _shown(text), expected, fix)]


def _endpoint(settings: ExportTarget) -> list[Problem]:
    path, text = f"{_PATH}.endpoint", settings.endpoint
    if text is None:
        return []
    if settings.url.startswith("file:"):
        return [Problem(path, _shown(text), "a folder has no endpoint", "leave it out")]
    url = _split(text)
    plain = url is not None and not (url.query or url.fragment or "@" in url.netloc)
    if plain and url is not None and url.scheme in ("http", "https") and url.hostname:
        return []
    return [Problem(path, _shown(text), "expected a URL such as http://127.0.0.1:9000", "correct it")]


def _split(text: str) -> SplitResult | None:
    with contextlib.suppress(ValueError):
        url = urlsplit(text)
        _ = url.port
        return url
    return None


def _shown(text: str) -> str:
    """Return a value for a message: nothing of one that may hold credentials."""
    return "" if "@" in text or "?" in text else text[:80]


def _has_parquet() -> bool:
    try:
        importlib.import_module("arro3.io")
    except ImportError:
        return False
    return True
