"""Typed settings of an environment. Only `read.py` reads `pulumi.Config`.

Shape is checked here (types, unknown keys), meaning by the components' own `problems` and by `infra.checks`. All report
together: `infra.plan.load` raises once with everything that is wrong.
"""

from typing import Any, cast

from infra.settings.read import PREFIX, read
from infra.settings.types import DEFAULTS, GATEWAY, GATEWAY_NAME, PLATFORM, SHAPE, Settings
from infra.settings.validate import Report, camel, validate

__all__ = ["DEFAULTS", "GATEWAY", "PLATFORM", "PREFIX", "Report", "Settings", "camel", "read", "settings_of"]


def settings_of(raw: Any, report: Report) -> Settings:
    """Return validated settings, with stand-ins and defaults where `raw` has nothing or nothing right."""
    found: Any = {**DEFAULTS, **validate(SHAPE, raw, report)}
    found["gateway"] = {"name": GATEWAY_NAME, **found["gateway"]}
    return cast(Settings, found)
