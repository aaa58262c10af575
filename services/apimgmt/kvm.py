"""Key-value maps: values kept encrypted in the store, and put into settings of policies where `${kvm:map/key}` stands.

Sealed with AES-256-GCM; the names of map and entry are bound to the value (associated data), so a sealed value moved
to another entry does not open. Keys are derived by HKDF-SHA256 (RFC 5869) from PENSTOCK_KVM_KEY, a list separated by
commas of which the first seals and all open; without it from PENSTOCK_KEY_PEPPER. The pepper's key opens in any case,
so that setting PENSTOCK_KVM_KEY later loses nothing.

    sealed = "v1." + base64url(key id (4 bytes) + nonce (12 bytes) + ciphertext and tag)

A nonce is random: one key should seal at most 2**32 values (NIST SP 800-38D, 8.3). Sealed text tells a value's length.
"""

import base64
import binascii
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ValidationError

from services.apimgmt.domain import KeyValueMap, Kind
from services.apimgmt.store.api import Document

KEY_VARIABLE = "PENSTOCK_KVM_KEY"
PEPPER_VARIABLE = "PENSTOCK_KEY_PEPPER"
MIN_KEY_BYTES = 32
MAX_VALUE_BYTES = 1024 * 1024
"""Longest value of an entry, bytes (an OpenAPI document fits)."""

_VERSION = "v1."
_ID_BYTES, _NONCE_BYTES, _TAG_BYTES = 4, 12, 16
_REFERENCE = re.compile(r"\$\{kvm:([^}]*)\}?")
_NAMES = re.compile(r"([a-z0-9][a-z0-9-]{0,62})/([A-Za-z0-9][A-Za-z0-9._/-]{0,127})")

M = TypeVar("M", bound=BaseModel)
Value = Callable[[str, str], str | None]


class KvmError(ValueError):
    """A value cannot be sealed, opened or resolved. The text names map and entry, never a value or a key."""


class Sealer:
    """Seals and opens values. Holds keys: its representation shows none."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        """The first of `secrets` seals, all open. Raises KvmError for none or one below 32 bytes."""
        if not secrets:
            raise KvmError(f"{KEY_VARIABLE}: not set, nor {PEPPER_VARIABLE}; set one to at least 32 random bytes")
        if any(len(secret) < MIN_KEY_BYTES for secret in secrets):
            raise KvmError(f"{KEY_VARIABLE}: expected at least {MIN_KEY_BYTES} bytes in each key; use longer ones")
        self._keys = {key_id: AESGCM(key) for key_id, key in reversed([_derive(secret) for secret in secrets])}
        self._first = _derive(secrets[0])[0]

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Sealer":
        """Make one of the process's environment. Raises KvmError."""
        keys = [part.strip() for part in environ.get(KEY_VARIABLE, "").split(",") if part.strip()]
        return cls([key.encode() for key in (*keys, environ.get(PEPPER_VARIABLE, "")) if key])

    def seal(self, map_name: str, key: str, value: str) -> str:
        """Return `value` sealed for this entry. Raises KvmError if it is too long or no Unicode text."""
        try:
            plain = value.encode()
        except UnicodeEncodeError:
            raise KvmError(
                f"{_shown(map_name, key)}: the value is no Unicode text; encode it, e.g. as base64"
            ) from None
        if len(plain) > MAX_VALUE_BYTES:
            raise KvmError(f"{_shown(map_name, key)}: the value is longer than {MAX_VALUE_BYTES} bytes; shorten it")
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._keys[self._first].encrypt(nonce, plain, _bound(map_name, key))
        return _VERSION + base64.urlsafe_b64encode(self._first + nonce + sealed).decode().rstrip("=")

    def open(self, map_name: str, key: str, sealed: str) -> str:
        """Return the value of a sealed entry. Raises KvmError."""
        raw = _decode(map_name, key, sealed)
        cipher = self._keys.get(raw[:_ID_BYTES])
        if cipher is None:
            text = f"sealed with a key that is not set; add that key to {KEY_VARIABLE}, or set the value again"
            raise KvmError(f"{_shown(map_name, key)}: {text}")
        nonce, body = raw[_ID_BYTES : _ID_BYTES + _NONCE_BYTES], raw[_ID_BYTES + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, body, _bound(map_name, key)).decode()
        except (InvalidTag, UnicodeDecodeError):
            text = "does not open: changed, or sealed for another entry; set the value again"
            raise KvmError(f"{_shown(map_name, key)}: {text}") from None

    def is_current(self, sealed: str) -> bool:
        """Whether the first key sealed it; others should be sealed anew before their key is taken away."""
        try:
            return _decode("", "", sealed)[:_ID_BYTES] == self._first
        except KvmError:
            return False

    def __repr__(self) -> str:
        return f"<Sealer with {len(self._keys)} keys>"


