"""How large a prompt is, in bytes of text and in what is no text. Nothing here looks at single characters.

Fields: OpenAI API reference (chat completions, completions, embeddings, responses) and vLLM 0.32 (rerank, score,
`documents`, `prompt_embeds`).
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

MESSAGE_BYTES = 16
"""What a chat template adds to a message, as bytes of text: role and separators, 3 to 5 tokens."""

CHAT_BYTES = 96
"""What it adds once: start of the answer, and a short system prompt of its own, as those of Llama 3 and Qwen."""

TOOLS_BYTES = 768
"""What it adds to explain tools, where a request has some."""

TEXT_BYTES = 8
"""What an encoder adds to a text of its own: start and end."""


@dataclass(slots=True)
class Prompt:
    """The parts of a prompt."""

    size: int = 0
    """Bytes of text, with what templates add."""
    media: int = 0
    """Images, sounds and other parts that are no text."""
    fixed: int = 0
    """Tokens that the client sent as token ids."""
    count: int = 1
    """Prompts in the request (a list in `prompt`): each is answered."""
    bound: bool = False
    """Whether the model is told how long the answer may be (`call.max_output`)."""

    @property
    def learnable(self) -> bool:
        """Whether the tokens are those of the text alone, so that a ratio can be learned."""
        return self.size > 0 and not self.media and not self.fixed


def measure(operation: str, body: Mapping[str, Any], size: int) -> Prompt:
    """Measure the prompt of a request.

    `operation` is a label of `bodyrouter.operations.ROUTED`; `size` the body's bytes, which is the answer for a body of
    another shape than the operation's.
    """
    try:
        return _MEASURES[operation](body)
    except (TypeError, KeyError, RecursionError):
        return Prompt(size)


def text_bytes(text: str) -> int:
    """Return the length of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _json_bytes(value: object) -> int:
    return len(orjson.dumps(value))


def _chat(body: Mapping[str, Any]) -> Prompt:
    prompt = Prompt(CHAT_BYTES)
    _add_messages(prompt, body["messages"])
    _add_tools(prompt, body, ("tools", "functions", "documents"))
    for name in ("chat_template", "chat_template_kwargs"):
        if body.get(name):
            prompt.size += _json_bytes(body[name])
    return prompt


def _responses(body: Mapping[str, Any]) -> Prompt:
    prompt = Prompt(CHAT_BYTES)
    given = body["input"]
    if isinstance(given, str):
        prompt.size += text_bytes(given) + MESSAGE_BYTES
    else:
        _add_messages(prompt, given)
    instructions = body.get("instructions")
    if instructions:
        prompt.size += _json_bytes(instructions) + MESSAGE_BYTES
    _add_tools(prompt, body, ("tools",))
    return prompt


