"""Keys that were asked for lately: bounded in number, one read for all who wait for the same one.

Entries are forgotten when the change feed names them. A read that was under way then may have seen the key as it was
before, so it is made again.
"""

import asyncio
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

from services.apimgmt import keys
from services.apimgmt.call import Caller
from services.apimgmt.domain import KeyRecord
from services.apimgmt.errors import Refusal
from services.apimgmt.store.api import Store, StoreError

UNKNOWN_S = 1.0
"""How long it is remembered that a key does not exist, seconds."""
MAX_UNKNOWN = 10_000
"""Most ids of keys that do not exist that are remembered."""
MAX_READS = 32
"""Most reads of keys at a time: made-up keys cannot take the store from requests whose keys are known."""
MAX_WAITING = 1000
"""Most different keys that wait for a read; above that the answer is "not now"."""


class Entry:
    """A key that exists: what of its record is asked for, small, since there may be a hundred thousand."""

    __slots__ = (
        "app",
        "developer",
        "digest",
        "ends",
        "found",
        "generation",
        "id",
        "minute",
        "organization",
        "proof",
        "purpose",
        "revoked",
    )

    def __init__(self, record: KeyRecord) -> None:
        self.id, self.purpose, self.digest = record.id, record.purpose, record.digest
        self.proof = b""
        """Keyed hash of the key as it was presented, once it was found to be genuine."""
        self.organization, self.app, self.developer = map(
            sys.intern, (record.organization, record.app, record.developer)
        )
        self.revoked = record.revoked
        self.ends = keys.ends(record)
        """From when on it is refused."""
        self.minute = -1.0
        """In which its use was noted last, minutes since 1970."""
        self.generation = -1
        """Of the snapshot that `found` was made of."""
        self.found: Caller | Refusal | None = None


class KeyCache:
    """Records of keys by id."""

    def __init__(self, store: Store, monotonic: Callable[[], float], max_keys: int, timeout_s: float) -> None:
        self._store, self._monotonic = store, monotonic
        self._max_keys, self._timeout_s = max_keys, timeout_s
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        """Id -> until when (monotonic) it counts as not existing; soonest first."""
        self._reads: dict[str, asyncio.Task[Entry | None]] = {}
        self._again: set[str] = set()
        """Ids that changed while they were read."""
        self._slots = asyncio.Semaphore(MAX_READS)
        self.counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key_id: str) -> Entry | None:
        """Return a key that is remembered."""
        entry = self._entries.get(key_id)
        if entry is not None:
            self._entries.move_to_end(key_id)
        return entry

    def unknown(self, key_id: str) -> bool:
        """Tell whether the store said a moment ago that there is no such key."""
        until = self._unknown.get(key_id)
        return until is not None and self._monotonic() < until

    async def read(self, key_id: str) -> Entry | None:
        """Return a key from the store; None if there is none. Raises StoreError if the store cannot tell."""
        task = self._reads.get(key_id)
        if task is None:
            if len(self._reads) >= MAX_WAITING:
                self.counts["refused"] += 1
                raise StoreError("too many keys are being looked up")
            task = self._reads[key_id] = asyncio.create_task(self._read(key_id), name="directory-read-key")
        else:
            self.counts["shared"] += 1
        return await asyncio.shield(task)

    def forget(self, ids: Iterable[str] | None) -> None:
        """Forget keys that changed; None is all of them."""
        if ids is None:
            self._entries.clear()
            self._unknown.clear()
            self._again.update(self._reads)
            return
        for key_id in ids:
            self._entries.pop(key_id, None)
            self._unknown.pop(key_id, None)
            if key_id in self._reads:
                self._again.add(key_id)

    async def stop(self) -> None:
        """End reads that are under way."""
        reads = list(self._reads.values())
        for task in reads:
            task.cancel()
        await asyncio.gather(*reads, return_exceptions=True)

    async def _read(self, key_id: str) -> Entry | None:
        try:
            async with asyncio.timeout(self._timeout_s), self._slots:
                while True:
                    self._again.discard(key_id)
                    self.counts["reads"] += 1
                    record = await self._store.key(key_id)
                    if key_id not in self._again:
                        return self._keep(key_id, record)
        except TimeoutError:
            self.counts["failures"] += 1
            raise StoreError(f"the store did not find a key within {self._timeout_s:g} s") from None
        except StoreError:
            self.counts["failures"] += 1
            raise
        except Exception as error:
            self.counts["failures"] += 1
            raise StoreError(f"a key could not be read: {type(error).__name__}") from error
        finally:
            self._reads.pop(key_id, None)
            self._again.discard(key_id)

    def _keep(self, key_id: str, record: KeyRecord | None) -> Entry | None:
        if record is None:
            self.counts["unknown"] += 1
            self._unknown[key_id] = self._monotonic() + UNKNOWN_S
            self._unknown.move_to_end(key_id)
            if len(self._unknown) > MAX_UNKNOWN:
                self._unknown.popitem(last=False)
            return None
        entry = self._entries[key_id] = Entry(record)
        if len(self._entries) > self._max_keys:
            self._entries.popitem(last=False)
            self.counts["evicted"] += 1
        return entry
