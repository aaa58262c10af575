"""A running stack with its API management: tenants are made over the admin API, books are read from the ledger."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import httpx2
import yaml
from openai import OpenAI

from services.apimgmt import windows
from services.apimgmt.call import BoundLimit
from services.apimgmt.charging import charge
from services.apimgmt.domain import Limit
from services.apimgmt.settings import Settings
from services.apimgmt.store import open_store
from tests.dataplane.apimgmt.declaration import ALPHA, config_file, is_management
from tests.support.stack import Stack, eventually

ADMIN_PORT = 9010
CHARGED = ("ok", "aborted", "lost", "cached")
CHAT = "/v1/chat/completions"

_numbers = itertools.count(1)


def chat(words: str = "Say hello.", *, model: str = ALPHA, max_tokens: int = 5, **more: Any) -> dict[str, Any]:
    """Return the body of a chat request."""
    return {"model": model, "messages": [{"role": "user", "content": words}], "max_tokens": max_tokens, **more}


@dataclass
class Tenant:
    """An organization with one team, one person, one app and its key: nobody else's use is counted with it."""

    managed: "Managed"
    name: str
    key: str
    key_id: str
    limits: Mapping[str, Limit]
    """By the name that the test gave; stored as `<tenant>-<name>`."""

    def http(self, key: str | None = None) -> httpx.AsyncClient:
        """Return a client of the gateway with the tenant's key, or another."""
        return self.managed.http(key or self.key)

    @contextmanager
    def openai(self) -> Iterator[OpenAI]:
        """Yield the real client, which does not retry."""
        with self.managed.openai(self.key) as client:
            yield client

    def records(self, **where: Any) -> list[dict[str, Any]]:
        """Return the tenant's ledger records in writing order."""
        found = [r for r in self.managed.records() if r["organization"] == self.name and r["app"] != "probe"]
        return [r for r in found if all(r[name] == value for name, value in where.items())]

    async def recorded(self, number: int, **where: Any) -> list[dict[str, Any]]:
        """Return the tenant's records when there are `number`; fails if there are more, or not so many in time."""

        async def there() -> bool:
            return len(self.records(**where)) >= number

        await eventually(there, f"{number} records of {self.name}")
        found = self.records(**where)
        assert len(found) == number, [(r["outcome"], r["operation"]) for r in found]
        return found

    async def totals(self) -> dict[str, int]:
        """Return used and held by the test's names of limits: those of organization, team, user, key and groups."""
        subjects = {"key": f"key:{self.key_id}", "user": "user:ada", "team": "team:red", "organization": ""}
        charges = []
        spans = windows.spans(time.time())
        for limit in self.limits.values():
            subject = subjects.get(limit.scope.value, f"{limit.scope.value}:both")
            bound = BoundLimit(limit, f"{self.name}|{limit.name}|{subject}", None)
            charges.append(charge(bound, "", 0, spans))
        store = open_store(self.managed.settings.store, self.managed.environ)
        await store.open()
        try:
            return dict(zip(self.limits, await store.totals(charges), strict=True))
        finally:
            await store.close()

    async def balanced(self, seconds: float = 10.0) -> None:
        """Wait until every counter says what the ledger says: nothing is held, nothing counted twice or not at all."""
        seen: list[Any] = []

        async def even() -> bool:
            records = [r for r in self.records() if r["outcome"] in CHARGED]
            sums = {
                "tokens": sum(r["promptTokens"] + r["completionTokens"] for r in records),
                "requests": len(records),
                "cost": sum(r["costMicros"] for r in records),
                "concurrent": 0,
            }
            totals = await self.totals()
            seen[:] = [(name, totals[name], sums[limit.counts.value]) for name, limit in self.limits.items()]
            return all(found == expected for _, found, expected in seen)

        try:
            await eventually(even, "counters and ledger are even", seconds)
        except AssertionError:
            raise AssertionError(f"(limit, counter, ledger): {seen}") from None


BOOKS: Sequence[Mapping[str, Any]] = (
    {"name": "tokens", "scope": "organization", "kind": "tokens", "amount": 10**9, "window": "month"},
    {"name": "requests", "scope": "team", "kind": "requests", "amount": 10**6, "window": "month"},
    {"name": "money", "scope": "user", "kind": "cost", "amount": 10**12, "window": "month"},
    {"name": "at-once", "scope": "key", "kind": "concurrent", "amount": 1000},
)
"""Limits that never bind: they count, so that books can be compared."""


