from pathlib import Path
from typing import Any

import httpx

from services.apimgmt import keys
from services.apimgmt import settings as settings_
from services.apimgmt.admin.context import AdminContext
from services.apimgmt.domain import KeyPurpose
from services.apimgmt.settings import Settings

NOW = 1_790_000_000
PEPPER = b"p" * 32
TOKEN = "t" * 40
ORGANIZATION = "/admin/v1/organizations/acme"

DECLARED: dict[str, Any] = {
    "limits": [{"name": "burst", "scope": "key", "kind": "requests", "amount": 100, "window": "minute"}],
    "ratePlans": [{"name": "standard", "prices": {"prompt": 1, "completion": 2}}],
    "organizations": [{"name": "acme", "limits": ["burst"], "ratePlan": "standard"}, {"name": "other"}],
    "teams": [
        {"name": "research", "organization": "acme"},
        {"name": "support", "organization": "acme"},
        {"name": "research", "organization": "other"},
    ],
    "developers": [
        {"name": "root@acme", "organization": "acme", "team": "research", "role": "admin"},
        {"name": "lead@acme", "organization": "acme", "team": "research", "role": "teamLead"},
        {"name": "ada@acme", "organization": "acme", "team": "research"},
        {"name": "bob@acme", "organization": "acme", "team": "support"},
        {"name": "eve@other", "organization": "other", "team": "research"},
    ],
    "products": [
        {"name": "chat", "models": ["*"]},
        {"name": "gated", "models": ["big"], "approval": "manual"},
        {"name": "secret", "models": ["hidden"], "public": False},
    ],
    "keyValueMaps": [{"name": "tickets"}],
}


def sqlite(folder: Path) -> settings_.SqliteStore:
    return settings_.SqliteStore(kind="sqlite", path=str(folder / "store.db"))


def settings(folder: Path, **changes: Any) -> Settings:
    return Settings.model_validate({"store": sqlite(folder).model_dump(), **DECLARED, **changes})


class Api:
    """Calls the API as one of several people; `now` is its clock."""

    def __init__(self, context: AdminContext) -> None:
        self.context, self.now = context, NOW
        self._tokens = {"admin": TOKEN}

    async def connect(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.AsyncClient(base_url=self.url)

    async def close(self) -> None:
        await self.client.aclose()

    async def personal_key(self, developer: str) -> str:
        if developer not in self._tokens:
            plain, record = keys.issue(
                PEPPER,
                organization=developer.partition("@")[2],
                developer=developer,
                purpose=KeyPurpose.PERSONAL,
                now=self.now,
            )
            await self.context.store.put_keys([record], [], new=True)
            self._tokens[developer] = plain
        return self._tokens[developer]

    async def call(self, who: str, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask as `admin` (the token), or as a developer by a personal key."""
        token = await self.personal_key(who)
        headers = {"authorization": f"Bearer {token}", **more.pop("headers", {})}
        return await self.client.request(method, path, headers=headers, **more)

    async def put(self, who: str, path: str, body: Any, etag: str | None = None) -> httpx.Response:
        return await self.call(who, "PUT", path, json=body, headers={"if-match": etag} if etag else {})

    async def app(self, owner: str = "ada@acme", name: str = "bot", **body: Any) -> httpx.Response:
        """Make an app of `owner` as that developer."""
        team = {"bob@acme": "support"}.get(owner, "research")
        organization = owner.partition("@")[2]
        path = f"/admin/v1/organizations/{organization}/apps/{name}"
        answer = await self.put(owner, path, {"team": team, "developer": owner, **body})
        assert answer.status_code == 201, answer.text
        return answer
