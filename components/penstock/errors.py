"""Errors of the component package.

`PenstockError` is the root. `ConfigError` describes one wrong value; `ConfigErrors` carries every one that a check
found, so that a reader fixes all of them in one go instead of one per run.
"""

import difflib
from collections.abc import Iterable


class PenstockError(Exception):
    """Root of all errors that this package raises on purpose."""


class ConfigError(PenstockError):
    """One wrong value.

    Attributes:
        path: where it stands, e.g. `models[0].replicaSets[1].weight`.
        value: what stands there. Never put a secret here: it is printed.
        expected: what would be right, as a noun phrase.
        fix: what to do, as an imperative sentence without a full stop.
    """

    def __init__(self, path: str, value: object, expected: str, fix: str) -> None:
        self.path, self.value, self.expected, self.fix = path, value, expected, fix
        super().__init__(f"{path}: got {_shorten(value)}, expected {expected}. {fix}.")


class ConfigErrors(PenstockError):
    """Every `ConfigError` that one check found, in the order of the input. Never empty."""

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        self.errors = tuple(errors)
        if not self.errors:
            raise ValueError("ConfigErrors needs at least one error; raise it through `raise_if`")
        count = f"{len(self.errors)} configuration error{'s' if len(self.errors) > 1 else ''}"
        super().__init__("\n".join([f"{count}:", *(f"  {error}" for error in self.errors)]))


def raise_if(errors: Iterable[ConfigError]) -> None:
    """Raise `ConfigErrors` when there is at least one error."""
    found = tuple(errors)
    if found:
        raise ConfigErrors(found)


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return a fix for an unknown word: the closest known one, or the list of all."""
    names = sorted(known)
    close = difflib.get_close_matches(str(word), names, n=1)
    if close:
        return f"Did you mean `{close[0]}`? Otherwise remove it"
    return f"Use one of: {', '.join(names)}" if names else "Remove it"


def _shorten(value: object, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
