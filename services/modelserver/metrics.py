"""GET /metrics: the names, types and labels that vLLM 0.32 exposes, in its order.

Pickers scrape many times per second, so a family is rendered again only when its numbers have changed.
"""

import os
import resource
import time
from collections.abc import Callable

from services.modelserver.engine import Engine
from services.modelserver.exposition import family, histogram_family, labels
from services.modelserver.http_stats import HttpStats
from services.modelserver.settings import Settings
from services.modelserver.stats import Histogram

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
_TIERS = ("device", "host", "p2p", "disk", "external_unspecified")
_CACHE_CONFIG = {
    "_block_size_resolved": "True",
    "cache_dtype": "auto",
    "cache_hit_alignment_tokens": "None",
    "enable_mamba_shared_prefix_checkpoint": "False",
    "engine": "0",
    "hash_block_size": "None",
    "is_attention_free": "False",
    "kv_cache_dtype_skip_layers": "[]",
    "kv_cache_layout": "None",
    "kv_cache_memory_bytes": "None",
    "kv_offloading_backend": "native",
    "kv_offloading_size": "None",
    "kv_sharing_fast_prefill": "False",
    "mamba_block_size": "None",
    "mamba_cache_dtype": "auto",
    "mamba_cache_mode": "none",
    "mamba_page_size_padded": "None",
    "mamba_ssm_cache_dtype": "float32",
    "num_cpu_blocks": "None",
    "prefix_cache_retention_interval": "0",
    "prefix_caching_hash_algo": "sha256",
    "prefix_match_unit": "None",
    "replayssm_buffer_len": "16",
    "skip_page_size_padded": "None",
    "sliding_window": "None",
    "swa_bounded_replay": "True",
    "use_kda_recoverssm": "False",
    "use_replayssm": "False",
}
"""Labels of `vllm:cache_config_info` that nothing here depends on, as recorded."""


