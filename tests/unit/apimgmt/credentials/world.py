"""A small installation, clocks that tests set, and calls as the pipeline makes them."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson

from services.apimgmt import identity, keys
from services.apimgmt.call import Call
from services.apimgmt.directory import Directory
from services.apimgmt.domain import App, Developer, Group, KeyRecord, Limit, Organization, Product, RatePlan, Team
from services.apimgmt.policies.access import AccessPolicy, AccessSettings
from services.apimgmt.policies.api import Tools
from services.apimgmt.policies.credentials import CredentialsPolicy, CredentialsSettings
from services.extproc.api import Answer, Exchange, Headers, Reply
from tests.support.apimgmt_store import MemoryStore

PEPPER = b"a pepper for tests, of enough bytes"
NOW = 1_800_000_000.0
CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
CLIENT = "client-of-chat"


class Clock:
    """Time that stands still until it is set."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def limit(name: str, scope: str, **more: Any) -> Limit:
    return Limit(name=name, scope=scope, **{"kind": "requests", "amount": 10, "window": "minute", **more})


def entities() -> list[Any]:
    return [
        Organization(name="acme", limits=["org-day"], rate_plan="standard"),
        Team(name="search", organization="acme", limits=["team-day"]),
        Developer(name="ada@example.com", organization="acme", team="search", limits=["user-day"]),
        Group(name="shared", organization="acme", teams=["search"], limits=["group-day"]),
        RatePlan(name="standard"),
        *(limit(f"{s}-day", scope) for s, scope in (("org", "organization"), ("team", "team"), ("user", "user"))),
        limit("group-day", "group"),
        limit("key-minute", "key"),
        limit("model-minute", "model", models=["gemma"]),
        Product(name="basic", models=["gemma"], operations=[CHAT], limits=["key-minute", "model-minute"]),
        Product(name="all", models=["*"], limits=["key-minute"]),
        Product(name="vectors", models=["embedder"], operations=[EMBEDDINGS]),
        Product(name="secret", models=["big"]),
        App(
            name="chat",
            organization="acme",
            team="search",
            developer="ada@example.com",
            oauth_client_id=CLIENT,
            products=[
                {"product": "basic"},
                {"product": "vectors"},
                {"product": "secret", "status": "pending"},
                {"product": "all", "status": "revoked"},
            ],
        ),
    ]


class World:
    """What a test works with."""

    def __init__(self, store: MemoryStore, directory: Directory, clock: Clock, monotonic: Clock) -> None:
        self.store, self.directory, self.clock, self.monotonic = store, directory, clock, monotonic
        extras = {"directory": directory, "clock": clock, "monotonic": monotonic}
        self.tools = Tools(store, lambda _map, _key: None, lambda _work: None, extras)

    def issue(self, **more: Any) -> tuple[str, KeyRecord]:
        """Make and store a key of the app."""
        whose = {"organization": "acme", "developer": "ada@example.com", "app": "chat", "now": self.clock.now}
        plain, record = keys.issue(PEPPER, **{**whose, **more})
        self.store.put_key(record)
        return plain, record

    async def find(self, text: str) -> Any:
        """Ask the directory, and wait if it has to."""
        found = self.directory.find_key(text)
        return await found if inspect.isawaitable(found) else found

    def credentials(self, **settings: Any) -> CredentialsPolicy:
        return CredentialsPolicy(CredentialsSettings.model_validate(settings), self.tools)

    def access(self) -> AccessPolicy:
        return AccessPolicy(AccessSettings(), self.tools)


@asynccontextmanager
async def world(**more: Any) -> AsyncIterator[World]:
    store, clock, monotonic = MemoryStore(*entities()), Clock(), Clock(1000.0)
    options: Mapping[str, Any] = {"monotonic": monotonic, "poll_s": 3600.0, **more}
    directory = Directory(store, PEPPER, clock, **options)
    await directory.start()
    try:
        yield World(store, directory, clock, monotonic)
    finally:
        await directory.stop()


def call(*headers: tuple[str, str], model: str = "gemma", path: str = CHAT, method: str = "POST") -> Call:
    exchange = Exchange()
    model_header = [("x-gateway-model-name", model)] if model else []
    items = [(":method", method), (":path", path), *model_header, *headers]
    exchange.request_headers = Headers([(k, v.encode("utf-8", "surrogateescape")) for k, v in items])
    made = Call(exchange, "id", NOW, 0.0)
    identity.clean(exchange)
    return made


async def answer(found: Answer) -> Reply | None:
    return await found if inspect.isawaitable(found) else found


def error(reply: Reply | None) -> dict[str, Any]:
    """Return the error in a reply, after a look at its shape."""
    assert reply is not None
    body = orjson.loads(reply.body)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert reply.headers["content-type"] == "application/json"
    return {"status": reply.status, "reason": reply.details, "headers": reply.headers, **body["error"]}


async def until(condition: Callable[[], Any], seconds: float = 2.0) -> None:
    """Wait until a condition holds."""
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the condition did not come true")
