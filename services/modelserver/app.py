"""The ASGI application of one replica: routes, faults, errors, and the simulator's own /sim endpoints."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import orjson

from services.modelserver.chat import chat
from services.modelserver.completions import completions
from services.modelserver.embeddings import detokenize, embeddings, tokenize
from services.modelserver.faults import Fault
from services.modelserver.http import ClientGone, Exchange, HttpError, Scope
from services.modelserver.http_stats import HttpStats
from services.modelserver.metrics import CONTENT_TYPE, Metrics
from services.modelserver.responses import responses
from services.modelserver.service import Service
from services.modelserver.settings import VLLM_VERSION, Settings
from services.modelserver.validation import check_fields, parse_object

log = logging.getLogger("penstock.modelserver")
Body = dict[str, object]
Post = Callable[[Service, Exchange, Body], Awaitable[None]]
Get = Callable[[Exchange], Awaitable[None]]


class App:
    """One replica behind ASGI."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.service = Service(settings)
        self.http = HttpStats()
        clock = lambda: asyncio.get_running_loop().time()  # noqa: E731
        self.metrics = Metrics(settings, self.service.engine, self.http, clock)
        self._extra = [(b"vary", b"Origin")]
        if settings.replica_id:
            self._extra.append((b"x-penstock-replica", settings.replica_id.encode("latin-1", "replace")))
        self._gets: dict[str, Get] = {
            "/health": self._empty,
            "/ping": self._empty,
            "/version": self._version,
            "/metrics": self._metrics,
            "/v1/models": self._models,
            "/sim/state": self._state,
        }
        self._posts: dict[str, Post] = {
            "/v1/chat/completions": chat,
            "/v1/completions": completions,
            "/v1/embeddings": embeddings,
            "/v1/responses": responses,
            "/tokenize": tokenize,
            "/detokenize": detokenize,
            "/sim/faults": self._set_faults,
            "/sim/reset_prefix_cache": self._reset_prefix_cache,
        }
        if settings.runtime_lora:
            self._posts["/v1/load_lora_adapter"] = self._load_adapter
            self._posts["/v1/unload_lora_adapter"] = self._unload_adapter

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        extra = self._extra
        exchange = Exchange(scope, receive, send, extra)
        if self.settings.request_id_headers:
            given = exchange.header(b"x-request-id") or secrets.token_hex(16)
            exchange.extra = [*extra, (b"x-request-id", given.encode("latin-1"))]
        started = time.perf_counter()
        try:
            await self._route(exchange)
        except HttpError as error:
            await self._reply_error(exchange, error)
        except ClientGone:
            return
        finally:
            exchange.settle()
        length = exchange.header(b"content-length")
        sizes = (int(length) if length.isdigit() else 0, exchange.sent_bytes)
        known = exchange.path in self._gets or exchange.path in self._posts
        path = exchange.path if known else "none"
        self.http.count(path, exchange.method, exchange.status, sizes, time.perf_counter() - started)

    async def _reply_error(self, exchange: Exchange, error: HttpError) -> None:
        try:
            await exchange.reply(error.body, error.status)
        except ClientGone:
            return

    async def _route(self, exchange: Exchange) -> None:
        path, method = exchange.path, exchange.method
        if self.settings.api_keys and path.startswith("/v1") and method != "OPTIONS" and not self._allowed(exchange):
            await exchange.reply(b'{"error":"Unauthorized"}', 401)
            return
        get, post = self._gets.get(path), self._posts.get(path)
        if get is not None and (method == "GET" or (method == "POST" and path == "/ping")):
            if not await self._hit_by_fault(exchange):
                await get(exchange)
        elif post is not None and method == "POST":
            data, kind = await exchange.body(), exchange.header(b"content-type")
            if path.startswith("/sim/"):
                data, kind = data or b"{}", "application/json"
            if not await self._hit_by_fault(exchange):
                await post(self.service, exchange, parse_object(data, kind))
        elif get is None and post is None:
            await exchange.reply(b'{"detail":"Not Found"}', 404)
        else:
            allowed = b"GET" if get is not None else b"POST"
            await exchange.reply(b'{"detail":"Method Not Allowed"}', 405, headers=((b"allow", allowed),))

    def _allowed(self, exchange: Exchange) -> bool:
        scheme, _, key = exchange.header(b"authorization").partition(" ")
        given = key.encode("latin-1")
        matches = [secrets.compare_digest(given, known.encode()) for known in self.settings.api_keys]
        return scheme.lower() == "bearer" and any(matches)

    # Faults

    async def _hit_by_fault(self, exchange: Exchange) -> bool:
        """Let a fault have its way; True if the request has had its answer."""
        faults = self.service.faults
        if not faults.faults or exchange.path.startswith("/sim/"):
            return False
        delay, fault = faults.draw(exchange.path)
        if delay:
            await self._pause(exchange, delay)
        if fault is None:
            return False
        log.info("fault %s hits %s", fault.text, exchange.path)
        await self._commit(exchange, fault)
        return fault.kind != "drop"

    async def _commit(self, exchange: Exchange, fault: Fault) -> None:
        if fault.kind == "error":
            status = int(fault.value)
            known = status in HTTPStatus._value2member_map_
            phrase = HTTPStatus(status).phrase.replace(" ", "").removesuffix("Error") if known else "Simulated"
            raise HttpError(status, f"{phrase}Error", "This error is simulated.")
        if fault.kind == "hang":
            await self._pause(exchange, None)
        elif fault.kind == "abort":
            exchange.cut()
            raise ClientGone
        elif fault.kind == "drop":
            exchange.drop_after = int(fault.value)

    @staticmethod
    async def _pause(exchange: Exchange, seconds: float | None) -> None:
        """Wait, for ever if `seconds` is None. Raises ClientGone when the client goes away."""
        gone = asyncio.Event()
        exchange.on_lost(gone.set)
        try:
            async with asyncio.timeout(seconds):
                await gone.wait()
        except TimeoutError:
            exchange.settle()
            return
        raise ClientGone

    # Endpoints without a body, or with one of the simulator's own

    async def _empty(self, exchange: Exchange) -> None:
        await exchange.reply(b"", kind=None)

    async def _version(self, exchange: Exchange) -> None:
        await exchange.reply(orjson.dumps({"version": VLLM_VERSION}))

    async def _metrics(self, exchange: Exchange) -> None:
        await exchange.reply(self.metrics.render(), kind=CONTENT_TYPE)

    async def _models(self, exchange: Exchange) -> None:
        await exchange.reply(orjson.dumps(self.service.models.listing()))

    async def _state(self, exchange: Exchange) -> None:
        engine, settings = self.service.engine, self.settings
        capacity, deferred = engine.waiting_by_reason
        state = {
            "replica": settings.replica_id,
            "running": len(engine.running),
            "waiting": len(engine.waiting),
            "waiting_by_reason": {"capacity": capacity, "deferred": deferred},
            "kv_blocks": {"usable": engine.pool.usable, "free": engine.pool.free, "cached": engine.pool.cached},
            "adapters": list(self.service.models.adapters),
            "adapters_in_slots": list(engine.resident),
            "finished": sum(engine.stats.finished.values()),
            "aborted": engine.stats.aborted,
            "preemptions": engine.stats.preemptions,
            "prefix_cache": {"queries": engine.stats.prefix_queries, "hits": engine.stats.prefix_hits},
            "faults": self.service.faults.describe(),
        }
        await exchange.reply(orjson.dumps(state))

    async def _set_faults(self, service: Service, exchange: Exchange, body: Body) -> None:
        check_fields(body, {"faults": ("list", False)}, ("faults",))
        texts = body["faults"]
        assert isinstance(texts, list)  # noqa: S101 - check_fields has seen to it
        if not all(isinstance(text, str) for text in texts):
            raise HttpError(
                400, "BadRequestError", "faults must be a list of strings such as 'error:503,n=2'", "faults"
            )
        try:
            service.faults.replace(texts)
        except ValueError as error:
            raise HttpError(400, "BadRequestError", str(error), "faults") from None
        log.info("faults set: %s", texts)
        await exchange.reply(orjson.dumps({"faults": service.faults.describe()}))

    async def _reset_prefix_cache(self, service: Service, exchange: Exchange, body: Body) -> None:
        await exchange.reply(orjson.dumps({"reset": service.engine.pool.forget_all()}))

    async def _load_adapter(self, service: Service, exchange: Exchange, body: Body) -> None:
        name, path = body.get("lora_name"), body.get("lora_path")
        message = service.models.load(name, path, bool(body.get("load_inplace")))
        await exchange.reply(message.encode(), kind=None)

    async def _unload_adapter(self, service: Service, exchange: Exchange, body: Body) -> None:
        message = service.models.unload(body.get("lora_name"))
        await exchange.reply(message.encode(), kind=None)
