"""Conditions over a request: the `when` of policies.

CEL expressions (`services.cel`) over:

- `request.path` (without query), `request.method`, `request.headers` (name in lower case -> first value; none that
  carries a credential), `request.model`, `request.stream`
- `caller.organization`, `caller.team`, `caller.user`, `caller.app`, `caller.key` (empty before `credentials` ran)
- `product` (its name), `body` (the parsed JSON; empty for policies that run before it is read), `promptTokens`

A condition that has no value for a request, e.g. since a field is missing, counts as true: the policy runs. Guard
what may be missing: `has(body.user) && body.user == "batch"`.
"""

import logging
from collections.abc import Callable
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry

from services.apimgmt.call import Call
from services.cel.compiler import Predicate, Variables
from services.cel.values import Failure
from services.extproc.meters import Meter
from services.extproc.visible import VisibleHeaders

logger = logging.getLogger("penstock.apimgmt")


def _caller(field: str) -> Callable[[Call], str]:
    return lambda call: getattr(call.caller, field) if call.caller is not None else ""


VARIABLES: Variables[Call] = {
    "request.path": lambda call: call.operation,
    "request.method": lambda call: call.exchange.request_headers.get(":method"),
    "request.headers": lambda call: VisibleHeaders(call.exchange.request_headers),
    "request.model": lambda call: call.model,
    "request.stream": lambda call: call.stream,
    **{f"caller.{name}": _caller(name) for name in ("organization", "team", "user", "app", "key")},
    "product": lambda call: call.product.product.name if call.product is not None else "",
    "body": lambda call: call.body,
    "promptTokens": lambda call: call.prompt_tokens,
}
"""What conditions see. Scripts and external services get the same names (`facts`)."""

NEEDS_BODY = frozenset({"body"})
"""Variables that a recording without bodies cannot give."""


class Unevaluated:
    """Counts conditions that had no value. One per process."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.meter = Meter(
            "penstock_apimgmt_conditions_failed",
            "Conditions that had no value for a request; their policies ran",
            registry=registry,
        )

    def note(self, condition: "Condition", failure: Failure) -> None:
        """Count one, and log the first of each condition."""
        self.meter.counts[()] += 1
        if not condition.failed:
            text = {"condition": condition.text, "reason": str(failure)}
            logger.warning("a condition has no value for a request, so its policy runs", extra=text)


class Condition:
    """A compiled condition."""

    __slots__ = ("_predicate", "failed", "paths", "text")

    def __init__(self, text: str) -> None:
        """Compile. Raises CelError, a ValueError, that names the place and the fix."""
        self._predicate = Predicate(text, VARIABLES)
        self.text, self.paths = text, self._predicate.paths
        self.failed = 0
        """How often it had no value."""

    def __call__(self, call: Call) -> bool:
        """Tell whether the policy runs."""
        try:
            return self._predicate(call)
        except Failure as failure:
            _unevaluated().note(self, failure)
            self.failed += 1
            return True


_shared: list[Unevaluated] = []


def _unevaluated() -> Unevaluated:
    """Return the process's counter: made when it is first needed, so that tests may import this twice."""
    if not _shared:
        _shared.append(Unevaluated())
    return _shared[0]


def compile_condition(text: str) -> Condition:
    """Return the condition `text` (see the module's text). Raises ValueError for what cannot be one."""
    return Condition(text)


def facts(call: Call, *, body: bool) -> dict[str, Any]:
    """Return what conditions see as one JSON-ready object, with the body or without."""
    found: dict[str, Any] = {"request": {}, "caller": {}}
    for path, read in VARIABLES.items():
        group, _, name = path.partition(".")
        if name:
            found[group][name] = read(call)
        elif body or path not in NEEDS_BODY:
            found[group] = read(call)
    request = found["request"]
    request["headers"] = {name: _text(value) for name, value in request["headers"].items()}
    request["path"], request["model"] = _text(request["path"]), _text(request["model"])
    return found


def _text(value: str) -> str:
    """Return what can be written as JSON: header bytes that are no UTF-8 become question marks."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()
