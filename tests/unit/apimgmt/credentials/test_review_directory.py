"""A store whose documents change all the time is not a store that is away."""

import asyncio

from services.apimgmt.domain import App
from tests.unit.apimgmt.credentials.world import entities, world


async def test_changes_without_end_leave_nobody_outside():
    """Somebody edits an own app several times a second, or a script creates a thousand of them."""
    async with world(poll_s=0.001, grace_s=60.0) as w:
        plain, _ = w.issue()
        await w.find(plain)
        app = next(e for e in entities() if isinstance(e, App))
        put, feed = w.store.put, w.store.feed

        async def always(revision):
            put(app)
            return await feed(revision)

        w.store.feed = always
        async with asyncio.timeout(20):
            for _ in range(8):
                w.monotonic.now += 10
                seen, passed = w.directory.revision, w.monotonic.now
                while w.directory.revision < seen + 3:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.001)
                assert w.monotonic.now == passed
        assert not w.directory._mirror.stale()
        assert type(await w.find(plain)).__name__ == "Caller"
        w.store.feed = feed
