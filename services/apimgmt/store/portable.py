"""Export and import of a store as JSON lines, from any kind of store into any other.

The first line is a header, each further one a value with its `type`:

    {"type": "header", "format": "penstock-store", "version": 1, "time": 1800000000}
    {"type": "document", "kind": "products", "organization": "", "name": "gold", "body": {...}, "declared": false}
    {"type": "key", "record": {...}}
    {"type": "audit", "entry": {...}}
    {"type": "record", "record": {...}}

Keys are in it as digests: who has the file cannot use them, but may guess at who uses what, so it is to be kept like
the store itself. Counters are not in it; windows begin anew. Sums of records that were pruned are not in it either.
"""

import json
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import IO, Any, Protocol

from pydantic import ValidationError

from services.apimgmt.domain import ENTITIES, KeyRecord, Kind
from services.apimgmt.store.api import DIMENSIONS, SUMS, AuditEntry, Change, Settlement, Store, StoreError

FORMAT, VERSION = "penstock-store", 1

PAGE = 500
"""Keys, entries and records per call of the store."""

MAX_PROBLEMS = 20
"""Problems that are told of at once."""

MAX_LINE = 16 * 1024 * 1024
"""Longest line, characters."""

TYPES = ("document", "key", "audit", "record")


class Out(Protocol):
    """Where lines go."""

    def write(self, text: str, /) -> object:
        """Write text."""


class ImportProblem(StoreError):
    """Lines cannot be imported; nothing was written. `problems` has one text each: line, field, expected, fix."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        more = f"\n  (the first {MAX_PROBLEMS})" if len(problems) >= MAX_PROBLEMS else ""
        super().__init__("\n".join(["import: nothing was written", *(f"  - {p}" for p in problems)]) + more)


@dataclass(slots=True)
class Counts:
    """How much was exported or imported."""

    documents: int = 0
    keys: int = 0
    audit: int = 0
    records: int = 0


async def export(store: Store, out: Out) -> Counts:
    """Write everything but counters. What changes meanwhile may be in it or not; documents are of one moment."""
    counts = Counts()

    def line(type_: str, **values: Any) -> None:
        out.write(json.dumps({"type": type_, **values}, ensure_ascii=False, separators=(",", ":")) + "\n")

    line("header", format=FORMAT, version=VERSION, time=int(time.time()))
    _, documents = await store.snapshot()
    for d in documents:
        place = {"kind": d.kind.value, "organization": d.organization, "name": d.name}
        line("document", **place, body=dict(d.body), declared=d.declared)
        counts.documents += 1
    for organization in sorted(d.name for d in documents if d.kind is Kind.ORGANIZATION):
        async for key in _keys(store, organization):
            line("key", record=key.model_dump(mode="json", by_alias=True, exclude_defaults=True))
            counts.keys += 1
    async for entry in _audit(store):
        line("audit", entry={name: value for name, value in asdict(entry).items() if name != "sequence"})
        counts.audit += 1
    after = ""
    while True:
        after, records = await store.ledger(after, PAGE)
        if not records:
            return counts
        for record in records:
            line("record", record=json.loads(record))
        counts.records += len(records)


async def _keys(store: Store, organization: str) -> AsyncIterator[KeyRecord]:
    after = ""
    while page := await store.keys(organization, after=after, limit=PAGE):
        for key in page:
            yield key
        after = page[-1].id


async def _audit(store: Store) -> AsyncIterator[AuditEntry]:
    """Yield entries, the oldest first, though stores read from the newest."""
    pages: list[int] = [0]
    while page := await store.audit(None, pages[-1], PAGE):
        pages.append(page[-1].sequence)
    for before in reversed(pages[:-1]):
        for entry in reversed(await store.audit(None, before, PAGE)):
            yield entry


async def import_(store: Store, lines: Iterable[str]) -> Counts:
    """Write what `export` wrote into a store without documents.

    All lines are checked before the first is written. Records and keys come before documents and audit, which are one
    transaction: an import that was broken off can be repeated.

    Raises:
        ImportProblem: A line is wrong.
        StoreError: The store has documents.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as checked:
        _check(lines, checked)
        if (await store.snapshot())[1]:
            raise StoreError("import: the store has documents already; import into a new one")
        return await _write(store, checked)


def _check(lines: Iterable[str], checked: IO[str]) -> None:
    """Copy the lines, or raise with what is wrong with them."""
    problems: list[str] = []
    seen: set[tuple[str, ...]] = set()
    number = 0
    for number, text in enumerate(lines, 1):
        try:
            value = _parse(text)
            identity = _check_header(value) if number == 1 else _check_value(value)
            if identity in seen:
                raise _Bad("name" if identity[0] == "document" else "record.id", "each only once", "remove one of them")
            if identity:
                seen.add(identity)
            checked.write(text.rstrip("\n") + "\n")
        except _Bad as bad:
            problems.append(f"line {number}: {bad}")
            if len(problems) == MAX_PROBLEMS:
                break
    if not number:
        problems.append("line 1: expected a header, the file is empty; export again")
    if problems:
        raise ImportProblem(problems)


