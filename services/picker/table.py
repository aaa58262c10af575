"""The load part of the scores, kept up to date as replicas change.

A decision must not cost more because there are more replicas, so nothing is computed for a replica that did not change:
its scores are redone when it does, and everybody's only when the least or the most of a relative figure moved.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from services.picker.pool import Pool, Replica
from services.picker.scorers import LoadScorer, spread

EXCLUDED = float("-inf")
"""Score of a slot that is empty, or whose replica is no candidate."""

TIE_BREAK = 1e-9
"""Subtracted for each outstanding request: of equal scores the least busy wins, and no other order changes (a score
that differs does so by more than this, unless thousands of requests are outstanding on one replica)."""


class LoadTable:
    """Weighted sum of the load scorers for each slot of a pool, among the replicas that `admit` lets in."""

    def __init__(
        self, pool: Pool, scorers: Sequence[tuple[LoadScorer, float]], admit: Callable[[Replica], bool]
    ) -> None:
        self.scores: list[float] = []
        """By slot; `EXCLUDED` where there is no candidate. Read it after `refresh`; do not change it."""
        self.count = 0
        """Number of candidates."""
        self._pool, self._scorers, self._admit = pool, tuple(scorers), admit
        self._read = [scorer.figure for scorer, _ in self._scorers]
        self.changed = pool.subscribe()
        """Replicas that changed since the last `refresh`; whoever drops the table ends the subscription."""
        self._generation = -1
        self._reset()

    def refresh(self) -> None:
        """Take in what changed since the last call."""
        if self._generation != self._pool.generation:
            self._reset()
            self._generation = self._pool.generation
            self._take(self._pool)
        elif self.changed:
            self._take(self.changed)
        self.changed.clear()

    def _reset(self) -> None:
        size = len(self._pool.slots)
        self.scores, self.count = [EXCLUDED] * size, 0
        self._figures: list[tuple[float, ...] | None] = [None] * size
        self._seen: list[Counter[float]] = [Counter() for _ in self._scorers]
        """For each scorer: how many candidates have a figure. Few figures differ, so least and most are cheap."""
        self._bounds: list[tuple[float, float]] = [(0.0, 0.0) for _ in self._scorers]

    def _take(self, replicas: Iterable[Replica]) -> None:
        moved, recounted = [], False
        for replica in replicas:
            slot = replica.slot
            figures = tuple([figure(replica) for figure in self._read]) if self._admit(replica) else None
            before = self._figures[slot]
            if figures != before:
                self._recount(before, figures)
                self._figures[slot] = figures
                recounted = True
            if figures is None:
                self.scores[slot] = EXCLUDED
            else:
                moved.append(replica)
        if recounted:
            bounds = [(min(seen), max(seen)) if seen else (0.0, 0.0) for seen in self._seen]
            if bounds != self._bounds:
                self._bounds = bounds
                moved = [replica for replica in self._pool if self._figures[replica.slot] is not None]
        for replica in moved:
            self.scores[replica.slot] = self._score(replica)

    def _recount(self, before: tuple[float, ...] | None, after: tuple[float, ...] | None) -> None:
        self.count += (after is not None) - (before is not None)
        for index, (scorer, _) in enumerate(self._scorers):
            if not scorer.relative:
                continue
            seen = self._seen[index]
            if before is not None:
                seen[before[index]] -= 1
                if not seen[before[index]]:
                    del seen[before[index]]
            if after is not None:
                seen[after[index]] += 1

    def _score(self, replica: Replica) -> float:
        total = -TIE_BREAK * replica.outstanding
        figures = self._figures[replica.slot] or ()
        for (scorer, weight), figure, (least, most) in zip(self._scorers, figures, self._bounds, strict=True):
            total += weight * (spread(figure, least, most) if scorer.relative else figure)
        return total
