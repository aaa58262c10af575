"""The queueing model of one replica: continuous batching in steps, as vLLM's V1 scheduler does it.

The engine knows no clock and no transport. Its owner calls `add`, `abort` and `poll` with the time now, and asks
`next_event` when to poll again; tests run it in virtual time, the server on the event loop's clock.

A step runs the batch once: sequences that decode get one token each, sequences that prefill get what is left of the
token budget (chunked prefill). It lasts, in seconds,

    time_scale * (prefilled tokens / prefill_tps + decode(sequences) + lora_load_s * adapters loaded)
    decode(b) = (1 + batch_slowdown * (b - 1)) / decode_tps, and 0 for b = 0

so a step that prefills holds up the decoding of all others, which is what makes long prompts visible in the inter-token
latency of everybody. Tokens appear at the end of a step.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

from services.modelserver.blocks import BlockPool, chain_hashes
from services.modelserver.sequence import Sequence, Status
from services.modelserver.stats import EngineStats

MAX_STEPS_PER_POLL = 64
"""After so many steps `poll` returns to the event loop, even if the next step is due already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Capacity and speed of one replica. Sizes in tokens and blocks, speeds in tokens per second (may be infinite)."""

    max_model_len: int = 32768
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    block_size: int = 16
    num_blocks: int = 4096
    prefix_caching: bool = True
    max_loras: int = 0
    """LoRA slots; 0: LoRA is off."""
    prefill_tps: float = 8000.0
    decode_tps: float = 80.0
    """Of one sequence alone."""
    batch_slowdown: float = 0.02
    """What each further sequence in the batch adds to a decode step, as a share of the step of one."""
    lora_load_s: float = 0.05
    time_scale: float = 1.0
    """Factor on all durations; 0 makes everything instant."""


class Engine:
    """Waiting queue, running batch, KV blocks and LoRA slots. Single-threaded; never waits."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.stats = EngineStats(config.max_model_len)
        self.pool = BlockPool(config.num_blocks)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.resident: OrderedDict[str, None] = OrderedDict()
        """Adapters in slots, least recently used first."""
        self._adapters: dict[str, int] = {}
        """Adapters with active sequences, in the order of their arrival -> number of sequences."""
        self._deferred = 0
        self._batch: list[tuple[Sequence, int]] = []
        self._step_end: float | None = None

    # What the owner calls

    def add(self, sequence: Sequence, now: float) -> None:
        """Queue `sequence`; it is scheduled by the next `poll`."""
        if self.config.prefix_caching:
            sequence.hashes = chain_hashes(sequence.data, self.config.block_size, f"{sequence.adapter}|{sequence.salt}")
        sequence.data = b""  # only the hashes are needed from here on
        sequence.arrival = now
        self.waiting.append(sequence)
        if sequence.adapter is not None:
            self._adapters[sequence.adapter] = self._adapters.get(sequence.adapter, 0) + 1
        if self._step_end is None:
            self._step_end = now  # an empty step, so that what arrives at the same moment is batched

    def abort(self, sequence: Sequence) -> None:
        """Forget `sequence` at once: its slot and blocks are free. Does nothing once it has ended."""
        if not sequence.active:
            return
        if sequence.status is Status.RUNNING:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._let_go(sequence, Status.ABORTED)
        self.stats.aborted += 1

    def next_event(self) -> float | None:
        """Return when `poll` is due; None while there is nothing to do."""
        return self._step_end

    def poll(self, now: float) -> None:
        """Finish all steps that end by `now` and start the next ones; listeners are called from here."""
        for _ in range(MAX_STEPS_PER_POLL):
            if self._step_end is None or self._step_end > now:
                return
            end = self._step_end
            self._finish_step(end)
            duration = self._start_step(end)
            self._step_end = None if duration is None else end + duration

    @property
    def waiting_by_reason(self) -> tuple[int, int]:
        """Waiting sequences: for capacity, and deferred (no LoRA slot)."""
        deferred = min(self._deferred, len(self.waiting))
        return len(self.waiting) - deferred, deferred

    # One step

    def _start_step(self, now: float) -> float | None:
        self._batch = []
        budget = self._schedule_running()
        loads = self._schedule_waiting(budget, now)
        if not self._batch:
            return None
        prefill = decode = 0
        for sequence, new in self._batch:
            if sequence.generated and sequence.computed + 1 == sequence.tokens:
                decode += 1
            else:
                prefill += new
        config = self.config
        seconds = prefill / config.prefill_tps + loads * config.lora_load_s
        if decode:
            seconds += (1 + config.batch_slowdown * (decode - 1)) / config.decode_tps
        seconds *= config.time_scale
        if not prefill and not seconds:
            self._leap()
        return seconds

    def _schedule_running(self) -> int:
        """Give each running sequence its tokens; the newest is preempted when blocks run out.

        Return what is left of the token budget: nothing after a preemption, so that nobody is admitted in that step.
        """
        budget = self.config.max_num_batched_tokens
        position, preempted = 0, False
        while position < len(self.running) and budget > 0:
            sequence = self.running[position]
            new = min(sequence.tokens - sequence.computed, budget)
            if not self._grow(sequence, new):
                victim = self.running[-1]
                self._preempt(victim)
                preempted = True
                self._batch = [entry for entry in self._batch if entry[0] is not victim]
                continue
            self._batch.append((sequence, new))
            budget -= new
            position += 1
        return 0 if preempted else budget

    def _schedule_waiting(self, budget: int, now: float) -> int:
        """Admit waiting sequences in order while there is room; return the number of adapters to load."""
        in_use = {sequence.adapter for sequence in self.running if sequence.adapter is not None}
        skipped: list[Sequence] = []
        loads = 0
        while self.waiting and budget > 0 and len(self.running) < self.config.max_num_seqs:
            sequence = self.waiting[0]
            adapter = sequence.adapter
            if adapter is not None and adapter not in in_use and len(in_use) >= self.config.max_loras:
                skipped.append(self.waiting.popleft())
                continue
            new = self._admit(sequence, budget)
            if not new:
                break
            self.waiting.popleft()
            budget -= new
            if sequence.first_scheduled < 0:
                self._note_admission(sequence, now)
            if adapter is not None:
                in_use.add(adapter)
                loads += self._make_resident(adapter, in_use)
        self.waiting.extendleft(reversed(skipped))
        self._deferred = len(skipped)
        return loads

    def _admit(self, sequence: Sequence, budget: int) -> int:
        """Reserve blocks for the first tokens of `sequence`; return how many tokens, 0 if there is no room."""
        block_size = self.config.block_size
        # The last token is always computed, since its output is what the first new token comes from.
        shared = self.pool.match(sequence.hashes, (sequence.tokens - 1) // block_size)
        hit = len(shared) * block_size
        new = min(sequence.tokens - hit, budget)
        blocks = self.pool.reserve(shared, -(-(hit + new) // block_size) - len(shared))
        if blocks is None:
            return 0
        sequence.blocks, sequence.computed, sequence.remembered = blocks, hit, len(shared)
        if sequence.first_scheduled < 0:
            sequence.cached_tokens = hit
        sequence.status = Status.RUNNING
        self.running.append(sequence)
        self._remember(sequence, hit + new)
        self._batch.append((sequence, new))
        return new

    def _note_admission(self, sequence: Sequence, now: float) -> None:
        sequence.first_scheduled = now
        if self.config.prefix_caching:
            self.stats.prefix_queries += sequence.prompt_tokens
            self.stats.prefix_hits += sequence.cached_tokens

    def _make_resident(self, adapter: str, in_use: set[str]) -> int:
        if adapter in self.resident:
            self.resident.move_to_end(adapter)
            return 0
        if len(self.resident) >= self.config.max_loras:
            oldest = next(name for name in self.resident if name not in in_use)
            del self.resident[oldest]
        self.resident[adapter] = None
        return 1

    def _leap(self) -> None:
        """When decoding takes no time, do all steps up to the first end of a sequence as one."""
        steps = min(sequence.output_tokens - sequence.generated for sequence, _ in self._batch)
        block_size = self.config.block_size
        need = sum(-(-(s.computed + steps) // block_size) - len(s.blocks) for s, _ in self._batch)
        if steps > 1 and need <= self.pool.free:
            for sequence, _ in self._batch:
                self._grow(sequence, steps)
            self._batch = [(sequence, steps) for sequence, _ in self._batch]

    def _grow(self, sequence: Sequence, new: int) -> bool:
        """Make room for `new` more tokens of a running sequence; False if blocks have run out."""
        target = sequence.computed + new
        missing = -(-target // self.config.block_size) - len(sequence.blocks)
        if missing > 0:
            blocks = self.pool.reserve([], missing)
            if blocks is None:
                return False
            sequence.blocks += blocks
        self._remember(sequence, target)
        return True

    def _remember(self, sequence: Sequence, computed: int) -> None:
        """Publish full blocks when they are scheduled, as vLLM: the same step may already share them."""
        full = min(computed // self.config.block_size, len(sequence.hashes))
        for position in range(sequence.remembered, full):
            self.pool.remember(sequence.blocks[position], sequence.hashes[position])
        sequence.remembered = max(sequence.remembered, full)

    def _preempt(self, sequence: Sequence) -> None:
        """Back to the head of the queue; what was computed is lost, except for what the prefix cache keeps."""
        self.running.remove(sequence)
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.computed = sequence.remembered = 0
        sequence.status = Status.WAITING
        sequence.preemptions += 1
        self.stats.preemptions += 1
        self.waiting.appendleft(sequence)

    # The end of a step

    def _finish_step(self, now: float) -> None:
        if not self._batch:
            return
        prompt = generated = longest = 0
        for sequence, new in self._batch:
            if sequence.status is not Status.RUNNING:
                continue  # aborted while the step ran
            tokens = sequence.tokens
            sequence.computed += new
            if sequence.computed < tokens:
                continue  # more of the prompt to come
            count = sequence.computed - tokens + 1
            if not sequence.generated:
                prompt += sequence.prompt_tokens
            if not sequence.pooling:
                generated += count
            longest = max(longest, count)
            self._deliver(sequence, count, now)
        self.stats.steps += max(longest, 1)
        self.stats.generation_tokens += generated
        self.stats.iteration_tokens.observe(prompt + generated)
        if self.config.max_loras:
            self.stats.lora_info[",".join(self._adapters)] = now

    def _deliver(self, sequence: Sequence, count: int, now: float) -> None:
        stats = self.stats
        if not sequence.generated:
            sequence.first_token = now
            stats.time_to_first_token.observe(now - sequence.arrival)
            stats.prompt_tokens += sequence.prompt_tokens
            stats.cached_prompt_tokens += sequence.cached_tokens
        else:
            stats.inter_token_latency.observe((now - sequence.last_token) / count, count)
        sequence.last_token = now
        sequence.generated += count
        if sequence.generated >= sequence.output_tokens:
            self.running.remove(sequence)
            self._let_go(sequence, Status.FINISHED)
            self.stats.note_end(sequence, now)
        sequence.listener(sequence, 0 if sequence.pooling else count)

    def _let_go(self, sequence: Sequence, status: Status) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.status = status
        if sequence.adapter is not None:
            self._adapters[sequence.adapter] -= 1
            if not self._adapters[sequence.adapter]:
                del self._adapters[sequence.adapter]
