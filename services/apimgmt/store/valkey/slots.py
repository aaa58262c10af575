"""Which node of a cluster has a key: slots by CRC-16 (XMODEM) of the hash tag, Redis cluster specification 1.0."""

import binascii
from collections.abc import Sequence
from typing import Any

SLOTS = 16384


def slot_of(tag: str) -> int:
    """Return the slot of all keys with `{tag}`."""
    return binascii.crc_hqx(tag.encode(), 0) % SLOTS


def read_slots(reply: Sequence[Any], asked: str) -> list[tuple[str, int] | None]:
    """Read a reply to CLUSTER SLOTS: the primary of each slot, or None. `asked` is the host that replied.

    A node that does not know its own address names none: it is the one that was asked.
    """
    found: list[tuple[str, int] | None] = [None] * SLOTS
    for first, last, primary, *_ in reply:
        host = (primary[0] or b"").decode()
        address = (asked if host in {"", "?"} else host, int(primary[1]))
        found[first : last + 1] = [address] * (last + 1 - first)
    return found


def read_redirect(text: str, asked: str) -> tuple[int, tuple[str, int]]:
    """Read `MOVED 3999 127.0.0.1:6381` (or ASK): slot and address."""
    _, slot, address = text.split(" ")[:3]
    host, _, port = address.rpartition(":")
    return int(slot), (host or asked, int(port))
