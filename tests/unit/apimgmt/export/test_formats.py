"""Objects: the same records give the same bytes, and can be read back."""

import io
import random
import re
import sys

import orjson
import pytest

from services.apimgmt.ledger.export import encode, parquet, problems
from services.apimgmt.ledger.record import dump
from services.apimgmt.settings import ExportTarget
from tests.unit.apimgmt.export.support import NOW, back, read, record, union

RECORDS = [record(n) for n in range(2500)]


def lines(suffix: str) -> list[bytes]:
    return list(encode.prepare([dump(one) for one in RECORDS], suffix).lines)


def test_json_lines_have_times_that_load_as_timestamps() -> None:
    found = [orjson.loads(line) for line in encode.join(lines("jsonl")).splitlines()]
    assert found[1]["time"] == "2027-01-15T08:00:00.001Z"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one["time"]) for one in found)
    assert [back(one) for one in found] == RECORDS
    assert list(found[0]) == list(RECORDS[0])


async def test_parquet_has_the_same_records() -> None:
    data = await parquet.convert(lines("parquet"))
    assert read("a.parquet", data) == RECORDS
    assert data == parquet.write(encode.join(lines("parquet")))
    assert len(data) < len(encode.join(lines("jsonl"))) / 5


async def test_parquet_columns_have_the_types_of_the_schema() -> None:
    from arro3.io import read_parquet

    columns = read_parquet(io.BytesIO(await parquet.convert(lines("parquet")))).schema
    kinds = {field.name: str(field.type) for field in columns}
    assert 'Timestamp(ms, "UTC")' in kinds["time"]
    assert "Int64" in kinds["promptTokens"]
    assert "Float64" in kinds["overheadMs"]
    assert "List" in kinds["verdicts"]
    assert not columns.field("id").nullable
    assert columns.field("ttftMs").nullable


async def test_a_parquet_process_that_fails_is_an_error() -> None:
    with pytest.raises(parquet.ParquetError, match="ended with"):
        await parquet.convert([b"{", b"{"] * 100_000)


def test_order_does_not_matter_to_the_job_because_text_sorts_by_id() -> None:
    texts = [dump(one) for one in RECORDS]
    mixed = random.Random(1).sample(texts, len(texts))
    assert sorted(mixed) == texts


def test_parquet_without_its_package_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    target = ExportTarget(url="s3://bucket/a", format="parquet")
    assert problems(target) == []
    monkeypatch.setitem(sys.modules, "arro3.io", None)
    (problem,) = problems(target)
    assert problem.path == "ledger.export.format"
    assert "[parquet]" in problem.fix


def test_union_tells_of_what_is_there_twice() -> None:
    text = encode.join(lines("jsonl")[:3])
    assert union({"a.jsonl": text, "b.jsonl": text}) != RECORDS[:3]
    assert union({"a.jsonl": text})[0]["time"] == NOW * 1000