async def _write(store: Store, checked: IO[str]) -> Counts:
    counts = Counts()
    changes: list[Change] = []
    audit: list[AuditEntry] = []
    keys: list[KeyRecord] = []
    settling = []
    checked.seek(0)
    checked.readline()
    for text in checked:
        value = json.loads(text)
        match value["type"]:
            case "document":
                place = (Kind(value["kind"]), value["organization"], value["name"])
                changes.append(Change(*place, value["body"], value["declared"], expected=0))
            case "audit":
                audit.append(AuditEntry(**value["entry"]))
            case "key":
                keys.append(KeyRecord.model_validate(value["record"]))
                counts.keys += 1
            case _:
                settling.append(store.settle(_settlement(value["record"])))
                counts.records += 1
        if len(keys) == PAGE:
            await store.put_keys(keys, [], new=False)
            keys.clear()
        if len(settling) == PAGE:
            for one in settling:
                await one
            settling.clear()
    for one in settling:
        await one
    if keys:
        await store.put_keys(keys, [], new=False)
    if changes or audit:
        await store.change(changes, audit)
    counts.documents, counts.audit = len(changes), len(audit)
    return counts


def _settlement(record: Mapping[str, Any]) -> Settlement:
    """Return a record's settlement: its time is when the request ended."""
    ended = (record["time"] + int(record.get("latencyMs") or 0)) / 1000
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
    return Settlement(record["id"], record["organization"], ended, (), (), text, record)


class _Bad(Exception):
    """One problem of a line."""

    def __init__(self, field: str, expected: str, fix: str) -> None:
        super().__init__(f"{field}: expected {expected}; {fix}")


_AGAIN = "export again, or correct the line"


def _parse(text: str) -> dict[str, Any]:
    if len(text) > MAX_LINE:
        raise _Bad("the line", f"at most {MAX_LINE} characters", _AGAIN)
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair cannot be stored
    except (ValueError, RecursionError):
        raise _Bad("the line", "one JSON object", _AGAIN) from None
    if not isinstance(value, dict):
        raise _Bad("the line", "one JSON object", _AGAIN)
    return value


def _check_header(value: dict[str, Any]) -> tuple[str, ...]:
    if value.get("type") != "header" or value.get("format") != FORMAT:
        raise _Bad("type, format", f"a header of the format {FORMAT}", "pass a file that `export` wrote")
    if value.get("version") != VERSION:
        raise _Bad("version", f"{VERSION}", "import it with the release that wrote it, or a newer one")
    return ()


def _check_value(value: dict[str, Any]) -> tuple[str, ...]:
    """Return what makes the value unique; nothing for audit entries, and records, which stores write once anyway."""
    match value.get("type"):
        case "document":
            return _check_document(value)
        case "key":
            key = _model("record", KeyRecord, value.get("record"))
            return ("key", key.id)
        case "audit":
            return _check_entry(value.get("entry"))
        case "record":
            return _check_record(value.get("record"))
        case _:
            raise _Bad("type", f"one of {', '.join(TYPES)}", _AGAIN)


def _check_document(value: dict[str, Any]) -> tuple[str, ...]:
    if value.get("kind") not in list(Kind):
        raise _Bad("kind", f"one of {', '.join(Kind)}", _AGAIN)
    if type(value.get("declared")) is not bool:
        raise _Bad("declared", "true or false", _AGAIN)
    entity = _model("body", ENTITIES[Kind(value["kind"])], value.get("body"))
    organization = getattr(entity, "organization", "") if entity.scoped else ""
    if (value.get("organization"), value.get("name")) != (organization, entity.name):
        raise _Bad("organization, name", "those of the body", _AGAIN)
    return ("document", value["kind"], organization, entity.name)


def _check_entry(value: Any) -> tuple[str, ...]:
    known = {field.name: field.type for field in fields(AuditEntry) if field.name != "sequence"}
    if not isinstance(value, dict) or not set(value) <= set(known):
        raise _Bad("entry", f"an object with {', '.join(known)}", _AGAIN)
    for name, type_ in known.items():
        given = value.get(name)
        fits = isinstance(given, dict | None) if name in ("before", "after") else type(given) is type_
        if not fits:
            raise _Bad(f"entry.{name}", getattr(type_, "__name__", "an object") + " value", _AGAIN)
    return ()


def _check_record(value: Any) -> tuple[str, ...]:
    if not isinstance(value, dict):
        raise _Bad("record", "an object", _AGAIN)
    for name in ("id", "organization"):
        if not isinstance(value.get(name), str) or not value[name]:
            raise _Bad(f"record.{name}", "text", _AGAIN)
    for name in ("time", *SUMS[1:]):
        given = value.get(name, -1 if name == "time" else 0)
        if not isinstance(given, int | float) or not 0 <= given < 2**53:
            raise _Bad(f"record.{name}", "a number from 0", _AGAIN)
    for name in DIMENSIONS:
        if not isinstance(value.get(name, ""), str):
            raise _Bad(f"record.{name}", "text", _AGAIN)
    return ()


def _model(field: str, model: Any, value: Any) -> Any:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, (field, *first["loc"])))
        raise _Bad(where, f"what fits ({first['msg']})", _AGAIN) from None
