"""Policies at work: one for equal settings, made anew when an entry of a key-value map changes that it was made of."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from services.apimgmt import kvm
from services.apimgmt.domain import PolicyUse
from services.apimgmt.policies.api import Policy, Tools


@dataclass(frozen=True, slots=True)
class _Made:
    policy: Policy[Any]
    seen: Mapping[tuple[str, str], bytes]
    """Entries that it was made of -> digest of the value."""


class Instances:
    """The policies of one state of all chains; takes over from the state before what has not changed."""

    def __init__(
        self, registry: Mapping[str, type[Policy[Any]]], tools: Tools, before: "Instances | None" = None
    ) -> None:
        self._registry, self._tools = registry, tools
        self._before: Mapping[tuple[str, bytes], _Made] = dict(before._made) if before is not None else {}
        self._made: dict[tuple[str, bytes], _Made] = {}

    @property
    def policies(self) -> Sequence[Policy[Any]]:
        """All of them."""
        return [made.policy for made in self._made.values()]

    def get(self, use: PolicyUse) -> Policy[Any]:
        """Return the policy of a use: one that is there, or a new one.

        Raises:
            ValidationError, ValueError: settings that cannot work. KeyError: there is no such policy.
        """
        key = (use.policy, orjson.dumps(use.settings, option=orjson.OPT_SORT_KEYS))
        made = self._made.get(key)
        if made is None:
            made = self._before.get(key)
            if made is None or any(self._digest(*entry) != seen for entry, seen in made.seen.items()):
                made = self._make(use)
            self._made[key] = made
        return made.policy

    def _make(self, use: PolicyUse) -> _Made:
        seen: dict[tuple[str, str], bytes] = {}

        def value(name: str, key: str) -> str | None:
            found = self._tools.value(name, key)
            seen[name, key] = _digest_of(found)
            return found

        cls = self._registry[use.policy]
        if kvm.references(use.settings):
            settings = kvm.read_settings(cls.settings_model, use.settings, value)
        else:
            settings = cls.settings_model.model_validate(use.settings)
        policy = cls(settings, replace(self._tools, value=value))
        return _Made(policy, dict(seen))

    def _digest(self, name: str, key: str) -> bytes:
        try:
            return _digest_of(self._tools.value(name, key))
        except ValueError:  # it does not open any more
            return b"unreadable"


def _digest_of(value: str | None) -> bytes:
    return b"" if value is None else hashlib.sha256(value.encode("utf-8", "surrogateescape")).digest()
