"""Validates raw settings and keeps going: a wrong value is reported and replaced, so that the rest is checked too."""

import copy
from collections.abc import Mapping
from typing import Any, get_args

from penstock.errors import ConfigError, did_you_mean
from pydantic import BaseModel, ValidationError

from infra.settings import Settings

_PLACEHOLDERS: Mapping[str, Any] = {
    "bool_type": False,
    "dict_type": {},
    "float_type": 1.0,
    "int_type": 1,
    "list_type": [],
    "model_type": {},
    "string_type": "x",
}
_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a map",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a map",
    "string_type": "a string",
}
_ROUNDS = 20
_SECRETS = {"kubeconfig"}

Location = tuple[int | str, ...]


def validate(raw: Any) -> tuple[Settings | None, list[ConfigError], set[str]]:
    """Validate raw settings.

    Args:
        raw: JSON-like data, keys in camelCase.

    Returns:
        The settings, with placeholders where something was wrong (None if that could not be mended), the errors, and
        the paths that hold placeholders.
    """
    data, errors, replaced = copy.deepcopy(raw), list[ConfigError](), set[str]()
    for _ in range(_ROUNDS):
        try:
            return Settings.model_validate(data), errors, replaced
        except ValidationError as error:
            if not isinstance(data, dict):
                return None, [ConfigError("penstock", type(raw).__name__, "a map of settings", "Write a map")], replaced
            for item in error.errors(include_url=False, include_context=False):
                path = path_of(item["loc"])
                if path not in replaced:
                    errors.append(_error(item, path))
                replaced.add(path)
                _mend(data, item["loc"], item["type"])
    return None, errors, replaced


def path_of(location: Location) -> str:
    """Return `models[0].name` for `("models", 0, "name")`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part or repr(part)}"
    return text.removeprefix(".")


def _error(item: Any, path: str) -> ConfigError:
    kind, value = item["type"], item["input"]
    if path.split(".")[0] in _SECRETS:
        value = "(hidden)"
    if kind in ("extra_forbidden", "invalid_key"):
        return ConfigError(path, value, "a known key", did_you_mean(item["loc"][-1], _known(item["loc"])))
    if kind == "missing":
        return ConfigError(path, None, "a value", "Set it, it has no default")
    return ConfigError(path, value, _EXPECTED.get(kind, item["msg"]), "Give a value of that type")


def _known(location: Location) -> list[str]:
    """Return the keys that are known where the last part of `location` stands."""
    model: Any = Settings
    for part in location[:-1]:
        if isinstance(part, str):
            fields = {field.alias or name: field for name, field in model.model_fields.items()}
            model = _model_in(fields[part].annotation) if part in fields else None
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for inner in get_args(annotation) if (model := _model_in(inner)) is not None), None)


def _mend(data: Any, location: Location, kind: str) -> None:
    """Put a placeholder of the right type at `location`; take unknown keys away."""
    *parents, last = location
    for part in parents:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return
    if kind in ("extra_forbidden", "invalid_key"):
        if isinstance(data, dict):
            for key in [key for key in data if key == last or str(key) == str(last)]:
                del data[key]
        return
    try:
        data[last] = copy.copy(_PLACEHOLDERS.get(kind))
    except (IndexError, TypeError):
        return
