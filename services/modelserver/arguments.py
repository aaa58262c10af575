"""The command line: arguments of `vllm serve` (0.32) and the simulator's own `--sim-*` settings.

Each `--sim-x-y` may also come from the environment as `PENSTOCK_SIM_X_Y`; the command line wins.
"""

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence

from services.modelserver import vllm_arguments
from services.modelserver.engine import EngineConfig
from services.modelserver.faults import parse_fault
from services.modelserver.settings import Settings

DEFAULT_MAX_MODEL_LEN = 32768
"""vLLM takes it from the model's configuration, which the simulator does not have."""
ENVIRONMENT_PREFIX = "PENSTOCK_SIM_"
_TRUE = ("1", "true")


def parse(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings. Exits with status 2 and a message on stderr when an argument is malformed."""
    parser = _parser()
    arguments = _normalize(argv)
    options = parser.parse_args([*_from_environment(parser, environment), *arguments])
    model = options.model_tag or options.model
    if not model:
        parser.error("no model: give it as the first argument, for example `--served-model-name` is no substitute")
    adapters = _adapters(parser, options.lora_modules or [])
    if adapters and not options.enable_lora:
        parser.error("--lora-modules needs --enable-lora")
    engine = _engine(parser, options)
    return Settings(
        model=model,
        served_names=tuple(options.served_model_name or [model]),
        host=options.host,
        port=options.port,
        engine=engine,
        adapters=tuple(adapters),
        runtime_lora=environment.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "").lower() in _TRUE,
        api_keys=tuple(options.api_key or filter(None, [environment.get("VLLM_API_KEY")])),
        prompt_tokens_details=options.enable_prompt_tokens_details,
        request_id_headers=options.enable_request_id_headers,
        max_logprobs=options.max_logprobs,
        keep_alive_s=_keep_alive(parser, environment),
        gpu_memory_utilization=options.gpu_memory_utilization,
        block_size_given=options.block_size is not None,
        blocks_override=options.num_gpu_blocks_override,
        replica_id=options.sim_replica_id,
        seed=options.sim_seed if options.sim_seed is not None else options.seed,
        output_tokens=options.sim_output_tokens,
        embedding_dimensions=options.sim_embedding_dimensions,
        startup_s=options.sim_startup_s * options.sim_time_scale,
        drain_s=options.sim_drain_s,
        check_lora_paths=options.sim_check_lora_paths,
        faults=tuple(options.sim_fault or ()),
        log_level=options.sim_log_level,
        not_simulated=tuple(_ignored(arguments)),
    )


def _keep_alive(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> int:
    value = environment.get("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "5")
    if not value.isdigit():
        parser.error(f"environment variable VLLM_HTTP_TIMEOUT_KEEP_ALIVE: expected whole seconds, got {value!r}")
    return int(value)


def _engine(parser: argparse.ArgumentParser, options: argparse.Namespace) -> EngineConfig:
    block_size = options.block_size or 16
    num_blocks = options.num_gpu_blocks_override or options.sim_kv_blocks
    capacity = (num_blocks - 1) * block_size
    max_model_len = options.max_model_len or min(DEFAULT_MAX_MODEL_LEN, capacity)
    if max_model_len > capacity:
        parser.error(
            f"--max-model-len {max_model_len} does not fit into the KV cache of {num_blocks} blocks of {block_size} "
            f"tokens, one of them reserved ({capacity} tokens); lower it, or raise --num-gpu-blocks-override or "
            "--sim-kv-blocks"
        )
    return EngineConfig(
        max_model_len=max_model_len,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        block_size=block_size,
        num_blocks=num_blocks,
        prefix_caching=options.enable_prefix_caching,
        max_loras=options.max_loras if options.enable_lora else 0,
        prefill_tps=options.sim_prefill_tps,
        decode_tps=options.sim_decode_tps,
        batch_slowdown=options.sim_batch_slowdown,
        lora_load_s=options.sim_lora_load_s,
        time_scale=options.sim_time_scale,
    )


def _adapters(parser: argparse.ArgumentParser, modules: list[str]) -> list[tuple[str, str]]:
    """Read `name=path` or `{"name": ..., "path": ...}`, one or several."""
    found: dict[str, str] = {}
    for module in modules:
        name, separator, path = module.partition("=")
        if module.startswith("{"):
            try:
                entry = json.loads(module)
                name, path, separator = str(entry["name"]), str(entry["path"]), "="
            except (ValueError, KeyError, TypeError):
                separator = ""
        if not separator or not name or not path:
            parser.error(f'--lora-modules: expected name=path or {{"name": ..., "path": ...}}, got {module!r}')
        if name in found:
            parser.error(f"--lora-modules: adapter {name!r} is given twice")
        found[name] = path
    return list(found.items())


def _normalize(argv: Sequence[str]) -> list[str]:
    """Write option names with dashes (vLLM takes underscores too) and drop the `.key` of dotted JSON options."""
    result = []
    for word in argv:
        if not word.startswith("--"):
            result.append(word)
            continue
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        base, dot, _ = name.partition(".")
        result.append((base if dot and base[2:] in vllm_arguments.VALUES else name) + equals + value)
    return result


def _ignored(arguments: list[str]) -> list[str]:
    known = {f"--{name}" for name in (*vllm_arguments.VALUES, *vllm_arguments.SWITCHES)}
    known |= {f"--no-{name}" for name in vllm_arguments.SWITCHES} | set(vllm_arguments.SHORT)
    return sorted({word.partition("=")[0] for word in arguments} & known)


def _from_environment(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> list[str]:
    words = []
    for action in parser._actions:
        if not action.dest.startswith("sim_"):
            continue
        value = environment.get(ENVIRONMENT_PREFIX + action.dest.removeprefix("sim_").upper())
        if value is None:
            continue
        flag = action.option_strings[0]
        if isinstance(action, argparse.BooleanOptionalAction):
            words.append(flag if value.lower() in _TRUE else action.option_strings[1])
        elif action.dest == "sim_fault":
            words += [f"{flag}={part.strip()}" for part in value.split(";") if part.strip()]
        else:
            words.append(f"{flag}={value}")
    return words


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value


def _human(text: str) -> int:
    """Read a size as vLLM does: 8192, 8k (thousands), 8K (times 1024), also m, M."""
    factor = {"k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}.get(text[-1:], 1)
    try:
        return _positive(str(int(float(text[:-1]) * factor)) if factor > 1 else text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"expected a size such as 8192 or 8k, got {text!r}") from None


def _speed(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected tokens per second above 0, or `inf`, got {text!r}")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a finite number of at least 0, got {text!r}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0, up to 1, got {text!r}")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value < 65536:
        raise argparse.ArgumentTypeError(f"expected a port of 0 (any free one) to 65535, got {text!r}")
    return value


def _fault(text: str) -> str:
    try:
        parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.modelserver", description=__doc__, allow_abbrev=False, argument_default=None
    )
    switch = argparse.BooleanOptionalAction
    vllm = parser.add_argument_group("arguments of vllm serve")
    vllm.add_argument("model_tag", nargs="?", metavar="MODEL")
    vllm.add_argument("--model")
    vllm.add_argument("--served-model-name", nargs="+")
    vllm.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1 (vLLM: all interfaces)")
    vllm.add_argument("--port", type=_port, default=8000)
    vllm.add_argument(
        "--max-model-len", type=_human, help=f"default {DEFAULT_MAX_MODEL_LEN}, or what the KV cache holds"
    )
    vllm.add_argument("--max-num-seqs", type=_positive, default=256)
    vllm.add_argument("--max-num-batched-tokens", type=_human, default=2048)
    vllm.add_argument("--block-size", type=_positive)
    vllm.add_argument("--num-gpu-blocks-override", type=_blocks)
    vllm.add_argument("--gpu-memory-utilization", type=_share, default=0.92)
    vllm.add_argument("--enable-prefix-caching", action=switch, default=True)
    vllm.add_argument("--enable-lora", action=switch, default=False)
    vllm.add_argument("--max-loras", type=_positive, default=1)
    vllm.add_argument("--lora-modules", nargs="+", action="extend")
    vllm.add_argument("--api-key", nargs="+")
    vllm.add_argument("--enable-prompt-tokens-details", action=switch, default=False)
    vllm.add_argument("--enable-request-id-headers", action=switch, default=False)
    vllm.add_argument("--max-logprobs", type=int, default=20)
    vllm.add_argument("--seed", type=int, default=0)
    _add_simulator_settings(parser.add_argument_group("settings of the simulator, also PENSTOCK_SIM_*"))
    shorts = {long: short for short, long in vllm_arguments.SHORT.items()}
    for name in vllm_arguments.VALUES:
        flags = [f"--{name}", *filter(None, [shorts.get(f"--{name}")])]
        parser.add_argument(*flags, nargs="*", action="extend", dest="_ignored", help=argparse.SUPPRESS)
    for name in vllm_arguments.SWITCHES:
        parser.add_argument(f"--{name}", action=switch, dest="_ignored_switch", help=argparse.SUPPRESS)
    return parser


def _blocks(text: str) -> int:
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"expected at least 2 blocks (one is reserved), got {text!r}")
    return value


def _add_simulator_settings(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--sim-prefill-tps", type=_speed, default=8000.0, help="prompt tokens per second; inf allowed")
    add("--sim-decode-tps", type=_speed, default=80.0, help="tokens per second of one sequence alone; inf allowed")
    add("--sim-batch-slowdown", type=_seconds, default=0.02, help="what each further sequence adds to a decode step")
    add("--sim-kv-blocks", type=_blocks, default=4096, help="KV blocks without --num-gpu-blocks-override")
    add("--sim-lora-load-s", type=_seconds, default=0.05, help="seconds to bring an adapter into a slot")
    add("--sim-startup-s", type=_seconds, default=0.0, help="seconds before the port opens")
    add("--sim-time-scale", type=_seconds, default=1.0, help="factor on all simulated durations; 0: instant")
    add("--sim-seed", type=int, help="seed of text and faults; default --seed")
    add("--sim-output-tokens", type=_positive, default=64, help="mean length of an answer that no limit cuts")
    add("--sim-embedding-dimensions", type=_positive, default=64)
    add("--sim-replica-id", default="", help="sent as x-penstock-replica on every answer")
    add("--sim-check-lora-paths", action=argparse.BooleanOptionalAction, default=False, help="404 for missing folders")
    add("--sim-drain-s", type=_seconds, default=30.0, help="seconds for open requests after SIGTERM")
    add("--sim-log-level", choices=("debug", "info", "warning", "error"), default="info")
    add("--sim-fault", action="append", type=_fault, help="for example error:503,p=0.1 (docs/simulator.md)")
