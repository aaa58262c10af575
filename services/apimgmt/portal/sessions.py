"""What the portal's cookies and forms carry: signed sessions, form tokens, and messages that are shown once.

All keys come from the pepper of API keys, by HKDF (RFC 5869) with a label each, so every replica reads what another has
written and nothing else has to be configured. A session names a personal key and never holds it.
"""

import hmac
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.apimgmt.store.api import Conflict, Store

SESSION_S = 8 * 3600
"""Longest life of a session, seconds: a working day."""
FLASH_S = 60
"""How long a message waits for the page that shows it, seconds."""
ENDED_NOTE = "portal/ended"
"""Note of the store with the sessions that were signed out of, until they would have ended by themselves."""
MAX_ENDED = 10_000
"""Sessions in the note; the oldest leave first."""
NONCE_BYTES = 12
"""Of AES-GCM (NIST SP 800-38D, section 8.2.2: random nonces of 96 bits)."""

_SESSION = re.compile(r"([a-z2-7]{16})\.([0-9a-f]{32})\.([0-9]{1,12})\.([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who signed in."""

    key: str
    """Id of the personal key; the session ends with it."""
    id: str
    """Random, 32 hexadecimal digits."""
    expires: int
    """Unix seconds."""


class Seals:
    """Makes and checks what browsers keep for the portal."""

    def __init__(self, pepper: bytes) -> None:
        """`pepper`: of `keys.read_pepper`."""
        self._sessions, self._forms = _derive(pepper, b"sessions"), _derive(pepper, b"forms")
        self._flash = AESGCM(_derive(pepper, b"flash"))

    def write(self, session: Session) -> str:
        """Return a session as the value of its cookie."""
        text = f"{session.key}.{session.id}.{session.expires}"
        return f"{text}.{_mac(self._sessions, text)}"

    def read(self, text: str, now: int) -> Session | None:
        """Return the session of a cookie, None if it is not ours or over."""
        found = _SESSION.fullmatch(text)
        if found is None or not hmac.compare_digest(_mac(self._sessions, text.rpartition(".")[0]), found[4]):
            return None
        session = Session(found[1], found[2], int(found[3]))
        return session if now < session.expires else None

    def token(self, subject: str) -> str:
        """Return the token of all forms of a session (or of a visit before the sign-in) by its id."""
        return _mac(self._forms, subject)

    def accepts(self, subject: str, token: str) -> bool:
        """Tell whether a form's token is that of `subject`, in constant time."""
        return hmac.compare_digest(self.token(subject).encode(), token.encode("utf-8", "replace"))

    def seal(self, session: Session, data: Mapping[str, Any], now: int) -> str:
        """Return `data` so that only this session's next page can read it."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        plain = orjson.dumps({**data, "until": now + FLASH_S})
        return urlsafe_b64encode(nonce + self._flash.encrypt(nonce, plain, session.id.encode())).decode()

    def open(self, session: Session, text: str, now: int) -> Mapping[str, Any]:
        """Return what was sealed; nothing if it is older than a minute, another session's or broken."""
        try:
            raw = urlsafe_b64decode(text.encode())
            plain = self._flash.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], session.id.encode())
        except (ValueError, InvalidTag):
            return {}
        data: Mapping[str, Any] = orjson.loads(plain)
        return data if now < data["until"] else {}


def begin(key: str, now: int) -> Session:
    """Return a new session of a personal key, by the key's id."""
    return Session(key, secrets.token_hex(16), now + SESSION_S)


async def ended(store: Store, session: Session) -> bool:
    """Tell whether a session was signed out of, at whichever replica."""
    _, value = await store.note(ENDED_NOTE)
    return bool(value) and session.id in orjson.loads(value)


async def end(store: Store, session: Session, now: int) -> None:
    """Sign out of a session. Raises StoreError if that cannot be written."""
    for attempt in range(10):
        version, value = await store.note(ENDED_NOTE)
        known = orjson.loads(value) if value else {}
        kept = [(name, until) for name, until in known.items() if until > now and name != session.id]
        kept = [*kept, (session.id, session.expires)][-MAX_ENDED:]
        try:
            await store.put_note(ENDED_NOTE, orjson.dumps(dict(kept)), version)
        except Conflict:
            if attempt == 9:
                raise
        else:
            return


def _derive(pepper: bytes, label: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, None, b"penstock portal v1 " + label).derive(pepper)


def _mac(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()
