"""How two states of the documents differ, for people and for the audit trail."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.apimgmt.domain import Kind
from services.apimgmt.references import Key, label
from services.apimgmt.store.api import Document

MAX_VALUE = 60
"""Longest value in a line of a diff, characters."""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that differs; None stands for "not there"."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Difference:
    """One document that differs."""

    key: Key
    before: Document | None
    after: Mapping[str, Any] | None
    """None: it is deleted."""
    declared: bool = True
    """Whether it counts as declared afterwards."""
    note: str = ""
    """What is special about it: taken over, kept."""

    @property
    def action(self) -> str:
        """`create`, `update` or `delete`."""
        return "delete" if self.after is None else "update" if self.before else "create"

    @property
    def fields(self) -> Sequence[FieldChange]:
        """What an update changes."""
        if self.before is None or self.after is None:
            return ()
        return field_changes(public(self.key[0], self.before.body), public(self.key[0], self.after))

    def __str__(self) -> str:
        sign = {"create": "+", "update": "~", "delete": "-"}[self.action]
        fields = "; ".join(f"{c.path}: {_short(c.before)} -> {_short(c.after)}" for c in self.fields)
        note = f" ({self.note})" if self.note else ""
        return f"{sign} {label(self.key)}{note}" + (f": {fields}" if fields else "")


@dataclass(frozen=True, slots=True)
class Diff:
    """What applying the file does."""

    differences: Sequence[Difference]
    """In an order in which they can be made."""
    unchanged: Sequence[Key]

    @property
    def created(self) -> Sequence[Difference]:
        """Documents that come."""
        return [d for d in self.differences if d.action == "create"]

    @property
    def changed(self) -> Sequence[Difference]:
        """Documents that change."""
        return [d for d in self.differences if d.action == "update"]

    @property
    def removed(self) -> Sequence[Difference]:
        """Documents that go."""
        return [d for d in self.differences if d.action == "delete"]

    def __str__(self) -> str:
        counts = f"{len(self.created)} created, {len(self.changed)} changed, {len(self.removed)} removed"
        return "\n".join([f"{counts}, {len(self.unchanged)} unchanged", *map(str, self.differences)])


def public(kind: Kind, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document as people may see it: of a key-value map the names of its entries only."""
    if kind is Kind.KEY_VALUE_MAP:
        return {**body, "entries": sorted(body.get("entries") or ())}
    return dict(body)


def field_changes(before: Any, after: Any, path: str = "") -> list[FieldChange]:
    """Return where two JSON values differ, field by field and item by item."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = list(dict.fromkeys([*before, *after]))
        steps = [(f"{path}.{n}" if path else n, before.get(n), after.get(n)) for n in names]
    elif isinstance(before, list) and isinstance(after, list) and any(isinstance(i, Mapping) for i in before + after):
        size = max(len(before), len(after))
        old, new = (side + [None] * (size - len(side)) for side in (before, after))
        steps = [(f"{path}[{i}]", old[i], new[i]) for i in range(size)]
    else:
        return [] if before == after else [FieldChange(path, before, after)]
    return [change for name, old, new in steps for change in field_changes(old, new, name)]


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "..."
