"""Export and import, from every store into every store."""

import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.apimgmt.domain import KeyPurpose, Kind
from services.apimgmt.settings import SqliteStore as SqliteSettings
from services.apimgmt.store import portable
from services.apimgmt.store.api import Change, Store, StoreError, UsageQuery
from services.apimgmt.store.portable import Counts, ImportProblem, export, import_
from services.apimgmt.store.sqlite import SqliteStore
from tests.contract.apimgmt.store.support import NOW, charge, entry, key, reservation, settlement


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[Store]:
    """A store of the other kind, or another of the same."""
    store = SqliteStore(SqliteSettings(kind="sqlite", path=str(tmp_path / "other.db")))
    await store.open()
    yield store
    await store.close()


async def fill(store: Store) -> Counts:
    changes = [
        Change(Kind.ORGANIZATION, "", "acme", {"name": "acme", "displayName": "Äcme"}),
        Change(Kind.PRODUCT, "", "gold", {"name": "gold", "models": ["*"]}, declared=True),
        Change(Kind.TEAM, "acme", "red", {"name": "red", "organization": "acme"}),
    ]
    audit = [entry(f"p{n}", "acme", after={"n": n}) for n in range(7)]
    await store.change(changes, audit)
    keys = [key(n, expires=NOW + n) for n in range(5)]
    keys.append(key(9, purpose=KeyPurpose.PERSONAL, app="", lastUsed=NOW))
    await store.put_keys(keys, [], new=True)
    held = reservation(charge("tokens", 50, 100))
    await store.reserve(held)
    await store.settle(settlement(held, [20]))
    for n in range(30):
        await store.settle(settlement(f"s{n:03d}", now=NOW + n, promptTokens=n, model="lläma"))
    return Counts(documents=3, keys=6, audit=7, records=31)


def lines_of(out: io.StringIO) -> list[str]:
    """Return the lines in an order of their own, without the header's time."""
    first, *rest = out.getvalue().splitlines()
    return [json.dumps({**json.loads(first), "time": 0}), *sorted(rest)]


async def copy(source: Store, target: Store) -> None:
    counts = await fill(source)
    out = io.StringIO()
    assert await export(source, out) == counts
    assert await import_(target, out.getvalue().splitlines(keepends=True)) == counts
    again = io.StringIO()
    await export(target, again)
    assert lines_of(again) == lines_of(out)
    assert [a.name for a in await target.audit(None, 0, 10)] == [f"p{n}" for n in range(6, -1, -1)]
    query = UsageQuery("acme", NOW - 3600, NOW + 7200, "all", ("model", "user"))
    sums = [(dict(r.group), dict(r.sums)) for r in await target.usage(query)]
    assert sums == [(dict(r.group), dict(r.sums)) for r in await source.usage(query)]
    assert list(await target.totals([charge("tokens")])) == [0]
    assert await target.key(key(9).id) == await source.key(key(9).id)


async def test_a_store_moves_into_a_file(store: Store, file: Store) -> None:
    await copy(store, file)


async def test_a_file_moves_into_a_store(store: Store, file: Store) -> None:
    await copy(file, store)


async def test_nothing_is_imported_over_what_is_there(store: Store, file: Store) -> None:
    await fill(file)
    out = io.StringIO()
    await export(file, out)
    await store.change([Change(Kind.PRODUCT, "", "mine", {"name": "mine", "models": ["*"]})], [])
    with pytest.raises(StoreError, match="documents already"):
        await import_(store, out.getvalue().splitlines())
    assert await store.key(key(1).id) is None


async def test_an_import_that_was_broken_off_is_repeated(file: Store, tmp_path: Path) -> None:
    counts = await fill(file)
    out = io.StringIO()
    await export(file, out)
    lines = out.getvalue().splitlines()
    target = SqliteStore(SqliteSettings(kind="sqlite", path=str(tmp_path / "target.db")))
    await target.open()
    try:
        await import_(target, [lines[0], *(line for line in lines if '"type":"record"' in line)])
        await import_(target, lines)
        (row,) = await target.usage(UsageQuery(None, NOW - 3600, NOW + 7200, "all"))
        assert row.sums["requests"] == counts.records
    finally:
        await target.close()


