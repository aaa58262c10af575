"""A portal with people, apps, keys and use, served over HTTP; and a gateway for its try-it page."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from services.apimgmt import declared, keys, windows
from services.apimgmt.admin.app import create_app
from services.apimgmt.admin.context import AdminContext
from services.apimgmt.admin.server import start_admin_server
from services.apimgmt.domain import App, KeyPurpose, KeyRecord, Kind
from services.apimgmt.portal.app import router
from services.apimgmt.settings import Settings
from services.apimgmt.store import open_store
from services.apimgmt.store.api import Change, Charge, Reservation, Settlement

NOW = 1_790_000_000
PEPPER = b"p" * 32
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
TOKEN = re.compile(r'name="token" value="([0-9a-f]{64})"')

DECLARED: dict[str, Any] = {
    "limits": [
        {"name": "per-key", "scope": "key", "kind": "requests", "amount": 60, "window": "minute"},
        {"name": "team-tokens", "scope": "team", "kind": "tokens", "amount": 2_000_000, "window": "day"},
        {"name": "team-money", "scope": "team", "kind": "cost", "amount": 250_000_000, "window": "month"},
        {"name": "at-once", "scope": "user", "kind": "concurrent", "amount": 4},
        {"name": "rolling", "scope": "model", "kind": "tokens", "amount": 500_000, "window": "hour", "rolling": True},
    ],
    "ratePlans": [
        {
            "name": "standard",
            "prices": {"prompt": 500_000, "cached": 100_000, "completion": 1_500_000},
            "freeTokens": 1_000_000,
        }
    ],
    "organizations": [{"name": "acme", "ratePlan": "standard"}, {"name": "other"}],
    "teams": [
        {"name": "research", "organization": "acme", "limits": ["team-tokens", "team-money"]},
        {"name": "support", "organization": "acme"},
        {"name": "research", "organization": "other"},
    ],
    "developers": [
        {"name": "root@acme", "organization": "acme", "team": "research", "role": "admin"},
        {"name": "lead@acme", "organization": "acme", "team": "research", "role": "teamLead"},
        {"name": "ada@acme", "organization": "acme", "team": "research"},
        {"name": "new@acme", "organization": "acme", "team": "research"},
        {"name": "bob@acme", "organization": "acme", "team": "support"},
        {"name": "eve@other", "organization": "other", "team": "research"},
    ],
    "products": [
        {
            "name": "chat",
            "displayName": "Chat models",
            "description": "General models for chat and tools, for everybody.",
            "models": ["llama-3-8b", "qwen-32b"],
            "operations": ["/v1/chat/completions", "/v1/responses"],
            "limits": ["per-key", "at-once", "rolling"],
            "maxOutputTokens": 4096,
        },
        {"name": "large", "displayName": "Large models", "models": ["big-405b"], "approval": "manual"},
        {"name": "hostile", "displayName": HOSTILE, "description": HOSTILE, "models": [HOSTILE]},
        {"name": "secret", "models": ["hidden-model"], "public": False},
    ],
}


class World:
    """A running portal. `now` is its clock."""

    def __init__(self, context: AdminContext) -> None:
        self.context, self.now = context, NOW
        self.seen: list[dict[str, Any]] = []
        """Requests that reached the gateway: headers and body."""
        self.endless = 0
        """Streams of the model `endless` that the gateway is sending."""
        self._booked = 0

    async def personal(self, developer: str) -> str:
        """Make a personal key; return the key itself."""
        plain, record = keys.issue(
            PEPPER,
            organization=developer.partition("@")[2],
            developer=developer,
            purpose=KeyPurpose.PERSONAL,
            display_name="notebook",
            now=self.now,
        )
        await self.context.store.put_keys([record], [], new=True)
        return plain

    async def app(self, name: str, developer: str = "ada@acme", **more: Any) -> App:
        organization = developer.partition("@")[2]
        team = "support" if developer.startswith("bob") else "research"
        body = {"name": name, "organization": organization, "team": team, "developer": developer, **more}
        app = App.model_validate(body)
        change = Change(Kind.APP, organization, name, app.model_dump(mode="json", by_alias=True))
        await self.context.store.change([change], [])
        return app

    async def key(self, app: App, label: str = "", **more: Any) -> tuple[str, KeyRecord]:
        plain, record = keys.issue(
            PEPPER,
            organization=app.organization,
            developer=app.developer,
            app=app.name,
            display_name=label,
            now=self.now - 86_400,
            **more,
        )
        await self.context.store.put_keys([record], [], new=True)
        return plain, record

    async def use(self, app: App, key: str, days_ago: int, **more: Any) -> None:
        """Book one request."""
        time = self.now - days_ago * 86_400
        self._booked += 1
        record = {
            "id": f"{time}-{self._booked}",
            "time": time * 1000,
            "organization": app.organization,
            "team": app.team,
            "user": app.developer,
            "app": app.name,
            "key": key,
            "product": "chat",
            "model": "llama-3-8b",
            "agent": "",
            "outcome": "ok",
            "promptTokens": 1000,
            "cachedTokens": 200,
            "completionTokens": 400,
            "reasoningTokens": 0,
            "costMicros": 1020,
            "latencyMs": 800,
            "estimated": False,
            **more,
        }
        done = Settlement(record["id"], app.organization, time, [], [], json.dumps(record).encode(), record)
        await self.context.store.settle(done)

    async def count(self, limit: str, counter: str, amount: int) -> None:
        """Have `amount` used of a limit now."""
        found = next(one for one in self.context.settings.limits if one.name == limit)
        span = windows.span(found, self.now)
        charge = Charge(counter, span.slot, span.slots, span.expires, amount, found.amount)
        name = f"{counter}-{amount}"
        await self.context.store.renew("tests", self.now + 3600)
        organization = counter.partition("|")[0]
        held = Reservation(name, organization, "tests", self.now, [charge], [], b"{}", [0])
        assert (await self.context.store.reserve(held)).granted


class Browser:
    """A person at the portal, without script: follows no redirect by itself, keeps cookies."""

    def __init__(self, url: str) -> None:
        self.client = httpx.AsyncClient(base_url=url, timeout=20)

    async def get(self, path: str, status: int = 200) -> str:
        answer = await self.client.get(path)
        assert answer.status_code == status, (answer.status_code, answer.text[:300])
        return answer.text

    async def token(self, path: str = "/portal/") -> str:
        return TOKEN.findall(await self.get(path))[0]

    async def post(self, path: str, origin: str = "/portal/", **fields: str) -> httpx.Response:
        return await self.client.post(path, data={"token": await self.token(origin), **fields})

    async def sign_in(self, key: str) -> httpx.Response:
        return await self.post("/portal/sign-in", "/portal/sign-in", key=key)


@asynccontextmanager
async def serve(folder: Path, *, gateway: bool = False, **changes: Any) -> AsyncIterator[tuple[World, str]]:
    """Serve a portal on a free port; with `gateway` also what its try-it page calls."""
    async with AsyncExitStack() as stack:
        upstream = FastAPI()
        portal: dict[str, Any] = {"title": "Penstock"}
        if gateway:
            server = await start_admin_server(upstream, "127.0.0.1", 0, None)
            stack.push_async_callback(server.close)
            portal["endpoint"] = f"http://127.0.0.1:{server.port}"
        store_settings = {"kind": "sqlite", "path": str(folder / "store.db")}
        settings = Settings.model_validate({"store": store_settings, **DECLARED, "portal": portal, **changes})
        store = open_store(settings.store, {})
        await store.open()
        stack.push_async_callback(store.close)
        await declared.apply(store, settings, NOW)
        world = World(AdminContext(store, settings, PEPPER, lambda: float(world.now)))
        _route(upstream, world)
        server = await start_admin_server(create_app(world.context, [router]), "127.0.0.1", 0, None)
        stack.push_async_callback(server.close)
        yield world, f"http://127.0.0.1:{server.port}"


def _route(upstream: FastAPI, world: World) -> None:
    """Answer like a gateway with a model behind it: `Hello from the model`, an error for the key `psk_wrong`."""

    @upstream.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.json()
        world.seen.append({"headers": dict(request.headers), "body": body})
        if request.headers.get("authorization") == "Bearer psk_wrong":
            error = {"message": "The API key is not valid.", "type": "invalid_request_error", "code": "invalid_api_key"}
            return JSONResponse({"error": error}, 401)
        usage = {"prompt_tokens": 12, "completion_tokens": 4, "total_tokens": 16}
        words = ["Hello", " from", " the", " model"]
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": "".join(words)}}
            return JSONResponse({"choices": [choice], "usage": usage})

        async def events() -> AsyncIterator[str]:
            if body["model"] == "endless":
                world.endless += 1
                try:
                    while True:
                        yield ": wait\n\n"
                        await asyncio.sleep(0.01)
                finally:
                    world.endless -= 1
            for word in words:
                yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': word}}]})}\n\n"
            yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")


def size_on(day: int) -> int:
    """Tokens of a prompt so many days ago."""
    return 3_000 + (day * 7919) % 17 * 800


def requests_on(day: int) -> int:
    """Requests of `support-bot` so many days ago."""
    return 1 + (day * 7919) % 13 // 3


async def furnish(world: World) -> tuple[App, list[tuple[str, KeyRecord]]]:
    """Give ada two apps with keys, and a month of use."""
    chat = [{"product": "chat", "status": "approved"}]
    bot = await world.app("support-bot", displayName="Support bot", products=chat)
    pending = {"product": "large", "status": "pending"}
    search = await world.app("doc-search", displayName="Search in documents", products=[*chat, pending])
    made = [await world.key(bot, "production"), await world.key(bot, "laptop", expires=NOW + 20 * 86_400)]
    made.append(await world.key(search, "batch"))
    await world.context.store.touch({made[0][1].id: NOW - 300})
    for day in range(28):
        size = size_on(day)
        tokens = {"promptTokens": size, "cachedTokens": size // 4, "completionTokens": size // 3}
        for _ in range(requests_on(day)):
            await world.use(bot, made[0][1].id, day, costMicros=size * 4, **tokens)
        if day % 3 == 0:
            more = {"model": "qwen-32b", "reasoningTokens": size // 8}
            await world.use(search, made[2][1].id, day, costMicros=size * 2, **tokens, **more)
    await world.use(bot, made[0][1].id, 1, outcome="refused", promptTokens=0, cachedTokens=0, completionTokens=0)
    await world.count("per-key", f"acme|per-key|key:{made[0][1].id}", 12)
    await world.count("team-tokens", "acme|team-tokens|team:research", 1_720_000)
    await world.count("team-money", "acme|team-money|team:research", 250_000_000)
    await world.count("rolling", "acme|rolling|model:|llama-3-8b", 141_300)
    return bot, made
