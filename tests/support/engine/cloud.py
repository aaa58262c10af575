"""The state of a made-up cloud: one JSON file that providers, controllers and tests share.

It refuses what a cloud refuses of any resource: a second one with the same identifier, a reference to one that does
not exist, and the deletion of one that another still refers to.
"""

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.engine.provider import Refused

COMPUTE = "https://www.googleapis.com/compute/v1/"
_URI = re.compile(
    r"projects/[^/]+/(?:global|(?:regions|zones)/[^/]+)/"
    r"(addresses|forwardingRules|networks|routers|securityPolicies|serviceAttachments|subnetworks)/[^/]+"
)
"""References to resources whose existence is checked."""

Entry = dict[str, Any]


@dataclass(frozen=True)
class Cloud:
    """Handle of the state in `folder`, which has to exist.

    An entry is `{"type", "inputs", "outputs", "references"}` by identifier, the last being what it must not outlive.
    """

    folder: Path

    def entries(self) -> dict[str, Entry]:
        """Return a copy of everything that exists."""
        with self._locked() as entries:
            return entries

    def seed(self, identifiers: Iterable[str]) -> None:
        """Let resources exist that nobody here declares, such as the networks of consumers."""
        with self._locked() as entries:
            for identifier in identifiers:
                entries.setdefault(identifier, {"type": "", "inputs": {}, "outputs": {}, "references": []})

    def add(self, identifier: str, entry: Mapping[str, Any]) -> None:
        """Create a resource.

        Raises:
            Refused: it exists, or refers to something that does not.
        """
        with self._locked() as entries:
            if identifier in entries:
                raise Refused(f"Error 409: the resource `{identifier}` already exists")
            _need(entries, entry["references"])
            entries[identifier] = dict(entry)

    def replace(self, identifier: str, entry: Mapping[str, Any]) -> None:
        """Change a resource that exists."""
        with self._locked() as entries:
            if identifier not in entries:
                raise Refused(f"Error 404: the resource `{identifier}` was not found")
            _need(entries, entry["references"])
            entries[identifier] = dict(entry)

    def remove(self, identifier: str) -> None:
        """Delete a resource; one that does not exist is no error.

        Raises:
            Refused: another one refers to it.
        """
        with self._locked() as entries:
            users = sorted(name for name, entry in entries.items() if identifier in entry["references"])
            if users and identifier in entries:
                raise Refused(f"Error 400: `{identifier}` is already being used by `{users[0]}`")
            entries.pop(identifier, None)

    def hold(self, name: str, moment: str) -> None:
        """Wait while a file `<name>.<moment>` exists, and tell that it came to that with `<name>.<moment>.reached`.

        Args:
            name: logical name of a resource.
            moment: "before" or "after" it is created in the cloud.
        """
        gate = self.folder / f"{name}.{moment}"
        if gate.exists():
            gate.with_name(f"{gate.name}.reached").touch()
        while gate.exists():
            time.sleep(0.05)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[dict[str, Entry]]:
        file = self.folder / "cloud.json"
        with (self.folder / "cloud.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            text = file.read_text() if file.exists() else "{}"
            entries: dict[str, Entry] = json.loads(text)
            yield entries
            after = json.dumps(entries, indent=1)
            if after != text:
                partial = file.with_suffix(f".{os.getpid()}")
                partial.write_text(after)
                partial.replace(file)


def references(values: Any) -> set[str]:
    """Return the identifiers of all resources that `values` names by URI."""
    if isinstance(values, Mapping):
        return set().union(*map(references, values.values())) if values else set()
    if isinstance(values, list):
        return set().union(*map(references, values)) if values else set()
    if not isinstance(values, str):
        return set()
    path = values.removeprefix(COMPUTE)
    return {path} if _URI.fullmatch(path) else set()


def _need(entries: Mapping[str, Entry], wanted: list[str]) -> None:
    missing = sorted(set(wanted) - entries.keys())
    if missing:
        raise Refused(f"Error 404: the resource `{missing[0]}` was not found")
