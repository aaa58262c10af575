"""The load schema: it names what records have, and tells what cannot be loaded."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.apimgmt.call import Finding, Verdict
from services.apimgmt.ledger.export import encode, schema
from services.apimgmt.ledger.record import RequestOutcome, lost, make, part_of
from services.apimgmt.usage.tokens import Tokens
from tests.unit.apimgmt.calls import make_call
from tests.unit.apimgmt.export.support import record

TYPES = {"STRING", "INTEGER", "FLOAT", "BOOLEAN", "TIMESTAMP", "RECORD"}


def made() -> dict[str, Any]:
    call = make_call({"stream": True})
    call.findings.append(Finding("script", Verdict.DENY, "no_poems", True))
    return make(call, RequestOutcome.OK, status=200, cost=5, latency_ms=7, ttft_ms=3, overhead_ms=0.3)


def test_the_schema_has_the_fields_of_records() -> None:
    found = made()
    assert [field.name for field in schema.FIELDS] == list(found)
    assert [field.name for field in schema.FIELDS[-1].fields] == list(found["verdicts"][0])
    assert list(schema.misfits(found)) == []


def test_records_of_lost_requests_fit_too() -> None:
    found = json.loads(lost(call := make_call(), part_of(call), Tokens(prompt=5, estimated=True), 7))
    assert list(found) == [field.name for field in schema.FIELDS]
    assert list(schema.misfits(found)) == []


def test_the_schema_file_has_the_form_of_load_schemas() -> None:
    def check(fields: list[dict[str, Any]]) -> None:
        for field in fields:
            assert field["type"] in TYPES
            assert field["mode"] in {"NULLABLE", "REQUIRED", "REPEATED"}
            assert 0 < len(field["description"]) <= 1024
            assert set(field) <= {"name", "type", "mode", "description", "fields"}
            assert ("fields" in field) == (field["type"] == "RECORD")
            check(field.get("fields", []))

    check(json.loads(schema.FILE.read_bytes()))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"id": None}, "id"),
        ({"id": 5}, "id"),
        ({"time": "2027-01-15"}, "time"),
        ({"time": -1}, "time"),
        ({"time": 10**15}, "time"),
        ({"time": True}, "time"),
        ({"promptTokens": 1.5}, "promptTokens"),
        ({"promptTokens": 2**63}, "promptTokens"),
        ({"status": True}, "status"),
        ({"stream": 1}, "stream"),
        ({"overheadMs": "1"}, "overheadMs"),
        ({"verdicts": {}}, "verdicts"),
        ({"verdicts": ["x"]}, "verdicts[0]."),
        ({"verdicts": [{"policy": 1}]}, "verdicts[0].policy"),
        ({"verdicts": [{"text": "y"}]}, "verdicts[0].text"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_loaded_is_named(change: dict[str, Any], path: str) -> None:
    (found,) = schema.misfits(record(1, **change))
    assert found.startswith(f"{path}:")


def test_missing_fields_are_null_where_they_may_be() -> None:
    short = {"id": "a", "time": 1, "organization": "acme"}
    assert list(schema.misfits(short)) == []
    assert [text.partition(":")[0] for text in schema.misfits({})] == ["id", "time", "organization"]
    assert list(schema.misfits([])) == ["record: expected an object"]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_names = [field.name for field in schema.FIELDS]


@given(st.dictionaries(st.sampled_from(_names), anything, max_size=4) | anything)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_anything_is_judged_and_what_fits_can_be_written(change: Any) -> None:
    from services.apimgmt.ledger.export.parquet import write

    body = record(1) | change if isinstance(change, dict) else change
    part = encode.prepare([json.dumps(body).encode()], "jsonl")
    fits = not list(schema.misfits(body))
    assert (len(part.lines), len(part.unfit)) == ((1, 0) if fits else (0, 1))
    if fits:
        assert write(json.dumps(body).encode())[:4] == b"PAR1"


def test_what_is_no_json_does_not_fit() -> None:
    part = encode.prepare([b"{", b"\xff", b""], "jsonl")
    assert (part.lines, part.unfit) == ([], [b"{", b"\xff", b""])
