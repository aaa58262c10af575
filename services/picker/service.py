"""The picker as a service: keeps the list of replicas and their metrics up to date while the filter picks."""

import asyncio
import itertools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.extproc.config import load_all
from services.extproc.service import Service
from services.picker import config as config_
from services.picker import objectives, observe
from services.picker.config import CHARS_PER_TOKEN, PickerConfig, PrefixParameters
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


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the picker's files say."""

    config: PickerConfig
    priorities: Mapping[str, int]
    """By objective, from the objectives file."""


class PickerService(Service):
    """Ready once a list of replicas has been read; from then on the last good list stays in use.

    A new config changes how requests are scored; replicas, their readings and what is in flight stay, and the prefix
    index too unless prompts are cut differently now.
    """

    pool: Pool
    index: PrefixIndex
    scheduler: Scheduler

    def __init__(
        self, config_file: Path, objectives_file: Path | None, source: Source, interval_s: float = INTERVAL_S
    ) -> None:
        """`interval_s`: between two readings of a replica's metrics."""
        super().__init__()
        self.files = (config_file, objectives_file) if objectives_file else (config_file,)
        self.pool = Pool()
        self._objectives_file, self._source = objectives_file, source
        self._prefix: PrefixParameters | None = None
        self._priorities: dict[str, int] = {}
        """Of the filter in use: from the file, and from the source, which wins."""
        self._from_file: Mapping[str, int] = {}
        self._scraper = Scraper(self.pool, interval_s, on_error=self._on_error, on_reading=self._on_reading)
        self._tasks: list[asyncio.Task[None]] = []
        self._loaded = False
        self._complaint = ""

    def load(self) -> Loaded:
        """Read the files. Raises ConfigError with the problems of both."""
        settings, priorities = load_all(
            lambda: config_.load(self.files[0]), lambda: objectives.load(self._objectives_file)
        )
        return Loaded(settings, priorities)

    def apply(self, config: Loaded) -> None:
        """Score and shed by `config` from now on."""
        settings = config.config
        if settings.prefix != self._prefix:
            self._prefix, self.index = settings.prefix, PrefixIndex(settings.prefix.lru_capacity_per_server)
            for replica in self.pool:
                self.index.open(replica.slot)
                self._on_reading(replica)
        self.scheduler = Scheduler(self.pool, self.index, settings)
        self._from_file = config.priorities
        self._priorities = {**config.priorities, **self._source.objectives()}
        self.filters = [PickerFilter(self.pool, self.index, self.scheduler, settings.prefix, self._priorities)]
        for warning in settings.warnings:
            logger.warning(warning)

    async def start(self) -> None:
        """Begin to watch the list and to read metrics."""
        await self._source.start()
        await self._reload()
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._tick())]

    async def stop(self) -> None:
        """End all background work."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._source.stop()
        self._scraper.stop()

    def ready(self) -> bool:
        """Tell whether a list of replicas, even an empty one, has been read."""
        return self._loaded

    async def _watch(self) -> None:
        while True:
            await self._source.wait()
            try:
                await self._reload()
            except Exception:
                logger.exception("the list of replicas could not be taken up")

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
        self._reprioritize()
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

    def _reprioritize(self) -> None:
        wanted = {**self._from_file, **self._source.objectives()}
        if wanted != self._priorities:
            self._priorities.clear()
            self._priorities.update(wanted)
            logger.info("objectives changed", extra={"objectives": len(wanted)})

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
        if tokens and self._prefix and self._prefix.auto_tune:
            self.index.limit(replica.slot, tokens * CHARS_PER_TOKEN // self._prefix.block_bytes)
