"""Reading OpenAPI documents: ours from this folder, those of products from text or settings.

A document of a product is written by whoever may change the product, and still trusted with nothing: it is read by
YAML's safe loader without aliases (which could unfold to any size), bounded in bytes, depth and number of nodes, and
nothing that it refers to is ever fetched.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import yaml

MAX_DOCUMENT_BYTES = 1024 * 1024
"""Longest document, bytes of text."""
MAX_DEPTH = 64
"""Deepest nesting of a document; ours has 14."""
MAX_NODES = 100_000
"""Most values in a document; ours has some 3,000."""

_BUILT_IN = Path(__file__).with_name("openai.yaml")


class DocumentError(ValueError):
    """A document cannot be used. Each problem names path, what was expected and the fix."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that refuses aliases and repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise DocumentError([f"line {line}: an alias (*); expected none; write the value out or use $ref"])
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise DocumentError([f"line {line}: the key {str(key.value)[:60]!r} stands twice; keep one of them"])
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse(text: str) -> dict[str, Any]:
    """Return the document in JSON or YAML `text`. Raises DocumentError."""
    if len(text) > MAX_DOCUMENT_BYTES or len(text.encode("utf-8", "replace")) > MAX_DOCUMENT_BYTES:
        raise DocumentError([f"the document: longer than {MAX_DOCUMENT_BYTES} bytes; leave out what is not checked"])
    try:
        value = orjson.loads(text)
    except ValueError:
        value = _parse_yaml(text)
    return check(value)


def _parse_yaml(text: str) -> Any:
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except DocumentError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DocumentError([f"the document: expected JSON or YAML, got: {reason}; correct the syntax"]) from None


def check(document: object) -> dict[str, Any]:
    """Return `document` if it is an OpenAPI 3.0 or 3.1 document of bounded size. Raises DocumentError."""
    if not isinstance(document, dict):
        raise DocumentError(["the document: expected an object with openapi and paths; give an OpenAPI document"])
    problems = _bounds(document)
    if problems:
        raise DocumentError(problems)
    version = document.get("openapi")
    if not isinstance(version, str) or not version.startswith(("3.0.", "3.1.")):
        found = "nothing" if version is None else repr(version)[:40]
        problems.append(f"openapi: expected a version 3.0.x or 3.1.x, found {found}; convert the document")
    if not isinstance(document.get("paths"), dict) or not document["paths"]:
        problems.append("paths: expected an object of paths; add those that requests are checked on")
    if problems:
        raise DocumentError(problems)
    return document


def _bounds(document: Mapping[str, Any]) -> list[str]:
    """Walk without recursion: a document may be deeper than Python's stack."""
    level: list[Any] = [document]
    nodes = 0
    for _ in range(MAX_DEPTH):
        following: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                if not all(isinstance(key, str) for key in value):
                    return ["the document: a key that is no text; put keys like 200 into quotes"]
                following.extend(value.values())
            elif isinstance(value, list):
                following.extend(value)
        nodes += len(level)
        if nodes > MAX_NODES:
            return [f"the document: more than {MAX_NODES} values; leave out what is not checked"]
        if not following:
            return []
        level = following
    return [f"the document: nested deeper than {MAX_DEPTH}; use $ref"]


@functools.cache
def built_in() -> dict[str, Any]:
    """Return our document of the OpenAI operations. Treat it as constant."""
    return check(yaml.safe_load(_BUILT_IN.read_text(encoding="utf-8")))
