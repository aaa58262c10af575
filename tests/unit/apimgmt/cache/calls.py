"""Calls and policies for tests of the response cache."""

from collections.abc import Mapping
from typing import Any, cast

from services.apimgmt.call import BoundProduct, Call, Caller, Credential
from services.apimgmt.domain import Product
from services.apimgmt.policies.api import Tools
from services.apimgmt.policies.cache import Cache, CacheSettings
from services.apimgmt.store.api import Store
from services.extproc.api import Ending, Exchange, Headers, Outcome, Reply

CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
JSON = b'{"id":"chatcmpl-1","choices":[]}'
EVENTS = b'data: {"id":"chatcmpl-1"}\n\ndata: [DONE]\n\n'
COMPLETE = Outcome(Ending.COMPLETE, 200, 0.1, 10, 10)


class World:
    """One process: a clock and what policies share."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.tools = Tools(cast(Store, None), lambda a, b: None, lambda job: None, {"clock": lambda: self.now})

    def policy(self, **settings: Any) -> Cache:
        return Cache(CacheSettings.model_validate(settings), self.tools)

    def call(
        self,
        body: Mapping[str, Any] = ASKED,
        *,
        operation: str = CHAT,
        product: str = "gold",
        headers: Mapping[str, str] | None = None,
        **who: Any,
    ) -> Call:
        exchange = Exchange()
        sent = {":path": operation, "x-gateway-model-name": "m", **(headers or {})}
        exchange.request_headers = Headers((k, v.encode()) for k, v in sent.items())
        made = Call(exchange, "id", self.now, 0.0)
        made.body = body
        made.stream = bool(body.get("stream"))
        bound = BoundProduct(Product(name=product, models=["*"]), None, None, (), None)
        names = {"organization": "acme", "team": "red", "user": "ada", "app": "chat", "key": "k1"}
        made.caller = Caller(**{**names, "credential": Credential.API_KEY, "products": (bound,)} | who)
        made.product = bound
        return made

    def ask(
        self, policy: Cache, call: Call, answer: bytes | None = None, outcome: Outcome = COMPLETE, **sent: str
    ) -> Reply | None:
        """Send a request through the policy, and its answer (by default a good one) where it was not cached."""
        reply = policy.check(call)
        assert reply is None or isinstance(reply, Reply)
        if reply is None:
            kind = "text/event-stream; charset=utf-8" if call.stream else "application/json"
            fields = {":status": "200", "content-type": kind, **{k.replace("_", "-"): v for k, v in sent.items()}}
            call.exchange.response_headers = Headers((k, v.encode()) for k, v in fields.items())
            policy.on_response(call)
            if call.keep_response:
                call.response = (EVENTS if call.stream else JSON) if answer is None else answer
            policy.on_done(call, outcome)
        return reply

    def hits(self, policy: Cache, first: Call, second: Call) -> bool:
        """Whether the second request is answered by what the first brought."""
        assert self.ask(policy, first) is None
        return self.ask(policy, second) is not None
