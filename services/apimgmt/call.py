"""One request on its way through the policies: what is known of it, and what policies may do to it.

A `Call` is shared by all policies of the chain, so that work is done once. Policies change the request through the call
(`edit`, `set_header`), never through the exchange: in shadow mode such changes are made to a copy, and lost.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.apimgmt.domain import Limit, LimitKind, Product, RatePlan, Scope
from services.apimgmt.pricing import Tariff
from services.apimgmt.store.api import Charge, Pace
from services.extproc.api import Exchange


class Credential(enum.StrEnum):
    """How a caller proved who it is."""

    API_KEY = "api_key"
    JWT = "jwt"
    GOOGLE = "google"


@dataclass(frozen=True, slots=True)
class BoundLimit:
    """A limit that binds a caller, with the beginning of its counter's name worked out.

    The counter is `prefix` for all scopes but `model`, where `|<model>` follows.
    """

    limit: Limit
    prefix: str
    """`<organization>|<limit>|<subject>`, the subject as `key:<id>`, `user:<name>`, `team:<name>`, `group:<name>`, or
    empty for the organization. For scope `model` it ends with `model:`."""
    models: frozenset[str] | None
    """Models that count; None is all."""
    counts: LimitKind = field(init=False, compare=False)
    """These and what follows are the limit's: reading a field of a model of pydantic takes ten times as long."""
    amount: int = field(init=False, compare=False)
    enforced: bool = field(init=False, compare=False)
    window: tuple[str | None, bool] = field(init=False, compare=False)
    """Window and whether it rolls: the key of `windows.spans`."""
    by_model: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        limit = self.limit
        values = {
            "counts": limit.counts,
            "amount": limit.amount,
            "enforced": limit.mode == "enforce",
            "window": (limit.window, limit.rolling),
            "by_model": limit.scope is Scope.MODEL,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, slots=True)
class BoundProduct:
    """A product as one caller sees it: its own limits, and those of organization, groups, team, user."""

    product: Product
    models: frozenset[str] | None
    """None is every model."""
    operations: frozenset[str] | None
    limits: tuple[BoundLimit, ...]
    """From wide to narrow scope."""
    plan: RatePlan | None
    tariff: Tariff | None = None
    """Of the plan; made here unless it is given."""
    name: str = field(init=False, compare=False)
    """The product's."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.product.name)
        if self.plan is not None and self.tariff is None:
            object.__setattr__(self, "tariff", Tariff(self.plan))


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Made when a credential is first seen, and kept until something about it changes."""

    organization: str
    team: str
    user: str
    app: str
    key: str
    """Id of the API key; empty for tokens."""
    credential: Credential
    products: tuple[BoundProduct, ...]
    """Approved ones, in the app's order."""
    trusted_agent: bool = False
    expires: float | None = None
    """When the credential ends, Unix seconds."""


class Verdict(enum.StrEnum):
    """What came of one policy."""

    PASS = "pass"  # noqa: S105 - no password
    DENY = "deny"
    ANSWER = "answer"
    """The policy answered in place of the model, e.g. from the cache."""
    SKIP = "skip"
    """Its condition did not hold."""
    ERROR = "error"
    """It failed, and the request went on without it (fail open)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the record's `verdicts`. Passes are counted in metrics and not recorded."""

    policy: str
    verdict: Verdict
    code: str = ""
    """Error code of a denial."""
    shadow: bool = False


class Call:
    """See the module's text. Made by the pipeline when the request's headers have come."""

    __slots__ = (
        "_copy",
        "_edited",
        "_shadow",
        "agent",
        "base_model",
        "body",
        "caller",
        "charges",
        "exchange",
        "findings",
        "headers",
        "id",
        "keep_response",
        "limits",
        "max_output",
        "model",
        "now",
        "operation",
        "paces",
        "product",
        "prompt_tokens",
        "response",
        "started",
        "state",
        "stream",
        "strip_usage",
    )

    def __init__(self, exchange: Exchange, call_id: str, now: float, started: float) -> None:
        self.exchange = exchange
        self.id = call_id
        """Unique for ever, and sortable by time: the id in the ledger. Not the client's `x-request-id`."""
        self.now = now
        """`time.time()` when it began, or when its body had come if that was in another second."""
        self.started = started
        """`time.perf_counter()` then."""
        target = exchange.request_headers.get(":path")
        self.operation = _text(target.partition("?")[0])
        """Path without query, e.g. `/v1/chat/completions`."""
        self.model = _text(exchange.request_headers.get("x-gateway-model-name"))
        """Model or adapter that the route was chosen by; clients cannot set this header."""
        self.base_model = exchange.request_headers.get("x-gateway-base-model-name")
        """Model that an adapter extends; empty where the model is none. Clients cannot set this header."""
        self.caller: Caller | None = None
        """Set by the policy `credentials`."""
        self.product: BoundProduct | None = None
        """Set by the policy `access`."""
        self.agent = ""
        """`x-penstock-agent` of a trusted app."""
        self.body: Mapping[str, Any] = {}
        """The parsed body, for policies of stage BODY. Read only: `edit` returns one that may be changed."""
        self.stream = False
        """The client asked for server-sent events."""
        self.prompt_tokens = 0
        """Estimated tokens of the prompt."""
        self.max_output = 0
        """Most tokens that the answer can have: `max_tokens`, or the product's cap, or the estimator's guess."""
        self.charges: list[Charge] = []
        self.limits: list[BoundLimit] = []
        """In the order of `charges`: which limit each belongs to."""
        self.paces: list[Pace] = []
        self.findings: list[Finding] = []
        self.headers: dict[str, str] = {}
        """Response headers to set, whoever answers."""
        self.strip_usage = False
        """Usage on the stream was asked for by us, not by the client."""
        self.keep_response = False
        """A policy wants `response` when the answer is complete (up to `MAX_KEPT`)."""
        self.response = b""
        self.state: dict[str, Any] = {}
        """What a policy keeps between its hooks, by its name."""
        self._edited: dict[str, Any] | None = None
        self._copy: dict[str, Any] | None = None
        self._shadow = False

    def edit(self) -> dict[str, Any]:
        """Return the body to change in place (its top level is a copy; copy what you change below it)."""
        if self._shadow:
            if self._copy is None:
                self._copy = dict(self.body)
            return self._copy
        if self._edited is None:
            self._edited = dict(self.body)
            self.body = self._edited
        return self._edited

    @property
    def edited(self) -> Mapping[str, Any] | None:
        """The changed body, or None if nobody changed it."""
        return self._edited

    def set_header(self, name: str, value: str) -> None:
        """Set a request header (lower case) for what comes after."""
        if not self._shadow:
            self.exchange.request_changes.set[name] = value

    def enter(self, *, shadow: bool) -> None:
        """Begin a policy (called by the pipeline)."""
        self._shadow, self._copy = shadow, None

    @property
    def shadow(self) -> bool:
        """Whether the policy at work is in shadow mode."""
        return self._shadow


MAX_KEPT = 1024 * 1024
"""Longest answer that is kept for policies, bytes; of a longer one `response` stays empty."""


def _text(value: str) -> str:
    """Return what can be written to counters and ledger: bytes that are no UTF-8 become question marks."""
    return value if value.isascii() else value.encode("utf-8", "replace").decode()
