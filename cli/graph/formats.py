"""String formats and patterns as a Kubernetes API server enforces them.

Source: k8s.io/apiextensions-apiserver 1.35 `pkg/apiserver/validation/formats.go` (which formats are enforced),
k8s.io/kube-openapi `pkg/validation/strfmt` (what each means), and Go's `regexp` syntax.
"""

import base64
import datetime
import functools
import ipaddress
import re
import urllib.parse
from collections.abc import Callable

_DURATION = re.compile(r"[-+]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)", re.ASCII)
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[-+]\d\d:\d\d)", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


def parse_duration(text: str) -> datetime.timedelta:
    """Parse Go's duration syntax (`1h30m`, `250ms`). Raises ValueError."""
    if not _DURATION.fullmatch(text):
        raise ValueError(text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    return datetime.timedelta(seconds=-seconds if text.startswith("-") else seconds)


def parse_date_time(text: str) -> datetime.datetime:
    """Parse RFC 3339. Raises ValueError."""
    if not _DATE_TIME.fullmatch(text):
        raise ValueError(text)
    return datetime.datetime.fromisoformat(text.upper())


def _uri(text: str) -> None:
    parts = urllib.parse.urlsplit(text)
    if not (parts.scheme or text.startswith("/")) or re.search(r"\s", text):  # Go: url.ParseRequestURI
        raise ValueError(text)


def _uuid(text: str) -> None:
    if not _UUID.fullmatch(text):
        raise ValueError(text)


_PARSERS: dict[str, tuple[Callable[[str], object], str]] = {
    "date-time": (parse_date_time, "a date and time, e.g. `2026-01-31T12:00:00Z`"),
    "datetime": (parse_date_time, "a date and time, e.g. `2026-01-31T12:00:00Z`"),
    "date": (lambda text: datetime.datetime.strptime(text, "%Y-%m-%d"), "a date, e.g. `2026-01-31`"),
    "duration": (parse_duration, "a duration, e.g. `90s` or `1h30m`"),
    "ipv4": (ipaddress.IPv4Address, "an IPv4 address"),
    "ipv6": (ipaddress.IPv6Address, "an IPv6 address"),
    "cidr": (functools.partial(ipaddress.ip_network, strict=False), "an address range, e.g. `10.0.0.0/8`"),
    "uri": (_uri, "a URI"),
    "uuid": (_uuid, "a UUID"),
    "byte": (functools.partial(base64.b64decode, validate=True), "base64"),
}

UNCHECKED = frozenset(
    {"bsonobjectid", "email", "hostname", "mac", "uuid3", "uuid4", "uuid5", "isbn", "isbn10", "isbn13", "creditcard"}
    | {"ssn", "hexcolor", "rgbcolor"}
)
"""Formats that the API server enforces and this module does not."""


def format_problem(name: str, text: str) -> str | None:
    """Return what format `name` expects when `text` is not of it, else None. Unknown formats accept everything."""
    parser = _PARSERS.get(name)
    if parser is None:
        return None
    try:
        parser[0](text)
    except ValueError:
        return parser[1]
    return None


@functools.lru_cache(maxsize=1024)
def go_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a Go regular expression. Raises `re.error` for what Python's syntax does not have.

    `$` means the very end in Go, in Python also before a final line feed; `\\z` is Python's `\\Z`.
    """
    translated, in_class, position = [], False, 0
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            pair = pattern[position : position + 2]
            translated.append("\\Z" if pair == "\\z" else pair)
            position += 2
            continue
        if in_class and character == "[":
            if pattern[position + 1 : position + 2] == ":":
                raise re.error("POSIX character classes are not supported", pattern, position)
            character = "\\["
        elif character == "[":
            in_class = True
        elif character == "]":
            in_class = False
        translated.append("\\Z" if character == "$" and not in_class else character)
        position += 1
    return re.compile("".join(translated), re.ASCII)
