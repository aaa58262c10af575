"""The engine in virtual time: events happen when the engine says so, nothing waits."""

from dataclasses import dataclass, field

from services.modelserver.engine import Engine, EngineConfig
from services.modelserver.sequence import Sequence

SPEEDS = {"prefill_tps": 1000.0, "decode_tps": 100.0, "batch_slowdown": 0.0, "lora_load_s": 0.0}


def text(tokens: int, salt: str = "a") -> bytes:
    """Return a prompt of up to 1,000 different tokens; `salt` is one letter."""
    return b"".join(f"{salt}{i:03}".encode() for i in range(tokens))


@dataclass
class Run:
    """An engine, its clock, and when each token came."""

    engine: Engine
    now: float = 0.0
    tokens: dict[Sequence, list[float]] = field(default_factory=dict)

    def add(
        self,
        prompt: bytes,
        output: int,
        at: float = 0.0,
        adapter: str | None = None,
        answer: bytes | None = None,
        pooling: bool = False,
    ) -> Sequence:
        """Let happen what is due before `at`, then add a sequence that generates `output` tokens."""
        while (due := self.engine.next_event()) is not None and due < at:
            self.now = due
            self.engine.poll(due)
        self.now = max(self.now, at)
        sequence = Sequence(prompt, answer or b"out " * output, self._listen, adapter=adapter, pooling=pooling)
        self.tokens[sequence] = []
        self.engine.add(sequence, at)
        return sequence

    def _listen(self, sequence: Sequence, count: int) -> None:
        self.tokens[sequence] += [self.now] * max(count, 1)

    def until(self, end: float) -> None:
        """Let everything happen that is due before or at `end`."""
        while (due := self.engine.next_event()) is not None and due <= end:
            self.now = due
            self.engine.poll(due)
        self.now = max(self.now, end)

    def finish(self) -> None:
        """Let everything happen."""
        for _ in range(1_000_000):
            due = self.engine.next_event()
            if due is None:
                return
            self.now = due
            self.engine.poll(due)
        raise AssertionError("the engine does not come to an end")

    def first(self, sequence: Sequence) -> float:
        """Return when the first token came."""
        return self.tokens[sequence][0]

    def end(self, sequence: Sequence) -> float:
        """Return when the last token came."""
        return self.tokens[sequence][-1]


def start(**config: object) -> Run:
    """Make an engine: 1,000 prompt tokens per second, 10 ms per decode step whatever the batch."""
    values: dict[str, object] = {"block_size": 16, "num_blocks": 1001, "max_model_len": 4096, **SPEEDS, **config}
    return Run(Engine(EngineConfig(**values)))  # type: ignore[arg-type]
