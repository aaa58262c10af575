"""What the store holds, followed: the snapshot of all documents, and how fresh it is."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from services.apimgmt.binding import Binder
from services.apimgmt.snapshot import Snapshot
from services.apimgmt.store.api import Store, StoreError

FEED_TIMEOUT_S = 2.0
"""How long the store may take to answer one look at the change feed."""
SNAPSHOT_TIMEOUT_S = 30.0
"""How long it may take to send all documents. Changed keys are taken up meanwhile."""

PROBLEMS_LOGGED = 20
"""Most problems of the documents that are logged at a time."""

logger = logging.getLogger("penstock.apimgmt.directory")


class Mirror:
    """Follows the change feed. `Directory` tells what is asked of it."""

    def __init__(
        self,
        store: Store,
        monotonic: Callable[[], float],
        grace_s: float,
        poll_s: float,
        forget: Callable[[Iterable[str] | None], None],
    ) -> None:
        """`forget`: called with the ids of keys that changed; None is all."""
        self._store, self._monotonic, self._forget = store, monotonic, forget
        self._grace_s, self._poll_s = grace_s, poll_s
        self.binder = Binder(Snapshot())
        self.generation = 0
        """Counts snapshots: what was made of an older one is made anew."""
        self.away = ""
        """Why the store cannot be asked; empty while it can."""
        self.observers: list[Callable[[], None]] = []
        self._revision = 0
        """How far the feed was read."""
        self._changes, self._taken = 0, 0
        """How often documents were seen to change, and up to which of them they were read."""
        self._fresh = float("-inf")
        """When everything known was last sure to be what is stored (monotonic)."""
        self._looked = float("-inf")
        """When the feed was asked last, if it answered (monotonic): keys are what they were then, at least."""
        self._reading = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read all documents, then follow changes. Raises StoreError."""
        asked = self._looked = self._monotonic()
        self._changes += 1
        await self._read_documents()
        self._revision, self._fresh = self.binder.snapshot.revision, asked
        self._tasks = [asyncio.create_task(self._follow(), name="directory-follow")]

    async def stop(self) -> None:
        """End all work."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def stale(self) -> bool:
        """Tell whether what is known is too old to go by."""
        return self._monotonic() - self._fresh > self._grace_s

    async def refresh(self) -> None:
        """Take up all changes now: after it, what was committed before holds here. Raises StoreError."""
        asked = self._monotonic()
        await self._look()
        await self._read_documents()
        self._current(asked)

    def _current(self, asked: float) -> None:
        """Note that everything known is what was stored at `asked`."""
        self._fresh = max(self._fresh, asked)
        if self.away:
            logger.info("the store answers again")
        self.away = ""

    async def _look(self) -> None:
        """Read the feed; take up changed keys."""
        asked = self._monotonic()
        try:
            async with asyncio.timeout(FEED_TIMEOUT_S):
                feed = await self._store.feed(self._revision)
        except TimeoutError:
            raise StoreError(f"the store did not answer within {FEED_TIMEOUT_S:g} s") from None
        self._forget(None if feed.everything else feed.keys)
        self._changes += feed.documents or feed.everything
        self._revision, self._looked = feed.revision, asked

    async def _read_documents(self) -> None:
        """Read all documents if they changed."""
        async with self._reading:
            changes, looked = self._changes, self._looked
            if self._taken == changes:
                return
            try:
                async with asyncio.timeout(SNAPSHOT_TIMEOUT_S):
                    revision, documents = await self._store.snapshot()
            except TimeoutError:
                raise StoreError(f"the store sent no documents within {SNAPSHOT_TIMEOUT_S:g} s") from None
            snapshot = await asyncio.to_thread(Snapshot, revision, documents, self.binder.snapshot)
            self._use(snapshot)
            self._taken = changes
            self._current(looked)  # here too: where changes never end, the feed alone is never up to date

    def _use(self, snapshot: Snapshot) -> None:
        known = set(self.binder.snapshot.problems)
        self.binder = Binder(snapshot)
        self.generation += 1
        new = [problem for problem in snapshot.problems if problem not in known]
        for problem in new[:PROBLEMS_LOGGED]:
            logger.warning(problem)
        if len(new) > PROBLEMS_LOGGED:
            logger.warning("more problems in the documents", extra={"problems": len(new) - PROBLEMS_LOGGED})
        for observer in self.observers:
            try:
                observer()
            except Exception:
                logger.exception("an observer of the directory failed")

    async def _follow(self) -> None:
        """Follow the feed for ever. Documents are read beside it, so that a revoked key never waits for them."""
        documents: asyncio.Task[None] | None = None
        try:
            while True:
                await asyncio.sleep(self._poll_s)
                asked = self._monotonic()
                looked = await self._tried(self._look())
                if looked and self._taken == self._changes:
                    self._current(asked)
                elif looked and (documents is None or documents.done()):
                    documents = asyncio.create_task(self._read_beside(), name="directory-documents")
        finally:
            if documents is not None:
                documents.cancel()
                await asyncio.gather(documents, return_exceptions=True)

    async def _read_beside(self) -> None:
        await self._tried(self._read_documents())

    async def _tried(self, work: Awaitable[None]) -> bool:
        """Wait for work with the store, and note whether it can be had."""
        try:
            await work
        except StoreError as error:
            self._complain(str(error))
            return False
        except Exception as error:
            self._complain(type(error).__name__)
            logger.exception("changes could not be taken up")
            return False
        return True

    def _complain(self, why: str) -> None:
        if not self.away:
            text = f"the store does not answer; keys that are known work for {self._grace_s:g} s"
            logger.error(text, extra={"error": why})
        self.away = why or "unknown"
