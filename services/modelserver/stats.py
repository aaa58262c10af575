"""What the engine counts: plain numbers, cheap to update, rendered by `metrics.py`."""

from bisect import bisect_left

from services.modelserver.sequence import Sequence

LATENCY_BOUNDS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
"""Seconds; bucket bounds here and below as recorded from vLLM 0.32.0."""
TTFT_BOUNDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TOKEN_LATENCY_BOUNDS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)
ITERATION_BOUNDS = (1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0)
COUNT_BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0)
PREEMPTION_BOUNDS = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)
FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")


def token_bounds(max_model_len: int) -> tuple[float, ...]:
    """Return 1, 2, 5, 10, 20, 50, ... up to `max_model_len` tokens, vLLM's buckets for token counts."""
    bounds = []
    decade = 1
    while decade <= max_model_len:
        bounds += [float(step * decade) for step in (1, 2, 5) if step * decade <= max_model_len]
        decade *= 10
    return tuple(bounds)


class Histogram:
    """Counts per bucket (not cumulative), with `+Inf` last."""

    __slots__ = ("bounds", "counts", "number", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.number = 0
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value` `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.number += times
        self.total += value * times


class EngineStats:
    """All counters and histograms of one engine. Times in seconds of the engine's clock, sizes in tokens."""

    def __init__(self, max_model_len: int) -> None:
        tokens = token_bounds(max_model_len)
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.preemptions = 0
        self.prompt_tokens = 0
        self.cached_prompt_tokens = 0
        self.generation_tokens = 0
        self.aborted = 0
        self.steps = 0
        self.finished = dict.fromkeys(FINISH_REASONS, 0)
        self.lora_info: dict[str, float] = {}
        """Comma-joined adapters with any active request -> engine time when they were last seen together."""
        self.request_prompt_tokens = Histogram(tokens)
        self.request_generation_tokens = Histogram(tokens)
        self.iteration_tokens = Histogram(ITERATION_BOUNDS)
        self.request_max_generation_tokens = Histogram(tokens)
        self.request_params_n = Histogram(COUNT_BOUNDS)
        self.request_params_max_tokens = Histogram(tokens)
        self.time_to_first_token = Histogram(TTFT_BOUNDS)
        self.inter_token_latency = Histogram(TOKEN_LATENCY_BOUNDS)
        self.time_per_output_token = Histogram(TOKEN_LATENCY_BOUNDS)
        self.e2e_latency = Histogram(LATENCY_BOUNDS)
        self.queue_time = Histogram(LATENCY_BOUNDS)
        self.inference_time = Histogram(LATENCY_BOUNDS)
        self.prefill_time = Histogram(LATENCY_BOUNDS)
        self.decode_time = Histogram(LATENCY_BOUNDS)
        self.request_preemptions = Histogram(PREEMPTION_BOUNDS)
        self.prefill_computed_tokens = Histogram(tokens)

    def note_end(self, sequence: Sequence, now: float) -> None:
        """Count a sequence that was generated to its end."""
        generated = 0 if sequence.pooling else sequence.generated
        self.finished["stop" if sequence.finish_reason == "stop" else "length"] += 1
        self.request_prompt_tokens.observe(sequence.prompt_tokens)
        self.request_generation_tokens.observe(generated)
        self.request_max_generation_tokens.observe(generated)
        self.request_params_n.observe(sequence.n)
        self.request_params_max_tokens.observe(sequence.max_tokens)
        self.e2e_latency.observe(now - sequence.arrival)
        self.queue_time.observe(sequence.first_scheduled - sequence.arrival)
        self.inference_time.observe(now - sequence.first_scheduled)
        self.prefill_time.observe(sequence.first_token - sequence.first_scheduled)
        self.decode_time.observe(now - sequence.first_token)
        if generated > 1:
            self.time_per_output_token.observe((now - sequence.first_token) / (generated - 1))
        self.request_preemptions.observe(sequence.preemptions)
        self.prefill_computed_tokens.observe(sequence.prompt_tokens - sequence.cached_tokens)
