"""The component package's inferred schema, as other languages see it; run as a module it writes the golden file."""

import inspect
import json
from pathlib import Path
from typing import Any

import penstock
import pulumi
from pulumi.provider.experimental.component import ComponentProvider

GOLDEN = Path(__file__).parents[1] / "golden" / "component-schema.json"


def components() -> list[type[pulumi.ComponentResource]]:
    """Every component of the public surface."""
    public = [getattr(penstock, name) for name in penstock.__all__]
    return [cls for cls in public if isinstance(cls, type) and issubclass(cls, pulumi.ComponentResource)]


def provider() -> ComponentProvider:
    """A provider as the component host makes it."""
    return ComponentProvider(components(), "penstock", None, "0.1.0")


def schema() -> dict[str, Any]:
    """The schema, descriptions without indentation: from 3.13 on Python takes it away itself."""
    inferred: dict[str, Any] = json.loads(provider().schema)
    for part in (*inferred["resources"].values(), *inferred["types"].values()):
        if "description" in part:
            part["description"] = inspect.cleandoc(part["description"])
    return inferred


def text() -> str:
    """The golden file's content."""
    return json.dumps(schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(text(), encoding="utf-8")
