"""The schema of exported records: BigQuery's load schema, which is also that of Parquet files.

Source of the file's form: BigQuery documentation, "Specifying a schema" (JSON schema file).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

FILE = Path(__file__).parent / "bigquery.json"
"""What `bq load` takes."""

MAX_TIME_MS = 253_402_300_799_999
"""Last millisecond of the year 9999, the end of BigQuery's TIMESTAMP."""

MAX_INTEGER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Field:
    """A column."""

    name: str
    type: str
    """STRING, INTEGER, FLOAT, BOOLEAN, TIMESTAMP (Unix milliseconds in the ledger) or RECORD."""
    mode: str
    """REQUIRED, NULLABLE or REPEATED."""
    fields: "tuple[Field, ...]" = ()
    """Of a RECORD."""


def _field(found: Mapping[str, Any]) -> Field:
    return Field(found["name"], found["type"], found["mode"], tuple(_field(f) for f in found.get("fields", ())))


FIELDS: Sequence[Field] = tuple(_field(f) for f in orjson.loads(FILE.read_bytes()))
"""All columns, in the order of the file."""


def misfits(record: object, fields: Sequence[Field] = FIELDS, path: str = "") -> Iterator[str]:
    """Yield what keeps a ledger record (parsed) from being loaded: each with the field's path, never its value.

    A field that is missing counts as null. One that the schema does not know is no fit: it would be lost.
    """
    if not isinstance(record, dict):
        yield f"{path or 'record'}: expected an object"
        return
    known = 0
    for field in fields:
        value = record.get(field.name)
        known += field.name in record
        if value is None:
            if field.mode == "REQUIRED":
                yield f"{path}{field.name}: expected {field.type}, found nothing"
        elif field.mode == "REPEATED":
            yield from _list(value, field, path)
        elif not _FITS[field.type](value):
            yield f"{path}{field.name}: expected {field.type}, found {type(value).__name__}"
    if known != len(record):
        names = {field.name for field in fields}
        yield from (f"{path}{name}: not in the schema" for name in record if name not in names)


def _list(value: object, field: Field, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path}{field.name}: expected a list, found {type(value).__name__}"
        return
    for i, item in enumerate(value):
        yield from misfits(item, field.fields, f"{path}{field.name}[{i}].")


def _integer(value: object) -> bool:
    return type(value) is int and -MAX_INTEGER - 1 <= value <= MAX_INTEGER


_FITS: Mapping[str, Callable[[object], bool]] = {
    "STRING": lambda value: isinstance(value, str),
    "INTEGER": _integer,
    "FLOAT": lambda value: type(value) is float or _integer(value),
    "BOOLEAN": lambda value: isinstance(value, bool),
    "TIMESTAMP": lambda value: type(value) is int and 0 <= value <= MAX_TIME_MS,
}
