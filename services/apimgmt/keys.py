"""API keys: made, read, hashed, rotated, revoked.

A key is `psk_<id>_<secret>` (an app's) or `psp_<id>_<secret>` (a person's). The id is 80 random bits and no secret: it
finds the record. The secret is 256 random bits. Stored is an HMAC-SHA256 of the whole key under a pepper that the store
never sees: who copies the store can neither use the keys nor test guesses. A slow password hash would add nothing
against 256 random bits, and would cost milliseconds per request.
"""

import base64
import enum
import hmac
import re
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from services.apimgmt.domain import KeyPurpose, KeyRecord
from services.apimgmt.store.api import AuditEntry, Conflict, Store
from services.extproc.config import ConfigError, Problem

PEPPER_VARIABLE = "PENSTOCK_KEY_PEPPER"
MIN_PEPPER_BYTES = 32
"""As long as the hash that it keys (RFC 2104, section 3: less than that weakens it)."""

PREFIXES = {"psk": KeyPurpose.API, "psp": KeyPurpose.PERSONAL}
_PREFIX_OF = {purpose: prefix for prefix, purpose in PREFIXES.items()}

ID_BYTES, SECRET_BYTES = 10, 32
"""Random bytes: 16 characters of base32 (RFC 4648, section 6, lower case) and 43 of base64url (section 5)."""

ID = slice(4, 20)
"""Where the id stands in a key."""

KEY_CHARS = 64
"""Length of every key."""

_KEY = re.compile(r"(psk|psp)_([a-z2-7]{16})_[A-Za-z0-9_-]{43}", re.ASCII)

DEFAULT_GRACE_S = 24 * 3600
"""How long a rotated key works beside its successor, seconds."""
MAX_GRACE_S = 90 * 24 * 3600


class ParsedKey(NamedTuple):
    """A text that looks like a key. Whether it is one, the digest decides."""

    purpose: KeyPurpose
    id: str


class KeyState(enum.StrEnum):
    """What a key is good for at some time."""

    ACTIVE = "active"
    IN_GRACE = "inGrace"
    """Rotated or to be revoked: works until its `revoked`."""
    EXPIRED = "expired"
    REVOKED = "revoked"


def read_pepper(environ: Mapping[str, str]) -> bytes:
    """Return the pepper. Raises ConfigError that names PENSTOCK_KEY_PEPPER, and never shows its value."""
    value = environ.get(PEPPER_VARIABLE, "").strip().encode("utf-8", "surrogateescape")
    if len(value) >= MIN_PEPPER_BYTES:
        return value
    found = f"{len(value)} bytes" if value else ""
    fix = "set it to a random text that all replicas share and that never changes, e.g. of `openssl rand -base64 48`"
    expected = f"expected at least {MIN_PEPPER_BYTES} bytes, which key the hashes of API keys"
    raise ConfigError("environment", [Problem(PEPPER_VARIABLE, found, expected, fix)])


def parse(text: str) -> ParsedKey | None:
    """Return what `text` says about itself, or None if it is no key of ours."""
    found = _KEY.fullmatch(text)
    return ParsedKey(PREFIXES[found[1]], found[2]) if found else None


def digest(pepper: bytes, text: str) -> str:
    """Return the keyed hash of a whole key, 64 hexadecimal digits."""
    return hmac.digest(pepper, text.encode("utf-8", "surrogateescape"), "sha256").hex()


def matches(pepper: bytes, text: str, record_digest: str) -> bool:
    """Tell whether `text` is the key that the digest was made of, in constant time."""
    return hmac.compare_digest(digest(pepper, text), record_digest)


def ends(record: KeyRecord) -> float:
    """Return from when on the key is refused, Unix seconds; infinity for never."""
    times = [time for time in (record.expires, record.revoked) if time is not None]
    return min(times) if times else float("inf")


def state(record: KeyRecord, now: float) -> KeyState:
    """Return what the key is good for at `now`."""
    if record.revoked is not None and now >= record.revoked:
        return KeyState.REVOKED
    if record.expires is not None and now >= record.expires:
        return KeyState.EXPIRED
    return KeyState.ACTIVE if record.revoked is None else KeyState.IN_GRACE


