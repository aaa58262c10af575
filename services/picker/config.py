"""The picker's config file: upstream's `EndpointPickerConfig`, read into what the scheduler needs.

Format: llm-d-router v0.10 (`llm-d.ai/v1alpha1`) and Gateway API Inference Extension v1.5
(`inference.networking.x-k8s.io/v1alpha1`). What this picker does not do is either ignored with a warning that names it
(where the answer stays right without it) or refused (where it would not).
"""

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from services.extproc.config import ConfigError, ConfigModel, Problem, load_config

API_VERSIONS = ("inference.networking.x-k8s.io/v1alpha1", "llm-d.ai/v1alpha1")
KIND = "EndpointPickerConfig"

SCORERS = (
    "queue-scorer",
    "kv-cache-utilization-scorer",
    "prefix-cache-scorer",
    "lora-affinity-scorer",
    "running-requests-size-scorer",
)
PICKERS = ("max-score-picker", "random-picker", "weighted-random-picker")
DEFAULT_PICKER = "max-score-picker"
DETECTOR = "utilization-detector"
PREFIX_PRODUCER = "approx-prefix-cache-producer"
"""Since llm-d-router v0.10 the prefix parameters belong to this plugin; before, to the scorer. Both are read."""

IGNORED_PLUGINS = ("single-profile-handler", "metrics-data-source", "core-metrics-extractor", "openai-parser")
"""Plugins that name what this picker always does; accepted in silence."""

DEFAULT_SCORERS = (("queue-scorer", 2.0), ("kv-cache-utilization-scorer", 2.0), ("prefix-cache-scorer", 3.0))
"""Scorers and weights of a file that names no plugins. Source: llm-d-router v0.10, default profile."""

DEFAULT_WEIGHT = 1.0
"""Weight of a scorer without one. Source: as above."""

CHARS_PER_TOKEN = 4
"""Characters taken for one token where text is cut into blocks. Source: upstream's estimate."""

P = TypeVar("P", bound=ConfigModel)

_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def parse_duration(text: object) -> float:
    """Return the seconds of a Go duration such as `200ms`, `1.5s` or `1m30s`. Raises ValueError."""
    if isinstance(text, str) and text and _DURATION.sub("", text) == "":
        return sum(float(number) * _UNIT_S[unit] for number, unit in _DURATION.findall(text))
    raise ValueError("expected a duration such as 200ms, 1.5s or 1m30s")


Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0, le=86_400)]


