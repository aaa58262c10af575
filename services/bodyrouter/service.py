"""The body router as a service: its filter, made anew when its config file changes."""

import asyncio
import time
from pathlib import Path

from services.bodyrouter.filter import BodyRouter, Counts
from services.bodyrouter.routing import Routing
from services.bodyrouter.settings import Settings
from services.extproc.config import load_config
from services.extproc.limits import Limits
from services.extproc.service import Service

DRAIN_S = 15.0
"""How long rules that were replaced keep their connections: longer than a classifier may take (`timeoutMs`)."""


class BodyRouterService(Service):
    """Serves by the settings in `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.files = (path,)
        self._counts, self._created = Counts(), int(time.time())
        self._routing: Routing | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Close the connections to classifiers."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        if self._routing is not None:
            await self._routing.stop()

    def load(self) -> Settings:
        """Read the settings. Raises ConfigError."""
        return load_config(self.files[0], Settings)

    def apply(self, config: Settings) -> None:
        """Route by `config` from now on."""
        router = BodyRouter(config, self._counts, self._created)
        self.filters = [router]
        former, self._routing = self._routing, router.routing
        if former is not None:
            task = asyncio.get_running_loop().create_task(_stop_later(former))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self.limits = Limits(max_body_bytes=config.max_body_bytes)


async def _stop_later(routing: Routing) -> None:
    """Let requests that began with `routing` end with it."""
    try:
        await asyncio.sleep(DRAIN_S)
    finally:
        await routing.stop()
