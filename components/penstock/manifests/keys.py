"""Arguments as services read them: keys in camelCase."""

from collections.abc import Mapping, Sequence
from typing import Any

OPAQUE = ("settings",)
"""Maps that are handed on as they are."""


def plain(value: Any, key: str = "") -> Any:
    """Return arguments as the service reads them: keys in camelCase, but for maps with names of users' own."""
    if isinstance(value, Mapping):
        own = key in OPAQUE or key == "models"
        return {name if own else camel(name): item if key in OPAQUE else plain(item, name)
                for name, item in value.items() if item is not None}  # fmt: skip
    return [plain(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def camel(name: str) -> str:
    """Return `snake_case` as `snakeCase`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