def issue(
    pepper: bytes,
    *,
    organization: str,
    developer: str,
    app: str = "",
    purpose: KeyPurpose = KeyPurpose.API,
    display_name: str = "",
    now: float,
    expires: int | None = None,
) -> tuple[str, KeyRecord]:
    """Make a key. Return the key itself, to be shown once, and the record to store.

    Args:
        pepper: of `read_pepper`.
        organization, developer, app: whom it belongs to; personal keys have no app, all others have one.
        purpose: what it opens.
        display_name: what people call it.
        now: Unix seconds.
        expires: from when on it is refused, Unix seconds. Default never.

    Raises:
        ValueError: app and purpose do not fit, or it would be expired already.
    """
    if (purpose is KeyPurpose.PERSONAL) == bool(app):
        raise ValueError("app: expected a name for an app's key, and none for a personal key")
    if expires is not None and expires <= now:
        raise ValueError(f"expires: expected a time in the future (found {expires}, it is {int(now)})")
    key_id = base64.b32encode(secrets.token_bytes(ID_BYTES)).decode("ascii").lower()
    plain = f"{_PREFIX_OF[purpose]}_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    record = KeyRecord(
        id=key_id,
        purpose=purpose,
        digest=digest(pepper, plain),
        organization=organization,
        app=app,
        developer=developer,
        display_name=display_name,
        created=int(now),
        expires=expires,
    )
    return plain, record


def rotate(
    pepper: bytes, record: KeyRecord, *, now: float, grace_s: int = DEFAULT_GRACE_S, expires: int | None = None
) -> tuple[str, KeyRecord, KeyRecord]:
    """Replace a key. Return the new key, its record, and the old record, which works for `grace_s` seconds more.

    Args:
        pepper: of `read_pepper`.
        record: the old key.
        now: Unix seconds.
        grace_s: 0 to MAX_GRACE_S.
        expires: of the new key. Default as long from now as the old one had from its creation.

    Raises:
        ValueError: the key does not work any more, was rotated already, or the grace period is out of range.
    """
    if not 0 <= grace_s <= MAX_GRACE_S:
        raise ValueError(f"grace period: expected 0 to {MAX_GRACE_S} seconds (found {grace_s})")
    if record.replaced_by is not None:
        raise ValueError(f"key {record.id} was rotated already, into {record.replaced_by}; rotate that one")
    if now >= ends(record):
        raise ValueError(f"key {record.id} is {state(record, now)}; create a new one")
    if expires is None and record.expires is not None:
        expires = int(now) + record.expires - record.created
    plain, new = issue(
        pepper,
        organization=record.organization,
        developer=record.developer,
        app=record.app,
        purpose=record.purpose,
        display_name=record.display_name,
        now=now,
        expires=expires,
    )
    until = int(now) + grace_s
    old = record.model_copy(
        update={"revoked": until if record.revoked is None else min(until, record.revoked), "replaced_by": new.id}
    )
    return plain, new, old


def revoke(record: KeyRecord, now: float) -> KeyRecord:
    """Return the record revoked from now on; one that was revoked before stays as it is."""
    if record.revoked is not None and record.revoked <= now:
        return record
    return record.model_copy(update={"revoked": int(now)})


def describe(record: KeyRecord) -> dict[str, Any]:
    """Return the record for people and the audit trail: without its digest."""
    return record.model_dump(mode="json", by_alias=True, exclude={"digest"})


async def save_new(store: Store, record: KeyRecord, *, actor: str, now: float) -> int:
    """Store a key that was just issued. Return the revision."""
    entry = _entry("issue", actor, now, record, before=None)
    return await store.put_keys([record], [entry], new=True)


async def save_rotation(store: Store, new: KeyRecord, old: KeyRecord, *, actor: str, now: float) -> int:
    """Store both halves of a rotation in one transaction. Return the revision."""
    before = await _stored(store, old.id)
    entries = [_entry("issue", actor, now, new, before=None), _entry("rotate", actor, now, old, before=before)]
    return await store.put_keys([new, old], entries, new=False)


async def save_revocation(store: Store, key_id: str, *, actor: str, now: float) -> KeyRecord:
    """Revoke a stored key. Return its record. Raises Conflict if there is none."""
    before = await _stored(store, key_id)
    after = revoke(before, now)
    if after is not before:
        await store.put_keys([after], [_entry("revoke", actor, now, after, before=before)], new=False)
    return after


async def _stored(store: Store, key_id: str) -> KeyRecord:
    record = await store.key(key_id)
    if record is None:
        raise Conflict(f"key {key_id} does not exist")
    return record


def _entry(action: str, actor: str, now: float, record: KeyRecord, before: KeyRecord | None) -> AuditEntry:
    return AuditEntry(
        time=int(now),
        actor=actor,
        action=action,
        kind="keys",
        organization=record.organization,
        name=record.id,
        before=describe(before) if before else None,
        after=describe(record),
    )
