"""Reads an environment's configuration: the only module that knows `pulumi.Config`."""

import json
from collections.abc import Mapping
from typing import Any

import pulumi.runtime.config

from infra.settings.marks import fields, split
from infra.settings.types import Settings
from infra.settings.validate import camel

PREFIX = "penstock:"


def read() -> dict[str, Any]:
    """Return what `pulumi.Config` holds under `penstock:`: strings as they are, everything else parsed from JSON.

    `pulumi.Config` cannot list its keys, without which a misspelt key would be ignored in silence; hence the runtime's
    own map.
    """
    config = pulumi.runtime.config
    values: Mapping[str, Any] = {**config.get_config_env(), **config.CONFIG.get()}
    found = {key.removeprefix(PREFIX): value for key, value in values.items() if key.startswith(PREFIX)}
    texts = {camel(name) for name, field in fields(Settings).items() if split(field.shape)[0] is str}
    return {key: value if key in texts else _parse(value) for key, value in found.items()}


def _parse(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value  # reported as a value of the wrong type
