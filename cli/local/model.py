"""What `penstock local` is going to run, as plain data: processes, and the traffic that Envoy carries between them.

Everything listens on `LOOPBACK`, so an endpoint is a port. Pure data: no process, socket or file is touched here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

LOOPBACK = "127.0.0.1"

Kind = Literal["envoy", "callout", "picker", "replica", "store"]


class PlanError(Exception):
    """What is declared cannot be run locally. `problems` has every reason, each with the object and the fix."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Check:
    """How a process tells that it is ready. `target` is an HTTP path, or a gRPC health service name."""

    kind: Literal["http", "grpc", "tcp"]
    port: int
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One process. `ports` maps each declared container port to the (first) local one."""

    name: str
    kind: Kind
    command: tuple[str, ...]
    env: Mapping[str, str]
    port: int
    check: Check
    ports: Mapping[int, int] = field(default_factory=dict)
    processes: int = 1
    """Worker processes behind one name: worker i listens on each port + i."""
    workload: str = ""
    """`namespace/name` of the workload that it comes from."""
    models: tuple[str, ...] = ()
    """Model names that a replica serves."""
    stands_in: bool = False
    """Whether Penstock's picker runs in the place of upstream's."""

    @property
    def address(self) -> str:
        """`ip:port` of what it serves."""
        return f"{LOOPBACK}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """An active health check. Times in seconds. `target` as in `Check`."""

    kind: Literal["http", "grpc", "tcp"]
    target: str = ""
    interval_s: float = 5
    timeout_s: float = 5
    healthy: int = 2
    unhealthy: int = 2


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One process as a load balancing target; `health_port` None checks the serving port."""

    port: int
    health_port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A set of endpoints that Envoy balances over. `picked` follows the choice of an endpoint picker."""

    name: str
    endpoints: tuple[Endpoint, ...]
    tls: bool = False
    http2: bool = False
    picked: bool = False
    health: Health | None = None
    connect_timeout_s: float = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Picker:
    """The endpoint picker of a pool: its ext_proc cluster, and whether requests pass when it is gone."""

    cluster: str
    fail_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A weighted target of a rule. `filters` are Gateway API filters of this backend alone."""

    cluster: str
    weight: int
    timeout_s: float
    picker: Picker | None = None
    filters: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of an HTTPRoute. `matches` and `filters` are Gateway API's objects; no matches means all requests."""

    route: str
    hostnames: tuple[str, ...]
    matches: tuple[Mapping[str, Any], ...]
    filters: tuple[Mapping[str, Any], ...]
    backends: tuple[Backend, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """One listener of a Gateway, always served in clear text."""

    name: str
    port: int
    hostname: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """One callout of an extension chain.

    `when` is the condition of its chain, `unless` those of the chains before it: only the first matching chain runs.
    Each is an OR of CEL expressions; an empty tuple is always true.
    """

    name: str
    routing: bool
    cluster: str
    authority: str
    events: frozenset[str]
    request_full_duplex: bool
    response_full_duplex: bool
    timeout_s: float
    fail_open: bool
    forward_headers: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    metadata_namespace: str = ""
    observe: bool = False
    when: tuple[str, ...] = ()
    unless: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """All that Envoy does. The first listener is the one that clients are told of."""

    listeners: tuple[Listener, ...]
    clusters: tuple[Cluster, ...]
    extensions: tuple[Extension, ...]


@dataclass(frozen=True, slots=True)
class Unrealized:
    """Something declared that has no effect here: `what` is a kind or a field, `objects` name where it stands.

    `passed_by` marks what requests pass unchecked here: the only part that clients notice.
    """

    what: str
    reason: str
    objects: tuple[str, ...]
    passed_by: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything to run for one environment. `files` maps absolute paths to text, written before the start."""

    environment: str
    pieces: tuple[Piece, ...]
    traffic: Traffic
    files: Mapping[Path, str]
    folders: tuple[Path, ...]
    warnings: tuple[Unrealized, ...]
    admin_port: int

    @property
    def endpoint(self) -> str:
        """Base URL for OpenAI clients."""
        return f"http://{LOOPBACK}:{self.traffic.listeners[0].port}/v1"

    @property
    def models(self) -> tuple[str, ...]:
        """Every model name that a replica serves, in order, each once."""
        return tuple(dict.fromkeys(model for piece in self.pieces for model in piece.models))