@dataclass
class Managed:
    """See the module's text."""

    stack: Stack
    issuer: Any = None
    settings: Settings = field(init=False)
    environ: Mapping[str, str] = field(init=False)
    admins: list[httpx.Client] = field(init=False)
    """One per pod, with the admin token."""
    _cursor: str = ""
    _records: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pods = [piece.name for piece in self.stack.pieces.values() if is_management(piece)]
        piece = self.stack.pieces[self.pods[0]]
        self.settings = Settings.model_validate(yaml.safe_load(config_file(piece).read_text()))
        self.environ = piece.env
        self.admins = [self.admin_of(name) for name in self.pods]

    def close(self) -> None:
        """Close the clients."""
        for client in self.admins:
            client.close()

    def admin_of(self, pod: str, token: str | None = None) -> httpx.Client:
        """Return a client of a pod's admin API."""
        piece = self.stack.pieces[pod]
        url = f"http://127.0.0.1:{piece.ports[ADMIN_PORT]}/admin/v1"
        headers = {"authorization": f"Bearer {token or piece.env['PENSTOCK_ADMIN_TOKEN']}"}
        return httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=20)

    @property
    def admin(self) -> httpx.Client:
        """The admin API of the first pod."""
        return self.admins[0]

    def http(self, key: str | None) -> httpx.AsyncClient:
        """Return a client of the gateway."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(base_url=self.stack.url, headers=headers, trust_env=False, timeout=60, limits=limits)

    @contextmanager
    def openai(self, key: str) -> Iterator[OpenAI]:
        """Yield the real client, which does not retry."""
        with (
            httpx2.Client(trust_env=False, timeout=60) as http,
            OpenAI(base_url=f"{self.stack.url}/v1", api_key=key, max_retries=0, http_client=http) as client,
        ):
            yield client

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create or replace a document."""
        before = self.admin.get(path)
        headers = {"if-match": before.headers["etag"]} if before.status_code == 200 else {}
        answer = self.admin.put(path, json=body, headers=headers)
        assert answer.status_code in (200, 201), answer.text
        found: dict[str, Any] = answer.json()
        return found

    def tenant(
        self,
        limits: Sequence[Mapping[str, Any]] = BOOKS,
        *,
        product: Mapping[str, Any] | None = None,
        organization: Mapping[str, Any] | None = None,
        app: Mapping[str, Any] | None = None,
    ) -> Tenant:
        """Make a tenant and wait until its key works. All `limits` are the product's."""
        name = f"t{next(_numbers)}-{time.time_ns() % 10**9}"
        made: dict[str, Limit] = {}
        for limit in limits:
            full = {**limit, "name": f"{name}-{limit['name']}"}
            self.put(f"/limits/{full['name']}", full)
            made[str(limit["name"])] = Limit.model_validate(full)
        names = [limit.name for limit in made.values()]
        self.put(f"/products/{name}", {"models": ["*"], "limits": names, "ratePlan": "plan", **(product or {})})
        base = f"/organizations/{name}"
        self.put(base, organization or {})
        self.put(f"{base}/teams/red", {})
        self.put(f"{base}/developers/ada", {"team": "red"})
        self.put(
            f"{base}/apps/app", {"team": "red", "developer": "ada", "products": [{"product": name}], **(app or {})}
        )
        issued = self.issue(name)
        self._known(name)
        return Tenant(self, name, issued["key"], issued["id"], made)

    def _known(self, name: str) -> None:
        """Wait until every pod has heard of a tenant: ask as an app of the tenant's that no test looks at."""
        product = {"team": "red", "developer": "ada", "products": [{"product": name}]}
        self.put(f"/organizations/{name}/apps/probe", product)
        headers = {"authorization": f"Bearer {self.issue(name, 'probe')['key']}"}
        answered, said, deadline = 0, "", time.monotonic() + 5
        with httpx.Client(base_url=self.stack.url, headers=headers, trust_env=False) as http:
            while answered < 1 + 7 * (len(self.pods) - 1):  # Envoy asks the pods in turn, each worker by itself
                assert time.monotonic() < deadline, f"the tenant {name} did not become known: {said}"
                answer = http.post(CHAT, json=chat(max_tokens=0))
                answered, said = answered + 1 if answer.status_code == 400 else 0, answer.text
                if not answered:
                    time.sleep(0.02)

    def issue(self, organization: str, app: str = "app", **given: Any) -> dict[str, Any]:
        """Issue a key."""
        answer = self.admin.post(f"/organizations/{organization}/apps/{app}/keys", json=given)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def revoke(self, organization: str, key_id: str, *, pod: int = 0, app: str = "app") -> None:
        """Revoke a key through the admin API of a pod."""
        answer = self.admins[pod].post(f"/organizations/{organization}/apps/{app}/keys/{key_id}/revoke")
        assert answer.status_code == 200, answer.text

    def records(self) -> list[dict[str, Any]]:
        """Return all ledger records so far."""
        while True:
            page = self.admin.get("/ledger", params={"after": self._cursor, "limit": 500}).json()
            assert "items" in page, page
            self._records += page["items"]
            if not page["items"] or page["next"] is None:
                return self._records
            self._cursor = page["next"]
