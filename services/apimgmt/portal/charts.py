"""Charts as SVG: bars only, sized by the page; labels are text beside them, so they stay readable at every width."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

HEIGHT = 100
"""Of a column chart, in its own units; the stylesheet says how high that is."""
STEP, BAR = 10, 8
"""Width of a column with its gap, and without."""
GRID = (0.25, 0.5, 0.75)
"""Where lines are drawn, as parts of the height."""


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers of one kind, one per column."""

    name: str
    values: Sequence[int]
    tone: int = 1
    """1 to 4: which of the stylesheet's colours."""


def ceiling(value: int) -> int:
    """Return the round number at or above `value` (1, 2, 4, 5 or 8 times a power of ten) that the axis ends with."""
    if value <= 0:
        return 1
    power: int = 10 ** (len(str(value)) - 1)
    for size in (power // 10 or 1, power, power * 10):
        for step in (1, 2, 4, 5, 8):
            if step * size >= value:
                return step * size
    return power * 100


def columns(series: Sequence[Series], labels: Sequence[str], texts: Sequence[str], name: str, top: int) -> Markup:
    """Return stacked columns.

    Args:
        series: from the bottom to the top of each column.
        labels: one per column, for its tooltip.
        texts: one per column: its value in words, for its tooltip.
        name: what the chart shows, in one sentence; the numbers have to stand in a table beside it.
        top: where the axis ends; at least the largest sum.
    """
    width = max(len(labels), 1) * STEP
    parts = [
        Markup('<line class="grid" x1="0" x2="{}" y1="{}" y2="{}"/>').format(width, HEIGHT * part, HEIGHT * part)
        for part in GRID
    ]
    for i, (label, text) in enumerate(zip(labels, texts, strict=True)):
        parts.append(_column([(one.values[i], one.tone) for one in series], i * STEP, f"{label}: {text}", top))
    return Markup(
        '<svg class="columns" role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>'
    ).format(name, width, HEIGHT, Markup("").join(parts))


def _column(pieces: Sequence[tuple[int, int]], x: int, title: str, top: int) -> Markup:
    rects, filled = [], 0.0
    for value, tone in pieces:
        height = value / top * HEIGHT
        if height > 0:
            filled += height
            rect = Markup('<rect class="tone-{}" x="{}" y="{:.2f}" width="{}" height="{:.2f}"/>')
            rects.append(rect.format(tone, x + (STEP - BAR) // 2, HEIGHT - filled, BAR, height))
    whole = Markup('<rect class="hit" x="{}" y="0" width="{}" height="{}"/>').format(x, STEP, HEIGHT)
    return Markup("<g><title>{}</title>{}{}</g>").format(title, whole, Markup("").join(rects))


def bar(value: int, most: int, tone: str = "tone-1") -> Markup:
    """Return one horizontal bar of `value` in `most`. It only decorates: the number stands beside it."""
    part = min(max(value / most, 0.0), 1.0) * 100 if most > 0 else 0.0
    return Markup(
        '<svg class="bar" aria-hidden="true" focusable="false"><rect class="track" width="100%" height="100%"/>'
        '<rect class="{}" width="{:.1f}%" height="100%"/></svg>'
    ).format(tone, part)
