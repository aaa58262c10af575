"""What a policy is. One per product and chain, made when the configuration is compiled; `check` runs per request."""

import abc
import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from services.apimgmt.call import Call
from services.apimgmt.store.api import Store
from services.extproc.api import Answer, Outcome
from services.extproc.config import ConfigModel

S = TypeVar("S", bound=ConfigModel)


class Stage(enum.Enum):
    """When a policy runs."""

    HEADERS = "headers"
    """Before the body is read: a denial spares the upload. `call.body` is empty."""
    BODY = "body"


@dataclass(slots=True)
class Tools:
    """What policies may use of the process. The clock can be set in tests."""

    store: Store
    value: Callable[[str, str], str | None]
    """Plain value of a key-value map's entry: (map, key) -> value. Never log it."""
    background: Callable[[Awaitable[Any]], None]
    """Runs something beside requests; ends it when the process ends."""
    extras: dict[str, Any] = field(default_factory=dict)
    """What policies share by an agreed name, e.g. `directory`, `http`."""


class Policy(abc.ABC, Generic[S]):
    """A small filter with typed settings.

    `check` returns None to go on, a `Reply` to end the request (an error made by `extproc.api.deny`, or with status 200
    an answer in place of the model's), or an awaitable of one of these. It must not change anything outside of the
    call unless `call.shadow` is false. An exception denies with 500, unless `fail_open`.
    """

    name: ClassVar[str]
    """In the registry, in the config, in metrics: lower case with dashes."""
    stage: ClassVar[Stage] = Stage.BODY
    settings_model: ClassVar[type[ConfigModel]]
    fail_open: bool = False

    def __init__(self, settings: S, tools: Tools) -> None:
        """Prepare; raise ValueError (path: text) for settings that cannot work. Must not wait."""
        self.settings, self.tools = settings, tools

    async def start(self) -> None:
        """Begin background work, e.g. fetch key sets. Called once, before the first `check`."""

    async def stop(self) -> None:
        """End it."""

    @abc.abstractmethod
    def check(self, call: Call) -> Answer:
        """Look at the request."""

    def on_response(self, call: Call) -> None:
        """The answer's headers are here (`call.exchange.response_headers`); `call.headers` may still be changed."""

    def on_done(self, call: Call, outcome: Outcome) -> None:
        """The exchange is over; `call.response` holds the answer if it was asked for and is complete."""
