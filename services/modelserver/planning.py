"""From a request body to sequences for the engine: sampling parameters, limits, and the text that will be answered.

The whole answer is known when the request is accepted; the engine only decides when each token of it appears.
"""

import random
from dataclasses import dataclass

from services.modelserver import tokens
from services.modelserver.blocks import BYTES_PER_TOKEN
from services.modelserver.settings import Settings
from services.modelserver.validation import Field, at, bad

MAX_SEQUENCES = 1024
"""Sequences of one request (prompts times n); vLLM's own bound for n is 16384."""

SAMPLING_FIELDS: dict[str, Field] = {
    "model": ("string", True),
    "n": ("integer", True),
    "max_tokens": ("integer", True),
    "min_tokens": ("integer", True),
    "seed": ("integer", True),
    "temperature": ("number", True),
    "top_p": ("number", True),
    "top_k": ("integer", True),
    "presence_penalty": ("number", True),
    "frequency_penalty": ("number", True),
    "stream": ("boolean", True),
    "stream_options": ("object", True),
    "ignore_eos": ("boolean", True),
    "include_stop_str_in_output": ("boolean", True),
    "logit_bias": ("object", True),
    "user": ("string", True),
    "cache_salt": ("string", True),
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a request asks of the generation. `logprobs`: alternatives per token, or None."""

    n: int
    max_tokens: int
    min_tokens: int
    stop: tuple[str, ...]
    keep_stop: bool
    ignore_eos: bool
    seed: int
    logprobs: int | None


@dataclass(frozen=True, slots=True)
class Plan:
    """One choice: the text per token (a stop string may empty the last ones) and how it ends."""

    pieces: list[str]
    data: bytes
    finish_reason: str
    stop_reason: str | None
    logprobs: list[list[tuple[str, float]]] | None
    """Per token (token, logprob) pairs: the chosen one, then the alternatives in falling order, chosen included."""


@dataclass(frozen=True, slots=True)
class Streaming:
    """How an answer is delivered."""

    on: bool
    usage: bool
    continuous_usage: bool


def streaming_of(body: dict[str, object]) -> Streaming:
    """Read `stream` and `stream_options`. Raises HttpError."""
    on = bool(body.get("stream"))
    options = body.get("stream_options")
    if not isinstance(options, dict):
        return Streaming(on, False, False)
    if not on:
        raise bad("Stream options can only be defined when `stream=True`.", "stream_options")
    usage = bool(options.get("include_usage"))
    return Streaming(on, usage, usage and bool(options.get("continuous_usage_stats")))


def sampling_of(
    body: dict[str, object], settings: Settings, prompt_tokens: int, max_tokens: int | None, logprobs: int | None
) -> Sampling:
    """Read and check the sampling parameters. Raises HttpError 400 as vLLM does."""
    limit = settings.engine.max_model_len
    if max_tokens is not None and max_tokens > limit:
        message = (
            f"max_tokens={max_tokens} cannot be greater than max_model_len={limit}. Please request fewer output tokens."
        )
        raise bad(message, "max_tokens", max_tokens)
    if max_tokens is not None and max_tokens < 1:
        raise bad(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens)
    requested = 1 if max_tokens is None else max_tokens
    check_length(prompt_tokens, requested, limit)
    if logprobs is not None and not 0 <= logprobs <= settings.max_logprobs:
        message = f"Requested sample logprobs of {logprobs}, which is greater than max allowed: {settings.max_logprobs}"
        raise bad(message, "logprobs", logprobs)
    _check_ranges(body)
    most = limit - prompt_tokens if max_tokens is None else max_tokens
    least = _whole(body, "min_tokens", 0)
    if not 0 <= least <= most:
        raise bad(f"min_tokens must be between 0 and max_tokens={most}, got {least}.", "min_tokens", least)
    return Sampling(
        n=_whole(body, "n", 1),
        max_tokens=most,
        min_tokens=least,
        stop=_stops(body.get("stop")),
        keep_stop=bool(body.get("include_stop_str_in_output")),
        ignore_eos=bool(body.get("ignore_eos")),
        seed=_whole(body, "seed", 0),
        logprobs=logprobs,
    )


def check_length(prompt_tokens: int, output_tokens: int, limit: int) -> None:
    """Raise HttpError 400 if prompt and output don't fit into the context."""
    if prompt_tokens + output_tokens > limit:
        raise bad(
            f"You passed {prompt_tokens} input tokens and requested {output_tokens} output tokens. However, the "
            f"model's context length is only {limit} tokens, resulting in a maximum input length of "
            f"{limit - output_tokens} tokens. Please reduce the length of the input prompt.",
            "input_tokens",
            prompt_tokens,
        )


def _whole(body: dict[str, object], name: str, default: int) -> int:
    value = body.get(name)
    return value if isinstance(value, int) else default


def _check_ranges(body: dict[str, object]) -> None:
    n, temperature, top_p, top_k = (body.get(name) for name in ("n", "temperature", "top_p", "top_k"))
    if isinstance(n, int) and not 1 <= n <= MAX_SEQUENCES:
        problem = "at least 1" if n < 1 else f"at most {MAX_SEQUENCES}"
        raise bad(f"n must be {problem}, got {n}.", "n", n)
    if isinstance(temperature, float) and not temperature >= 0:
        raise bad(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    if isinstance(top_p, float) and not 0 < top_p <= 1:
        raise bad(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
    if isinstance(top_k, int) and top_k < -1:
        raise bad(f"top_k must be 0 (disable), or at least 1, got {top_k}.", "top_k", top_k)
    for name in ("presence_penalty", "frequency_penalty"):
        value = body.get(name)
        if isinstance(value, float) and not -2 <= value <= 2:
            raise bad(f"{name} must be in [-2, 2], got {value}.", name, value)


def _stops(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise at("stop", "string_type", "Input should be a valid string", value)
    if not all(stops):
        raise bad("stop cannot contain an empty string.", "stop")
    return tuple(stops)


def plan(sampling: Sampling, settings: Settings, model: str, prompt: bytes, index: int) -> Plan:
    """Make up the answer for choice `index`: the same for the same simulator seed, model, prompt and request seed."""
    seed = tokens.seed_of(settings.seed, model, prompt, sampling.seed, index)
    natural = max(tokens.natural_length(seed, settings.output_tokens), sampling.min_tokens)
    length = sampling.max_tokens if sampling.ignore_eos else min(natural, sampling.max_tokens)
    pieces = tokens.generate(seed, length)
    reason = "length" if length == sampling.max_tokens else "stop"
    stop_reason = None
    if sampling.stop:
        text = "".join(pieces)
        found = _first_stop(text, sampling.stop, sampling.min_tokens * BYTES_PER_TOKEN)
        if found is not None:
            position, stop_reason = found
            reason = "stop"
            end = position + len(stop_reason)
            kept = text[: end if sampling.keep_stop else position]
            pieces = [kept[i : i + BYTES_PER_TOKEN] for i in range(0, end, BYTES_PER_TOKEN)]
            text = text[: len(pieces) * BYTES_PER_TOKEN]
        data = text.encode()
    else:
        data = "".join(pieces).encode()
    alternatives = None if sampling.logprobs is None else _logprobs(seed, pieces, sampling.logprobs)
    return Plan(pieces, data, reason, stop_reason, alternatives)


def _first_stop(text: str, stops: tuple[str, ...], start: int) -> tuple[int, str] | None:
    """Return position and text of the stop string that is complete first, from `start` on."""
    hits = [(text.find(stop, start), stop) for stop in stops]
    hits = [hit for hit in hits if hit[0] >= 0]
    return min(hits, key=lambda hit: hit[0] + len(hit[1]), default=None)


def _logprobs(seed: int, pieces: list[str], number: int) -> list[list[tuple[str, float]]]:
    """Return made-up, falling log probabilities."""
    source = random.Random(seed + 1)
    result = []
    for position, piece in enumerate(pieces):
        value = -source.expovariate(8)
        pairs = [(piece, value)]
        if number:
            others = tokens.generate(seed + position + 2, number - 1, first=False)
            falling = [value]
            for _ in others:
                falling.append(falling[-1] - source.expovariate(0.5) - 0.1)
            pairs += zip([piece, *others], falling, strict=True)
        result.append(pairs)
    return result