class KeyValueMaps:
    """The maps of one state of the store. Values are opened when they are asked for, and not kept."""

    def __init__(self, sealer: Sealer, documents: Iterable[Document]) -> None:
        """`documents`: of any kind (`Store.snapshot`); key-value maps are picked out."""
        self._sealer = sealer
        self._maps = {
            d.name: KeyValueMap.model_validate(d.body).entries for d in documents if d.kind is Kind.KEY_VALUE_MAP
        }

    def value(self, map_name: str, key: str) -> str | None:
        """Return the plain value of an entry, None if there is none. Raises KvmError if it does not open."""
        sealed = self._maps.get(map_name, {}).get(key)
        return None if sealed is None else self._sealer.open(map_name, key, sealed)

    def __contains__(self, map_name: object) -> bool:
        return map_name in self._maps

    def __repr__(self) -> str:
        return f"<KeyValueMaps {', '.join(sorted(self._maps)) or 'none'}>"


def resolve(settings: Any, value: Value) -> Any:
    """Return `settings` with each `${kvm:map/key}` in its texts replaced by the entry's value.

    Keys of objects stay as they are, and values are not looked through again. Raises KvmError with all problems.
    """
    problems: list[str] = []
    resolved = _resolve(settings, value, "", problems)
    if problems:
        raise KvmError("\n".join(problems))
    return resolved


def references(settings: Any) -> set[tuple[str, str]]:
    """Return (map, key) of all entries that `settings` refer to (well-formed ones)."""
    found: set[tuple[str, str]] = set()
    for text in _texts(settings):
        for match in _REFERENCE.finditer(text):
            names = _NAMES.fullmatch(match[1])
            if names and match[0].endswith("}"):
                found.add((names[1], names[2]))
    return found


def read_settings(model: type[M], settings: Mapping[str, Any], value: Value) -> M:
    """Resolve `settings` and read them into `model`. Raises KvmError with all problems, none of which shows a value.

    Errors of pydantic quote what they refuse: where that came from a map, only the place is named.
    """
    resolved = resolve(settings, value)
    try:
        return model.model_validate(resolved)
    except ValidationError as error:
        texts = [_problem(settings, dict(detail)) for detail in error.errors(include_url=False, include_input=False)]
        raise KvmError("\n".join(texts)) from None


def _problem(settings: Mapping[str, Any], detail: Mapping[str, Any]) -> str:
    here: Any = settings
    path = ""
    for part in detail["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
        if isinstance(here, (Mapping, list)):
            try:
                here = here[part]
            except (KeyError, IndexError, TypeError):
                pass  # a key that is missing, or the name of an alternative: what is above may be to blame
    if any("${kvm:" in text for text in _texts(here)):
        return f"{path or 'settings'}: the entry that stands here does not fit; correct its value"
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"{path or 'settings'}: {message[:1].lower()}{message[1:]}; correct it"


def _resolve(settings: Any, value: Value, path: str, problems: list[str]) -> Any:
    if isinstance(settings, str):
        return _replace(settings, value, path, problems) if "${kvm:" in settings else settings
    if isinstance(settings, Mapping):
        below = f"{path}." if path else ""
        return {key: _resolve(item, value, f"{below}{key}", problems) for key, item in settings.items()}
    if isinstance(settings, list):
        return [_resolve(item, value, f"{path}[{index}]", problems) for index, item in enumerate(settings)]
    return settings


def _replace(text: str, value: Value, path: str, problems: list[str]) -> str:
    def found(match: re.Match[str]) -> str:
        names = _NAMES.fullmatch(match[1])
        if names is None or not match[0].endswith("}"):
            problems.append(f"{path}: expected ${{kvm:map/key}}, found {match[0][:60]!r}; correct the reference")
            return ""
        try:
            plain = value(names[1], names[2])
        except KvmError as error:
            problems.append(f"{path}: {error}")
            return ""
        if plain is None:
            problems.append(f"{path}: {_shown(names[1], names[2])} does not exist; add the entry or correct the name")
            return ""
        return plain

    return _REFERENCE.sub(found, text)


def _texts(settings: Any) -> Iterator[str]:
    if isinstance(settings, str):
        yield settings
    elif isinstance(settings, Mapping):
        for item in settings.values():
            yield from _texts(item)
    elif isinstance(settings, list):
        for item in settings:
            yield from _texts(item)


def _derive(secret: bytes) -> tuple[bytes, bytes]:
    """Return the id of a secret's key, and the key."""
    made = HKDF(SHA256(), 32 + _ID_BYTES, salt=None, info=b"penstock key-value maps v1").derive(secret)
    return made[32:], made[:32]


def _bound(map_name: str, key: str) -> bytes:
    return f"{map_name}\0{key}".encode()


def _shown(map_name: str, key: str) -> str:
    return f"key-value map {map_name!r}, entry {key!r}"


def _decode(map_name: str, key: str, sealed: str) -> bytes:
    try:
        if not sealed.startswith(_VERSION):
            raise ValueError
        text = sealed[len(_VERSION) :]
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if len(raw) < _ID_BYTES + _NONCE_BYTES + _TAG_BYTES:
            raise ValueError
    except (ValueError, binascii.Error):
        text = "is no sealed value; set it over the admin API or with `penstock`, which seal it"
        raise KvmError(f"{_shown(map_name, key)}: {text}") from None
    return raw
