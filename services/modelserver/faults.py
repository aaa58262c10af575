"""Faults that a simulated replica commits on purpose, from the start or set at run time by POST /sim/faults.

A fault is written `KIND[:VALUE][,p=SHARE][,n=TIMES][,path=PATH]`:

    delay:SECONDS   answer later
    error:STATUS    answer with that status and vLLM's error shape (default 500)
    hang            never answer; the connection stays open
    abort           close the connection without an answer
    drop:CHUNKS     close the connection in the middle of the answer, after so many chunks of a stream (default 1)

`p` is the share of requests (default 1, drawn from the seed), `n` after how many hits it is over (default: never), and
`path` the path it concerns (default: the endpoints that generate). The first fault that hits a request counts; a delay
lets the following ones have their turn.
"""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

GENERATING_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"})
_DEFAULTS = {"delay": None, "error": 500.0, "hang": 0.0, "abort": 0.0, "drop": 1.0}
_FORM = "KIND[:VALUE][,p=SHARE][,n=TIMES][,path=PATH] with a KIND of delay, error, hang, abort, drop"


@dataclass(slots=True)
class Fault:
    """One fault and how often it has hit. `value`: seconds, status or chunks."""

    text: str
    kind: str
    value: float
    probability: float = 1.0
    remaining: int | None = None
    path: str | None = None
    hits: int = 0

    def concerns(self, path: str) -> bool:
        """Whether requests to `path` can be hit, now."""
        wanted = path == self.path if self.path else path in GENERATING_PATHS
        return wanted and self.remaining != 0


def parse_fault(text: str) -> Fault:
    """Read a fault. Raises ValueError that says what is wrong and what was expected."""
    head, *options = text.split(",")
    kind, _, value = head.partition(":")
    if kind not in _DEFAULTS:
        raise ValueError(f"fault {text!r}: expected {_FORM}")
    fault = Fault(text, kind, _number(text, value, _DEFAULTS[kind], kind == "delay"))
    if kind == "error" and not 400 <= fault.value <= 599:
        raise ValueError(f"fault {text!r}: expected a status of 400 to 599, got {value!r}")
    for option in options:
        name, _, given = option.partition("=")
        if name == "p":
            fault.probability = _number(text, given, None, True)
            if fault.probability > 1:
                raise ValueError(f"fault {text!r}: p must be 0 to 1, got {given!r}")
        elif name == "n":
            fault.remaining = int(_number(text, given, None, False))
        elif name == "path" and given.startswith("/"):
            fault.path = given
        else:
            raise ValueError(f"fault {text!r}: cannot read {option!r}, expected {_FORM}")
    return fault


def _number(text: str, value: str, default: float | None, fraction: bool) -> float:
    if not value and default is not None:
        return default
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf or (not fraction and number != int(number)):
        kind = "number" if fraction else "whole number"
        raise ValueError(f"fault {text!r}: expected a finite {kind} of at least 0, got {value!r}")
    return number


class Faults:
    """The faults of one replica, in order."""

    def __init__(self, texts: Iterable[str], seed: int) -> None:
        self._random = random.Random(seed)
        self.faults: list[Fault] = []
        self.replace(texts)

    def replace(self, texts: Iterable[str]) -> None:
        """Set these faults and forget the old ones; ValueError (and nothing changed) if one can't be read."""
        self.faults = [parse_fault(text) for text in texts]

    def draw(self, path: str) -> tuple[float, Fault | None]:
        """Return what hits this request to `path`: seconds of delay, and a fault of another kind or None."""
        delay = 0.0
        for fault in self.faults:
            if not fault.concerns(path) or (fault.probability < 1 and self._random.random() >= fault.probability):
                continue
            fault.hits += 1
            if fault.remaining is not None:
                fault.remaining -= 1
            if fault.kind != "delay":
                return delay, fault
            delay += fault.value
        return delay, None

    def describe(self) -> list[dict[str, object]]:
        """Return the faults for /sim/state: text, remaining hits (None: no limit), hits so far."""
        return [{"fault": f.text, "remaining": f.remaining, "hits": f.hits} for f in self.faults]
