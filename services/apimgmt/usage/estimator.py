"""Guesses tokens before they are counted, and learns from what replicas count.

For each model it keeps how many tokens a byte of a prompt has, and how many an event of a stream, as an exponentially
weighted mean and variance. Reading and learning are a handful of additions; nothing here looks at text.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

from services.apimgmt.settings import Estimation

MAX_MODELS = 512
"""Models that are remembered; the one that was used longest ago is forgotten for a new one."""

MEAN_PER_BYTE = 0.25
"""Expected tokens per byte of a model that is not known yet: English has about 4 bytes per token."""

UPPER_PER_BYTE = 1 / 3
"""What is reserved per byte for a model that is not known yet."""

LEAST_PER_BYTE = 0.2
"""Never reserved less per byte, whatever was learned: what one client sends teaches the model's ratio for all, and text
of long runs of blanks, with hardly a token, would make the next text reserve hardly any."""

MOST_PER_BYTE = 1.0
"""No tokenizer with byte fallback makes more tokens than bytes; what a chat template adds is in the size."""

QUANTILE = 2.33
"""Standard deviations above the mean that 99 of 100 normally distributed values stay below."""

WARM_UP = 16
"""Observations before what was learned may be lower than the stated start."""

WEIGHT = 0.02
"""Weight of a new observation: the last 50 or so count."""


@dataclass(slots=True)
class Ratio:
    """Tokens per unit (byte or event) of one model."""

    mean: float
    variance: float = 0.0
    samples: int = 0
    error: float = 0.0
    """Weighted mean of |guess - count| / count, of the expected value."""
    exceeded: int = 0
    """Observations above what would have been reserved."""

    def upper(self, start: float, most: float) -> float:
        """Return the pessimistic ratio: at least `start` until it has learned, at most `most`."""
        least = start if self.samples < WARM_UP else LEAST_PER_BYTE
        value = self.mean + QUANTILE * sqrt(self.variance)
        return least if value < least else most if value > most else value

    def observe(self, size: int, tokens: int, start: float, most: float) -> None:
        """Take one observation in, after noting how wrong the guess would have been."""
        value, weight = tokens / size, 1 / (self.samples + 1)
        value, weight = value if value < most else most, weight if weight > WEIGHT else WEIGHT
        miss = abs(self.mean * size - tokens)
        self.error += weight * (miss / (tokens or 1) - self.error)
        if tokens > self.upper(start, most) * size + 1:
            self.exceeded += 1
        step = value - self.mean
        self.mean += weight * step
        # The first observation replaces the start, which is no observation: it has no spread to it.
        self.variance = (1 - weight) * (self.variance + weight * step * step) if self.samples else 0.0
        self.samples += 1


class _Models:
    """Ratios by model: a bounded number of them."""

    def __init__(self, mean: float, upper: float, most: float) -> None:
        self.start, self.start_upper, self.most = mean, upper, most
        self.ratios: OrderedDict[str, Ratio] = OrderedDict()

    def mean(self, model: str) -> float:
        ratio = self.ratios.get(model)
        return self.start if ratio is None else ratio.mean

    def upper(self, model: str) -> float:
        ratio = self.ratios.get(model)
        return self.start_upper if ratio is None else ratio.upper(self.start_upper, self.most)

    def observe(self, model: str, size: int, tokens: int) -> None:
        if size <= 0 or tokens < 0:
            return
        ratio = self.ratios.get(model)
        if ratio is None:
            ratio = self.put(model, Ratio(self.start))
        else:
            self.ratios.move_to_end(model)
        ratio.observe(size, tokens, self.start_upper, self.most)

    def put(self, model: str, ratio: Ratio) -> Ratio:
        self.ratios[model] = ratio
        if len(self.ratios) > MAX_MODELS:
            self.ratios.popitem(last=False)
        return ratio


class Estimator:
    """One per process, used by its event loop only. State outlives it by `export` and `load`."""

    def __init__(self, settings: Estimation | None = None) -> None:
        self.settings = settings or Estimation()
        self.media_tokens, self.output_tokens = self.settings.media_tokens, self.settings.output_tokens
        self._bytes = _Models(MEAN_PER_BYTE, UPPER_PER_BYTE, MOST_PER_BYTE)
        self._events = _Models(1.0, 1.0, 64.0)
        self._by_bytes = self.settings.reserve == "bytes"

    def upper(self, model: str, size: int) -> int:
        """Return what a text of `size` bytes will hardly exceed, in tokens: for reservations."""
        return size if self._by_bytes else math.ceil(size * self._bytes.upper(model))

    def mean(self, model: str, size: int) -> int:
        """Return the expected tokens of a text of `size` bytes: for estimates."""
        return round(size * self._bytes.mean(model))

    def observe(self, model: str, size: int, tokens: int) -> None:
        """Learn that a text of `size` bytes had so many tokens."""
        self._bytes.observe(model, size, tokens)

    def of_events(self, model: str, events: int) -> int:
        """Return the expected tokens of so many content events of a stream; 1 per event until it has learned."""
        return round(events * self._events.mean(model))

    def observe_events(self, model: str, events: int, tokens: int) -> None:
        """Learn that a complete stream of so many content events had so many tokens."""
        self._events.observe(model, events, tokens)

    def ratios(self) -> Iterator[tuple[str, Ratio, float]]:
        """Return (model, ratio per byte, ratio that is reserved by) of each model known: for metrics."""
        for model, ratio in self._bytes.ratios.items():
            reserved = MOST_PER_BYTE if self._by_bytes else ratio.upper(UPPER_PER_BYTE, MOST_PER_BYTE)
            yield model, ratio, reserved

    def export(self) -> dict[str, Any]:
        """Return what was learned, as JSON values; `load` of this or a later version reads it."""
        return {name: {m: asdict(r) for m, r in models.ratios.items()} for name, models in self._families()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what another estimator learned (`export`). What cannot be read is left out."""
        for name, models in self._families():
            entries = state.get(name)
            for model, values in entries.items() if isinstance(entries, dict) else ():
                ratio = _read(values, models.most)
                if ratio is not None:
                    models.put(str(model), ratio)

    def _families(self) -> tuple[tuple[str, _Models], ...]:
        return ("bytes", self._bytes), ("events", self._events)


def _read(values: object, most: float) -> Ratio | None:
    if not isinstance(values, dict):
        return None
    try:
        ratio = Ratio(
            float(values["mean"]),
            float(values["variance"]),
            int(values["samples"]),
            float(values["error"]),
            int(values["exceeded"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    sound = 0 <= ratio.mean <= most and 0 <= ratio.variance <= most * most and ratio.samples > 0
    return ratio if sound and ratio.exceeded >= 0 and math.isfinite(ratio.error) else None
