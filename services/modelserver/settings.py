"""What one simulated replica is configured with."""

from dataclasses import dataclass, field

from services.modelserver.engine import EngineConfig

VLLM_VERSION = "0.32.0"
"""The version whose answers are imitated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One replica. Built from the command line and the environment by `arguments.py`."""

    model: str
    """Path or name of the base model: the `root` in /v1/models."""
    served_names: tuple[str, ...]
    """Names that requests may use; the first labels the metrics."""
    host: str = "127.0.0.1"
    port: int = 8000
    engine: EngineConfig = field(default_factory=EngineConfig)
    adapters: tuple[tuple[str, str], ...] = ()
    """LoRA adapters loaded at the start: (name, path)."""
    runtime_lora: bool = False
    """VLLM_ALLOW_RUNTIME_LORA_UPDATING."""
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    prompt_tokens_details: bool = False
    """--enable-prompt-tokens-details: usage carries `cached_tokens`."""
    request_id_headers: bool = False
    max_logprobs: int = 20
    keep_alive_s: int = 5
    """VLLM_HTTP_TIMEOUT_KEEP_ALIVE: idle connections are closed after so many seconds."""
    gpu_memory_utilization: float = 0.92
    block_size_given: bool = False
    blocks_override: int | None = None
    replica_id: str = ""
    """Sent as `x-penstock-replica` (simulator only); empty: not sent."""
    seed: int = 0
    output_tokens: int = 64
    """Mean length of an answer that no limit cuts."""
    embedding_dimensions: int = 64
    startup_s: float = 0.0
    drain_s: float = 30.0
    check_lora_paths: bool = False
    faults: tuple[str, ...] = ()
    log_level: str = "info"
    not_simulated: tuple[str, ...] = ()
    """Given vLLM arguments that have no effect here."""
