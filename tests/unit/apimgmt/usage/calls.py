"""Calls as the pipeline makes them, without a pipeline."""

from typing import Any

import orjson

from services.apimgmt.call import BoundProduct, Call, Caller, Credential
from services.apimgmt.domain import Product
from services.extproc.api import Exchange, Headers

CHAT = "/v1/chat/completions"


def call_of(
    body: dict[str, Any], path: str = CHAT, *, model: str = "tiny", base: str = "", cap: int | None = None
) -> Call:
    exchange = Exchange()
    headers = [(":path", path.encode()), ("x-gateway-model-name", model.encode())]
    if base:
        headers.append(("x-gateway-base-model-name", base.encode()))
    exchange.request_headers = Headers(headers)
    exchange.request_body = orjson.dumps(body)
    call = Call(exchange, "id", 0.0, 0.0)
    call.body = body
    product = Product(name="p", models=["*"], max_output_tokens=cap)
    call.product = BoundProduct(product, None, None, (), None)
    call.caller = Caller("acme", "t", "u", "app", "key", Credential.API_KEY, (call.product,))
    return call
