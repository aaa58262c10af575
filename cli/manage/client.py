"""The admin API as the command line needs it: HTTP with a token that is never on a command line."""

import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from cli.errors import UsageError

URL_VARIABLE = "PENSTOCK_ADMIN_URL"
TOKEN_VARIABLE = "PENSTOCK_ADMIN_TOKEN"  # noqa: S105 - its name
TOKEN_FILE = "admin-token"  # noqa: S105 - a file in the state folder of a local environment
TIMEOUT_S = 30
PAGE = 500
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ApiError(UsageError):
    """The admin API refused; the messages are its own. `status` is the HTTP status."""

    def __init__(self, status: int, *messages: str) -> None:
        self.status = status
        super().__init__(*messages)


class Client:
    """One admin API."""

    def __init__(self, url: str, token: str, tls: ssl.SSLContext | None = None) -> None:
        self.url, self._token, self._tls = url.rstrip("/"), token, tls

    def get(self, path: str, **parameters: Any) -> Any:
        """Return what is there, read as JSON."""
        return self._json("GET", path, parameters=parameters)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Do something, and return the answer."""
        return self._json("POST", path, body)

    def items(self, path: str, most: int | None = None, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Return all items of a list, page by page; `most` ends it."""
        after: Any = None
        count = 0
        while True:
            page = self.get(path, limit=PAGE, after=after, **parameters)
            for item in page["items"]:
                if most is not None and count >= most:
                    return
                count += 1
                yield item
            after = page.get("next")
            if after is None or not page["items"]:
                return

    def text(self, path: str, **parameters: Any) -> str:
        """Return what is there as text."""
        with self.open("GET", path, parameters=parameters) as answer:
            return str(answer.read().decode())

    def _json(self, method: str, path: str, body: Any = None, parameters: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with self.open(method, path, data, parameters) as answer:
            return json.load(answer)

    def open(
        self,
        method: str,
        path: str,
        data: "bytes | IO[bytes] | None" = None,
        parameters: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request; return the open answer. Raises ApiError, and UsageError where nobody answers."""
        given = [(n, v) for n, values in (parameters or {}).items() for v in _values(values)]
        query = f"?{urllib.parse.urlencode(given)}" if given else ""
        url = f"{self.url}/admin/v1/{path.lstrip('/')}{query}"
        all_ = {"authorization": f"Bearer {self._token}", "content-type": content_type, **(headers or {})}
        request = urllib.request.Request(url, data, all_, method=method)  # noqa: S310 - checked when it was read
        handlers = [urllib.request.HTTPSHandler(context=self._tls)] if self._tls else []
        opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}), *handlers)
        try:
            return opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                raise _refused(error) from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise UsageError(f"{self.url}: no answer: {reason}{_hint(reason)}") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are errors: the token must not follow them."""

    def redirect_request(self, *_: Any) -> None:
        return None


def quoted(*parts: str) -> str:
    """Return a path of names."""
    return "/".join(urllib.parse.quote(part, safe="") for part in parts)


def tls_context(ca_file: str | None, *, skip_verify: bool) -> ssl.SSLContext:
    """Return how a server's certificate is checked. Raises UsageError for a file that is none."""
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--ca-file: {ca_file}: expected certificates in PEM ({error})") from None
    if skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def connect(args: Any, environ: Mapping[str, str] = os.environ) -> Client:
    """Return the client that the options `--env`, or `--url` with `--token-file`, name. Raises UsageError."""
    url = args.url or (None if args.env else environ.get(URL_VARIABLE))
    local = not url
    if not url:
        url, token = _local(args.env or "local", environ)
        token = _file(args.token_file) if args.token_file else token
    else:
        token = _file(args.token_file) if args.token_file else environ.get(TOKEN_VARIABLE, "").strip()
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--url: {url!r} is no URL; expected for example https://api-management.example.internal:9010")
    if not token:
        raise UsageError(f"no token: set {TOKEN_VARIABLE}, or name a file with --token-file")
    if not token.isascii() or not token.isprintable():
        raise UsageError("the token has characters that no token has; is the file the right one?")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK and not args.insecure_plain_http:
        raise UsageError(
            f"--url: {url}: the token would go over the network in the clear; use https, or --insecure-plain-http"
        )
    own = local and parts.hostname in LOOPBACK  # made in the memory of a process of this machine: nothing to check by
    tls = tls_context(args.ca_file, skip_verify=args.insecure_skip_verify or own) if parts.scheme == "https" else None
    return Client(url, token, tls)


def _local(environment: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return URL and token of the environment that runs on this machine."""
    from cli.graph.project import find_root
    from cli.local.state import BASE_VARIABLE, StateDir

    root = Path() if environ.get(BASE_VARIABLE) else find_root()
    folder = StateDir.of(environment, root, environ)
    state = folder.read() if folder.running() else None
    url = (state or {}).get("admin_url")
    if not url:
        raise UsageError(
            f"`{environment}` does not run on this machine, or has no API management; start it with"
            f" `penstock local up --env {environment}`, or name another admin API with --url"
        )
    file = folder.path / TOKEN_FILE
    return str(url), _file(str(file)) if file.exists() else environ.get(TOKEN_VARIABLE, "").strip()


def _file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file: {path}: cannot be read: {getattr(error, 'strerror', error)}") from None


def _refused(error: urllib.error.HTTPError) -> ApiError:
    """Return the API's problem details as messages."""
    try:
        problem = json.loads(error.read(1024 * 1024))
        lines = [str(problem["detail"])]
    except (ValueError, KeyError, TypeError):
        return ApiError(error.code, f"the admin API answered {error.code}; is --url the admin API's?")
    for item in problem.get("errors") or ():
        found = f" (found {item['value']})" if item.get("value") else ""
        lines.append(f"  {item['path']}: {item['expected']}{found}; {item['fix']}")
    return ApiError(error.code, *lines)


def _hint(reason: Any) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return ". Name its authority with --ca-file, or leave the check out with --insecure-skip-verify"
    return ""


def _values(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
