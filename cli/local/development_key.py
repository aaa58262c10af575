"""The key that `penstock local up` makes for the person at this machine."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.local.secrets import write_private

TOKEN_FILE = "admin-token"  # noqa: S105 - a file's name
"""Holds the first administrator's bearer token, for `penstock keys --env ...`."""

_KEY_FILE = "development-key"
_ORGANIZATION, _TEAM, _DEVELOPER, _APP = "local", "local", "developer", "laptop"
"""Made where the environment declares no app of its own."""
_TIMEOUT_S = 10
_PAGE = 100


class DevelopmentKeyError(Exception):
    """The key could not be made; the text says why."""


def development_key(admin_url: str, token: str, folder: Path, apps: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Return a key that opens the environment, and whose it is: what `folder` keeps while it is good, or a new one.

    It belongs to the first of the declared `apps`, or to one made for it that has every product.
    Raises DevelopmentKeyError.
    """
    client = _Client(admin_url, token)
    write_private(folder / TOKEN_FILE, token)
    app = next(iter(apps), None) or _make_app(client)
    owner = f"{app['organization']}/{app['developer']}"
    path = f"organizations/{app['organization']}/apps/{app['name']}/keys"
    kept = folder / _KEY_FILE
    if kept.exists():
        key = kept.read_text().strip()
        good = [found["id"] for found in client.list(path) if not found.get("revoked") and not found.get("expires")]
        if any(f"_{key_id}_" in key for key_id in good):
            return key, owner
    made = client.ask("POST", path, {"displayName": "development"})
    write_private(kept, str(made["key"]))
    return str(made["key"]), owner


def _make_app(client: "_Client") -> Mapping[str, Any]:
    products = [{"product": found["name"], "status": "approved"} for found in client.list("products")]
    if not products:
        raise DevelopmentKeyError(
            "no API product is declared, so no key could open anything; declare one in `apiManagement`"
        )
    place = f"organizations/{_ORGANIZATION}"
    client.put(place, {"displayName": "This machine"})
    client.put(f"{place}/teams/{_TEAM}", {})
    client.put(f"{place}/developers/{_DEVELOPER}", {"team": _TEAM})
    app = {"team": _TEAM, "developer": _DEVELOPER, "products": products}
    client.put(f"{place}/apps/{_APP}", app)
    return {"organization": _ORGANIZATION, "name": _APP, "developer": _DEVELOPER}


class _Client:
    """The admin API, as far as it is needed here."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url.rstrip("/"), token

    def list(self, path: str) -> list[dict[str, Any]]:
        """Return the items of a collection."""
        found: list[dict[str, Any]] = self.ask("GET", f"{path}?limit={_PAGE}")["items"]
        return found

    def put(self, path: str, body: dict[str, Any]) -> None:
        """Create something unless it is there."""
        try:
            self.ask("PUT", path, body, {"if-none-match": "*"})
        except urllib.error.HTTPError as error:
            if error.code != 412:  # there already
                raise DevelopmentKeyError(f"{path}: the admin API answered {error.code}") from None

    def ask(
        self, method: str, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Send one request. Raises HTTPError for a status of 400 and above."""
        data = None if body is None else json.dumps(body).encode()
        wanted = {"authorization": f"Bearer {self._token}", "content-type": "application/json", **(headers or {})}
        request = urllib.request.Request(f"{self._url}/admin/v1/{path}", data, wanted, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - of this machine
            found: dict[str, Any] = json.load(answer)
        return found
