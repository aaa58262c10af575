"""Config files of callouts: YAML into a pydantic model, with every problem reported at once."""

import difflib
import types
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

MAX_CONFIG_BYTES = 4 * 1024 * 1024
"""Largest config file that is read, bytes. A ConfigMap holds at most 1 MiB (Kubernetes API limit)."""

MAX_SHOWN = 80
"""Longest value shown in a message, characters."""

M = TypeVar("M", bound=BaseModel)
A = TypeVar("A")
B = TypeVar("B")


class ConfigModel(BaseModel):
    """Base of config models: camelCase keys as in Kubernetes, unknown keys refused, values immutable."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a config file."""

    path: str
    """Where, as in `models[0].name`; empty for the file as a whole."""
    value: str
    """What stands there, shortened; empty where nothing does."""
    expected: str
    fix: str

    def __str__(self) -> str:
        found = f" (found {self.value})" if self.value else ""
        return f"{self.path or 'the file'}: {self.expected}{found}; {self.fix}"


class ConfigError(Exception):
    """A config file cannot be used. `problems` has them all; the text is made for people. Exit code 2."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source, self.problems = source, tuple(problems)
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        super().__init__("\n".join([f"{source}: {count}", *(f"  - {problem}" for problem in problems)]))


def load_config(path: str | Path, model: type[M]) -> M:
    """Read the YAML file `path` into `model`.

    Raises:
        ConfigError: the file is missing, is not YAML, repeats a key or does not fit the model.
    """
    return parse_config(_read(Path(path)), model, str(path))


def load_all(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """Load two files. Raises ConfigError with the problems of both."""
    errors: list[ConfigError] = []
    found: list[Any] = []
    for load in (first, second):
        try:
            found.append(load())
        except ConfigError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        named = [replace(p, path=f"{e.source}: {p.path}".rstrip(": ")) for e in errors for p in e.problems]
        raise ConfigError(", ".join(error.source for error in errors), named)
    return found[0], found[1]


def parse_config(text: str, model: type[M], source: str = "config") -> M:
    """Parse YAML `text` into `model`; `source` names it in errors. An empty text is an empty mapping.

    Raises:
        ConfigError: as `load_config`.
    """
    repeated: list[Problem] = []
    try:
        data = _read_yaml(text, repeated)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = Problem("", "", f"expected YAML, got: {' '.join(str(error).split())[:300]}", "correct the syntax")
        raise ConfigError(source, [problem]) from None
    problems = repeated
    try:
        parsed = model.model_validate({} if data is None else data)
    except ValidationError as error:
        problems += problems_of(model, error)
    if problems:
        raise ConfigError(source, problems)
    return parsed


def problems_of(model: type[BaseModel], error: ValidationError) -> list[Problem]:
    """Return what kept data from becoming a `model`."""
    return [_problem(model, dict(detail)) for detail in error.errors(include_url=False)]


def _read_yaml(text: str, repeated: list[Problem]) -> object:
    """Return what the YAML says, adding keys that stand twice to `repeated`."""
    loader = _Loader(text, repeated)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            problem = Problem(
                "", f"{path.stat().st_size} bytes", f"expected at most {MAX_CONFIG_BYTES} bytes", "split it"
            )
            raise ConfigError(str(path), [problem])
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            str(path), [Problem("", "", f"cannot be read: {error.strerror}", "check the path and its permissions")]
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), [Problem("", "", "expected UTF-8 text", "save the file as UTF-8")]) from None


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that also notes repeated keys, which YAML would let win in silence."""

    def __init__(self, stream: str, repeated: list[Problem]) -> None:
        super().__init__(stream)
        self.repeated = repeated

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    where = f"line {key.start_mark.line + 1}"
                    self.repeated.append(Problem(key.value, where, "key appears twice", "keep one of the two"))
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _problem(model: type[BaseModel], detail: Mapping[str, Any]) -> Problem:
    """Turn one pydantic error into a `Problem`."""
    location: tuple[int | str, ...] = detail["loc"]
    path = _path(location)
    if detail["type"] == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, 1)
        fix = f"did you mean {near[0]!r}?" if near else f"remove it; known keys: {', '.join(known) or 'none'}"
        return Problem(path, _shown(detail["input"]), "unknown key", fix)
    if detail["type"] == "missing":
        return Problem(path, "", "required key is missing", f"add {location[-1]!r}")
    message = str(detail["msg"]).removeprefix("Value error, ")
    return Problem(path, _shown(detail["input"]), message[:1].lower() + message[1:], "correct the value")


def _path(location: Sequence[int | str]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def _keys_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Return the keys that the model at `location` knows; empty where that cannot be told."""
    models = [model]
    for part in location:
        if isinstance(part, int):
            continue
        fields = [field for m in models for n, field in m.model_fields.items() if part in (n, field.alias)]
        if fields:
            models = [nested for field in fields for nested in _models(field.annotation)]
    return [field.alias or name for m in models for name, field in m.model_fields.items()]


def _models(annotation: object) -> list[type[BaseModel]]:
    """Return the models that an annotation such as `list[Model] | None` mentions."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [nested for argument in typing.get_args(annotation) for nested in _models(argument)]
