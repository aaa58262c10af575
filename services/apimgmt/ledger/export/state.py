"""How far the export has come: a note in the store that all processes share. Each change is made against a version,
so of several processes one makes it."""

import hashlib
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from services.apimgmt.store.api import Store, StoreError

NOTE = "ledger-export"
"""Name of the note."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An object that is to be written, or was written without anybody noting it."""

    until: str
    """Cursor of its last record."""
    name: str
    """Below the target's prefix; its ending names the format."""
    records: int


@dataclass(frozen=True, slots=True)
class State:
    """The content of the note. Times are Unix seconds."""

    lineage: str
    """Random for each store: objects of a store that is new are not taken for those of the one before."""
    number: int = 0
    """Objects so far."""
    cursor: str = ""
    """Everything up to here was exported."""
    due: float = 0.0
    """When to look for the next records."""
    complete: float = 0.0
    """When everything was exported last."""
    owner: str = ""
    """The process that writes."""
    lease: float = 0.0
    """Until when the others leave it to that one."""
    plan: Plan | None = None

    def dump(self) -> bytes:
        """Return the note's text."""
        return orjson.dumps(asdict(self))

    def planned(self, until: str, records: int, suffix: str, now: float) -> "State":
        """Return the state with a plan for the next object, whose name follows from what it holds and when it was
        planned: whoever carries the plan out writes the same object."""
        number = self.number + 1
        digest = hashlib.sha256("\n".join((self.lineage, self.cursor, until)).encode()).hexdigest()[:16]
        day = datetime.fromtimestamp(now, UTC).date().isoformat()
        return replace(self, plan=Plan(until, f"dt={day}/part-{number:08d}-{digest}.{suffix}", records))

    def advanced(self, due: float, complete: float) -> "State":
        """Return the state after the plan was carried out, nobody's turn."""
        assert self.plan is not None  # noqa: S101 - the job's rule
        done = replace(self, number=self.number + 1, cursor=self.plan.until, plan=None)
        return replace(done, due=due, complete=complete, owner="", lease=0.0)


def parse(text: bytes) -> State:
    """Return the state that a note has, a new one for no note. Raises StoreError."""
    if not text:
        return State(secrets.token_hex(8))
    try:
        found: dict[str, Any] = orjson.loads(text)
        plan = found.pop("plan")
        return State(plan=None if plan is None else Plan(**plan), **found)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise StoreError(f"note {NOTE}: cannot be read; a newer version may have written it: use that one") from None


async def load(store: Store) -> tuple[int, State]:
    """Return the note's version and the state. Raises StoreError."""
    version, text = await store.note(NOTE)
    return version, parse(text)
