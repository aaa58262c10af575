"""The store: everything that outlives a process. Two implementations pass one suite of contract tests.

Three groups of calls:
- documents, keys, audit: management; seldom, may take milliseconds. Every change is one transaction with its audit
  entry, and shows in the change feed, from which processes learn what to forget.
- `reserve` and `settle`: twice per request. `reserve` checks all charges in one atomic step and leaves a reservation;
  `settle` turns it into what was used and writes the ledger record, both or neither.
- reading: usage, ledger, counters.

Times are Unix seconds unless a name says otherwise. All methods may be called from the event loop only.
"""

import abc
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mypy_extensions import mypyc_attr

from services.apimgmt.domain import KeyPurpose, KeyRecord, Kind


class StoreError(Exception):
    """The store cannot be used; the text says why and what to do, and holds no secret."""


class UnknownCursor(StoreError):
    """A cursor that no answer of this store named: the caller's mistake, not the store's."""


class Conflict(StoreError):
    """A document is not in the state that a change expected: changed meanwhile, there already, or gone."""


@dataclass(frozen=True, slots=True)
class Document:
    """One stored entity."""

    kind: Kind
    organization: str
    """Empty for kinds that belong to the whole installation (and for organizations themselves)."""
    name: str
    body: Mapping[str, Any]
    """The entity as JSON, camelCase (`Entity.model_dump(mode="json", by_alias=True)`)."""
    revision: int = 0
    """Number of the change that wrote it: the ETag of the admin API."""
    declared: bool = False
    """Written from the config file: the admin API may read but not change it."""
    updated: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a transaction: put a document, or delete it (`body` None)."""

    kind: Kind
    organization: str
    name: str
    body: Mapping[str, Any] | None
    declared: bool = False
    expected: int | None = None
    """Revision that must be stored: 0 for "there must be none", None for "whatever is"."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who changed what. `before` and `after` are documents without secrets (no digests, no sealed values)."""

    time: int
    actor: str
    """For example `developer:acme/ada@example.com`, `declared`, `admin-token`."""
    action: str
    """`create`, `update`, `delete`, `issue`, `rotate`, `revoke`, `import`."""
    kind: str
    """Collection name; `keys` for keys."""
    organization: str
    name: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    sequence: int = 0
    """Set by the store."""


@dataclass(frozen=True, slots=True)
class Feed:
    """What changed since a revision."""

    revision: int
    """Ask from here next time."""
    documents: bool
    """Some document changed: read the snapshot again."""
    keys: Sequence[str]
    """Ids of keys that changed."""
    everything: bool = False
    """Too much changed, or too long ago, to tell: forget all."""


@dataclass(slots=True, unsafe_hash=True)
class Charge:
    """An amount against one window of one counter: granted if the sum over `slots` slots stays within `ceiling`.

    Not to be changed; not frozen, since that would make it four times as slow to make, and each request makes several.
    A calendar window is one slot (`slot` its number), a rolling window the sum of `slots` slots that end with `slot`.
    """

    counter: str
    """`organization|limit|subject`. The first part is the unit that a cluster keeps together."""
    slot: int
    slots: int
    expires: int
    """When this slot is of no more use; 0 for never (concurrent requests)."""
    amount: int
    ceiling: int
    enforced: bool = True
    """False counts but never refuses (shadow mode)."""


@dataclass(frozen=True, slots=True)
class Pace:
    """An amount against a smoothed rate (generic cell rate algorithm, ITU-T I.371): one time stamp per counter."""

    counter: str
    interval_us: float
    """Microseconds per unit."""
    burst_us: float
    """How far ahead of time use may run, microseconds."""
    amount: int
    enforced: bool = True


@dataclass(slots=True)
class Reservation:
    """What a request may use at most. `charges` and `paces` are all granted, or none of them."""

    id: str
    """The request's id in the ledger: unique for ever."""
    organization: str
    owner: str
    """The process: its lease keeps the reservation (`renew`)."""
    now: float
    charges: Sequence[Charge]
    paces: Sequence[Pace]
    record: bytes
    """Ledger record (JSON) that is written as it is if the owner's lease ends first: outcome `lost`, the estimated
    prompt as use."""
    lost: Sequence[int]
    """What is charged then, in the order of `charges`."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The answer to a reservation."""

    granted: bool
    totals: Sequence[int]
    """Per charge: used and held in its window, with this reservation if it was granted."""
    waits_us: Sequence[float]
    """Per pace: microseconds until the amount would fit; 0 if it does."""
    refused: Sequence[int] = ()
    """Indexes of enforced charges that did not fit; paces follow the charges in counting."""


@dataclass(slots=True)
class Settlement:
    """The end of a request. Without a reservation `charges` is empty, and only the record is written."""

    id: str
    organization: str
    now: float
    charges: Sequence[Charge]
    """Those of the reservation: what they held is released."""
    used: Sequence[int]
    """Used in the end, per charge."""
    record: bytes
    """The ledger record (JSON, `ledger.record`)."""
    usage: "Mapping[str, Any]" = field(default_factory=dict)
    """Fields of the record that `usage` sums and groups by: the store need not parse it."""


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """What to sum. `since` included, `until` excluded; both are cut to whole hours."""

    organization: str | None
    since: int
    until: int
    bucket: str = "day"
    """`hour`, `day`, `month` or `all` (UTC)."""
    group_by: Sequence[str] = ()
    """Of `DIMENSIONS`."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Dimension -> value."""


