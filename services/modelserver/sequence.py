"""One sequence in the engine: a prompt and what is to be generated for it."""

import enum
from collections.abc import Callable

from services.modelserver.blocks import BYTES_PER_TOKEN


class Status(enum.Enum):
    """Where a sequence is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    ABORTED = "aborted"


class Sequence:
    """A prompt (bytes, four per token), the planned output, and the engine's state for it.

    `listener(sequence, count)` is called when `count` more tokens are there, and once with the status FINISHED.
    A pooling sequence (embeddings) is only prefilled; its listener is called once with a count of 0.
    """

    __slots__ = (
        "adapter",
        "arrival",
        "blocks",
        "cached_tokens",
        "computed",
        "data",
        "finish_reason",
        "first_scheduled",
        "first_token",
        "generated",
        "hashes",
        "index",
        "last_token",
        "listener",
        "max_tokens",
        "n",
        "output_tokens",
        "pooling",
        "preemptions",
        "prompt_tokens",
        "remembered",
        "salt",
        "status",
    )

    def __init__(
        self,
        prompt: bytes,
        output: bytes,
        listener: Callable[["Sequence", int], None],
        *,
        finish_reason: str = "length",
        adapter: str | None = None,
        salt: str = "",
        index: int = 0,
        n: int = 1,
        max_tokens: int = 0,
        pooling: bool = False,
    ) -> None:
        padding = -len(prompt) % BYTES_PER_TOKEN
        self.data = prompt + b"\0" * padding + output
        self.prompt_tokens = (len(prompt) + padding) // BYTES_PER_TOKEN
        self.output_tokens = 1 if pooling else -(-len(output) // BYTES_PER_TOKEN)
        self.listener = listener
        self.finish_reason = finish_reason
        self.adapter = adapter
        self.salt = salt
        self.index = index
        self.n = n
        self.max_tokens = max_tokens or self.output_tokens
        self.pooling = pooling
        self.hashes: list[int] = []
        self.status = Status.WAITING
        self.computed = 0
        self.generated = 0
        self.cached_tokens = 0
        self.remembered = 0
        self.blocks: list[int] = []
        self.preemptions = 0
        self.arrival = 0.0
        self.first_scheduled = -1.0
        self.first_token = 0.0
        self.last_token = 0.0

    @property
    def tokens(self) -> int:
        """Prompt and generated tokens so far."""
        return self.prompt_tokens + self.generated

    @property
    def active(self) -> bool:
        """Whether the engine still works for it."""
        return self.status in (Status.WAITING, Status.RUNNING)
