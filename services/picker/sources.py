"""Where the list of replicas comes from: a file that is replaced atomically, or the A records of a headless Service."""

import abc
import asyncio
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from services.extproc.config import ConfigError, ConfigModel, load_config
from services.picker.pool import Address

FILE_POLL_S = 0.25
"""How often a file is looked at, seconds: one `stat`."""

DNS_POLL_S = 2.0
"""How often a name is resolved, seconds. GKE's DNS answers for a headless Service live for 30 s at most, mostly less;
a replica that went is left before that, because reading its metrics fails."""

DNS_TIMEOUT_S = 5.0

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to IP addresses. Raises OSError."""


class SourceError(Exception):
    """The list of replicas cannot be read now. The text says why; the last good list stays in use."""


class Source(abc.ABC):
    """A list of replicas that changes. One that is looked at now and then says how often."""

    interval_s: ClassVar[float]

    @abc.abstractmethod
    async def read(self) -> Sequence[Address] | None:
        """Return the replicas, or None if nothing changed since the last call. Raises SourceError."""

    async def start(self) -> None:  # noqa: B027 - most do nothing
        """Begin background work."""

    async def stop(self) -> None:  # noqa: B027 - most do nothing
        """End background work."""

    async def wait(self) -> None:
        """Return when it is worth to read again."""
        await asyncio.sleep(self.interval_s)

    def objectives(self) -> Mapping[str, int]:
        """Return what the source knows of priorities, by objective."""
        return {}


class _Entry(ConfigModel):
    name: str = Field(min_length=1, max_length=253)
    address: str
    port: int = Field(ge=1, le=65_535)

    @field_validator("address")
    @classmethod
    def _ip(cls, value: str) -> str:
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            raise ValueError("expected an IP address") from None


class _File(ConfigModel):
    replicas: tuple[_Entry, ...]


class FileSource(Source):
    """`replicas: [{name, address, port}]` in YAML. A writer replaces the file by renaming a complete one over it."""

    interval_s = FILE_POLL_S

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None

    async def read(self) -> Sequence[Address] | None:
        """As `Source.read`; a file that has not changed is not read again."""
        try:
            stat = os.stat(self._path)
        except OSError as error:
            raise SourceError(f"replicas file {self._path}: {error.strerror}") from None
        stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if stamp == self._stamp:
            return None
        self._stamp = stamp  # also for a bad file: it is complained about once
        try:
            entries = load_config(self._path, _File).replicas
        except ConfigError as error:
            raise SourceError(str(error)) from None
        addresses = [Address(entry.name, entry.address, entry.port) for entry in entries]
        endpoints = [address.endpoint for address in addresses]
        twice = sorted({endpoint for endpoint in endpoints if endpoints.count(endpoint) > 1})
        if twice:
            raise SourceError(f"replicas file {self._path}: two replicas have the address {', '.join(twice)}")
        return addresses


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of `host` by the system's resolver. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(item[4][0]) for item in found]


class DnsSource(Source):
    """The addresses of a host name, all on one port. A name that does not resolve changes nothing."""

    interval_s = DNS_POLL_S

    def __init__(self, host: str, port: int, resolver: Resolver = resolve) -> None:
        self._host, self._port, self._resolver = host, port, resolver
        self._last: frozenset[str] | None = None

    async def read(self) -> Sequence[Address] | None:
        """As `Source.read`."""
        try:
            async with asyncio.timeout(DNS_TIMEOUT_S):
                found = frozenset(await self._resolver(self._host, self._port))
        except TimeoutError:
            raise SourceError(f"{self._host}: no answer from DNS within {DNS_TIMEOUT_S:g} s") from None
        except OSError as error:
            raise SourceError(f"{self._host}: {error.strerror or error}") from None
        if found == self._last:
            return None
        self._last = found
        addresses = [Address("", host, self._port) for host in sorted(found)]
        return [Address(address.endpoint, address.host, address.port) for address in addresses]
