"""What bundled API management declares beside products and limits: people, prices, policies, ledger, portal."""

from typing import Any, NotRequired, TypedDict


class PolicyUse(TypedDict):
    """One policy in a chain."""

    policy: str
    """Its name, e.g. `spike-arrest`: docs/api-management.md lists them with their settings."""
    mode: NotRequired[str]
    """`enforce`, `shadow` (evaluated and recorded, without effect) or `off`. Default `enforce`."""
    when: NotRequired[str]
    """CEL condition over the request; the policy is passed over where it is false. Default always."""
    settings: NotRequired[dict[str, Any]]
    """Its settings, camelCase, as the service reads them."""


class ManagedOrganization(TypedDict):
    """The outermost unit of accounting."""

    name: str
    """Its name, a DNS label."""
    display_name: NotRequired[str]
    """Name that people see. Default the name."""
    limits: NotRequired[list[str]]
    """Names of limits that bind all of its requests."""
    rate_plan: NotRequired[str]
    """Plan of its requests where the product names none."""


class ManagedTeam(TypedDict):
    """Part of an organization."""

    name: str
    """Its name, a DNS label."""
    organization: str
    """Its organization."""
    display_name: NotRequired[str]
    """Name that people see. Default the name."""
    limits: NotRequired[list[str]]
    """Names of limits that bind its requests."""


class ManagedDeveloper(TypedDict):
    """A person: the user that limits and the ledger speak of."""

    name: str
    """Email address or account name."""
    organization: str
    """The person's organization."""
    team: str
    """The person's team."""
    display_name: NotRequired[str]
    """Name that people see. Default the name."""
    role: NotRequired[str]
    """`developer`, `teamLead` or `admin` in admin API and portal. Default `developer`."""
    limits: NotRequired[list[str]]
    """Names of limits that bind the person's requests."""


class ManagedGroup(TypedDict):
    """A budget that teams and people share."""

    name: str
    """Its name, a DNS label."""
    organization: str
    """Its organization."""
    teams: NotRequired[list[str]]
    """Teams in it."""
    users: NotRequired[list[str]]
    """People in it."""
    limits: NotRequired[list[str]]
    """Names of limits of scope `group`, which count the use of all members together."""


class ManagedSubscription(TypedDict):
    """An app's right to a product."""

    product: str
    """The product."""
    status: NotRequired[str]
    """`approved`, `pending` or `revoked`. Default `approved`."""


class ManagedApp(TypedDict):
    """What holds keys. The keys themselves are made by admin API, portal or `penstock keys`, and never stand here."""

    name: str
    """Its name, a DNS label."""
    organization: str
    """Its organization."""
    team: str
    """Its team."""
    developer: str
    """Who owns it."""
    products: list[ManagedSubscription]
    """Products, in the order in which they are looked through."""
    oauth_client_id: NotRequired[str]
    """Tokens with this client are requests of the app."""
    trusted_agent: NotRequired[bool]
    """Whether `x-penstock-agent` of its requests is believed and booked. Default false."""


class TokenPrices(TypedDict):
    """Prices in millionths of a US dollar per million tokens."""

    prompt: NotRequired[int]
    """Prompt tokens. Default 0."""
    cached: NotRequired[int]
    """Prompt tokens that the replica had cached. Default as `prompt`."""
    completion: NotRequired[int]
    """Completion tokens. Default 0."""
    reasoning: NotRequired[int]
    """Completion tokens spent on reasoning. Default as `completion`."""


class RatePlan(TypedDict):
    """What use costs."""

    name: str
    """Its name, a DNS label."""
    per_request: NotRequired[int]
    """Millionths of a US dollar for each answered request. Default 0."""
    monthly_fee: NotRequired[int]
    """Millionths of a US dollar per subscribed app and month. Default 0."""
    free_tokens: NotRequired[int]
    """Tokens per organization and calendar month that cost nothing. Default 0."""
    prices: NotRequired[TokenPrices]
    """Prices of all models. Default nothing."""
    models: NotRequired[dict[str, TokenPrices]]
    """Prices of single models, in place of `prices`."""


class LedgerExport(TypedDict):
    """Where ledger records are copied to."""

    url: str
    """`gs://bucket/prefix`, `s3://bucket/prefix` or `file:///folder`."""
    format: NotRequired[str]
    """`jsonl` or `parquet`. Default `jsonl`."""
    interval_seconds: NotRequired[int]
    """Seconds between two objects, 1 to 86,400. Default 300."""
    max_records: NotRequired[int]
    """Most records in one object. Default 50,000."""


class UsageLedger(TypedDict):
    """The usage ledger: one record per request."""

    retention_days: NotRequired[int]
    """Days that records stay, 1 to 3,650; their sums stay for good. Default 90."""
    export: NotRequired[LedgerExport]
    """Copies. Default none."""


class TokenEstimation(TypedDict):
    """How tokens are guessed before they are counted."""

    reserve: NotRequired[str]
    """`learned` (what 99 of 100 prompts stayed below) or `bytes` (a token per byte: no prompt exceeds it). Default
    `learned`."""
    output_tokens: NotRequired[int]
    """Reserved for an answer where neither request nor product sets a maximum. Default 1,024."""
    media_tokens: NotRequired[int]
    """Reserved for each part of a prompt that is no text. Default 1,500."""


class DeveloperPortal(TypedDict):
    """The developer portal, on the admin port."""

    enabled: NotRequired[bool]
    """Whether it is served. Default true."""
    title: NotRequired[str]
    """Its title. Default `Penstock`."""
    endpoint: NotRequired[str]
    """Base URL of the gateway, as the portal shows it and its try-it page calls it."""


class RequestRecording(TypedDict):
    """Requests kept for `penstock policy replay`."""

    path: str
    """JSON lines file in the pod, e.g. `/tmp/recording.jsonl`."""
    sample_ratio: NotRequired[float]
    """Share of requests, 0 to 1. Default 0.01."""
    bodies: NotRequired[bool]
    """Whether bodies are kept. Default false."""
    max_bytes: NotRequired[int]
    """Largest size of the file. Default 64 MiB, which is what `/tmp` has."""


class RequestTracing(TypedDict):
    """OpenTelemetry spans of requests, without their text."""

    endpoint: str
    """OTLP over HTTP, e.g. `http://collector.tools.svc:4318/v1/traces`."""
    sample_ratio: NotRequired[float]
    """Share of requests, 0 to 1. Default 0.1."""


class ManagementAdmin(TypedDict):
    """The admin API and the portal, port 9010."""

    token_secret: NotRequired[str]
    """Secret whose key `admin-token` is the first administrator's bearer token. Default `api-management`."""
    expose: NotRequired[bool]
    """Whether the Service has the port, over TLS; a NetworkPolicy for who may use it is yours to add. Default false: it
    listens on the pod's loopback address, which `kubectl port-forward` reaches and the network does not."""
