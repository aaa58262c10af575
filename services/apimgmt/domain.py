"""What API management is about: organizations and who belongs to them, products and what binds them.

One model serves four readers: the config file, the store (as JSON), the admin API and the portal. Names are unique
within an organization; limits, rate plans, products and template rules belong to the whole installation. What the hot
path asks for is compiled from these (`directory.py`); nothing here is looked at per request.
"""

import enum
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from services.extproc.config import ConfigModel

MAX_NAME = 63
"""Longest name, characters (a DNS label, RFC 1123)."""

MICROS = 1_000_000
"""Money is counted in millionths of a US dollar, as whole numbers."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_USER = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._%+@-]{0,252}[A-Za-z0-9])?")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"expected a DNS label: at most {MAX_NAME} of a-z, 0-9 and -, for example team-a")
    return value


def is_user_name(value: str) -> bool:
    """Tell whether `value` can name a user: so it is safe in headers and in names of counters, too."""
    return _USER.fullmatch(value) is not None


def _user(value: str) -> str:
    if not is_user_name(value):
        raise ValueError("expected an email address or a name of letters, digits and . _ % + - @")
    return value


Name = Annotated[str, AfterValidator(_name)]
UserName = Annotated[str, AfterValidator(_user)]


class Kind(enum.StrEnum):
    """Kinds of documents in the store; the value is the collection's name in the admin API."""

    ORGANIZATION = "organizations"
    TEAM = "teams"
    DEVELOPER = "developers"
    GROUP = "groups"
    APP = "apps"
    PRODUCT = "products"
    LIMIT = "limits"
    RATE_PLAN = "ratePlans"
    TEMPLATE_RULE = "templateRules"
    KEY_VALUE_MAP = "keyValueMaps"


class Entity(ConfigModel):
    """What all documents share. `kind` and `scoped` are set by each class."""

    kind: ClassVar[Kind]
    scoped: ClassVar[bool] = False
    """Whether it belongs to an organization, and names it in `organization`."""

    name: str
    display_name: str = ""
    """What people see. Default the name."""


class Organization(Entity):
    """The outermost unit of accounting: everything that is counted belongs to exactly one."""

    kind: ClassVar[Kind] = Kind.ORGANIZATION
    name: Name
    limits: list[Name] = Field(default_factory=list)
    """Limits that bind it beside those of products; the limit's scope says whose use is counted together."""
    rate_plan: Name | None = None
    """Plan of its requests where the product names none."""


class Team(Entity):
    """Part of an organization."""

    kind: ClassVar[Kind] = Kind.TEAM
    scoped: ClassVar[bool] = True
    name: Name
    organization: Name
    limits: list[Name] = Field(default_factory=list)


class Role(enum.StrEnum):
    """What a person may do in the admin API and the portal."""

    ADMIN = "admin"
    """Everything."""
    TEAM_LEAD = "teamLead"
    """Apps, keys and usage of the own team."""
    DEVELOPER = "developer"
    """Own apps, keys and usage."""


class Developer(Entity):
    """A person. The user of limits and of the ledger."""

    kind: ClassVar[Kind] = Kind.DEVELOPER
    scoped: ClassVar[bool] = True
    name: UserName
    organization: Name
    team: Name
    role: Role = Role.DEVELOPER
    limits: list[Name] = Field(default_factory=list)
    active: bool = True
    """False refuses all keys of the person's apps."""


class Group(Entity):
    """A budget that several share: limits of scope `group` count the use of all members together."""

    kind: ClassVar[Kind] = Kind.GROUP
    scoped: ClassVar[bool] = True
    name: Name
    organization: Name
    teams: list[Name] = Field(default_factory=list)
    users: list[UserName] = Field(default_factory=list)
    limits: list[Name] = Field(default_factory=list)


class Approval(enum.StrEnum):
    """State of an app's subscription to a product."""

    APPROVED = "approved"
    PENDING = "pending"
    REVOKED = "revoked"


class Subscription(ConfigModel):
    """An app's right to a product."""

    product: Name
    status: Approval = Approval.APPROVED


class App(Entity):
    """What holds keys: one application of one developer, with products it may use."""

    kind: ClassVar[Kind] = Kind.APP
    scoped: ClassVar[bool] = True
    name: Name
    organization: Name
    team: Name
    developer: UserName
    products: list[Subscription] = Field(default_factory=list)
    """Products in the order in which they are looked through: the first that has the model and operation serves."""
    oauth_client_id: str | None = None
    """Tokens whose client claim equals this are requests of this app."""
    trusted_agent: bool = False
    """Whether `x-penstock-agent` of its requests is believed and booked."""
    active: bool = True


class PolicyUse(ConfigModel):
    """One policy in a chain."""

    policy: str
    """Its name in the registry, for example `spike-arrest`."""
    mode: Literal["enforce", "shadow", "off"] = "enforce"
    """`shadow`: evaluated and recorded, without effect. `off`: taken out of the chain that it would be part of."""
    when: str | None = None
    """CEL condition over the request; the policy is passed over where it is false. Default always."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What the policy's own settings model reads."""


