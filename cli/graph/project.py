"""Reads `Pulumi.yaml` and `Pulumi.<environment>.yaml` as the Pulumi CLI does, without the CLI.

The result is the configuration in the form in which Pulumi hands it to a program. Secrets (`secure:`) cannot be
decrypted offline: they become secret unknowns, and a note says so.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cli.errors import UsageError
from cli.graph.model import UNKNOWN

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str, int, float, bool),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
"""Pulumi's configuration types. Source: pulumi/pulumi `sdk/go/common/workspace/project.json`, `configTypes`."""

_STACK_FILE = re.compile(r"Pulumi\.(?P<environment>[A-Za-z0-9_.-]+)\.yaml")


@dataclass(frozen=True, slots=True)
class Project:
    """A project's name and one environment's configuration.

    `config` maps `namespace:key` to strings (objects and arrays as JSON), as Pulumi passes them to programs.
    """

    name: str
    root: Path
    environment: str
    config: Mapping[str, str]
    secret_keys: frozenset[str]
    notes: tuple[str, ...]


def find_root(start: Path | None = None) -> Path:
    """Return the nearest folder from `start` (default: the working directory) upward that holds `Pulumi.yaml`."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "Pulumi.yaml").is_file():
            return folder
    raise UsageError(
        f"no Pulumi.yaml in {start} or any folder above it. Change into the project, or name it with --root"
    )


def environments(root: Path) -> list[str]:
    """Return the names of the environments that have a `Pulumi.<name>.yaml`, sorted."""
    matches = (_STACK_FILE.fullmatch(path.name) for path in root.glob("Pulumi.*.yaml"))
    return sorted(match["environment"] for match in matches if match)


def load_project(environment: str, root: Path) -> Project:
    """Read both files of `environment`. Raises `UsageError` with all problems of the two at once."""
    known = environments(root)
    if environment not in known:
        listed = ", ".join(known) or "none"
        raise UsageError(
            f"unknown environment `{environment}`: there is no Pulumi.{environment}.yaml in {root}. "
            f"Environments that exist: {listed}"
        )
    project = _mapping(root / "Pulumi.yaml")
    name = project.get("name")
    if not isinstance(name, str) or not name:
        raise UsageError(f"{root / 'Pulumi.yaml'}: `name` is {name!r}, expected the project's name")
    stack_file = root / f"Pulumi.{environment}.yaml"
    declared = _section(root / "Pulumi.yaml", project)
    given = _section(stack_file, _mapping(stack_file))
    reader = _ConfigReader(name, stack_file.name)
    reader.read(declared, given)
    if reader.errors:
        raise UsageError(*reader.errors)
    return Project(name, root, environment, reader.config, frozenset(reader.secret_keys), tuple(reader.notes))


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{path}: holds {type(content).__name__}, expected a mapping")
    return content


def _section(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    config = content.get("config")
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise UsageError(f"{path}: `config` is {config!r}, expected a mapping from key to value")
    return {str(key): value for key, value in config.items()}


class _ConfigReader:
    """Merges declared defaults and given values; collects errors instead of raising the first."""

    def __init__(self, project: str, stack_file: str) -> None:
        self._project, self._stack_file = project, stack_file
        self.config: dict[str, str] = {}
        self.secret_keys: set[str] = set()
        self.errors: list[str] = []
        self.notes: list[str] = []

    def read(self, declared: dict[str, Any], given: dict[str, Any]) -> None:
        values = {self._full(key): value for key, value in given.items()}
        for key, declaration in declared.items():
            full = self._full(key)
            if not isinstance(declaration, dict):
                declaration = {"value": declaration}  # the short form `key: value`
            if declaration.get("secret"):
                self.secret_keys.add(full)
            if full not in values:
                self._default(full, declaration, values)
            if full in values:
                self._check_type(full, declaration, values[full])
        for key, value in values.items():
            self._set(key, value)

    def _full(self, key: str) -> str:
        return key if ":" in key else f"{self._project}:{key}"

    def _default(self, key: str, declaration: dict[str, Any], values: dict[str, Any]) -> None:
        for form in ("value", "default"):
            if form in declaration:
                values[key] = declaration[form]
                return
        if "type" in declaration:
            self.errors.append(
                f"{self._stack_file}: `{key}` is missing, expected {_article(declaration['type'])} "
                "(declared in Pulumi.yaml without a default). Add it under `config`"
            )

    def _check_type(self, key: str, declaration: dict[str, Any], value: Any) -> None:
        wanted = declaration.get("type")
        if wanted is None or _has_secure(value):
            return
        if not isinstance(wanted, str) or wanted not in _TYPES:
            self.errors.append(f"Pulumi.yaml: `{key}` has type {wanted!r}, expected one of {', '.join(_TYPES)}")
            return
        right = isinstance(value, _TYPES[wanted]) and not (wanted == "integer" and isinstance(value, bool))
        if isinstance(value, str) and not right:  # `pulumi config set` writes scalars as strings
            right = (wanted == "integer" and value.lstrip("-").isdigit()) or (
                wanted == "boolean" and value in ("true", "false")
            )
        if not right:
            shown = "a value" if key in self.secret_keys else repr(value)
            self.errors.append(f"{self._stack_file}: `{key}` is {shown}, expected {_article(wanted)}")

    def _set(self, key: str, value: Any) -> None:
        if _has_secure(value):
            self.secret_keys.add(key)
            self.notes.append(f"`{key}` is encrypted and cannot be read offline; it stands as an unknown secret")
            self.config[key] = UNKNOWN if _is_secure(value) else json.dumps(_without_secure(value), default=str)
        elif isinstance(value, str):
            self.config[key] = value
        elif value is not None:
            self.config[key] = json.dumps(value, default=str)  # YAML knows dates, JSON does not


def _article(noun: object) -> str:
    return f"an {noun}" if str(noun).startswith(("a", "i", "o")) else f"a {noun}"


def _is_secure(value: object) -> bool:
    return isinstance(value, dict) and set(value) == {"secure"}


def _has_secure(value: object) -> bool:
    if isinstance(value, dict):
        return _is_secure(value) or any(map(_has_secure, value.values()))
    return isinstance(value, list) and any(map(_has_secure, value))


def _without_secure(value: Any) -> Any:
    if _is_secure(value):
        return UNKNOWN
    if isinstance(value, dict):
        return {key: _without_secure(item) for key, item in value.items()}
    return [_without_secure(item) for item in value] if isinstance(value, list) else value
