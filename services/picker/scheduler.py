"""Picks replicas for a request: prefix and adapter first, then least load, among those that have room."""

import random
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from services.picker.config import PickerConfig
from services.picker.pool import Pool, Replica
from services.picker.prefix import PrefixIndex, slots_of
from services.picker.saturation import SATURATED, Detector
from services.picker.scorers import LOAD_SCORERS, LORA, PREFIX, lora_score, prefix_score
from services.picker.table import EXCLUDED, LoadTable

MAX_LORA_COLUMNS = 256
"""Adapters whose scores are kept between requests."""


@dataclass(slots=True)
class Request:
    """What scheduling needs to know of a request."""

    hashes: Sequence[int] = ()
    """Chained hashes of the prompt's blocks."""
    adapter: str = ""
    """LoRA adapter that is asked for; empty for the base model."""
    priority: int = 0
    subset: frozenset[str] | None = None
    """Endpoints that may be picked; None means all."""


@dataclass(slots=True)
class Decision:
    """The answer: `replicas` in order of preference, the first being the pick. Empty if there is none."""

    replicas: Sequence[Replica] = field(default=())
    matched: int = 0
    """Leading blocks of the prompt that the pick is taken to have."""
    shed: bool = False
    """No replica, because the pool is saturated and the request may be shed."""


class Scheduler:
    """Decides by the profile of a config.

    Three tiers, of which the first that has a candidate decides: replicas with room; replicas with fresh metrics, all
    of them full; replicas whose metrics are stale or have never come, as a last resort (fail open: metrics may be
    broken while serving works). A replica that refuses connections is never picked.
    """

    def __init__(self, pool: Pool, index: PrefixIndex, config: PickerConfig, rng: random.Random | None = None) -> None:
        self._pool, self._index, self._rng = pool, index, rng or random.Random()
        self.detector = Detector(config.detector)
        weights = dict(config.scorers)
        self._load = [(LOAD_SCORERS[kind], weight) for kind, weight in config.scorers if kind in LOAD_SCORERS]
        self._prefix_weight, self._lora_weight = weights.get(PREFIX, 0.0), weights.get(LORA, 0.0)
        self._max_endpoints = config.max_endpoints
        self._choose = {
            "max-score-picker": self._best,
            "random-picker": self._random,
            "weighted-random-picker": self._weighted,
        }[config.picker]
        self._tiers: tuple[Callable[[Replica], bool], ...] = (
            self.detector.has_room,
            lambda replica: replica.fresh,
            lambda replica: not replica.refused,
        )
        self._tables = [LoadTable(pool, self._load, admit) for admit in self._tiers]
        weakref.finalize(self, pool.unsubscribe, [table.changed for table in self._tables])
        self._lora_columns: dict[str, list[float]] = {}
        self._lora_generation = -1

    def decide(self, request: Request) -> Decision:
        """Return the replicas for `request`. Changes nothing: counting and remembering is for who acts on it."""
        if request.priority < 0 and self.saturation(request.subset) >= SATURATED and self._usable(request.subset):
            return Decision(shed=True)
        scores = self._load_scores(request.subset)
        if scores is None:
            return Decision()
        groups = self._index.match(request.hashes) if self._prefix_weight and request.hashes else []
        total = len(request.hashes)
        for mask, matched in groups:
            bonus = self._prefix_weight * prefix_score(matched, total)
            for slot in slots_of(mask):
                scores[slot] += bonus
        if request.adapter and self._lora_weight:
            column = self._lora_column(request.adapter)
            scores = [score + bonus for score, bonus in zip(scores, column, strict=True)]
        slots = self._choose(scores)
        matched = next((matched for mask, matched in groups if mask >> slots[0] & 1), 0) if groups else 0
        return Decision([replica for slot in slots if (replica := self._pool.slots[slot])], matched)

    def saturation(self, subset: frozenset[str] | None = None) -> float:
        """Return the saturation of the pool, or of a subset of it."""
        return self.detector.of_pool(self._pool if subset is None else self._members(subset))

    def _usable(self, subset: frozenset[str] | None) -> bool:
        return any(not replica.refused for replica in (self._pool if subset is None else self._members(subset)))

    def _members(self, subset: Iterable[str]) -> list[Replica]:
        found = self._pool.by_endpoint
        return [found[endpoint] for endpoint in subset if endpoint in found]

    def _load_scores(self, subset: frozenset[str] | None) -> list[float] | None:
        """Return a copy of the load scores of the first tier that has a candidate; None if none has."""
        if subset is not None:
            return self._subset_scores(self._members(subset))
        for table in self._tables:
            table.refresh()
            if table.count:
                return table.scores.copy()
        return None

    def _subset_scores(self, members: Sequence[Replica]) -> list[float] | None:
        for admit in self._tiers:
            candidates = [replica for replica in members if admit(replica)]
            if candidates:
                part = Pool()
                part.slots = self._pool.slots
                part.by_endpoint = {replica.endpoint: replica for replica in candidates}
                table = LoadTable(part, self._load, admit)
                table.refresh()
                return table.scores
        return None

    def _lora_column(self, adapter: str) -> list[float]:
        """Return the weighted adapter score by slot; kept until some replica's adapters change."""
        if self._lora_generation != self._pool.lora_generation or len(self._lora_columns) >= MAX_LORA_COLUMNS:
            self._lora_columns.clear()
            self._lora_generation = self._pool.lora_generation
        column = self._lora_columns.get(adapter)
        if column is None:
            column = self._lora_columns[adapter] = [
                self._lora_weight * lora_score(replica.metrics, adapter) if replica else 0.0
                for replica in self._pool.slots
            ]
        return column

    def _best(self, scores: list[float]) -> list[int]:
        """The slots of the highest scores; equal ones in random order."""
        slots: list[int] = []
        while len(slots) < self._max_endpoints:
            best = max(scores)
            if best == EXCLUDED:
                break
            slot = scores.index(best)
            if scores.count(best) > 1:
                slot = self._rng.choice([slot for slot, score in enumerate(scores) if score == best])
            slots.append(slot)
            scores[slot] = EXCLUDED
        return slots

    def _random(self, scores: list[float]) -> list[int]:
        """Candidates at random."""
        slots = [slot for slot, score in enumerate(scores) if score != EXCLUDED]
        return self._rng.sample(slots, min(self._max_endpoints, len(slots)))

    def _weighted(self, scores: list[float]) -> list[int]:
        """Candidates at random, each as likely as its score is high. Source: Efraimidis and Spirakis, A-Res (2006)."""
        keys = [
            (self._rng.random() ** (1 / score) if score > 0 else 0.0, self._rng.random(), slot)
            for slot, score in enumerate(scores)
            if score != EXCLUDED
        ]
        return [slot for _, _, slot in sorted(keys, reverse=True)[: self._max_endpoints]]
