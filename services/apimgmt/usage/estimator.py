"""Guesses tokens from bytes, and learns from what replicas count."""

from collections.abc import Mapping
from typing import Any


class Estimator:
    """One per process. Keeps a ratio of tokens per byte for each model."""

    def upper(self, model: str, size: int) -> int:
        """Return what a text of `size` bytes will hardly exceed, in tokens: for reservations."""
        raise NotImplementedError

    def mean(self, model: str, size: int) -> int:
        """Return the expected tokens of a text of `size` bytes: for estimates."""
        raise NotImplementedError

    def observe(self, model: str, size: int, tokens: int) -> None:
        """Learn that a text of `size` bytes had so many tokens."""
        raise NotImplementedError

    def export(self) -> dict[str, Any]:
        """Return what was learned, as JSON values."""
        raise NotImplementedError

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what another estimator learned (`export`)."""
        raise NotImplementedError
