"""What tests of stores share: small ways to make reservations, settlements, keys and records."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from services.apimgmt import settings
from services.apimgmt.domain import KeyPurpose, KeyRecord
from services.apimgmt.store import open_store
from services.apimgmt.store.api import AuditEntry, Charge, Pace, Reservation, Settlement, Store

NOW = 1_800_000_000
"""2027-01-15 08:00 UTC: the full hour, not the full day."""

ORGANIZATION = "acme"
_numbers = itertools.count(1)
_settings: TypeAdapter[settings.SqliteStore | settings.ValkeyStore] = TypeAdapter(
    settings.SqliteStore | settings.ValkeyStore
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is. `store` makes one that is not opened."""

    settings: Mapping[str, Any]
    environ: Mapping[str, str]

    def store(self) -> Store:
        return open_store(_settings.validate_python(self.settings), self.environ)


def charge(
    name: str = "requests", amount: int = 1, ceiling: int = 10, slot: int = 5, slots: int = 1, **fields: Any
) -> Charge:
    """Return a charge of a counter of the organization; it expires a day after NOW unless told."""
    expires = fields.pop("expires", NOW + 86_400)
    return Charge(f"{ORGANIZATION}|{name}|user:ada", slot, slots, expires, amount, ceiling, **fields)


def pace(name: str = "spikes", interval_us: float = 1e6, burst_us: float = 2e6, amount: int = 1, **fields: Any) -> Pace:
    """Return a pace: one unit a second, two at once, unless told."""
    return Pace(f"{ORGANIZATION}|{name}|user:ada", interval_us, burst_us, amount, **fields)


def record(id_: str, outcome: str = "ok", tokens: int = 0, **fields: Any) -> dict[str, Any]:
    """Return a ledger record."""
    return {
        "id": id_,
        "time": NOW * 1000,
        "organization": ORGANIZATION,
        "team": "red",
        "user": "ada",
        "app": "chat",
        "key": "k1",
        "product": "gold",
        "agent": "",
        "model": "llama",
        "outcome": outcome,
        "status": 200,
        "promptTokens": tokens,
        "cachedTokens": 0,
        "completionTokens": 0,
        "reasoningTokens": 0,
        "estimated": False,
        "costMicros": 3 * tokens,
        "latencyMs": 5,
        **fields,
    }


def encode(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value).encode()


def reservation(
    *parts: Charge | Pace, id_: str = "", owner: str = "p1", now: float = NOW, lost: Sequence[int] | None = None
) -> Reservation:
    """Return a reservation of charges and paces. Lost, all is charged unless told."""
    charges = [part for part in parts if isinstance(part, Charge)]
    id_ = id_ or f"r{next(_numbers):08d}"
    return Reservation(
        id=id_,
        organization=ORGANIZATION,
        owner=owner,
        now=now,
        charges=charges,
        paces=[part for part in parts if isinstance(part, Pace)],
        record=encode(record(id_, "lost", sum(lost or ()))),
        lost=[c.amount for c in charges] if lost is None else lost,
    )


def settlement(
    held: Reservation | str, used: Sequence[int] = (), outcome: str = "ok", now: float = NOW + 1, **fields: Any
) -> Settlement:
    """Return the end of a reservation, or (by an id) of a request without one."""
    id_ = held if isinstance(held, str) else held.id
    body = record(id_, outcome, **{"tokens": sum(used), **fields})
    charges = () if isinstance(held, str) else held.charges
    return Settlement(id_, body["organization"], now, charges, used, encode(body), body)


async def ledger(store: Store, limit: int = 1000) -> list[dict[str, Any]]:
    """Return all records."""
    after, found = "", list[dict[str, Any]]()
    while True:
        after, records = await store.ledger(after, limit)
        if not records:
            return found
        found += [json.loads(one) for one in records]


def key(number: int, **fields: Any) -> KeyRecord:
    """Return the key with a number as its id."""
    values: dict[str, Any] = {
        "id": f"k{number:015d}",
        "purpose": KeyPurpose.API,
        "digest": f"{number:064x}",
        "organization": ORGANIZATION,
        "app": "chat",
        "developer": "ada@example.com",
        "created": NOW,
    }
    return KeyRecord.model_validate(values | fields)


def entry(name: str = "gold", organization: str = "", action: str = "create", **fields: Any) -> AuditEntry:
    """Return an audit entry."""
    return AuditEntry(NOW, "admin-token", action, "products", organization, name, **fields)
