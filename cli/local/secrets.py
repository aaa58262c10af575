"""Values of Secrets that callouts and stores ask for: made once on this machine, kept in the environment's folder."""

import json
import os
import secrets
from pathlib import Path

_BYTES = 32


def write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)


class LocalSecrets:
    """The values in `path`. A missing one is made and kept, so that keys and counters outlive a restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._values: dict[str, str] = json.loads(path.read_text())
        except FileNotFoundError:
            self._values = {}

    def get(self, name: str, key: str) -> str:
        """Return the value of `key` in the Secret `name`."""
        place = f"{name}/{key}"
        if place not in self._values:
            self._values[place] = secrets.token_urlsafe(_BYTES)
            write_private(self._path, json.dumps(self._values, indent=1))
        return self._values[place]
