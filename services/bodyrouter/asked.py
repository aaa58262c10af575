"""A request as conditions of prompt routes see it.

CEL (`services.cel`) over `request.path`, `request.model` (as the client asked), `request.headers` (name in lower case
to first value, without credentials), `request.stream`, `body` (the parsed JSON), `prompt` (all its text) and
`promptChars`. A condition that has no value for a request does not match.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.bodyrouter.prompt import text_of
from services.cel.compiler import Variables
from services.extproc.api import Exchange
from services.extproc.visible import VisibleHeaders


@dataclass(slots=True)
class Asked:
    """A request whose model is to be chosen."""

    exchange: Exchange
    model: str
    body: Mapping[str, Any]
    _prompt: str | None = field(default=None, init=False)

    @property
    def prompt(self) -> str:
        """All text of the prompt, put together when it is first asked for."""
        if self._prompt is None:
            self._prompt = text_of(self.body)
        return self._prompt


VARIABLES: Variables[Asked] = {
    "request.path": lambda asked: asked.exchange.request_headers.get(":path").partition("?")[0],
    "request.model": lambda asked: asked.model,
    "request.headers": lambda asked: VisibleHeaders(asked.exchange.request_headers),
    "request.stream": lambda asked: asked.body.get("stream") is True,
    "body": lambda asked: asked.body,
    "prompt": lambda asked: asked.prompt,
    "promptChars": lambda asked: len(asked.prompt),
}
