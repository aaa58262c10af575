"""The body router as a filter: operation, trust headers, model, in this order.

Fails closed: an exception here ends the request with 500, and no request passes without its model having been read.
"""

import time
from collections.abc import Awaitable
from typing import Any, ClassVar, cast

from prometheus_client import REGISTRY, CollectorRegistry

from services.bodyrouter import operations
from services.bodyrouter.asked import Asked
from services.bodyrouter.headers import AGENT_HEADER, BASE_MODEL_HEADER, MODEL_HEADER, canonical, is_trusted
from services.bodyrouter.models import Catalogue
from services.bodyrouter.operations import Operation
from services.bodyrouter.routing import Routing
from services.bodyrouter.scan import Refused, read_model, with_model
from services.bodyrouter.settings import Settings
from services.extproc.api import Answer, BodyMode, Exchange, Filter, FilterStream, Reply, deny
from services.extproc.meters import Meter
from services.remote.json_service import Unavailable

JSON = "application/json"
MAX_QUOTED = 64
"""Most characters of a client's text that an error repeats."""

NO_MODEL, UNKNOWN_MODEL, UNKNOWN_OPERATION = "none", "unknown", "unknown"
"""Metric labels besides configured names and operations: clients cannot make up series."""

MODEL_NOTE = "bodyrouter.model"
"""Key in `Exchange.notes` of the routed model's name."""


