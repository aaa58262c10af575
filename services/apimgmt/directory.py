"""The directory: from a key or a token's client to the caller, without waiting where it was seen before.

What is remembered is corrected by the store's change feed, asked four times a second: revocations and changed
documents take effect within a second everywhere, expiry at once (each use looks at the clock). While the store is away
what is known goes on working for `grace_s`; then, and for keys that are not known, the answer is 503: never 401 for a
key that may exist.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from hmac import compare_digest
from secrets import token_bytes

from services.apimgmt import errors, keys
from services.apimgmt.call import Caller, Credential
from services.apimgmt.domain import App, Developer, KeyPurpose
from services.apimgmt.errors import Refusal
from services.apimgmt.keycache import Entry, KeyCache
from services.apimgmt.keys import ParsedKey
from services.apimgmt.mirror import Mirror
from services.apimgmt.snapshot import Snapshot
from services.apimgmt.store.api import Store, StoreError

POLL_S = 0.25
"""Between two looks at the change feed, seconds."""
READ_TIMEOUT_S = 2.0
"""How long a request waits for the store to find a key."""
GRACE_S = 60.0
"""How long what is known goes on working while the store is away."""
TOUCH_S = 10.0
"""Between two writings of when keys were used last."""
TOUCH_TIMEOUT_S = 5.0
PROOF_BYTES = 32
"""Of the hash by which a key is known again, and of its key."""

Found = Caller | Refusal
Lookup = Found | Awaitable[Found]

logger = logging.getLogger("penstock.apimgmt.directory")


class Directory:
    """One per process. `start` before use; not thread safe: all calls come from the event loop."""

    def __init__(
        self,
        store: Store,
        pepper: bytes,
        clock: Callable[[], float] = time.time,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        grace_s: float = GRACE_S,
        poll_s: float = POLL_S,
        max_keys: int = 100_000,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            store: where documents and keys are.
            pepper: of `keys.read_pepper`.
            clock: Unix seconds; decides about expiry.
            monotonic: seconds; decides how old knowledge is.
            grace_s: how long cached keys work while the store is away.
            poll_s: between two looks at the change feed.
            max_keys: most keys that are remembered; the least recently used are forgotten first.
        """
        self._store, self._pepper, self._clock = store, pepper, clock
        self._keys = KeyCache(store, monotonic, max_keys, READ_TIMEOUT_S)
        self._mirror = Mirror(store, monotonic, grace_s, poll_s, self._keys.forget)
        self._task: asyncio.Task[None] | None = None
        self._used: dict[str, int] = {}
        self._proof_key = token_bytes(PROOF_BYTES)

    @property
    def snapshot(self) -> Snapshot:
        """All documents, as of the latest change that was seen."""
        return self._mirror.binder.snapshot

    @property
    def revision(self) -> int:
        """Revision of the snapshot."""
        return self.snapshot.revision

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong in the documents, e.g. names of what does not exist."""
        return self.snapshot.problems

    @property
    def away(self) -> str:
        """Why the store cannot be asked at the moment, or nothing."""
        return self._mirror.away

    @property
    def counts(self) -> Counter[str]:
        """What became of keys that were not remembered: `reads` of the store, lookups that `shared` one, `unknown`
        keys, `failures`, lookups `refused` for being too many, entries `evicted` for room."""
        return self._keys.counts

    def on_change(self, observer: Callable[[], None]) -> None:
        """Call `observer` whenever there is a new snapshot."""
        self._mirror.observers.append(observer)

    async def start(self) -> None:
        """Read all documents, and begin to follow changes. Raises StoreError."""
        await self._mirror.start()
        self._task = asyncio.create_task(self._note_use(), name="directory-touch")

    async def stop(self) -> None:
        """End all work; write when keys were used last."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._mirror.stop()
        await self._keys.stop()
        await self._touch()

    # who asks

    def find_key(self, text: str) -> Lookup:
        """Return whose API key `text` is, or why it opens nothing; an awaitable if the store has to be asked."""
        found = self._find(text, KeyPurpose.API)
        if isinstance(found, Entry):
            return self._caller(found)
        return found if isinstance(found, Refusal) else self._caller_later(found)

    async def find_person(self, text: str) -> Developer | Refusal:
        """Return whose personal key `text` is, for the admin API and the portal."""
        found = self._find(text, KeyPurpose.PERSONAL)
        if not isinstance(found, Entry | Refusal):
            found = await found
            if isinstance(found, Entry) and (found.organization, found.developer) not in self.snapshot.developers:
                await self._catch_up()
        if isinstance(found, Refusal):
            return found
        developer = self.snapshot.developers.get((found.organization, found.developer))
        if developer is None:
            return errors.broken_account("developer", found.developer)
        return developer if developer.active else errors.inactive("developer", developer.name)

    def caller_for_client(
        self, client: str, credential: Credential, *, user: str = "", expires: float | None = None
    ) -> Found:
        """Return the caller of a verified token whose client is `client` (an app's `oauthClientId`)."""
        app = self.snapshot.clients.get(client)
        if app is None:
            return errors.store_away() if self._mirror.stale() else errors.unknown_client(client)
        return self._of_app(app, credential, user, expires)

    def caller_for_app(
        self, organization: str, app: str, credential: Credential, *, user: str = "", expires: float | None = None
    ) -> Found:
        """Return the caller of an app that is known by its name."""
        found = self.snapshot.apps.get((organization, app))
        if found is None:
            return errors.store_away() if self._mirror.stale() else errors.broken_account("app", app)
        return self._of_app(found, credential, user, expires)

    def _of_app(self, app: App, credential: Credential, user: str, expires: float | None) -> Found:
        if self._mirror.stale():
            return errors.store_away()
        return self._mirror.binder.caller(app, credential, user=user, expires=expires)

    def _find(self, text: str, purpose: KeyPurpose) -> Entry | Refusal | Awaitable[Entry | Refusal]:
        entry = self._keys.get(text[keys.ID])
        if entry is not None and self._genuine(entry, text):
            return self._judge(entry, purpose)
        parsed = keys.parse(text)
        if parsed is None:
            return errors.malformed_key()
        if entry is not None:
            return errors.unknown_key()
        if self._mirror.away or self._mirror.stale():
            return errors.store_away()
        if self._keys.unknown(parsed.id):
            return errors.unknown_key()
        return self._find_later(parsed, text, purpose)

    async def _find_later(self, parsed: ParsedKey, text: str, purpose: KeyPurpose) -> Entry | Refusal:
        try:
            entry = await self._keys.read(parsed.id)
        except StoreError:
            return errors.store_away()
        if entry is None or not self._genuine(entry, text):
            return errors.unknown_key()
        return self._judge(entry, purpose)

    def _genuine(self, entry: Entry, text: str) -> bool:
        """Tell whether `text` is the entry's key.

        Of a key that was, a second keyed hash is remembered, which takes a fifth of the HMAC's time. Its key is random
        and never leaves this process, so it is of no more use to anybody than the digest.
        """
        proof = blake2b(text.encode("utf-8", "surrogateescape"), key=self._proof_key, digest_size=PROOF_BYTES).digest()
        if compare_digest(proof, entry.proof):
            return True
        if not keys.matches(self._pepper, text, entry.digest):
            return False
        entry.proof = proof
        return True

    def _judge(self, entry: Entry, purpose: KeyPurpose) -> Entry | Refusal:
        """Look whether a genuine key is in time, and meant for this."""
        if self._mirror.stale():
            return errors.store_away()
        now = self._clock()
        if now >= entry.ends:
            revoked = entry.revoked is not None and now >= entry.revoked
            return errors.revoked_key(entry.id) if revoked else errors.expired_key(entry.id)
        if entry.purpose is not purpose:
            opens = "the models" if entry.purpose is KeyPurpose.API else "the admin API and the portal"
            return errors.wrong_purpose(entry.id, opens)
        minute = now // 60
        if entry.minute != minute:
            entry.minute = minute
            self._used[entry.id] = int(minute) * 60
        return entry

    async def _caller_later(self, found: Awaitable[Entry | Refusal]) -> Found:
        entry = await found
        if isinstance(entry, Refusal):
            return entry
        if (entry.organization, entry.app) not in self.snapshot.apps:
            await self._catch_up()
        return self._caller(entry)

    async def _catch_up(self) -> None:
        """Take up changes for a key that was just read: it may be newer than the documents that are known here."""
        try:
            await self.refresh()
        except StoreError as error:
            logger.warning("documents of a new key could not be read", extra={"error": str(error)})

    def _caller(self, entry: Entry) -> Found:
        if entry.generation != self._mirror.generation:
            entry.generation, entry.found = self._mirror.generation, self._bind(entry)
        assert entry.found is not None  # noqa: S101 - set with the generation
        return entry.found

    def _bind(self, entry: Entry) -> Found:
        app = self.snapshot.apps.get((entry.organization, entry.app))
        if app is None:
            return errors.broken_account("app", entry.app)
        expires = None if entry.ends == float("inf") else entry.ends
        return self._mirror.binder.caller(app, Credential.API_KEY, key=entry.id, expires=expires)

    async def refresh(self) -> None:
        """Take up all changes now: after it, what was committed before holds here. Raises StoreError."""
        await self._mirror.refresh()

    # last use

    async def _note_use(self) -> None:
        while True:
            await asyncio.sleep(TOUCH_S)
            await self._touch()

    async def _touch(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with asyncio.timeout(TOUCH_TIMEOUT_S):
                await self._store.touch(used)
        except Exception as error:  # noqa: BLE001 - when a key was used last is worth no failure
            self._used = {**used, **self._used}
            logger.warning("last uses of keys could not be written", extra={"error": type(error).__name__})
