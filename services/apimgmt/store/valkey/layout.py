"""Names of keys, and how values are written. All keys of one hash tag are in one slot of a cluster.

`penstock:{<organization>}:` has what a request needs, so that one script can do all of it:

| key | type | what |
|---|---|---|
| `c:<counter>:<slot>` | string | calendar window, or concurrent requests: used and held |
| `r:<counter>` | hash | rolling window: slot -> used and held |
| `p:<counter>` | string | pace: theoretical arrival time, microseconds |
| `held` | hash | reservations: id -> what `lost` needs |
| `d:<id>` | string | mark of a settled request, for `DONE_MS` |
| `ledger` | stream | records; ids are the settlement's time |
| `u:<hour>` | hash | sums: dimensions -> 8 numbers |
| `hours` | sorted set | hours that have sums |

`penstock:{:directory}:` has documents, keys, their feed and audit trail, and notes; `penstock:{:processes}:` the
owners' leases and the organizations known. A colon is in no organization's name.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

from services.apimgmt.store.api import DIMENSIONS, SUMS

DIRECTORY, PROCESSES = ":directory", ":processes"
"""Hash tags."""

DIRECTORY_PREFIX = f"penstock:{{{DIRECTORY}}}:"
LEASES = f"penstock:{{{PROCESSES}}}:leases"
ORGANIZATIONS = f"penstock:{{{PROCESSES}}}:organizations"

DONE_MS = 3_600_000
"""How long a settled request is known to be settled: longer than any retry of its settlement."""

LOST_MS = 86_400_000
"""The same for one that was settled as lost: its process may have been paused, and come back."""

MARGIN_MS = 60_000
"""How much longer counters are kept than they count: for clocks that differ."""

HOUR_S = 3600

_SEPARATOR = "\x1f"
_SUMS = struct.Struct("<8d")
assert len(SUMS) == 8  # noqa: S101 - as in the scripts


def tag_of(organization: str) -> str:
    """Return the hash tag of an organization."""
    return organization or "-"


def prefix_of(organization: str) -> str:
    """Return how an organization's keys begin."""
    return f"penstock:{{{organization or '-'}}}:"


def dimensions(usage: Mapping[str, Any]) -> str:
    """Return the field of the hourly sums that a record counts to."""
    return _SEPARATOR.join([str(usage.get(name) or "") for name in DIMENSIONS])


def split_dimensions(field: bytes) -> dict[str, str]:
    """Read it back."""
    return dict(zip(DIMENSIONS, field.decode().split(_SEPARATOR), strict=False))


def sums(usage: Mapping[str, Any]) -> list[int]:
    """Return what a record adds to the sums, in the order of `SUMS`."""
    get = usage.get
    return [int(get("requests", 1)), *[int(get(name) or 0) for name in SUMS[1:]]]


def read_sums(value: bytes) -> tuple[float, ...]:
    """Read a value of the hourly sums: whole numbers up to 2^53, as Lua has them."""
    return _SUMS.unpack(value)


def usage_of(record: bytes) -> Mapping[str, Any]:
    """Read a ledger record as `Settlement.usage`. What is no JSON object has none."""
    try:
        found = json.loads(record)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
