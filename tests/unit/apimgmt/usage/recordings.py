"""Streams as vLLM sends them: recorded ones where they are at hand, and small ones of the same shape."""

from pathlib import Path

import orjson
import pytest

RECORDED = Path(__file__).parents[5] / "shared" / "vllm"
HEAD = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny","choices":['
FINGERPRINT = b',"system_fingerprint":"vllm-0.32.0"'
USAGE = b'"usage":{"prompt_tokens":6,"total_tokens":9,"completion_tokens":3}'


def recorded(name: str) -> bytes:
    """Return the body of a recorded answer."""
    path = RECORDED / name
    if not path.exists():
        pytest.skip("recordings of vLLM are not at hand (../shared/vllm)")
    return path.read_bytes().partition(b"\r\n\r\n")[2]


def chat_stream(pieces=("Hel", "lo", '"usage"'), usage=True, null=False) -> bytes:
    """Return a stream of chat chunks, with usage or without; `null`: as OpenAI fills it up."""
    empty = b',"usage":null' if null else b""
    out = [HEAD + b'{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]' + empty + b"}\n\n"]
    for number, piece in enumerate(pieces):
        done = number + 1 == len(pieces)
        reason = b'"length"' if done else b"null"
        tail = FINGERPRINT if done and not usage else b""
        delta = b'{"index":0,"delta":{"content":%b},"finish_reason":%b}]' % (orjson.dumps(piece), reason)
        out.append(HEAD + delta + empty + tail + b"}\n\n")
    if usage:
        out.append(HEAD + b"]," + USAGE + FINGERPRINT + b"}\n\n")
    return b"".join([*out, b"data: [DONE]\n\n"])