class Metrics:
    """Renders the numbers of one engine and its HTTP server."""

    def __init__(self, settings: Settings, engine: Engine, http: HttpStats, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._engine = engine
        self._http = http
        self._clock = clock
        """The engine's clock; the metrics carry wall-clock time."""
        self._created = time.time()
        self._base = {"engine": "0", "model_name": settings.served_names[0]}
        self._where = labels(self._base)
        self._rendered: dict[str, tuple[object, str]] = {}
        self._cache_config = family(
            "vllm:cache_config_info", "gauge", "KV cache configuration, as labels", [(self._cache_labels(), 1.0)]
        )
        zero = {"flops": "FLOPs", "read_bytes": "bytes read", "write_bytes": "bytes written"}
        counters = (
            self._counter(f"vllm:estimated_{n}_per_gpu", f"Estimated {t}; not simulated", 0) for n, t in zero.items()
        )
        self._head = "".join(counters)

    def _cache_labels(self) -> str:
        settings, config = self._settings, self._settings.engine
        size = config.num_blocks * config.block_size
        return labels(
            {
                **_CACHE_CONFIG,
                "block_size": str(config.block_size),
                "effective_attention_block_size": str(config.block_size),
                "enable_prefix_caching": str(config.prefix_caching),
                "gpu_memory_utilization": str(settings.gpu_memory_utilization),
                "kv_cache_max_concurrency": str(size / config.max_model_len),
                "kv_cache_size_tokens": str(size),
                "num_gpu_blocks": str(config.num_blocks),
                "num_gpu_blocks_override": str(settings.blocks_override),
                "user_specified_block_size": str(settings.block_size_given),
            }
        )

    def render(self) -> bytes:
        """Return the exposition text."""
        parts = [self._process(), self._head, self._gauges(), self._counters(), self._histograms(), self._lora()]
        parts += [self._cache_config, self._http.render()]
        return "".join(parts).encode()

    def _cached(self, key: str, version: object, build: Callable[[], str]) -> str:
        known = self._rendered.get(key)
        if known is not None and known[0] == version:
            return known[1]
        text = build()
        self._rendered[key] = (version, text)
        return text

    def _process(self) -> str:
        now = int(time.time())
        return self._cached("process", now, self._read_process)

    def _read_process(self) -> str:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        seconds = usage.ru_utime + usage.ru_stime
        text = family("process_cpu_seconds_total", "counter", "CPU time used, seconds", [("", seconds)])
        try:
            with open("/proc/self/statm", encoding="ascii") as file:
                pages = int(file.read().split()[1])
        except OSError:  # no procfs here
            return text
        size = float(pages * os.sysconf("SC_PAGE_SIZE"))
        return text + family("process_resident_memory_bytes", "gauge", "Resident memory, bytes", [("", size)])

    def _gauges(self) -> str:
        engine = self._engine
        capacity, deferred = engine.waiting_by_reason
        version = (len(engine.running), capacity, deferred, engine.pool.free)
        return self._cached("gauges", version, lambda: self._build_gauges(capacity, deferred))

    def _build_gauges(self, capacity: int, deferred: int) -> str:
        engine, where = self._engine, self._where
        reasons = {"capacity": capacity, "deferred": deferred}
        states = {"awake": 1, "weights_offloaded": 0, "discard_all": 0}
        return "".join(
            [
                family("vllm:num_requests_running", "gauge", "Requests in the batch", [(where, len(engine.running))]),
                family("vllm:num_requests_waiting", "gauge", "Requests in the queue", [(where, len(engine.waiting))]),
                self._split("vllm:num_requests_waiting_by_reason", "gauge", "Queue by reason", "reason", reasons),
                self._split("vllm:engine_sleep_state", "gauge", "Sleep state; always awake", "sleep_state", states),
                family("vllm:kv_cache_usage_perc", "gauge", "KV cache in use, 0 to 1", [(where, engine.pool.usage)]),
            ]
        )

    def _split(self, name: str, kind: str, text: str, label: str, values: dict[str, int]) -> str:
        return family(name, kind, text, [(labels({**self._base, label: k}), v) for k, v in values.items()])

    def _counter(self, name: str, text: str, value: float) -> str:
        created = family(f"{name}_created", "gauge", text, [(self._where, self._created)])
        return family(f"{name}_total", "counter", text, [(self._where, value)]) + created

    def _counters(self) -> str:
        stats = self._engine.stats
        finished = tuple(stats.finished.values())
        version = (stats.prefix_queries, stats.preemptions, stats.prompt_tokens, stats.generation_tokens, finished)
        return self._cached("counters", version, self._build_counters)

    def _build_counters(self) -> str:
        stats = self._engine.stats
        hits, computed = stats.cached_prompt_tokens, stats.prompt_tokens - stats.cached_prompt_tokens
        sources = dict(zip(_SOURCES, (computed, hits, 0), strict=True))
        tiers = dict(zip(_TIERS, (stats.prefix_hits, 0, 0, 0, 0), strict=True))
        cached = "Cached prompt tokens"
        return "".join(
            [
                self._counter(
                    "vllm:prefix_cache_queries", "Tokens looked up in the prefix cache", stats.prefix_queries
                ),
                self._counter("vllm:prefix_cache_hits", "Tokens found in the prefix cache", stats.prefix_hits),
                self._counter("vllm:external_prefix_cache_queries", "Not simulated", 0),
                self._counter("vllm:external_prefix_cache_hits", "Not simulated", 0),
                self._counter("vllm:mm_cache_queries", "Not simulated", 0),
                self._counter("vllm:mm_cache_hits", "Not simulated", 0),
                self._counter("vllm:num_preemptions", "Preemptions", stats.preemptions),
                self._counter("vllm:prompt_tokens", "Prompt tokens", stats.prompt_tokens),
                self._labelled("vllm:prompt_tokens_by_source", "Prompt tokens by source", "source", sources),
                self._counter("vllm:prompt_tokens_cached", cached, hits),
                self._labelled("vllm:prompt_tokens_cached_by_source", f"{cached} by tier", "source", tiers),
                self._counter("vllm:generation_tokens", "Generated tokens", stats.generation_tokens),
                self._labelled("vllm:request_success", "Ended requests", "finished_reason", stats.finished),
                self._rejections(),
            ]
        )

    def _labelled(self, name: str, text: str, label: str, values: dict[str, int]) -> str:
        wheres = [labels({**self._base, label: value}) for value in values]
        samples = zip(wheres, values.values(), strict=True)
        created = family(f"{name}_created", "gauge", text, [(where, self._created) for where in wheres])
        return family(f"{name}_total", "counter", text, samples) + created

    def _rejections(self) -> str:
        name, text = "vllm:admission_rejections", "Not simulated"
        model = self._base["model_name"]
        wheres = [labels({"model_name": model, "reason": f"max_num_queued_{what}"}) for what in ("reqs", "tokens")]
        created = family(f"{name}_created", "gauge", text, [(where, self._created) for where in wheres])
        return family(f"{name}_total", "counter", text, [(where, 0) for where in wheres]) + created

    def _histograms(self) -> str:
        stats = self._engine.stats
        return "".join(
            [
                self._histogram("request_prompt_tokens", stats.request_prompt_tokens),
                self._histogram("request_generation_tokens", stats.request_generation_tokens),
                self._histogram("iteration_tokens_total", stats.iteration_tokens),
                self._histogram("request_max_num_generation_tokens", stats.request_max_generation_tokens),
                self._histogram("request_params_n", stats.request_params_n),
                self._histogram("request_params_max_tokens", stats.request_params_max_tokens),
                self._histogram("time_to_first_token_seconds", stats.time_to_first_token),
                self._histogram("inter_token_latency_seconds", stats.inter_token_latency),
                self._histogram("request_time_per_output_token_seconds", stats.time_per_output_token),
                self._histogram("e2e_request_latency_seconds", stats.e2e_latency),
                self._histogram("request_queue_time_seconds", stats.queue_time),
                self._histogram("request_inference_time_seconds", stats.inference_time),
                self._histogram("request_prefill_time_seconds", stats.prefill_time),
                self._histogram("request_decode_time_seconds", stats.decode_time),
                self._histogram("request_num_preemptions", stats.request_preemptions),
                self._histogram("request_prefill_kv_computed_tokens", stats.prefill_computed_tokens),
            ]
        )

    def _histogram(self, short: str, histogram: Histogram) -> str:
        name = f"vllm:{short}"
        text = short.replace("_", " ").capitalize()
        build = lambda: histogram_family(name, text, self._base, histogram, self._created)  # noqa: E731
        return self._cached(name, histogram.number, build)

    def _lora(self) -> str:
        if not self._settings.engine.max_loras:
            return ""
        offset = time.time() - self._clock()
        samples = [(self._lora_labels(names), at + offset) for names, at in self._engine.stats.lora_info.items()]
        return family("vllm:lora_requests_info", "gauge", "When these adapters were last active together", samples)

    def _lora_labels(self, names: str) -> str:
        most = str(self._settings.engine.max_loras)
        # vLLM 0.32 fills both lists with every adapter that has a request, running or waiting.
        return labels({"max_lora": most, "running_lora_adapters": names, "waiting_lora_adapters": names})
