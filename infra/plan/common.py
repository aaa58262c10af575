"""What the plans of all components share: where arguments come from, and what settings give to many of them."""

from collections.abc import Mapping
from typing import Any

from infra.plan.planned import LATER
from infra.settings import Settings

_PENSTOCK = "penstock"
"""The picker's profile that is Penstock's own, the default."""

_HOMES = {
    "name": "prefix",
    "namespace": "namespace",
    "image": "image",
    "project": "project",
    "project_number": "projectNumber",
    "region": "region",
    "zones": "zones",
    "labels": "labels",
}
"""Argument that many components have -> the one setting that it comes from."""


def moves(base: str, *shared: str) -> Mapping[str, str]:
    """Return where arguments come from: `base`, and for each name in `shared` the setting of that meaning."""
    return {"": base} | {f".{name}": _HOMES[name] for name in shared}


def place(settings: Settings, *more: str) -> dict[str, Any]:
    """Return `name`, `project` and `region` of what is made in Google Cloud, and of `more` what is set."""
    found: dict[str, Any] = {"name": settings["prefix"]}
    values: Mapping[str, Any] = settings
    return found | {key: values[key] for key in ("project", "region", *more) if key in values}


def later(args: dict[str, Any], *paths: str) -> None:
    """Put `LATER` at each dotted path that is not given, where the map that holds it is."""
    for path in paths:
        *parents, last = path.split(".")
        target: Any = args
        for parent in parents:
            target = target.get(parent) if isinstance(target, dict) else None
        if isinstance(target, dict):
            target.setdefault(last, LATER)


def is_upstream(settings: Settings) -> bool:
    """Tell whether the pickers are upstream's, which know objectives by their objects, and count by other names."""
    return settings["picker"].get("profile", _PENSTOCK) != _PENSTOCK
