"""Calls and policies for tests of the validation of requests."""

from collections.abc import Mapping
from typing import Any, cast

import orjson

from services.apimgmt.call import Call
from services.apimgmt.policies.api import Tools
from services.apimgmt.policies.validation import Validation, ValidationSettings
from services.apimgmt.store.api import Store
from services.extproc.api import Exchange, Headers, Reply

CHAT = "/v1/chat/completions"


def policy(entries: Mapping[str, str] | None = None, **settings: Any) -> Validation:
    """Make the policy; `entries` are values of key-value maps by `map/key`."""
    values = entries or {}
    tools = Tools(cast(Store, None), lambda name, key: values.get(f"{name}/{key}"), lambda job: None)
    return Validation(ValidationSettings.model_validate(settings), tools)


def call(body: Any, operation: str = CHAT) -> Call:
    exchange = Exchange()
    exchange.request_headers = Headers([(":path", operation.encode())])
    made = Call(exchange, "id", 0.0, 0.0)
    made.body = body
    return made


def error(body: Any, operation: str = CHAT, made: Validation | None = None) -> dict[str, Any] | None:
    """Return the `error` of the refusal, None if the body is accepted."""
    reply = (made or policy()).check(call(body, operation))
    if reply is None:
        return None
    assert isinstance(reply, Reply)
    assert reply.status == 400
    found: dict[str, Any] = orjson.loads(reply.body)["error"]
    assert found["type"] == "invalid_request_error"
    return found


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
