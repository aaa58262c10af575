"""Parquet files, by the extra `parquet` (arro3), in a process of their own: writing one holds Python's lock for some
tenths of a second, during which requests would stand still. `python -m` this module turns JSON lines into a file."""

import asyncio
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from services.apimgmt.ledger.export.encode import join
from services.apimgmt.ledger.export.schema import FIELDS, Field

if TYPE_CHECKING:
    from arro3.core import Schema

ROW_GROUP = 50_000
"""Rows of a row group."""

COMPRESSION = "zstd(3)"

PIECE = 1000
"""Lines that are handed to the process in one go."""


class ParquetError(Exception):
    """The process that writes the file failed."""


def write(data: bytes) -> bytes:
    """Return the Parquet file of JSON lines that fit the schema. The same lines give the same bytes."""
    from arro3.io import read_json, write_parquet

    out = io.BytesIO()
    rows = read_json(io.BytesIO(data), arrow_schema(), batch_size=ROW_GROUP)
    write_parquet(rows, out, compression=COMPRESSION, max_row_group_size=ROW_GROUP, created_by="penstock")
    return out.getvalue()


async def convert(lines: Sequence[bytes]) -> bytes:
    """Return what `write` does, written by a process of its own. Raises ParquetError."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdin is not None  # noqa: S101 - pipes were asked for
    assert process.stdout is not None  # noqa: S101
    try:
        try:
            for at in range(0, len(lines), PIECE):
                process.stdin.write(join(lines[at : at + PIECE]))
                await process.stdin.drain()
            process.stdin.close()
        except ConnectionError:
            pass  # it ended early; its status tells
        data = await process.stdout.read()
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status != 0:
        raise ParquetError(f"the process that writes Parquet ended with {status}; is the extra `parquet` installed?")
    return data


def arrow_schema() -> "Schema":
    """Return the schema of the file."""
    from arro3.core import Schema

    return Schema([_column(field) for field in FIELDS])


def _column(field: Field) -> Any:
    from arro3.core import DataType
    from arro3.core import Field as Column

    types: Mapping[str, Callable[[], DataType]] = {
        "STRING": DataType.string,
        "INTEGER": DataType.int64,
        "FLOAT": DataType.float64,
        "BOOLEAN": DataType.bool,
        "TIMESTAMP": lambda: DataType.timestamp("ms", tz="UTC"),
        "RECORD": lambda: DataType.struct([_column(part) for part in field.fields]),
    }
    kind = types[field.type]()
    if field.mode == "REPEATED":
        kind = DataType.list(Column("element", kind, nullable=False))
    return Column(field.name, kind, nullable=field.mode != "REQUIRED")


if __name__ == "__main__":
    sys.stdout.buffer.write(write(sys.stdin.buffer.read()))
