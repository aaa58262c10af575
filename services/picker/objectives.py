"""The objectives file: what a request's objective is worth.

    objectives: [{name: interactive, priority: 10}, {name: batch, priority: -1}]

A higher priority matters more; a negative one may be shed. Source: InferenceObjective, `spec.priority`.
"""

from pathlib import Path

from pydantic import Field, field_validator

from services.extproc.config import ConfigModel, load_config

DEFAULT_PRIORITY = 0
"""Priority of a request without an objective, or with one that is not in the file."""

_INT32 = 2**31


class Objective(ConfigModel):
    """One objective."""

    name: str = Field(min_length=1, max_length=253)
    priority: int = Field(default=DEFAULT_PRIORITY, ge=-_INT32, lt=_INT32)


class Objectives(ConfigModel):
    """The file."""

    objectives: tuple[Objective, ...] = ()

    @field_validator("objectives")
    @classmethod
    def _unique(cls, value: tuple[Objective, ...]) -> tuple[Objective, ...]:
        names = [objective.name for objective in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected each name once; twice: {', '.join(twice)}")
        return value


def load(path: str | Path | None) -> dict[str, int]:
    """Return priorities by objective; empty without a file. Raises ConfigError."""
    if path is None:
        return {}
    return {objective.name: objective.priority for objective in load_config(path, Objectives).objectives}
