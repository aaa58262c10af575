"""Short ways to write reservations and settlements."""

import itertools
from collections.abc import Sequence
from typing import Any

from services.apimgmt.store.api import Charge, Pace, Reservation, Settlement

NOW = 1_800_000_000.0
"""Time in tests: not the server's."""

_ids = itertools.count()


def window(name: str, amount: int, ceiling: int, *, now: float = NOW, enforced: bool = True) -> Charge:
    """A calendar minute."""
    slot = int(now) // 60
    return Charge(f"acme|{name}|team:a", slot, 1, (slot + 1) * 60, amount, ceiling, enforced)


def rolling(name: str, amount: int, ceiling: int, *, now: float = NOW, slots: int = 6) -> Charge:
    """A minute of `slots` slots."""
    length = 60 // slots
    slot = int(now) // length
    return Charge(f"acme|{name}|team:a", slot, slots, (slot + slots) * length, amount, ceiling)


def concurrent(name: str, ceiling: int) -> Charge:
    """One request at a time more."""
    return Charge(f"acme|{name}|team:a", 0, 1, 0, 1, ceiling)


def reservation(
    charges: Sequence[Charge] = (),
    paces: Sequence[Pace] = (),
    *,
    now: float = NOW,
    owner: str = "process-1",
    organization: str = "acme",
    lost: Sequence[int] | None = None,
) -> Reservation:
    """A reservation with an id of its own."""
    id_ = f"request-{next(_ids)}"
    record = b'{"id":"%s","outcome":"lost","promptTokens":7,"organization":"%s"}' % (
        id_.encode(),
        organization.encode(),
    )
    given = [0] * len(charges) if lost is None else lost
    return Reservation(id_, organization, owner, now, charges, paces, record, given)


def settlement(made: Reservation, used: Sequence[int], *, now: float | None = None, **usage: Any) -> Settlement:
    """The end of a reservation."""
    record = b'{"id":"%s","outcome":"ok"}' % made.id.encode()
    at = made.now if now is None else now
    return Settlement(made.id, made.organization, at, made.charges, used, record, usage or {"outcome": "ok"})
