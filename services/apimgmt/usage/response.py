"""What a request used: read from the answer as it passes. See docs/usage.md."""

from services.apimgmt.call import Call
from services.apimgmt.usage.answer import AnswerReader
from services.apimgmt.usage.estimator import Estimator
from services.apimgmt.usage.prompt import Prompt
from services.apimgmt.usage.request import STATE, generates, tokenizer_of, unanswered
from services.apimgmt.usage.stream import StreamReader
from services.apimgmt.usage.tokens import MAX_TOKENS, Tokens
from services.bodyrouter.operations import ROUTED

ENVELOPE_BYTES = 512
"""What surrounds the text of an answer in JSON, about (recorded from vLLM 0.32: 500 to 650 bytes)."""


class UsageReader:
    """One per answer of the upstream. Never raises, whatever passes."""

    __slots__ = ("_call", "_estimator", "_reader", "_status", "_told")

    def __init__(self, call: Call, status: int, content_type: str, estimator: Estimator) -> None:
        """To be made when the answer's headers have come. A packed answer passes as it is, and is estimated."""
        self._call, self._status, self._estimator = call, status, estimator
        self._told: Tokens | None = None
        encoding = call.exchange.response_headers.get("content-encoding")
        packed = bool(encoding) and encoding.strip().lower() not in ("", "identity")
        self._reader: StreamReader | AnswerReader
        if content_type.lower().startswith("text/event-stream") and not packed:
            self._reader = StreamReader(call.strip_usage)
        else:
            self._reader = AnswerReader(ROUTED.get(call.operation, ""))

    @property
    def first_token_at(self) -> float | None:
        """`time.perf_counter()` when the first content passed; None before, and for answers that are no streams."""
        return self._reader.first_at if isinstance(self._reader, StreamReader) else None

    def feed(self, chunk: bytes, last: bool) -> bytes:
        """Return what goes on to the client in place of `chunk`."""
        return self._reader.feed(chunk, last)

    def tokens(self) -> Tokens | None:
        """Return what was used: from `usage`, else estimated; None if the model did nothing (an error).

        Asked once, when the answer is over: after the last chunk, or when it was cut off. Teaches the estimator.
        """
        if self._told is None:
            self._told = self._counted() or (self._estimated() if 200 <= self._status < 300 else None)
        return self._told

    def _counted(self) -> Tokens | None:
        reader = self._reader
        if isinstance(reader, AnswerReader):
            tokens, events = reader.usage(), 0
        else:
            tokens, events = reader.final or (reader.running if reader.complete else None), reader.events
        if tokens is not None:
            self._learn(tokens, events)
        return tokens

    def _learn(self, tokens: Tokens, events: int) -> None:
        model, prompt = tokenizer_of(self._call), self._call.state.get(STATE)
        if isinstance(prompt, Prompt) and prompt.learnable:
            self._estimator.observe(model, prompt.size, tokens.prompt)
        if events and tokens.completion:
            self._estimator.observe_events(model, events, tokens.completion)

    def _estimated(self) -> Tokens:
        call, reader = self._call, self._reader
        guess = unanswered(call, self._estimator)
        if isinstance(reader, StreamReader):
            completion = self._estimator.of_events(tokenizer_of(call), reader.events)
            if reader.running is not None:
                known = reader.running
                completion = max(completion, known.completion)
                return Tokens(known.prompt, known.cached, self._bounded(completion), known.reasoning, True)
        elif reader.deferred():
            completion = call.max_output
        elif generates(call):
            completion = self._estimator.mean(tokenizer_of(call), max(reader.size - ENVELOPE_BYTES, 0))
        else:
            completion = 0
        return Tokens(guess.prompt, 0, self._bounded(completion), 0, True)

    def _bounded(self, completion: int) -> int:
        """An answer is never longer than the model was allowed to make it."""
        prompt = self._call.state.get(STATE)
        bound = self._call.max_output if isinstance(prompt, Prompt) and prompt.bound else MAX_TOKENS
        return min(completion, bound)