DIMENSIONS = ("organization", "team", "user", "app", "key", "product", "model", "agent", "outcome")
"""What usage can be grouped and filtered by: fields of the ledger record."""

SUMS = (
    "requests",
    "promptTokens",
    "cachedTokens",
    "completionTokens",
    "reasoningTokens",
    "costMicros",
    "latencyMs",
    "estimated",
)
"""What is summed; `requests` is 1 in each record, `estimated` 1 where its tokens are."""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One line of an answer."""

    start: int
    """Begin of the bucket; 0 for `all`."""
    group: Mapping[str, str]
    sums: Mapping[str, int]


@mypyc_attr(allow_interpreted_subclasses=True)
class Store(abc.ABC):
    """See the module's text. Implementations: `store.sqlite.SqliteStore`, `store.valkey.ValkeyStore`."""

    @abc.abstractmethod
    async def open(self) -> None:
        """Connect, and bring an older schema up to date. Raises StoreError."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Write what is pending, and let go. Called once."""

    # documents

    @abc.abstractmethod
    async def snapshot(self) -> tuple[int, Sequence[Document]]:
        """Return the current revision and all documents."""

    @abc.abstractmethod
    async def get(self, kind: Kind, organization: str, name: str) -> Document | None:
        """Return one document."""

    @abc.abstractmethod
    async def page(self, kind: Kind, organization: str | None, after: str, limit: int) -> Sequence[Document]:
        """Return up to `limit` documents after `after` in the order of (organization, name), joined by `/`."""

    @abc.abstractmethod
    async def change(self, changes: Sequence[Change], audit: Sequence[AuditEntry]) -> int:
        """Make all changes and audit entries, or none. Return the new revision. Raises Conflict."""

    @abc.abstractmethod
    async def feed(self, since: int) -> Feed:
        """Return what changed after revision `since`. Cheap: called four times a second by every process."""

    @abc.abstractmethod
    async def audit(self, organization: str | None, before: int, limit: int) -> Sequence[AuditEntry]:
        """Return the newest entries with a sequence below `before` (0: from the newest)."""

    # keys

    @abc.abstractmethod
    async def key(self, key_id: str) -> KeyRecord | None:
        """Return a key by its id. Does not block the event loop."""

    @abc.abstractmethod
    async def put_keys(self, records: Sequence[KeyRecord], audit: Sequence[AuditEntry], *, new: bool) -> int:
        """Write keys with their audit entries. Return the new revision. `new` raises Conflict if an id is taken.

        Whatever the caller had read: the time from which a stored key is revoked is never cleared or put off, but only
        brought forward; another digest than the stored one raises Conflict.
        """

    @abc.abstractmethod
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
        """Return keys in the order of their ids."""

    @abc.abstractmethod
    async def touch(self, used: Mapping[str, int]) -> None:
        """Note when keys (by id) were used last. Not in the change feed."""

    # requests

    @abc.abstractmethod
    def reserve(self, reservation: Reservation) -> Awaitable[Grant]:
        """Check and hold all charges in one atomic step.

        The same reservation again of the same process, as long as it is held, is granted again and holds no more;
        another one with its id, or one that was settled, raises StoreError, as amounts outside 0 to 2**53 - 1 do. Ids
        of two processes are never the same.
        """

    @abc.abstractmethod
    def settle(self, settlement: Settlement) -> Awaitable[None]:
        """Release what was held, add what was used, write the record: once per id, however often it is called.

        Without a reservation of that id only the record is written. Without charges, all that the reservation held is
        released, and nothing charged: so ends a request that does not know whether its reservation was made.
        Durable when the awaitable is done: a killed process loses nothing of it.
        """

    @abc.abstractmethod
    async def renew(self, owner: str, until: int) -> None:
        """Keep the reservations of `owner` until then."""

    @abc.abstractmethod
    async def sweep(self, now: int) -> int:
        """Settle as `lost` what an ended lease held; drop slots that expired. Return how many were lost."""

    # reading

    @abc.abstractmethod
    async def totals(self, charges: Sequence[Charge]) -> Sequence[int]:
        """Return used and held per charge, without changing anything."""

    @abc.abstractmethod
    async def ledger(self, after: str, limit: int, until: str | None = None) -> tuple[str, Sequence[bytes]]:
        """Return up to `limit` records after a cursor ("" from the oldest), in writing order, and the next cursor.

        A record never appears before one that was returned earlier: an export by cursors misses none. With `until`, a
        cursor that was returned once, nothing behind that: whenever it is asked, the same records, as long as they are
        not pruned. (The records of several organizations may be ordered differently then.)
        """

    @abc.abstractmethod
    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        """Sum the ledger. May lag some seconds behind it."""

    @abc.abstractmethod
    async def prune(self, before: int, until: str | None = None) -> int:
        """Drop records older than `before` (their sums stay), none behind the cursor `until`. Return how many."""

    # small state of background jobs, e.g. how far an export has come

    @abc.abstractmethod
    async def note(self, name: str) -> tuple[int, bytes]:
        """Return version and value of a note; (0, b"") if there is none."""

    @abc.abstractmethod
    async def put_note(self, name: str, value: bytes, expected: int) -> int:
        """Replace a note whose version is `expected`; return the new version. Raises Conflict."""