class Product(Entity):
    """What a key opens: models, operations, limits, price and policies."""

    kind: ClassVar[Kind] = Kind.PRODUCT
    name: Name
    description: str = ""
    models: list[str] = Field(min_length=1)
    """Models and adapters, by the names that clients use; `*` is every model."""
    operations: list[str] = Field(default_factory=list)
    """Paths, for example `/v1/chat/completions`. Default every inference operation."""
    limits: list[Name] = Field(default_factory=list)
    rate_plan: Name | None = None
    approval: Literal["auto", "manual"] = "auto"
    """Whether a developer's own subscription is approved at once."""
    public: bool = True
    """Whether the portal shows it to every developer."""
    max_output_tokens: int | None = Field(default=None, ge=1)
    """Reserved, and asked of the model, where a request sets no `max_tokens`; a larger `max_tokens` is refused."""
    policies: list[PolicyUse] = Field(default_factory=list)
    """Changes to the chain of all products: a policy replaces the one of its name, or joins at its place."""


class Scope(enum.StrEnum):
    """Whose use a limit counts together, from wide to narrow."""

    ORGANIZATION = "organization"
    GROUP = "group"
    TEAM = "team"
    USER = "user"
    KEY = "key"
    MODEL = "model"
    """Each model of each organization by itself."""


class LimitKind(enum.StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    """Prompt and completion together."""
    CONCURRENT = "concurrent"
    COST = "cost"
    """Millionths of a US dollar."""


class Limit(Entity):
    """An amount per window that may never be exceeded."""

    kind: ClassVar[Kind] = Kind.LIMIT
    name: Name
    scope: Scope
    counts: LimitKind = Field(alias="kind")
    amount: int = Field(ge=1, le=2**53)
    window: Literal["minute", "hour", "day", "month"] | None = None
    """None for `concurrent` only."""
    rolling: bool = False
    """False: windows of the calendar, in UTC. True: the last minute, hour, day or 30 days."""
    models: list[str] = Field(default_factory=list)
    """Models that count. Default all."""
    mode: Literal["enforce", "shadow"] = "enforce"

    @model_validator(mode="after")
    def _window(self) -> "Limit":
        if (self.window is None) != (self.counts is LimitKind.CONCURRENT):
            raise ValueError("a limit has a window, unless its kind is concurrent")
        return self


class Prices(ConfigModel):
    """Prices in millionths of a US dollar per million tokens (so dollars per million tokens, times a million)."""

    prompt: int = Field(default=0, ge=0)
    cached: int | None = Field(default=None, ge=0)
    """Prompt tokens that the replica had cached. Default as `prompt`."""
    completion: int = Field(default=0, ge=0)
    reasoning: int | None = Field(default=None, ge=0)
    """Completion tokens spent on reasoning. Default as `completion`."""


class RatePlan(Entity):
    """What use costs."""

    kind: ClassVar[Kind] = Kind.RATE_PLAN
    name: Name
    per_request: int = Field(default=0, ge=0)
    """Millionths of a US dollar for each answered request."""
    monthly_fee: int = Field(default=0, ge=0)
    """Millionths of a US dollar per app and month that it is subscribed in."""
    free_tokens: int = Field(default=0, ge=0)
    """Tokens per organization and calendar month (UTC) that cost nothing."""
    prices: Prices = Prices()
    models: dict[str, Prices] = Field(default_factory=dict)
    """Prices of single models, in place of `prices`."""


class TemplateRule(Entity):
    """What an organization's administrator asks of the policies of all products."""

    kind: ClassVar[Kind] = Kind.TEMPLATE_RULE
    name: Name
    required: list[str] = Field(default_factory=list)
    allowed: list[str] | None = None
    """Default all that are not denied."""
    denied: list[str] = Field(default_factory=list)


class KeyValueMap(Entity):
    """Named values that settings of policies may refer to; values are encrypted before they reach the store."""

    kind: ClassVar[Kind] = Kind.KEY_VALUE_MAP
    name: Name
    entries: dict[str, str] = Field(default_factory=dict)
    """Key -> sealed value (`kvm.seal`)."""


ENTITIES: dict[Kind, type[Entity]] = {
    cls.kind: cls
    for cls in (Organization, Team, Developer, Group, App, Product, Limit, RatePlan, TemplateRule, KeyValueMap)
}


class KeyPurpose(enum.StrEnum):
    """What a key opens."""

    API = "api"
    """Inference, as an app."""
    PERSONAL = "personal"
    """Admin API and portal, as a developer."""


class KeyRecord(ConfigModel):
    """A key as it is stored: the key itself is shown once and never kept."""

    id: str
    """The part of the key that is no secret, by which it is looked up: 16 characters of a-z and 2-7."""
    purpose: KeyPurpose = KeyPurpose.API
    digest: str
    """Keyed hash of the whole key, hexadecimal (`keys.digest`)."""
    organization: Name
    app: Name | Literal[""] = ""
    """Empty for personal keys."""
    developer: UserName
    display_name: str = ""
    created: int
    """Unix seconds, as all times here."""
    expires: int | None = None
    revoked: int | None = None
    """From when on it is refused; in the future while a rotated key has its grace period."""
    replaced_by: str | None = None
    """Id of the key that a rotation made in its place."""
    last_used: int | None = None
    """To the minute; written some seconds later."""