class Counts:
    """What the router counts, whatever its settings become. One per process."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """`registry`: where the metrics go."""
        self.requests = Meter(
            "penstock_body_router_requests",
            "Requests by served model or adapter and operation",
            ["model", "operation"],
            registry,
        )
        self.decisions = Meter(
            "penstock_body_router_decisions",
            "Models chosen by a prompt route or a classifier, and those that failed",
            ["kind", "name"],
            registry,
        )
        self.errors = Meter("penstock_body_router_errors", "Requests refused, by error code", ["code"], registry)


class BodyRouter(Filter):
    """Routes requests by the `model` in their body, and answers the model list itself."""

    name: ClassVar[str] = "body-router"
    request_body: ClassVar[BodyMode] = BodyMode.WHOLE
    fail_open = False

    def __init__(self, settings: Settings, counts: Counts, created: int | None = None) -> None:
        """Prepare answers.

        Args:
            settings: the config.
            counts: where requests are counted.
            created: `created` of the model list, Unix seconds; None is now.
        """
        self.catalogue = Catalogue(settings, int(time.time()) if created is None else created)
        self.allowed = frozenset(settings.allow_client_headers)
        self._counts = counts
        rules = settings.aliases or settings.prompt_routes or settings.classifiers
        self.routing = Routing(settings, self.decided) if rules else None

    def open(self, exchange: Exchange) -> "BodyRouterStream":
        """Return the stream of one exchange."""
        return BodyRouterStream(self, exchange)

    def count(self, model: str, operation: str) -> None:
        """Count a request; `model` is a configured name or one of the fixed labels."""
        self._counts.requests.counts[model, operation] += 1

    def decided(self, kind: str, name: str) -> None:
        """Count a decision of the routing; both are names of the config."""
        self._counts.decisions.counts[kind, name] += 1

    def refuse(self, status: int, code: str, message: str, param: str | None = None, allow: str = "") -> Reply:
        """Count and make an error answer."""
        self._counts.errors.counts[(code,)] += 1
        kind = "invalid_request_error" if status < 500 else "server_error"
        return deny(status, message, type=kind, param=param, code=code, headers={"allow": allow} if allow else None)


class BodyRouterStream(FilterStream):
    """One exchange."""

    def __init__(self, router: BodyRouter, exchange: Exchange) -> None:
        """Belong to `router`, work on `exchange`."""
        self.router, self.exchange = router, exchange
        self.operation = ""

    def on_request_headers(self) -> Answer:
        """Drop trusted headers; answer or refuse what needs no body."""
        router, headers = self.router, self.exchange.request_headers
        for name, _ in headers:
            if is_trusted(name) and canonical(name) not in router.allowed and name != AGENT_HEADER:
                self.exchange.request_changes.remove.add(name.lower())
        method, target = headers.get(":method"), headers.get(":path")
        operation = operations.find(target)
        if operation is None:
            router.count(NO_MODEL, UNKNOWN_OPERATION)
            url = _quoted(f"{method} {target.partition('?')[0]}")
            return router.refuse(404, "unknown_url", f"Unknown request URL: {url}. Please check the URL for typos.")
        self.operation = operation.label
        reply = self._wrong_method(operation, method)
        if reply is None and operation.label == operations.MODELS:
            return self._answer_models(operation)
        reply = reply or self._wrong_content()
        if reply is not None:
            router.count(NO_MODEL, self.operation)
        return reply

    def on_request_body(self) -> Answer:
        """Read the model and set the headers that routes match."""
        router, exchange = self.router, self.exchange
        try:
            model = read_model(exchange.request_body, exchange.request_json)
        except Refused as refused:
            router.count(NO_MODEL, self.operation)
            return router.refuse(400, refused.code, refused.message, refused.param)
        routing = router.routing
        if routing is None or model not in routing.names:
            return self._route(model)
        asked = Asked(exchange, model, cast(dict[str, Any], exchange.request_json()))
        chosen = routing.choose(asked)
        return self._rewrite(asked, chosen) if isinstance(chosen, str) else self._rewrite_later(asked, chosen)

    def _route(self, model: str) -> Reply | None:
        router, exchange = self.router, self.exchange
        if model not in router.catalogue.base:
            router.count(UNKNOWN_MODEL, self.operation)
            return self._no_such_model(model)
        router.count(model, self.operation)
        base = router.catalogue.base[model]
        exchange.request_changes.set[MODEL_HEADER] = model
        if base is not None:
            exchange.request_changes.set[BASE_MODEL_HEADER] = base
        exchange.clear_route_cache = True
        exchange.notes[MODEL_NOTE] = model
        return None

    def _rewrite(self, asked: Asked, model: str) -> Reply | None:
        """Put the chosen model into the body, so that the server reads what the route was chosen by."""
        if model != asked.model:
            exchange = self.exchange
            body = with_model(exchange.request_body, model)
            exchange.replace_request_body(body, {**asked.body, "model": model})
        return self._route(model)

    async def _rewrite_later(self, asked: Asked, chosen: Awaitable[str]) -> Reply | None:
        try:
            model = await chosen
        except Unavailable:
            self.router.count(UNKNOWN_MODEL, self.operation)
            text = f"The service that chooses a model for {_quoted(asked.model)} does not answer. Try again."
            return self.router.refuse(503, "classifier_unavailable", text, "model")
        return self._rewrite(asked, model)

    def _wrong_method(self, operation: Operation, method: str) -> Reply | None:
        if method == operation.method:
            return None
        return self.router.refuse(
            405,
            "method_not_supported",
            f"{_quoted(method)} is not supported here; use {operation.method}.",
            allow=operation.method,
        )

    def _wrong_content(self) -> Reply | None:
        """Refuse what the router could not read as the server reads it. Each copy of a header has to fit."""
        headers = self.exchange.request_headers
        encodings = [e for e in headers.get_all("content-encoding") if e.strip().lower() not in ("", "identity")]
        if encodings:
            text = f"Content-Encoding {_quoted(encodings[0])} is not supported; send the body uncompressed."
            return self.router.refuse(415, "unsupported_content_encoding", text)
        types = headers.get_all("content-type") or [""]
        for value in types:
            if value.partition(";")[0].strip().lower() != JSON:
                found = f"is {_quoted(value)}" if value else "is missing"
                text = f"Content-Type {found}; expected {JSON}."
                return self.router.refuse(415, "unsupported_media_type", text)
        return None

    def _answer_models(self, operation: Operation) -> Reply:
        """Answer `GET /v1/models` or `GET /v1/models/{id}`."""
        catalogue = self.router.catalogue
        body = catalogue.card(operation.model_id) if operation.model_id else catalogue.listing
        if body is None:
            self.router.count(UNKNOWN_MODEL, self.operation)
            return self._no_such_model(operation.model_id)
        self.router.count(NO_MODEL, self.operation)
        return Reply(200, body, {"content-type": JSON}, "model_list")

    def _no_such_model(self, model: str) -> Reply:
        text = f"The model {_quoted(model)} does not exist. GET {operations.MODELS_PATH} lists the served models."
        return self.router.refuse(404, "model_not_found", text, "model")


def _quoted(text: str) -> str:
    """Quote a client's text: shortened, and without what is not printable or not Unicode."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:MAX_QUOTED])
    return f"`{shown}...`" if len(text) > MAX_QUOTED else f"`{shown}`"
