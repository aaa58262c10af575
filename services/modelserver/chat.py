"""POST /v1/chat/completions. Field order and nulls as vLLM 0.32 sends them."""

import orjson

from services.modelserver import tokens
from services.modelserver.http import Exchange
from services.modelserver.planning import SAMPLING_FIELDS, Plan, Streaming, sampling_of, streaming_of
from services.modelserver.service import Job, Service
from services.modelserver.validation import Field, at, bad, check_fields

FIELDS: dict[str, Field] = {
    **SAMPLING_FIELDS,
    "messages": ("list", False),
    "max_completion_tokens": ("integer", True),
    "logprobs": ("boolean", True),
    "top_logprobs": ("integer", True),
    "tools": ("list", True),
}
DONE = b"data: [DONE]\n\n"


def read_messages(body: dict[str, object]) -> list[dict[str, object]]:
    """Return the messages. Raises HttpError 400."""
    messages = body["messages"]
    assert isinstance(messages, list)  # noqa: S101 - check_fields has seen to it
    if not messages:
        raise bad("messages must not be empty.", "messages")
    for position, message in enumerate(messages):
        where = f"messages.{position}"
        if not isinstance(message, dict):
            raise at(where, "dict_type", "Input should be a valid dictionary", message)
        if "role" not in message:
            raise at(f"{where}.role", "missing", "Field required", message)
        if not isinstance(message["role"], str):
            raise at(f"{where}.role", "string_type", "Input should be a valid string", message["role"])
        if not isinstance(message.get("content"), str | list | None):
            raise at(f"{where}.content", "string_type", "Input should be a valid string", message["content"])
    return messages


async def chat(service: Service, exchange: Exchange, body: dict[str, object]) -> None:
    """Answer a chat completion."""
    check_fields(body, FIELDS, ("messages",))
    messages = read_messages(body)
    streaming = streaming_of(body)
    logprobs = _logprobs_wanted(body)
    model, adapter = service.models.resolve(body.get("model"))
    prompt = tokens.encode_chat(messages, body.get("tools"))
    most = body.get("max_completion_tokens")
    most = body.get("max_tokens") if most is None else most
    limit = most if isinstance(most, int) else None
    sampling = sampling_of(body, service.settings, tokens.count(prompt), limit, logprobs)
    salt = body.get("cache_salt")
    preparation = service.prepare(exchange, "chatcmpl-", model, adapter, str(salt or ""), streaming.on)
    preparation.add(prompt, sampling)
    if streaming.on:
        await _stream(service, exchange, preparation.job, streaming)
    else:
        await service.complete(exchange, preparation.job)
        await exchange.reply(orjson.dumps(_answer(service, preparation.job)))


def _logprobs_wanted(body: dict[str, object]) -> int | None:
    number = body.get("top_logprobs")
    if isinstance(number, int) and number > 0 and not body.get("logprobs"):
        raise bad("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    return (number if isinstance(number, int) else 0) if body.get("logprobs") else None


def _answer(service: Service, job: Job) -> dict[str, object]:
    choices = []
    for index, planned in enumerate(job.plans):
        message = {
            "role": "assistant",
            "content": "".join(planned.pieces),
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        }
        choices.append(
            {
                "index": index,
                "message": message,
                "logprobs": _logprobs(planned, 0, len(planned.pieces)),
                "finish_reason": planned.finish_reason,
                "stop_reason": planned.stop_reason,
                "token_ids": None,
                "routed_experts": None,
            }
        )
    return {
        "id": job.id,
        "object": "chat.completion",
        "created": job.created,
        "model": job.model,
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": service.fingerprint,
        "usage": service.usage(job),
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def _logprobs(planned: Plan, start: int, end: int) -> dict[str, object] | None:
    if planned.logprobs is None:
        return None
    content = []
    for pairs in planned.logprobs[start:end]:
        entry = _entry(*pairs[0])
        entry["top_logprobs"] = [_entry(*pair) for pair in pairs[1:]]
        content.append(entry)
    return {"content": content}


def _entry(token: str, logprob: float) -> dict[str, object]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


async def _stream(service: Service, exchange: Exchange, job: Job, streaming: Streaming) -> None:
    head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
        orjson.dumps(job.id),
        job.created,
        orjson.dumps(job.model),
    )
    fingerprint = b',"system_fingerprint":"%b"' % service.fingerprint.encode()
    tail = b"" if streaming.usage else fingerprint
    started = False
    async for batch in service.stream(exchange, job):
        chunks = []
        if not started:
            await exchange.start()
            started = True
            usage = _usage(job, 0) if streaming.continuous_usage else b""
            for index in range(len(job.plans)):
                chunks.append(
                    b'%b{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]%b'
                    b',"prompt_token_ids":null,"prompt_text":null}\n\n' % (head, index, usage)
                )
        for sequence, first, count in batch:
            planned = job.plans[sequence.index]
            for position in range(first, first + count):
                usage = _usage(job, position + 1) if streaming.continuous_usage else b""
                chunks.append(head + _delta(planned, sequence.index, position, usage, tail))
        await exchange.write(b"".join(chunks))
    last = b""
    if streaming.usage:
        last = b'%b],"usage":%b%b}\n\n' % (head, orjson.dumps(service.stream_usage(job)), fingerprint)
    await exchange.write(last + DONE)
    await exchange.end()


def _delta(planned: Plan, index: int, position: int, usage: bytes, tail: bytes) -> bytes:
    """Return what follows the head of one token's chunk."""
    logprobs = b"null" if planned.logprobs is None else orjson.dumps(_logprobs(planned, position, position + 1))
    content = orjson.dumps(planned.pieces[position])
    if position + 1 < len(planned.pieces):
        return b'{"index":%d,"delta":{"content":%b},"logprobs":%b,"finish_reason":null,"token_ids":null}]%b}\n\n' % (
            index,
            content,
            logprobs,
            usage,
        )
    return (
        b'{"index":%d,"delta":{"content":%b},"logprobs":%b,"finish_reason":"%b","stop_reason":%b,"token_ids":null}]'
        b"%b%b}\n\n"
        % (
            index,
            content,
            logprobs,
            planned.finish_reason.encode(),
            orjson.dumps(planned.stop_reason),
            usage,
            tail,
        )
    )


def _usage(job: Job, completion: int) -> bytes:
    """Return the running usage of a chunk; with several choices vLLM counts the chunk's own choice."""
    prompt = job.prompt_tokens
    return (
        b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"completion_tokens_details":null}'
        % (prompt, prompt + completion, completion)
    )
