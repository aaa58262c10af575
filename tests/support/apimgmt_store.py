"""A store in memory for unit tests: documents, keys and the change feed. Requests and the ledger it refuses."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence

from services.apimgmt.domain import Entity, KeyPurpose, KeyRecord, Kind
from services.apimgmt.store.api import (
    AuditEntry,
    Change,
    Charge,
    Conflict,
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

Place = tuple[Kind, str, str]

REFUSED = "a test of requests or the ledger needs a real store: this one keeps documents and keys only"


class MemoryStore(Store):
    """Counts what it is asked; can be told to be away, or to wait."""

    def __init__(self, *entities: Entity) -> None:
        self.revision = 0
        self.documents: dict[Place, Document] = {}
        self.records: dict[str, KeyRecord] = {}
        self.entries: list[AuditEntry] = []
        self.used: dict[str, int] = {}
        self.changes: list[tuple[int, str | None]] = []
        """Revision and the key that changed; None for a document."""
        self.asked = {"feed": 0, "snapshot": 0, "key": 0, "touch": 0}
        self.away = False
        self.gate: asyncio.Event | None = None
        """While it is there and not set, `key` waits before it looks; with `read_first`, after it looked."""
        self.read_first = False
        self.put(*entities)

    def put(self, *entities: Entity) -> None:
        """Write entities at once."""
        for entity in entities:
            self.revision += 1
            organization = getattr(entity, "organization", "") if entity.scoped else ""
            body = entity.model_dump(mode="json", by_alias=True)
            place = (entity.kind, organization, entity.name)
            self.documents[place] = Document(*place, body, self.revision)
            self.changes.append((self.revision, None))

    def drop(self, kind: Kind, organization: str, name: str) -> None:
        """Remove a document at once."""
        self.revision += 1
        del self.documents[kind, organization, name]
        self.changes.append((self.revision, None))

    def put_key(self, record: KeyRecord) -> None:
        """Write a key at once."""
        self.revision += 1
        self.records[record.id] = record
        self.changes.append((self.revision, record.id))

    def _ask(self, what: str) -> None:
        self.asked[what] += 1
        if self.away:
            raise StoreError("the store is away")

    async def open(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def snapshot(self) -> tuple[int, Sequence[Document]]:
        self._ask("snapshot")
        return self.revision, list(self.documents.values())

    async def get(self, kind: Kind, organization: str, name: str) -> Document | None:
        return self.documents.get((kind, organization, name))

    async def page(self, kind: Kind, organization: str | None, after: str, limit: int) -> Sequence[Document]:
        found = [d for d in self.documents.values() if d.kind is kind and organization in (None, d.organization)]
        ordered = sorted(found, key=lambda d: f"{d.organization}/{d.name}")
        return [d for d in ordered if f"{d.organization}/{d.name}" > after][:limit]

    async def change(self, changes: Sequence[Change], audit: Sequence[AuditEntry]) -> int:
        for change in changes:
            before = self.documents.get((change.kind, change.organization, change.name))
            if change.expected is not None and change.expected != (before.revision if before else 0):
                raise Conflict(f"{change.name} was changed meanwhile")
        self.revision += 1
        for change in changes:
            place = (change.kind, change.organization, change.name)
            if change.body is None:
                self.documents.pop(place, None)
            else:
                self.documents[place] = Document(*place, change.body, self.revision, change.declared)
        self.changes.append((self.revision, None))
        self.entries += audit
        return self.revision

    async def feed(self, since: int) -> Feed:
        self._ask("feed")
        new = [key for revision, key in self.changes if revision > since]
        return Feed(self.revision, None in new, [key for key in new if key is not None], since > self.revision)

    async def audit(self, organization: str | None, before: int, limit: int) -> Sequence[AuditEntry]:
        return self.entries[::-1][:limit]

    async def key(self, key_id: str) -> KeyRecord | None:
        self._ask("key")
        record = self.records.get(key_id)
        if self.gate is not None:
            await self.gate.wait()
        return record if self.read_first else self.records.get(key_id)

    async def put_keys(self, records: Sequence[KeyRecord], audit: Sequence[AuditEntry], *, new: bool) -> int:
        if new and any(record.id in self.records for record in records):
            raise Conflict("the id is taken")
        for record in records:
            self.put_key(record)
        self.entries += audit
        return self.revision

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
        found = [
            record
            for record in sorted(self.records.values(), key=lambda record: record.id)
            if record.organization == organization
            and app in (None, record.app)
            and developer in (None, record.developer)
            and purpose in (None, record.purpose)
            and record.id > after
        ]
        return found[:limit]

    async def touch(self, used: Mapping[str, int]) -> None:
        self._ask("touch")
        self.used.update(used)

    def reserve(self, reservation: Reservation) -> Awaitable[Grant]:
        raise AssertionError(REFUSED)

    def settle(self, settlement: Settlement) -> Awaitable[None]:
        raise AssertionError(REFUSED)

    async def renew(self, owner: str, until: int) -> None:
        raise AssertionError(REFUSED)

    async def sweep(self, now: int) -> int:
        raise AssertionError(REFUSED)

    async def totals(self, charges: Sequence[Charge]) -> Sequence[int]:
        raise AssertionError(REFUSED)

    async def ledger(self, after: str, limit: int, until: str | None = None) -> tuple[str, Sequence[bytes]]:
        raise AssertionError(REFUSED)

    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        raise AssertionError(REFUSED)

    async def prune(self, before: int, until: str | None = None) -> int:
        raise AssertionError(REFUSED)

    async def note(self, name: str) -> tuple[int, bytes]:
        raise AssertionError(REFUSED)

    async def put_note(self, name: str, value: bytes, expected: int) -> int:
        raise AssertionError(REFUSED)
