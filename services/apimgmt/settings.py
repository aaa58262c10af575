"""The config file of API management. What it declares is applied to the store at start (`declared.py`)."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator

from services.apimgmt.domain import (
    App,
    Developer,
    Entity,
    Group,
    KeyValueMap,
    Limit,
    Organization,
    PolicyUse,
    Product,
    RatePlan,
    Team,
    TemplateRule,
)
from services.extproc.config import ConfigModel
from services.extproc.limits import MAX_BODY_BYTES

MAX_LEDGER_DAYS = 3650


class SqliteStore(ConfigModel):
    """A file on a volume. Any number of processes of one host share it."""

    kind: Literal["sqlite"]
    path: str
    """The database file; its folder is made if it is missing."""
    synchronous: Literal["normal", "full"] = "normal"
    """`normal`: a killed process loses nothing, a machine without power perhaps the last moments. `full`: neither."""


class ValkeyStore(ConfigModel):
    """A Valkey or Redis server. Address and password: PENSTOCK_STORE_ADDRESS, PENSTOCK_STORE_PASSWORD."""

    kind: Literal["valkey"]
    auth: Literal["none", "password", "iam"] = "password"
    tls: bool = False
    ca_file: str | None = None
    cluster: bool = False
    """Whether the server is a cluster."""


class ExportTarget(ConfigModel):
    """Where ledger records are copied to."""

    url: str
    """`s3://bucket/prefix`, `gs://bucket/prefix` or `file:///folder`."""
    format: Literal["jsonl", "parquet"] = "jsonl"
    interval_seconds: int = Field(default=300, ge=1, le=86_400)
    max_records: int = Field(default=50_000, ge=1, le=1_000_000)
    """Records per object."""
    endpoint: str | None = None
    """Another server than the cloud's, e.g. `http://127.0.0.1:9000`."""
    region: str | None = None


class Ledger(ConfigModel):
    """The usage ledger."""

    retention_days: int = Field(default=90, ge=1, le=MAX_LEDGER_DAYS)
    """Older records are dropped, but never before they were exported where there is an export."""
    export: ExportTarget | None = None


class Portal(ConfigModel):
    """The developer portal."""

    enabled: bool = True
    title: str = "Penstock"
    endpoint: str | None = None
    """Base URL of the gateway that the portal shows and that its try-it page calls, e.g. `https://ai.example.internal`."""
    ca_file: str | None = None
    """Authority of the gateway's certificate, for the try-it page."""


class Tracing(ConfigModel):
    """OpenTelemetry spans."""

    endpoint: str
    """OTLP over HTTP, e.g. `http://collector:4318/v1/traces`."""
    sample_ratio: float = Field(default=0.1, ge=0, le=1)


class Estimation(ConfigModel):
    """How tokens are guessed before they are counted. See docs/usage.md."""

    reserve: Literal["learned", "bytes"] = "learned"
    """Tokens reserved for a prompt's text. `learned`: what 99 of 100 prompts of the model stayed below. `bytes`: one
    per byte, which no text exceeds, so that no request is larger than its reservation."""
    output_tokens: int = Field(default=1024, ge=1, le=1_000_000)
    """Reserved for an answer where neither the request nor the product sets a maximum. Such an answer may be longer."""
    media_tokens: int = Field(default=1500, ge=0, le=1_000_000)
    """Reserved for each image, sound or other part that is no text."""


class Recording(ConfigModel):
    """Requests kept for `penstock policy replay`."""

    path: str
    """A JSON lines file."""
    sample_ratio: float = Field(default=0.01, ge=0, le=1)
    bodies: bool = False
    """Whether bodies are kept. Without them only policies that do without can be replayed."""
    max_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)


class Settings(ConfigModel):
    """See docs/api-management.md."""

    store: Annotated[SqliteStore | ValkeyStore, Field(discriminator="kind")]
    organizations: list[Organization] = Field(default_factory=list)
    teams: list[Team] = Field(default_factory=list)
    developers: list[Developer] = Field(default_factory=list)
    groups: list[Group] = Field(default_factory=list)
    apps: list[App] = Field(default_factory=list)
    products: list[Product] = Field(default_factory=list)
    limits: list[Limit] = Field(default_factory=list)
    rate_plans: list[RatePlan] = Field(default_factory=list)
    template_rules: list[TemplateRule] = Field(default_factory=list)
    key_value_maps: list[KeyValueMap] = Field(default_factory=list)
    """Maps that exist; their values are set over the admin API, never in this file."""
    policies: list[PolicyUse] = Field(default_factory=list)
    """The chain for all products, in order. Empty: `pipeline.DEFAULT_CHAIN`."""
    estimation: Estimation = Estimation()
    ledger: Ledger = Ledger()
    portal: Portal = Portal()
    tracing: Tracing | None = None
    recording: Recording | None = None
    max_body_bytes: int = Field(default=MAX_BODY_BYTES, ge=1024, le=64 * 1024 * 1024)
    lease_seconds: int = Field(default=30, ge=5, le=600)
    """How long a reservation outlives a process that died."""

    @model_validator(mode="after")
    def _values(self) -> "Settings":
        named = [m.name for m in self.key_value_maps if m.entries]
        if named:
            raise ValueError(
                f"keyValueMaps: {', '.join(named)}: values do not belong into this file; set them by the API"
            )
        return self

    def entities(self) -> Iterator[Entity]:
        """Return everything declared, in the order in which it can be created."""
        yield from self.limits
        yield from self.rate_plans
        yield from self.template_rules
        yield from self.key_value_maps
        yield from self.organizations
        yield from self.teams
        yield from self.developers
        yield from self.groups
        yield from self.products
        yield from self.apps
