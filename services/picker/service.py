"""The picker as a service: keeps the list of replicas and their metrics up to date while the filter picks."""

import asyncio
import itertools
import logging
import time
from collections.abc import Mapping

from services.extproc.service import Service
from services.picker import observe
from services.picker.config import CHARS_PER_TOKEN, PickerConfig
from services.picker.filter import PickerFilter
from services.picker.pool import Pool, Replica
from services.picker.prefix import PrefixIndex
from services.picker.scheduler import Scheduler
from services.picker.scrape import INTERVAL_S, Scraper
from services.picker.sources import Source, SourceError

TICK_S = 0.1
"""How often staleness is looked at, seconds."""

GAUGES_EVERY = 10
"""Ticks between two settings of the gauges."""

STALE_INTERVALS = 4
"""A reading is not stale before this many scrape intervals, however large the pool: scrape.py stretches them."""

logger = logging.getLogger("penstock.picker")


class PickerService(Service):
    """Ready once a list of replicas has been read; from then on the last good list stays in use."""

    def __init__(
        self,
        config: PickerConfig,
        source: Source,
        objectives: Mapping[str, int] | None = None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self.pool = Pool()
        self.index = PrefixIndex(config.prefix.lru_capacity_per_server)
        self.scheduler = Scheduler(self.pool, self.index, config)
        super().__init__([PickerFilter(self.pool, self.index, self.scheduler, config.prefix, objectives or {})])
        self._prefix, self._source = config.prefix, source
        self._scraper = Scraper(self.pool, interval_s, on_error=self._on_error, on_reading=self._on_reading)
        self._tasks: list[asyncio.Task[None]] = []
        self._loaded = False
        self._complaint = ""
        for warning in config.warnings:
            logger.warning(warning)

    async def start(self) -> None:
        """Begin to watch the list and to read metrics."""
        await self._reload()
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._tick())]

    async def stop(self) -> None:
        """End all background work."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._scraper.stop()

    def ready(self) -> bool:
        """Tell whether a list of replicas, even an empty one, has been read."""
        return self._loaded

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._source.interval_s)
            await self._reload()

    async def _reload(self) -> None:
        try:
            addresses = await self._source.read()
        except SourceError as error:
            observe.SOURCE_ERRORS.inc()
            if str(error) != self._complaint:
                self._complaint = str(error)
                kept = f"the last good list of {len(self.pool)} stays in use" if self._loaded else "not ready"
                logger.error(f"replicas cannot be read, {kept}", extra={"error": self._complaint})
            return
        self._complaint = ""
        if addresses is None:
            return
        come, gone = self.pool.update(addresses)
        for replica in gone:
            self._scraper.remove(replica)
            self.index.drop(replica.slot)
            observe.gone(replica)
        for replica in come:
            self.index.open(replica.slot)
            self._scraper.add(replica)
        self._loaded = True
        if come or gone:
            changes = {"come": [r.endpoint for r in come][:20], "gone": [r.endpoint for r in gone][:20]}
            logger.info("replicas changed", extra={"replicas": len(self.pool), **changes})

    async def _tick(self) -> None:
        for tick in itertools.count():
            now = time.monotonic()
            staleness = max(self.scheduler.detector.staleness_s, STALE_INTERVALS * self._scraper.interval_s)
            self.pool.expire(now - staleness)
            if tick % GAUGES_EVERY == 0:
                observe.show_pool(self.pool, self.scheduler.detector, len(self.index), now)
            await asyncio.sleep(TICK_S)

    def _on_error(self, replica: Replica, reason: str) -> None:
        observe.SCRAPE_ERRORS.labels(reason).inc()
        if reason == "refused" and self.index.size(replica.slot):
            self.index.clear(replica.slot)  # nothing runs there: its KV cache is gone

    def _on_reading(self, replica: Replica) -> None:
        tokens = replica.metrics.kv_cache_tokens
        if tokens and self._prefix.auto_tune:
            self.index.limit(replica.slot, tokens * CHARS_PER_TOKEN // self._prefix.block_bytes)