HEADER = {"type": "header", "format": "penstock-store", "version": 1, "time": NOW}
DOCUMENT = {
    "type": "document",
    "kind": "teams",
    "organization": "acme",
    "name": "red",
    "body": {"name": "red", "organization": "acme"},
    "declared": False,
}
KEY = {"type": "key", "record": key(1).model_dump(mode="json", by_alias=True)}
ENTRY = {
    "type": "audit",
    "entry": {"time": 1, "actor": "a", "action": "create", "kind": "teams", "organization": "", "name": "x"},
}
RECORD = {"type": "record", "record": {"id": "a", "organization": "acme", "time": NOW * 1000}}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2: the line: expected one JSON object"),
        ("[" * 100_000, "line 2: the line: expected one JSON object"),
        ('{"type":"\\ud800"}', "line 2: the line: expected one JSON object"),
        ("[]", "line 2: the line: expected one JSON object"),
        ({"type": "counter"}, "line 2: type: expected one of document"),
        ({**DOCUMENT, "kind": "things"}, "line 2: kind: expected one of organizations"),
        ({**DOCUMENT, "declared": 1}, "line 2: declared"),
        ({**DOCUMENT, "name": "blue"}, "line 2: organization, name: expected those of the body"),
        ({**DOCUMENT, "body": {"name": "red"}}, "line 2: body.organization"),
        ({**DOCUMENT, "body": {"name": "red", "organization": "acme", "colour": 1}}, "line 2: body.colour"),
        ({"type": "key", "record": {**KEY["record"], "digest": None}}, "line 2: record.digest"),  # type: ignore[dict-item]
        ({"type": "key"}, "line 2: record"),
        ({"type": "audit", "entry": {**ENTRY["entry"], "time": "now"}}, "line 2: entry.time"),  # type: ignore[dict-item]
        ({"type": "audit", "entry": {"secret": 1}}, "line 2: entry"),
        ({"type": "record", "record": {"id": "a", "organization": "acme"}}, "line 2: record.time"),
        ({"type": "record", "record": {"organization": "acme", "time": 1}}, "line 2: record.id"),
        ({"type": "record", "record": {**RECORD["record"], "costMicros": "9"}}, "line 2: record.costMicros"),  # type: ignore[dict-item]
        ({"type": "record", "record": {**RECORD["record"], "user": 7}}, "line 2: record.user"),  # type: ignore[dict-item]
    ],
)
async def test_a_wrong_line_is_named_and_nothing_is_written(file: Store, line: Any, problem: str) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    lines = [json.dumps(HEADER), text, *map(json.dumps, (KEY, ENTRY, RECORD))]
    with pytest.raises(ImportProblem) as caught:
        await import_(file, lines)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(problem)
    assert ";" in caught.value.problems[0], "how to fix it"
    assert await file.key(key(1).id) is None
    assert (await file.ledger("", 10))[1] == []


async def test_all_problems_are_told_at_once(file: Store) -> None:
    lines = [json.dumps(v) for v in (HEADER, DOCUMENT, {"type": 1}, DOCUMENT, KEY, KEY, {"type": 2})]
    with pytest.raises(ImportProblem) as caught:
        await import_(file, lines)
    assert [p.partition(":")[0] for p in caught.value.problems] == ["line 3", "line 4", "line 6", "line 7"]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "the file is empty"),
        (["{}"], "a header"),
        ([json.dumps({**HEADER, "version": 2})], "the release that wrote it"),
        ([json.dumps(KEY)], "a header"),
    ],
)
async def test_a_file_of_another_kind_is_refused(file: Store, lines: list[str], problem: str) -> None:
    with pytest.raises(ImportProblem, match=problem):
        await import_(file, lines)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["type", "kind", "organization", "name", "body", "declared", "record", "entry"])


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.sampled_from([DOCUMENT, KEY, ENTRY, RECORD]), st.dictionaries(FIELDS, JSON, min_size=1, max_size=3))
def test_no_line_breaks_the_check(base: dict[str, Any], changes: dict[str, Any]) -> None:
    checked, line = io.StringIO(), json.dumps({**base, **changes})
    with contextlib.suppress(ImportProblem):
        portable._check([json.dumps(HEADER), line], checked)
        assert checked.getvalue().splitlines()[1] == line
