"""API management in one process, on a real SQLite store, spoken to as a proxy does."""

import asyncio
import json
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from services.apimgmt import charging, declared, keys
from services.apimgmt.accounting import Accounting
from services.apimgmt.call import BoundLimit
from services.apimgmt.chain import Chains
from services.apimgmt.directory import Directory
from services.apimgmt.metrics import Metrics
from services.apimgmt.pipeline import ApiManagement
from services.apimgmt.policies.api import Tools
from services.apimgmt.settings import Settings, SqliteStore
from services.apimgmt.store.api import Store
from services.apimgmt.store.sqlite import SqliteStore as Sqlite
from services.apimgmt.usage.estimator import Estimator
from services.apimgmt.windows import spans
from services.extproc.api import Filter
from services.extproc.proto import ext_proc_pb2 as pb
from services.extproc.session import Session
from tests.support.extproc import DUPLEX, body, headers, session

PEPPER = b"p" * 32
NOW = 1_763_730_000.0
"""2025-11-21 13:00:00 UTC: the begin of a minute and of an hour."""

MODEL = "llama"
ANSWER = {
    "choices": [{"message": {"role": "assistant", "content": "hello"}}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
}
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}

BASE: dict[str, Any] = {
    "organizations": [{"name": "acme"}],
    "teams": [{"name": "red", "organization": "acme"}],
    "developers": [{"name": "ada", "organization": "acme", "team": "red"}],
    "apps": [
        {
            "name": "app",
            "organization": "acme",
            "team": "red",
            "developer": "ada",
            "products": [{"product": "std"}],
        }
    ],
    "products": [{"name": "std", "models": ["*"]}],
}


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class World:
    """`async with World(tmp_path, limits=[...])`: the arguments are keys of the config file."""

    store: Store
    directory: Directory
    chains: Chains
    accounting: Accounting
    filter: ApiManagement

    def __init__(self, folder: Path, store: Store | None = None, **settings: Any) -> None:
        where = SqliteStore(kind="sqlite", path=str(folder / "store.db"))
        bound = [limit["name"] for limit in settings.get("limits", ())]
        products = settings.pop("products", [{**BASE["products"][0], "limits": bound}])
        self.settings = Settings.model_validate({"store": where, **BASE, **settings, "products": products})
        self.clock, self.metrics = Clock(), Metrics(CollectorRegistry())
        self._background: set[asyncio.Future[Any]] = set()
        self._sessions: list[Session] = []
        self._store = store

    async def __aenter__(self) -> "World":
        assert isinstance(self.settings.store, SqliteStore)
        self.store = self._store or Sqlite(self.settings.store)
        await self.store.open()
        await declared.apply(self.store, self.settings, int(NOW))
        self.directory = Directory(self.store, PEPPER, self.clock)
        self.key, record = keys.issue(PEPPER, organization="acme", developer="ada", app="app", now=NOW)
        await keys.save_new(self.store, record, actor="test", now=NOW)
        self.key_id = record.id
        await self.directory.start()
        estimator = Estimator(self.settings.estimation)
        extras = {"directory": self.directory, "estimator": estimator}
        self.tools = Tools(self.store, lambda _map, _key: None, self.beside, extras)
        self.chains = Chains(self.tools, self.metrics)
        await self.chains.use(self.settings.policies, self.directory.snapshot.products.values())
        self.accounting = Accounting(self.store, self.metrics, 30, self.clock)
        await self.accounting.start()
        self.filter = ApiManagement(self.chains, self.accounting, estimator, self.metrics, clock=self.clock)
        return self

    async def __aexit__(self, *_: object) -> None:
        for each in self._sessions:
            each.close()
        await self.accounting.stop()
        for task in self._background:
            task.cancel()
        await self.chains.stop()
        await self.directory.stop()
        await self.store.close()

    def beside(self, work: Awaitable[Any]) -> None:
        self._background.add(asyncio.ensure_future(work))

    def session(self, *later: Filter, **limits_: float) -> Session:
        """An exchange that passes API management, then `later`."""
        made = session(self.filter, *later, **limits_)
        self._sessions.append(made)
        return made

    async def request(
        self, opened: Session, data: object = CHAT, *, fields: Mapping[str, str] | None = None
    ) -> list[pb.ProcessingResponse]:
        """Send a request; return the answers to its end."""
        await opened.receive(self.request_headers(fields))
        sent = data if isinstance(data, bytes) else json.dumps(data).encode()
        return await opened.receive(body("request", sent, last=True))

    def request_headers(self, fields: Mapping[str, str] | None = None) -> pb.ProcessingRequest:
        given = {
            ":method": "POST",
            ":path": "/v1/chat/completions",
            "x-gateway-model-name": MODEL,
            "authorization": f"Bearer {self.key}",
            "content-type": "application/json",
            **(fields or {}),
        }
        return headers("request", {k: v for k, v in given.items() if v}, modes=(DUPLEX, DUPLEX))

    async def records(self) -> list[dict[str, Any]]:
        """All ledger records, when everything that ended is written."""
        async with asyncio.timeout(10):
            while self.accounting.pending:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.001)
        _, found = await self.store.ledger("", 10_000)
        return [json.loads(record) for record in found]

    async def totals(self) -> dict[str, int]:
        """Used and held per limit, of the one key, now."""
        lookup = self.directory.find_key(self.key)
        caller: Any = await lookup if isinstance(lookup, Awaitable) else lookup
        bounds: Sequence[BoundLimit] = caller.products[0].limits
        asked = [charging.charge(bound, MODEL, 0, spans(self.clock.now)) for bound in bounds]
        found = await self.store.totals(asked)
        return {bound.limit.name: total for bound, total in zip(bounds, found, strict=True)}


async def answer(opened: Session, data: object = ANSWER, status: int = 200) -> list[pb.ProcessingResponse]:
    """Let the upstream answer with JSON; return the answers to its end."""
    await opened.receive(headers("response", {":status": str(status), "content-type": "application/json"}))
    return await opened.receive(body("response", json.dumps(data).encode(), last=True))


def event(content: str | None = None, usage: Mapping[str, int] | None = None) -> bytes:
    """An event of a chat stream."""
    choices = [] if content is None else [{"index": 0, "delta": {"content": content}}]
    return b"data: " + json.dumps({"id": "x", "choices": choices, "usage": usage}).encode() + b"\n\n"


async def begin_stream(opened: Session) -> None:
    """Let the upstream begin to answer with events."""
    await opened.receive(headers("response", {":status": "200", "content-type": "text/event-stream"}))


def reply(answers: Sequence[pb.ProcessingResponse]) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and error of an immediate response."""
    assert answers[-1].HasField("immediate_response"), answers
    found = answers[-1].immediate_response
    fields = {o.header.key: o.header.raw_value.decode() for o in found.headers.set_headers}
    return found.status.code, fields, json.loads(found.body)


def limit(name: str, kind: str, amount: int, window: str | None = "minute", **more: Any) -> dict[str, Any]:
    """A limit of the key, unless `more` says otherwise."""
    made = {"name": name, "scope": "key", "kind": kind, "amount": amount, **more}
    return made if window is None else {**made, "window": window}
