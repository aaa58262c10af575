"""Prometheus text format, version 0.0.4."""

from collections.abc import Iterable

from prometheus_client.utils import floatToGoString

from services.modelserver.stats import Histogram


def number(value: float) -> str:
    """Return a sample's value as Prometheus' Python client writes it."""
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text


def labels(pairs: dict[str, str]) -> str:
    """Return `{a="1",b="2"}` with the names in order, or nothing for no labels."""
    if not pairs:
        return ""
    escaped = ((name, value.replace("\\", r"\\").replace('"', r"\"")) for name, value in sorted(pairs.items()))
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"


def family(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> str:
    """Render one metric; `samples`: (labels, value)."""
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{where} {number(value)}" for where, value in samples]
    return "\n".join(lines) + "\n"


def histogram_family(name: str, text: str, base: dict[str, str], histogram: Histogram, created: float) -> str:
    """Render a histogram and its `_created` gauge."""
    lines = [f"# HELP {name} {text}", f"# TYPE {name} histogram"]
    total = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        total += count
        lines.append(f"{name}_bucket{labels({**base, 'le': number(bound)})} {number(total)}")
    where = labels(base)
    lines.append(f"{name}_count{where} {number(histogram.number)}")
    lines.append(f"{name}_sum{where} {number(histogram.total)}")
    return "\n".join(lines) + "\n" + family(f"{name}_created", "gauge", text, [(where, created)])
