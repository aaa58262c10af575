"""POST /v1/responses: text in, text out, plain and streamed; no tools, no stored responses.

Shapes follow the OpenAI API reference, "Responses"; there is no recording of vLLM to hold them against.
"""

import secrets

import orjson

from services.modelserver import tokens
from services.modelserver.chat import read_messages
from services.modelserver.http import Exchange
from services.modelserver.planning import SAMPLING_FIELDS, sampling_of
from services.modelserver.service import Job, Service
from services.modelserver.validation import Field, at, check_fields

FIELDS: dict[str, Field] = {
    **SAMPLING_FIELDS,
    "input": ("any", False),
    "instructions": ("string", True),
    "max_output_tokens": ("integer", True),
    "metadata": ("object", True),
}


def _messages(body: dict[str, object]) -> list[dict[str, object]]:
    given = body["input"]
    messages: list[object] = []
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    elif isinstance(given, list):
        messages += [{"role": "assistant", **item} if isinstance(item, dict) else item for item in given]
    else:
        raise at("input", "string_type", "Input should be a valid string", given)
    return read_messages({"messages": messages})


async def responses(service: Service, exchange: Exchange, body: dict[str, object]) -> None:
    """Answer a responses request."""
    check_fields(body, FIELDS, ("input",))
    messages = _messages(body)
    model, adapter = service.models.resolve(body.get("model"))
    prompt = tokens.encode_chat(messages)
    most = body.get("max_output_tokens")
    sampling = sampling_of(body, service.settings, tokens.count(prompt), most if isinstance(most, int) else None, None)
    stream = bool(body.get("stream"))
    preparation = service.prepare(exchange, "resp_", model, adapter, str(body.get("cache_salt") or ""), stream)
    preparation.add(prompt, sampling)
    job = preparation.job
    message_id = f"msg_{secrets.token_hex(8)}"
    if stream:
        await _stream(service, exchange, job, body, message_id)
    else:
        await service.complete(exchange, job)
        await exchange.reply(orjson.dumps(_response(service, job, body, message_id, done=True)))


def _part(text: str) -> dict[str, object]:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}


def _item(message_id: str, text: str, done: bool) -> dict[str, object]:
    status = "completed" if done else "in_progress"
    content = [_part(text)] if done else []
    return {"id": message_id, "content": content, "role": "assistant", "status": status, "type": "message"}


def _response(service: Service, job: Job, body: dict[str, object], message_id: str, done: bool) -> dict[str, object]:
    planned = job.plans[0]
    cut = done and planned.finish_reason == "length"
    usage = {
        "input_tokens": job.prompt_tokens,
        "input_tokens_details": {"cached_tokens": job.cached_tokens},
        "output_tokens": job.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": job.prompt_tokens + job.completion_tokens,
    }
    return {
        "id": job.id,
        "created_at": job.created,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata"),
        "model": job.model,
        "object": "response",
        "output": [_item(message_id, "".join(planned.pieces), True)] if done else [],
        "parallel_tool_calls": True,
        "temperature": body.get("temperature", 1.0),
        "tool_choice": "auto",
        "tools": [],
        "top_p": body.get("top_p", 1.0),
        "background": False,
        "max_output_tokens": job.sequences[0].max_tokens,
        "previous_response_id": None,
        "service_tier": "auto",
        "status": ("incomplete" if cut else "completed") if done else "in_progress",
        "text": None,
        "truncation": "disabled",
        "usage": usage if done else None,
        "user": body.get("user"),
    }


class _Events:
    """Server-sent events with a running number."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, kind: str, **fields: object) -> bytes:
        data = orjson.dumps({"type": kind, "sequence_number": self.number, **fields})
        self.number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


async def _stream(service: Service, exchange: Exchange, job: Job, body: dict[str, object], message_id: str) -> None:
    event, pieces = _Events(), job.plans[0].pieces
    place = {"item_id": message_id, "output_index": 0, "content_index": 0}
    pending = _response(service, job, body, message_id, done=False)
    started = False
    async for batch in service.stream(exchange, job):
        chunks = []
        if not started:
            started = True
            await exchange.start()
            chunks = [
                event("response.created", response=pending),
                event("response.in_progress", response=pending),
                event("response.output_item.added", output_index=0, item=_item(message_id, "", False)),
                event("response.content_part.added", **place, part=_part("")),
            ]
        for _, first, count in batch:
            for piece in pieces[first : first + count]:
                chunks.append(event("response.output_text.delta", **place, delta=piece, logprobs=[]))
        await exchange.write(b"".join(chunks))
    text = "".join(pieces)
    answer = _response(service, job, body, message_id, done=True)
    end = [
        event("response.output_text.done", **place, text=text, logprobs=[]),
        event("response.content_part.done", **place, part=_part(text)),
        event("response.output_item.done", output_index=0, item=_item(message_id, text, True)),
        event(f"response.{answer['status']}", response=answer),
    ]
    await exchange.write(b"".join(end))
    await exchange.end()
