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
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry

from services.apimgmt.call import Call
from services.cel.compiler import Predicate, Variables
from services.cel.values import Failure
from services.extproc.api import Headers
from services.extproc.meters import Meter

CREDENTIAL_HEADERS = frozenset(
    {
        *("authorization", "proxy-authorization", "x-api-key", "api-key", "cookie", "set-cookie"),
        *("x-goog-api-key", "x-goog-iap-jwt-assertion", "x-serverless-authorization", "x-amz-security-token"),
        *("x-forwarded-client-cert", "x-apigateway-api-userinfo", "x-endpoint-api-userinfo"),
    }
)
"""Headers that no condition, script, external service or recording sees."""

logger = logging.getLogger("penstock.apimgmt")


class VisibleHeaders(Mapping[str, str]):
    """Request headers without credentials and pseudo headers."""

    __slots__ = ("_headers",)

    def __init__(self, headers: Headers) -> None:
        self._headers = headers

    def __getitem__(self, name: str) -> str:
        if name in self:
            return self._headers.get(name)
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return name in self._headers and _visible(str(name))

    def __iter__(self) -> Iterator[str]:
        return (name for name in dict.fromkeys(name for name, _ in self._headers) if _visible(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _visible(name: str) -> bool:
    return name not in CREDENTIAL_HEADERS and name[:1] != ":"


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
    found["request"]["headers"] = dict(found["request"]["headers"])
    return found
