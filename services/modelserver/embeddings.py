"""POST /v1/embeddings, /tokenize and /detokenize."""

import orjson

from services.modelserver import tokens
from services.modelserver.chat import read_messages
from services.modelserver.completions import read_prompts
from services.modelserver.http import Exchange
from services.modelserver.planning import check_length
from services.modelserver.service import Service, encode_vector
from services.modelserver.validation import Field, at, bad, check_fields

EMBEDDING_FIELDS: dict[str, Field] = {
    "model": ("string", True),
    "input": ("any", False),
    "messages": ("list", True),
    "encoding_format": ("string", False),
    "dimensions": ("integer", True),
    "user": ("string", True),
}
TOKENIZE_FIELDS: dict[str, Field] = {
    "model": ("string", True),
    "prompt": ("string", False),
    "messages": ("list", False),
    "return_token_strs": ("boolean", True),
}
MAX_DIMENSIONS = 8192


async def embeddings(service: Service, exchange: Exchange, body: dict[str, object]) -> None:
    """Answer an embeddings request: each input is prefilled, its vector depends on its text alone."""
    check_fields(body, EMBEDDING_FIELDS, () if "messages" in body else ("input",))
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise at("encoding_format", "literal_error", "Input should be \\'float\\' or \\'base64\\'", encoding)
    model, adapter = service.models.resolve(body.get("model"))
    dimensions = body.get("dimensions") or service.settings.embedding_dimensions
    if not isinstance(dimensions, int) or not 1 <= dimensions <= MAX_DIMENSIONS:
        raise bad(f"dimensions must be 1 to {MAX_DIMENSIONS}, got {dimensions}.", "dimensions", dimensions)
    if body.get("messages") is not None:
        prompts = [tokens.encode_chat(read_messages(body))]
    else:
        prompts = read_prompts(body.get("input"), "input")
    preparation = service.prepare(exchange, "embd-", model, adapter, "", False)
    for prompt in prompts:
        if not prompt:
            raise bad("The decoder prompt cannot be empty", "input")
        check_length(tokens.count(prompt), 0, service.settings.engine.max_model_len)
        preparation.add_pooling(prompt)
    job = preparation.job
    await service.complete(exchange, job)
    data = []
    for index, prompt in enumerate(prompts):
        vector = tokens.embedding(tokens.seed_of(service.settings.seed, model, prompt), dimensions)
        data.append({"index": index, "object": "embedding", "embedding": encode_vector(vector, encoding == "base64")})
    usage = {
        "prompt_tokens": job.prompt_tokens,
        "total_tokens": job.prompt_tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
    }
    answer = {
        "id": job.id,
        "object": "list",
        "created": job.created,
        "model": model,
        "data": data,
        "usage": usage,
    }
    await exchange.reply(orjson.dumps(answer))


async def tokenize(service: Service, exchange: Exchange, body: dict[str, object]) -> None:
    """Answer with the simulator's token ids of a text or a conversation."""
    check_fields(body, TOKENIZE_FIELDS, () if "messages" in body else ("prompt",))
    service.models.resolve(body.get("model"))
    data = tokens.encode_chat(read_messages(body)) if "messages" in body else tokens.encode_text(str(body["prompt"]))
    ids = tokens.to_ids(data)
    strings = [tokens.text_of_ids([value]) for value in ids] if body.get("return_token_strs") else None
    length = service.settings.engine.max_model_len
    answer = {"count": len(ids), "max_model_len": length, "tokens": ids, "token_strs": strings}
    await exchange.reply(orjson.dumps(answer))


async def detokenize(service: Service, exchange: Exchange, body: dict[str, object]) -> None:
    """Answer with the text of token ids."""
    check_fields(body, {"model": ("string", True), "tokens": ("list", False)}, ("tokens",))
    service.models.resolve(body.get("model"))
    ids = body["tokens"]
    assert isinstance(ids, list)  # noqa: S101 - check_fields has seen to it
    for position, value in enumerate(ids):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
            raise at(f"tokens.{position}", "int_parsing", "Input should be a valid integer", value)
    await exchange.reply(orjson.dumps({"prompt": tokens.text_of_ids(ids)}))
