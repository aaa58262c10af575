"""Calls made by hand, for tests of policies."""

from collections.abc import Awaitable, Mapping
from typing import Any

from services.apimgmt.call import Call, Caller, Credential
from services.apimgmt.policies.api import Tools
from services.extproc.api import Exchange, Headers

CALLER = Caller("acme", "red", "ada@example.com", "bot", "k1", Credential.API_KEY, ())


def make_call(
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    path: str = "/v1/chat/completions",
) -> Call:
    """Return a call of `CALLER` for the model `gemma`, with `headers` beside the usual ones."""
    exchange = Exchange()
    fields = {":method": "POST", ":path": path, "x-gateway-model-name": "gemma", **(headers or {})}
    exchange.request_headers = Headers(
        (name, value.encode("utf-8", "surrogateescape")) for name, value in fields.items()
    )
    call = Call(exchange, "call-1", 1_700_000_000.0, 0.0)
    call.body, call.prompt_tokens, call.caller = dict(body or {}), 120, CALLER
    return call


def make_tools() -> Tools:
    """Return tools without a store: what external services and scripts need of them is nothing."""

    def background(awaitable: Awaitable[Any]) -> None:
        raise AssertionError("nothing runs in the background")

    return Tools(store=None, value=lambda name, key: None, background=background)  # type: ignore[arg-type]
