"""Objects from records. The same records give the same bytes, in whatever order they come."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from services.apimgmt.ledger.export.schema import misfits


@dataclass(frozen=True, slots=True)
class Part:
    """Some records, ready to be put into objects."""

    lines: Sequence[bytes]
    """Those that fit the schema: JSON, in the form of the format."""
    unfit: Sequence[bytes]
    """The others, as they are in the ledger."""


def prepare(records: Iterable[bytes], suffix: str) -> Part:
    """Check records, and turn them into the JSON that the format begins from."""
    line, lines, unfit = _LINES[suffix], list[bytes](), list[bytes]()
    for text in records:
        try:
            record = orjson.loads(text)
        except ValueError:
            unfit.append(text)
            continue
        if next(misfits(record), None) is None:
            lines.append(line(text, record))
        else:
            unfit.append(text)
    return Part(lines, unfit)


def join(lines: Sequence[bytes]) -> bytes:
    """Return JSON lines."""
    return b"\n".join(lines) + b"\n"


def _json_line(_: bytes, record: dict[str, Any]) -> bytes:
    """Return a record with its time as text (RFC 3339): BigQuery takes a plain number for seconds."""
    seconds, milliseconds = divmod(record["time"], 1000)
    record["time"] = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"
    return orjson.dumps(record)


_LINES: Mapping[str, Callable[[bytes, dict[str, Any]], bytes]] = {
    "jsonl": _json_line,
    "parquet": lambda text, _: text,  # Arrow reads milliseconds as they are
}