def _add_tools(prompt: Prompt, body: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        value = body.get(name)
        if value:
            prompt.size += _json_bytes(value) + TOOLS_BYTES


def _add_messages(prompt: Prompt, messages: list[object]) -> None:
    size = 0
    for message in messages:
        size += MESSAGE_BYTES
        if not isinstance(message, dict):
            size += _json_bytes(message)
            continue
        content = message.get("content")
        if isinstance(content, str):
            size += len(content) if content.isascii() else text_bytes(content)
        elif content:
            _add_parts(prompt, content)
        if len(message) != 2 or "content" not in message or message.get("role") not in _ROLES:
            size += _json_bytes({name: value for name, value in message.items() if name != "content"})
    prompt.size += size


def _add_parts(prompt: Prompt, content: object) -> None:
    """Add a message's content that is no plain text: a list of parts."""
    for part in content if isinstance(content, list) else (content,):
        if isinstance(part, str):
            prompt.size += text_bytes(part)
            continue
        fields: dict[str, Any] = part if isinstance(part, dict) else {}
        text = fields.get("text")
        if isinstance(text, str):
            prompt.size += text_bytes(text)
        if len(fields) > 2 or not isinstance(text, str):
            # Text has other names, too (`refusal`, `thinking`), and the part's type decides which one is read.
            others = {name: value for name, value in fields.items() if name not in _NO_TEXT and name[-7:] != "_embeds"}
            prompt.size += _json_bytes(others) if others else 0
            prompt.media += not _MEDIA.isdisjoint(fields) or (not isinstance(text, str) and not others)


_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
"""Roles whose tokens are in MESSAGE_BYTES; vLLM also takes others, of any length."""

_MEDIA = frozenset({"image_url", "input_audio", "audio_url", "video_url", "image_pil", "image_embeds", "image", "file"})
_NO_TEXT = _MEDIA | {"type", "text"}


def _completions(body: Mapping[str, Any]) -> Prompt:
    prompt = Prompt()
    if body.get("prompt") is not None:
        prompt = _texts(body["prompt"])
    embeds = body.get("prompt_embeds")
    if embeds is not None:
        many = len(embeds) if isinstance(embeds, list) else 1
        prompt.media += many
        prompt.count = many + (prompt.count if body.get("prompt") is not None else 0)
    if isinstance(body.get("suffix"), str):
        prompt.size += text_bytes(body["suffix"])
    prompt.count = max(prompt.count, 1)
    return prompt


def _embeddings(body: Mapping[str, Any]) -> Prompt:
    """Which of the two forms a body with both has, the model server decides: both count."""
    if body.get("messages") is None:
        return _texts(body["input"])
    prompt = _chat(body)
    return prompt if body.get("input") is None else _both(prompt, _texts(body["input"]))


def _rerank(body: Mapping[str, Any]) -> Prompt:
    """Each document is read together with the query."""
    documents, query = _texts(body["documents"]), _texts(body["query"])
    return _pairs(query, documents)


def _score(body: Mapping[str, Any]) -> Prompt:
    """One against all, or the first against the first, and so on. Of several forms in one body all count."""
    found = [(_texts(body[one]), _texts(body[other])) for one, other in _SCORED if one in body and other in body]
    if not found:
        raise KeyError(_SCORED[0])
    forms = [_pairs(one, other) if one.count == 1 else _pairs(other, one) for one, other in found]
    return functools.reduce(_both, forms)


_SCORED = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))


def _both(one: Prompt, other: Prompt) -> Prompt:
    return Prompt(one.size + other.size, one.media + other.media, one.fixed + other.fixed, max(one.count, other.count))


def _pairs(one: Prompt, many: Prompt) -> Prompt:
    times = many.count if one.count == 1 else 1
    return Prompt(
        many.size + times * one.size, many.media + times * one.media, many.fixed + times * one.fixed, many.count
    )


def _texts(value: object) -> Prompt:
    """Measure one text, a list of texts, token ids, lists of token ids, or documents with parts."""
    if isinstance(value, str):
        return Prompt(text_bytes(value) + TEXT_BYTES)
    if isinstance(value, dict):
        prompt = Prompt(TEXT_BYTES)
        _add_parts(prompt, value.get("content", value))
        return prompt
    if not isinstance(value, list) or not value:
        return Prompt(_json_bytes(value))
    if isinstance(value[0], int):
        return Prompt(fixed=len(value))
    if isinstance(value[0], list):
        return Prompt(fixed=sum(map(len, value)), count=len(value))
    if isinstance(value[0], str):
        return Prompt(text_bytes("".join(value)) + TEXT_BYTES * len(value), count=len(value))
    prompt = Prompt(count=len(value))
    for item in value:
        one = _texts(item)
        prompt.size, prompt.media = prompt.size + one.size, prompt.media + one.media
    return prompt


_MEASURES: dict[str, Callable[[Mapping[str, Any]], Prompt]] = {
    "chat_completions": _chat,
    "completions": _completions,
    "embeddings": _embeddings,
    "responses": _responses,
    "rerank": _rerank,
    "score": _score,
}
