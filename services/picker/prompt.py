"""The prompt of a request as bytes that a later turn of the same conversation extends."""

from collections.abc import Mapping

import orjson

PARTS = ("tools", "instructions", "messages", "prompt", "input")
"""Fields that make up the prompt, in the order in which chat templates render them: chat completions have `messages`
and `tools`, completions `prompt`, responses `instructions` and `input`, embeddings `input`. Source: OpenAI API."""


def prompt_bytes(request: Mapping[str, object]) -> bytes:
    """Return the prompt of a parsed request; empty where there is none.

    Texts stand as they are, everything else as JSON. A list of messages (or of token ids) of one turn is, up to its
    closing bracket, the beginning of the next turn's.
    """
    return b"\x1e".join([_part(value) for name in PARTS if (value := request.get(name))])


def seed(model: str, request: Mapping[str, object]) -> bytes:
    """Return what keeps prefixes apart that must not be shared: the model or adapter, and vLLM's `cache_salt`."""
    salt = request.get("cache_salt")
    return f"{model}\x1e{salt if isinstance(salt, str) else ''}".encode("utf-8", "surrogatepass")


def _part(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # nested deeper than it writes: no replica will take that either
        return b""
