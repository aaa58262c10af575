"""Text and tokens of the simulator.

A token is four bytes of UTF-8, about what tokenizers make of English text, cut from the beginning of the prompt. In a
chat each message's frame and content start on a token boundary, as special tokens do it in real templates, and each
generated token is four letters: the next turn of a conversation therefore repeats the tokens of the turn before it,
answer included, and finds them in the prefix cache.
"""

import random
from collections.abc import Iterable, Mapping

import orjson
import xxhash

from services.modelserver.blocks import BYTES_PER_TOKEN

_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_FIRST = [f"{a.upper()}{v}{b}{w}" for a in _CONSONANTS for v in _VOWELS for b in "lnrt" for w in "ao"]
_FURTHER = [f" {a}{v}{b}" for a in _CONSONANTS for v in _VOWELS for b in _CONSONANTS]
_MEDIA_TOKENS = 64
"""What an image or audio part of a message counts, and all tool definitions or calls of a message together."""


def align(data: bytes) -> bytes:
    """Pad `data` to whole tokens."""
    return data + b"\0" * (-len(data) % BYTES_PER_TOKEN)


def count(data: bytes) -> int:
    """Return the number of tokens in `data`."""
    return -(-len(data) // BYTES_PER_TOKEN)


def encode_text(text: str) -> bytes:
    """Return the tokens of a plain prompt; lone surrogates, which JSON can carry, become `?`."""
    return text.encode("utf-8", "replace")


def to_ids(data: bytes) -> list[int]:
    """Return token ids: the four bytes as a big-endian number."""
    return [int.from_bytes(data[i : i + BYTES_PER_TOKEN], "big") for i in range(0, len(data), BYTES_PER_TOKEN)]


def from_ids(ids: Iterable[int]) -> bytes:
    """Return the tokens of a prompt given as ids of 0 to 2^32 - 1."""
    return b"".join(value.to_bytes(BYTES_PER_TOKEN, "big") for value in ids)


def text_of_ids(ids: Iterable[int]) -> str:
    """Return the text of token ids; leading zero bytes of a token are padding."""
    return b"".join(value.to_bytes(BYTES_PER_TOKEN, "big").lstrip(b"\0") for value in ids).decode("utf-8", "replace")


def encode_chat(messages: Iterable[Mapping[str, object]], tools: object = None) -> bytes:
    """Return the tokens of a conversation up to where the assistant is to answer."""
    parts = []
    if tools:
        parts.append(align(b"<|tools|>") + _digest(tools))
    for message in messages:
        parts.append(_head(str(message.get("role"))))
        parts.append(align(_content(message.get("content"))))
        if message.get("tool_calls"):
            parts.append(_digest(message["tool_calls"]))
    parts.append(_head("assistant"))
    return b"".join(parts)


def _head(role: str) -> bytes:
    return align(b"<|" + encode_text(role) + b"|>\n")


def _content(content: object) -> bytes:
    if isinstance(content, str):
        return encode_text(content)
    if not isinstance(content, list):
        return b""
    return b"".join(_part(part) for part in content)


def _part(part: object) -> bytes:
    if isinstance(part, str):
        return encode_text(part)
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return encode_text(part["text"])
    return _digest(part)


def _digest(value: object) -> bytes:
    """Stand for something that is not text by `_MEDIA_TOKENS` tokens that tell it from others."""
    try:
        data = orjson.dumps(value)
    except TypeError:  # nested too deeply to be told apart
        data = b""
    digest = xxhash.xxh3_128_digest(data)
    return digest * (_MEDIA_TOKENS * BYTES_PER_TOKEN // len(digest))


def seed_of(*parts: object) -> int:
    """Return a 64-bit seed from `parts`, the same in every process."""
    return xxhash.xxh3_64_intdigest(b"\x1f".join(p if isinstance(p, bytes) else str(p).encode() for p in parts))


def generate(seed: int, tokens: int, first: bool = True) -> list[str]:
    """Return `tokens` tokens of made-up text, four letters each; the same for the same seed."""
    source = random.Random(seed)
    if not first or not tokens:
        return source.choices(_FURTHER, k=tokens)
    return [source.choice(_FIRST), *source.choices(_FURTHER, k=tokens - 1)]


def natural_length(seed: int, mean: int) -> int:
    """Return after how many tokens the model would stop by itself: `mean` give or take a half."""
    return max(1, round(mean * (0.5 + (seed % 1009) / 1009)))


def embedding(seed: int, dimensions: int) -> list[float]:
    """Return a vector of length 1; the same for the same seed."""
    source = random.Random(seed)
    values = [source.gauss(0, 1) for _ in range(dimensions)]
    norm = sum(value * value for value in values) ** 0.5
    return [value / norm for value in values]
