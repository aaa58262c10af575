"""`ValkeyStore`: the store's interface, put together from its parts."""

import logging
import ssl
from collections.abc import Awaitable, Mapping, Sequence

from services.apimgmt.domain import KeyPurpose, KeyRecord, Kind
from services.apimgmt.settings import ValkeyStore as Settings
from services.apimgmt.store.api import (
    AuditEntry,
    Change,
    Charge,
    Document,
    Feed,
    Grant,
    Reservation,
    Settlement,
    Store,
    StoreError,
    UsageQuery,
    UsageRow,
)
from services.apimgmt.store.valkey.auth import password_for
from services.apimgmt.store.valkey.client import Address, Client
from services.apimgmt.store.valkey.directory import Directory
from services.apimgmt.store.valkey.hot import Hot
from services.apimgmt.store.valkey.keys import Keys
from services.apimgmt.store.valkey.layout import DIRECTORY, DIRECTORY_PREFIX
from services.apimgmt.store.valkey.reading import Reading

SCHEMA = 1
"""Version of the layout. A newer one than this is refused."""

DEFAULT_PORT = 6379

logger = logging.getLogger("penstock.apimgmt")


class ValkeyStore(Store):
    """See the package's text. Settings name how to connect; address and secrets come from the environment."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        """Raises StoreError if the environment lacks what the settings ask for."""
        address = read_address(environ.get("PENSTOCK_STORE_ADDRESS", ""))
        password = password_for(settings.auth, environ)
        tls = _tls(settings) if settings.tls else None
        self._client = Client(address, password=password, tls=tls, cluster=settings.cluster)
        self._hot = Hot(self._client)
        self._directory = Directory(self._client)
        self._keys = Keys(self._client)
        self._reading = Reading(self._client, self._hot)

    async def open(self) -> None:
        """Connect. Warns of a server that may lose or evict what it holds."""
        await self._client.open()
        name = f"{DIRECTORY_PREFIX}schema"
        await self._client.run(DIRECTORY, ("SET", name, SCHEMA, "NX"))
        found = int(await self._client.run(DIRECTORY, ("GET", name)))
        if found > SCHEMA:
            raise StoreError(f"store: written by a newer release (schema {found}, this one knows {SCHEMA}); update")
        for warning in await self._weaknesses():
            logger.warning(warning)

    async def _weaknesses(self) -> list[str]:
        try:
            reply = await self._client.run(DIRECTORY, ("INFO",))
        except StoreError:
            return []  # not everybody may ask
        lines = dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)
        found = []
        if lines.get("aof_enabled") == "0":
            found.append("the store's server keeps no append-only file: what is settled may be lost with it")
        if lines.get("maxmemory_policy", "noeviction") != "noeviction":
            found.append("the store's server evicts keys when memory is short: set maxmemory-policy noeviction")
        return found

    async def close(self) -> None:
        """Let go."""
        await self._hot.close()
        await self._client.close()

    async def snapshot(self) -> tuple[int, Sequence[Document]]:
        return await self._directory.snapshot()

    async def get(self, kind: Kind, organization: str, name: str) -> Document | None:
        return await self._directory.get(kind, organization, name)

    async def page(self, kind: Kind, organization: str | None, after: str, limit: int) -> Sequence[Document]:
        return await self._directory.page(kind, organization, after, limit)

    async def change(self, changes: Sequence[Change], audit: Sequence[AuditEntry]) -> int:
        return await self._directory.change(changes, audit)

    async def feed(self, since: int) -> Feed:
        return await self._directory.feed(since)

    async def audit(self, organization: str | None, before: int, limit: int) -> Sequence[AuditEntry]:
        return await self._directory.audit(organization, before, limit)

    async def key(self, key_id: str) -> KeyRecord | None:
        return await self._keys.key(key_id)

    async def put_keys(self, records: Sequence[KeyRecord], audit: Sequence[AuditEntry], *, new: bool) -> int:
        return await self._keys.put_keys(records, audit, new=new)

    async def keys(
        self,
        organization: str,
        *,
        app: str | None = None,
        developer: str | None = None,
        purpose: KeyPurpose | None = None,
        after: str = "",
        limit: int = 100,
    ) -> Sequence[KeyRecord]:
        return await self._keys.keys(
            organization, app=app, developer=developer, purpose=purpose, after=after, limit=limit
        )

    async def touch(self, used: Mapping[str, int]) -> None:
        await self._keys.touch(used)

    def reserve(self, reservation: Reservation) -> Awaitable[Grant]:
        return self._hot.reserve(reservation)

    def settle(self, settlement: Settlement) -> Awaitable[None]:
        return self._hot.settle(settlement)

    async def renew(self, owner: str, until: int) -> None:
        await self._hot.renew(owner, until)

    async def sweep(self, now: int) -> int:
        return await self._hot.sweep(now)

    async def totals(self, charges: Sequence[Charge]) -> Sequence[int]:
        return await self._hot.totals(charges)

    async def ledger(self, after: str, limit: int, until: str | None = None) -> tuple[str, Sequence[bytes]]:
        return await self._reading.ledger(after, limit, until)

    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        return await self._reading.usage(query)

    async def prune(self, before: int, until: str | None = None) -> int:
        return await self._reading.prune(before, until)

    async def note(self, name: str) -> tuple[int, bytes]:
        return await self._directory.note(name)

    async def put_note(self, name: str, value: bytes, expected: int) -> int:
        return await self._directory.put_note(name, value, expected)


def read_address(text: str) -> Address:
    """Read `host:port`, `[v6]:port`, `host` (port 6379), or the path of a socket. Raises StoreError."""
    if text.startswith("/"):
        return text, 0
    host, port = (text, "") if text.endswith("]") or ":" not in text else text.rsplit(":", 1)
    host = host.strip("[]")
    number = int(port) if port.isascii() and port.isdigit() else 0 if port else DEFAULT_PORT
    if not host or not 0 < number < 65536:
        raise StoreError(f"PENSTOCK_STORE_ADDRESS: {text!r}: expected host:port, for example 10.0.0.5:6379")
    return host, number


def _tls(settings: Settings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError):
        raise StoreError(f"store.caFile: {settings.ca_file}: expected a readable file of certificates in PEM") from None
