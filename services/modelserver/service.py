"""What the endpoints of one replica share, and the way of a request through the engine."""

import base64
import secrets
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.modelserver.driver import Delivery, Driver
from services.modelserver.engine import Engine
from services.modelserver.faults import Faults
from services.modelserver.http import ClientGone, Exchange
from services.modelserver.models import Models
from services.modelserver.planning import Plan, Sampling, plan
from services.modelserver.sequence import Sequence
from services.modelserver.settings import VLLM_VERSION, Settings
from services.modelserver.tokens import seed_of


@dataclass(slots=True)
class Job:
    """One request in the engine."""

    id: str
    created: int
    model: str
    plans: list[Plan]
    sequences: list[Sequence]
    delivery: Delivery

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all distinct prompts; the choices of one prompt share it."""
        return sum(s.prompt_tokens for s in self.sequences if s.index % s.n == 0)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens found in the prefix cache."""
        return sum(s.cached_tokens for s in self.sequences if s.index % s.n == 0)

    @property
    def completion_tokens(self) -> int:
        """Tokens of the complete answer."""
        return sum(s.output_tokens for s in self.sequences)


class Service:
    """The state of one replica."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = Engine(settings.engine)
        self.driver = Driver(self.engine)
        self.models = Models(settings)
        self.faults = Faults(settings.faults, settings.seed)
        self.fingerprint = f"vllm-{VLLM_VERSION}-{seed_of(settings.model, settings.engine):016x}"[:20]

    def prepare(
        self, exchange: Exchange, prefix: str, model: str, adapter: str | None, salt: str, every_token: bool
    ) -> "Preparation":
        """Begin a job; its id is `prefix` and the client's x-request-id, or random."""
        request_id = exchange.header(b"x-request-id") or secrets.token_hex(8)
        job = Job(f"{prefix}{request_id}", int(time.time()), model, [], [], Delivery(every_token))
        return Preparation(self, job, adapter, salt)

    def watch(self, exchange: Exchange, job: Job) -> None:
        """Send the job to the engine and abort it as soon as the client goes away."""

        def lost() -> None:
            self.driver.abort(job.sequences)
            job.delivery.give_up()

        job.delivery.pending = len(job.sequences)
        self.driver.submit(job.sequences)
        exchange.on_lost(lost)

    async def complete(self, exchange: Exchange, job: Job) -> None:
        """Wait until every sequence of `job` has ended. Raises ClientGone."""
        self.watch(exchange, job)
        try:
            if not await job.delivery.wait():
                raise ClientGone
        finally:
            self.driver.abort(job.sequences)

    async def stream(self, exchange: Exchange, job: Job) -> AsyncIterator[list[tuple[Sequence, int, int]]]:
        """Yield tokens as they appear: (sequence, first token, count). Raises ClientGone, also for a `drop` fault."""
        self.watch(exchange, job)
        delivery, position, left = job.delivery, [0] * len(job.sequences), exchange.drop_after
        try:
            while delivery.pending or delivery.events:
                if not await delivery.wait():
                    raise ClientGone
                batch = []
                for sequence, count in delivery.take():
                    if left is not None:
                        count = min(count, left)
                        left -= count
                    if count:
                        batch.append((sequence, position[sequence.index], count))
                        position[sequence.index] += count
                yield batch
                if left == 0:
                    exchange.cut(flush=True)
                    raise ClientGone
        finally:
            self.driver.abort(job.sequences)

    def usage(self, job: Job) -> dict[str, object]:
        """Return `usage` of a complete answer."""
        details = {"cached_tokens": job.cached_tokens} if self.settings.prompt_tokens_details else None
        return {
            "prompt_tokens": job.prompt_tokens,
            "total_tokens": job.prompt_tokens + job.completion_tokens,
            "completion_tokens": job.completion_tokens,
            "prompt_tokens_details": details,
            "completion_tokens_details": None,
        }

    def stream_usage(self, job: Job) -> dict[str, object]:
        """Return `usage` of the last chunk of a stream."""
        usage = self.usage(job)
        del usage["completion_tokens_details"]
        if usage["prompt_tokens_details"] is None:
            del usage["prompt_tokens_details"]
        return usage


@dataclass(slots=True)
class Preparation:
    """A job that is being put together."""

    service: Service
    job: Job
    adapter: str | None
    salt: str

    def add(self, prompt: bytes, sampling: Sampling) -> None:
        """Add the `n` choices for one prompt."""
        job, settings = self.job, self.service.settings
        for choice in range(sampling.n):
            planned = plan(sampling, settings, job.model, prompt, choice)
            job.plans.append(planned)
            sequence = Sequence(
                prompt,
                planned.data,
                job.delivery.on_tokens,
                finish_reason=planned.finish_reason,
                adapter=self.adapter,
                salt=self.salt,
                index=len(job.sequences),
                n=sampling.n,
                max_tokens=sampling.max_tokens,
            )
            job.sequences.append(sequence)

    def add_pooling(self, prompt: bytes) -> None:
        """Add a prompt that is only prefilled."""
        job = self.job
        sequence = Sequence(
            prompt,
            b"",
            job.delivery.on_tokens,
            finish_reason="stop",
            adapter=self.adapter,
            salt=self.salt,
            index=len(job.sequences),
            pooling=True,
        )
        job.sequences.append(sequence)


def encode_vector(values: list[float], base64_wanted: bool) -> object:
    """Return an embedding as a list, or as base64 of little-endian 32-bit floats."""
    if not base64_wanted:
        return values
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
