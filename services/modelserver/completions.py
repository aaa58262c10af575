"""POST /v1/completions. Field order and nulls as vLLM 0.32 sends them."""

import orjson

from services.modelserver import tokens
from services.modelserver.chat import DONE
from services.modelserver.http import Exchange
from services.modelserver.planning import (
    MAX_SEQUENCES,
    SAMPLING_FIELDS,
    Plan,
    Sampling,
    Streaming,
    sampling_of,
    streaming_of,
)
from services.modelserver.service import Job, Service
from services.modelserver.validation import Field, at, bad, check_fields

FIELDS: dict[str, Field] = {
    **SAMPLING_FIELDS,
    "prompt": ("any", False),
    "logprobs": ("integer", True),
    "echo": ("boolean", True),
    "suffix": ("string", True),
    "best_of": ("integer", True),
}
DEFAULT_MAX_TOKENS = 16
"""OpenAI API reference, completions: `max_tokens`."""


def read_prompts(value: object, location: str = "prompt") -> list[bytes]:
    """Read a text, a list of texts, token ids, or a list of lists of token ids. Raises HttpError 400."""
    if isinstance(value, str):
        return [tokens.encode_text(value)]
    if not isinstance(value, list) or not value:
        raise at(location, "string_type", "Input should be a valid string", value)
    if _are_ids(value):
        return [tokens.from_ids(value)]
    if len(value) > MAX_SEQUENCES:
        raise bad(f"At most {MAX_SEQUENCES} prompts are accepted, got {len(value)}.", location)
    prompts = []
    for position, item in enumerate(value):
        if isinstance(item, str):
            prompts.append(tokens.encode_text(item))
        elif isinstance(item, list) and _are_ids(item):
            prompts.append(tokens.from_ids(item))
        else:
            raise at(f"{location}.{position}", "string_type", "Input should be a valid string", item)
    return prompts


def _are_ids(value: list[object]) -> bool:
    return all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**32 for item in value)


async def completions(service: Service, exchange: Exchange, body: dict[str, object]) -> None:
    """Answer a text completion."""
    check_fields(body, FIELDS)
    streaming = streaming_of(body)
    model, adapter = service.models.resolve(body.get("model"))
    if body.get("prompt") is None:
        raise bad("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    prompts = read_prompts(body["prompt"])
    salt = str(body.get("cache_salt") or "")
    preparation = service.prepare(exchange, "cmpl-", model, adapter, salt, streaming.on)
    sampled = [(prompt, _sampling(service, body, prompt)) for prompt in prompts]
    if sum(sampling.n for _, sampling in sampled) > MAX_SEQUENCES:
        raise bad(f"prompts times n must be at most {MAX_SEQUENCES}.", "n")
    for prompt, sampling in sampled:
        preparation.add(prompt, sampling)
    job = preparation.job
    echoed = (
        [prompt.decode("utf-8", "replace") for prompt, s in sampled for _ in range(s.n)] if body.get("echo") else []
    )
    if streaming.on:
        await _stream(service, exchange, job, streaming, echoed)
    else:
        await service.complete(exchange, job)
        await exchange.reply(orjson.dumps(_answer(service, job, echoed)))


def _sampling(service: Service, body: dict[str, object], prompt: bytes) -> Sampling:
    if not prompt:
        raise bad("The decoder prompt cannot be empty", "prompt")
    length = tokens.count(prompt)
    most, logprobs = body.get("max_tokens"), body.get("logprobs")
    limit = most if isinstance(most, int) else DEFAULT_MAX_TOKENS
    return sampling_of(body, service.settings, length, limit, logprobs if isinstance(logprobs, int) else None)


def _answer(service: Service, job: Job, echoed: list[str]) -> dict[str, object]:
    choices = []
    for index, planned in enumerate(job.plans):
        choices.append(
            {
                "index": index,
                "text": (echoed[index] if echoed else "") + "".join(planned.pieces),
                "logprobs": _logprobs(planned, 0, len(planned.pieces)),
                "finish_reason": planned.finish_reason,
                "stop_reason": planned.stop_reason,
                "token_ids": None,
                "prompt_logprobs": None,
                "prompt_token_ids": None,
                "routed_experts": None,
            }
        )
    return {
        "id": job.id,
        "object": "text_completion",
        "created": job.created,
        "model": job.model,
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": service.fingerprint,
        "usage": service.usage(job),
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def _logprobs(planned: Plan, start: int, end: int) -> dict[str, object] | None:
    if planned.logprobs is None:
        return None
    entries = planned.logprobs[start:end]
    offset = sum(len(piece) for piece in planned.pieces[:start])
    offsets = []
    for piece in planned.pieces[start:end]:
        offsets.append(offset)
        offset += len(piece)
    return {
        "text_offset": offsets,
        "token_logprobs": [pairs[0][1] for pairs in entries],
        "tokens": [pairs[0][0] for pairs in entries],
        "top_logprobs": [dict(pairs) for pairs in entries],
    }


async def _stream(service: Service, exchange: Exchange, job: Job, streaming: Streaming, echoed: list[str]) -> None:
    head = b'data: {"id":%b,"object":"text_completion","created":%d,"model":%b,"choices":[' % (
        orjson.dumps(job.id),
        job.created,
        orjson.dumps(job.model),
    )
    fingerprint = b',"system_fingerprint":"%b"' % service.fingerprint.encode()
    tail = b"" if streaming.usage else fingerprint
    started = False
    async for batch in service.stream(exchange, job):
        if not started:
            await exchange.start()
            started = True
        chunks = []
        for sequence, first, count in batch:
            planned, index = job.plans[sequence.index], sequence.index
            for position in range(first, first + count):
                text = planned.pieces[position]
                if echoed and position == 0:
                    text = echoed[index] + text
                usage = _usage(sequence.prompt_tokens, position + 1) if streaming.continuous_usage else b""
                chunks.append(head + _delta(planned, index, position, text) + usage)
                chunks.append((tail if position + 1 == len(planned.pieces) else b"") + b"}\n\n")
        await exchange.write(b"".join(chunks))
    last = b""
    if streaming.usage:
        last = b'%b],"usage":%b%b}\n\n' % (head, orjson.dumps(service.stream_usage(job)), fingerprint)
    await exchange.write(last + DONE)
    await exchange.end()


def _delta(planned: Plan, index: int, position: int, text: str) -> bytes:
    last = position + 1 == len(planned.pieces)
    return (
        b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b,"stop_reason":%b,"prompt_token_ids":null,'
        b'"token_ids":null}]'
        % (
            index,
            orjson.dumps(text),
            b"null" if planned.logprobs is None else orjson.dumps(_logprobs(planned, position, position + 1)),
            orjson.dumps(planned.finish_reason) if last else b"null",
            orjson.dumps(planned.stop_reason) if last else b"null",
        )
    )


def _usage(prompt: int, completion: int) -> bytes:
    return b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}' % (
        prompt,
        prompt + completion,
        completion,
    )