class PrefixParameters(ConfigModel):
    """How prompts are cut and remembered (`prefix-cache-scorer`). Names as upstream's."""

    auto_tune: bool = True
    """Lower a replica's capacity to its KV cache, as `vllm:cache_config_info` reports it."""
    block_size_tokens: int = Field(default=64, ge=1, le=65_536)
    """Tokens of one block, at 4 bytes each: 64 is the size that upstream raises smaller ones to (v0.10)."""
    block_size: int = Field(default=0, ge=0, le=262_144)
    """Older name, in characters; wins over `block_size_tokens` where it is set."""
    max_prefix_tokens_to_match: int = Field(default=131_072, ge=0)
    """Prompt tokens that are looked at; 0 leaves the bound to `max_prefix_blocks_to_match`."""
    max_prefix_blocks_to_match: int = Field(default=2048, ge=0)
    """Blocks that are looked at; 0 means all."""
    lru_capacity_per_server: int = Field(default=31_250, ge=1, le=10_000_000)
    """Most blocks remembered for one replica: 2 million tokens at the default block size."""

    @property
    def block_bytes(self) -> int:
        """Bytes of UTF-8 text in one block."""
        return self.block_size or self.block_size_tokens * CHARS_PER_TOKEN

    @property
    def max_blocks(self) -> int:
        """Most blocks of a prompt that are hashed; 0 means all."""
        if self.max_prefix_tokens_to_match:
            return max(1, self.max_prefix_tokens_to_match * CHARS_PER_TOKEN // self.block_bytes)
        return self.max_prefix_blocks_to_match


class PickerParameters(ConfigModel):
    """Parameters of the pickers."""

    max_num_of_endpoints: int = Field(default=1, ge=1, le=16)
    """Length of the ordered fallback list that a data plane walks on retries. Default: upstream's."""


class DetectorParameters(ConfigModel):
    """When a replica counts as saturated (`utilization-detector`). Defaults are upstream's unless noted."""

    queue_depth_threshold: int = Field(default=5, ge=1)
    kv_cache_util_threshold: float = Field(default=0.8, gt=0, le=1)
    metrics_staleness_threshold: Duration = 2.0
    """Age in seconds at which a replica's metrics no longer count. Upstream's detector says 200 ms, its older flag 2 s;
    this picker adds what it sent itself since the last scrape, so that the longer one is safe and bears a busy host."""
    headroom: float = Field(default=0.0, ge=0)
    """Burst allowed to one replica above the thresholds, a fraction: its limit is threshold x (1 + headroom)."""
    in_flight_load_producer_name: str = ""
    """Accepted: in-flight requests are always counted."""


class _NoParameters(ConfigModel):
    pass


class _Plugin(ConfigModel):
    type: str
    name: str = ""
    parameters: dict[str, Any] | None = None


class _ProfilePlugin(ConfigModel):
    plugin_ref: str
    weight: float | None = Field(default=None, ge=0, le=1e6)


class _Profile(ConfigModel):
    name: str
    plugins: tuple[_ProfilePlugin, ...] = ()


class EndpointPickerConfig(ConfigModel):
    """The file as it is written."""

    api_version: str
    kind: str
    plugins: tuple[_Plugin, ...] = ()
    scheduling_profiles: tuple[_Profile, ...] = ()
    saturation_detector: dict[str, Any] | None = None
    feature_gates: tuple[str, ...] | dict[str, bool] = ()
    data_layer: dict[str, Any] | None = None
    flow_control: dict[str, Any] | None = None
    request_handler: dict[str, Any] | None = None
    parser: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PickerConfig:
    """What the picker does, with all defaults applied."""

    scorers: tuple[tuple[str, float], ...] = DEFAULT_SCORERS
    """Type and weight, in the file's order."""
    picker: str = DEFAULT_PICKER
    max_endpoints: int = 1
    prefix: PrefixParameters = field(default_factory=PrefixParameters)
    detector: DetectorParameters = field(default_factory=DetectorParameters)
    warnings: tuple[str, ...] = ()
    """What the file asks for and this picker leaves out, one sentence each."""


def load(path: str | Path) -> PickerConfig:
    """Read the config file. Raises ConfigError with every problem found."""
    return interpret(load_config(path, EndpointPickerConfig), str(path))


def interpret(file: EndpointPickerConfig, source: str = "config") -> PickerConfig:
    """Apply defaults and check what belongs together. Raises ConfigError with every problem found."""
    reader = _Reader(file)
    config = reader.read()
    if reader.problems:
        raise ConfigError(source, reader.problems)
    return config


class _Reader:
    """Collects problems while it walks through the file."""

    def __init__(self, file: EndpointPickerConfig) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.plugins: dict[str, tuple[str, _Plugin]] = {}
        """Name -> path in the file, plugin."""

    def read(self) -> PickerConfig:
        file = self.file
        self._check(file.api_version in API_VERSIONS, "apiVersion", file.api_version, " or ".join(API_VERSIONS))
        self._check(file.kind == KIND, "kind", file.kind, KIND)
        for index, plugin in enumerate(file.plugins):
            self._add(f"plugins[{index}]", plugin)
        scorers, picker = self._profile()
        self._warn_ignored()
        return PickerConfig(
            scorers,
            picker.type if picker else DEFAULT_PICKER,
            self._parameters(picker, PickerParameters).max_num_of_endpoints,
            self._prefix(),
            self._detector(),
            tuple(self.warnings),
        )

    def _add(self, path: str, plugin: _Plugin) -> None:
        known = (*SCORERS, *PICKERS, DETECTOR, PREFIX_PRODUCER, *IGNORED_PLUGINS)
        if plugin.type not in known:
            near = difflib.get_close_matches(plugin.type, known, 1)
            fix = f"did you mean {near[0]!r}?" if near else f"remove it; known types: {', '.join(known)}"
            self._problem(
                f"{path}.type", plugin.type, "unknown plugin type, or one that this picker does not have", fix
            )
        name = plugin.name or plugin.type
        if name in self.plugins:
            self._problem(f"{path}.name", name, "two plugins of one name", "give each its own name")
        self.plugins[name] = (path, plugin)
        if plugin.type in SCORERS and plugin.type != "prefix-cache-scorer":
            self._parameters(plugin, _NoParameters)

    def _profile(self) -> tuple[tuple[tuple[str, float], ...], _Plugin | None]:
        """Return scorers with weights, and the picker."""
        profiles = self.file.scheduling_profiles
        if len(profiles) > 1:
            self._problem("schedulingProfiles", str(len(profiles)), "expected one profile", "keep one of them")
        if profiles:
            refs = [(f"schedulingProfiles[0].plugins[{i}]", ref) for i, ref in enumerate(profiles[0].plugins)]
        else:  # upstream: without a profile every plugin takes part
            refs = [(path, _ProfilePlugin(plugin_ref=name)) for name, (path, _) in self.plugins.items()]
        scorers: dict[str, float] = {}
        pickers: list[_Plugin] = []
        for path, ref in refs:
            if ref.plugin_ref not in self.plugins:
                names = ", ".join(self.plugins) or "none"
                self._problem(f"{path}.pluginRef", ref.plugin_ref, "no such plugin", f"name one of: {names}")
                continue
            plugin = self.plugins[ref.plugin_ref][1]
            if plugin.type in SCORERS:
                if plugin.type in scorers:
                    self._problem(path, plugin.type, "expected each type of scorer once", "remove one of them")
                scorers[plugin.type] = DEFAULT_WEIGHT if ref.weight is None else ref.weight
            elif plugin.type in PICKERS:
                pickers.append(plugin)
        if len(pickers) > 1:
            kinds = ", ".join(picker.type for picker in pickers)
            self._problem("schedulingProfiles[0].plugins", kinds, "expected one picker", "keep one of them")
        if not profiles and not scorers:
            scorers = dict(DEFAULT_SCORERS)
        return tuple(scorers.items()), pickers[0] if pickers else None

    def _prefix(self) -> PrefixParameters:
        found = [p for _, p in self.plugins.values() if p.type in (PREFIX_PRODUCER, "prefix-cache-scorer")]
        given = [plugin for plugin in found if plugin.parameters]
        if len(given) > 1:
            self._problem("plugins", str(len(given)), "expected prefix parameters in one place", "keep one of them")
        return self._parameters(given[0] if given else None, PrefixParameters)

    def _detector(self) -> DetectorParameters:
        """Parameters of the detector: by reference, by its plugin, or, as until v1.3, written in place."""
        flow = self.file.flow_control or {}
        section = flow.get("saturationDetector") or self.file.saturation_detector or {}
        path = "flowControl.saturationDetector" if flow.get("saturationDetector") else "saturationDetector"
        if not isinstance(section, dict) or (section and "pluginRef" not in section):
            return self._model(path, section, DetectorParameters)
        name = section.get("pluginRef") or DETECTOR
        plugin = self.plugins.get(name, ("", None))[1]
        if plugin is None and name == DETECTOR:
            plugin = next((p for _, p in self.plugins.values() if p.type == DETECTOR), None)
        elif plugin is None or plugin.type != DETECTOR:
            self._problem(f"{path}.pluginRef", str(name), f"expected a plugin of type {DETECTOR}", "add it to plugins")
            return DetectorParameters()
        return self._parameters(plugin, DetectorParameters)

    def _warn_ignored(self) -> None:
        gates = self.file.feature_gates
        for gate in gates if isinstance(gates, tuple) else [name for name, on in gates.items() if on]:
            self.warnings.append(f"featureGates: {gate} is ignored; this picker has no feature gates.")
        for section in ("dataLayer", "flowControl", "requestHandler", "parser"):
            value = getattr(self.file, re.sub(r"(?<!^)(?=[A-Z])", "_", section).lower())
            if value and set(value) != {"saturationDetector"}:
                self.warnings.append(f"{section} is ignored; requests are neither queued nor parsed by plugins here.")

    def _parameters(self, plugin: _Plugin | None, model: type[P]) -> P:
        if plugin is None:
            return model()
        path = next((path for path, each in self.plugins.values() if each is plugin), "plugins")
        return self._model(f"{path}.parameters", plugin.parameters or {}, model)

    def _model(self, path: str, values: object, model: type[P]) -> P:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            known = ", ".join(each.alias or name for name, each in model.model_fields.items()) or "none"
            for detail in error.errors(include_url=False):
                where = ".".join([path, *map(str, detail["loc"])])
                self._problem(where, repr(detail["input"])[:80], str(detail["msg"]), f"correct it; known keys: {known}")
            return model()

    def _check(self, right: bool, path: str, value: str, expected: str) -> None:
        if not right:
            self._problem(path, value, f"expected {expected}", f"write {expected}")

    def _problem(self, path: str, value: str, expected: str, fix: str) -> None:
        self.problems.append(Problem(path, value, expected, fix))
