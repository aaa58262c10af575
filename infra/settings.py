"""Typed settings of an environment: the only module that reads `pulumi.Config`.

Shape is checked here (types, unknown keys), meaning by the components' own `problems` in `plan.py`. Both report
together: `plan.load` raises once with everything that is wrong.
"""

import json
from collections.abc import Mapping
from typing import Any, get_args

import pulumi.runtime.config
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

PREFIX = "penstock:"


class _Settings(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )


class Tls(_Settings):
    """Certificates of the HTTPS listener: exactly one of the three."""

    cert_manager_certs: list[str] | None = None
    """Regional Certificate Manager certificates."""
    pre_shared_certs: list[str] | None = None
    """Regional Compute Engine SSL certificates."""
    secret_names: list[str] | None = None
    """TLS Secrets in the namespace."""


class Gateway(_Settings):
    """The entry."""

    name: str = "inference-gateway"
    """Name of the Gateway object."""
    class_name: str | None = None
    """GatewayClass. Default `gke-l7-rilb`."""
    tls: Tls | None = None
    """Without it the listener is plain HTTP."""
    redirect_http: bool | None = None
    """Also listen on port 80 and redirect to HTTPS; needs `tls` and `addressName`."""
    hostname: str | None = None
    """DNS name that the listener serves."""
    allow_global_access: bool | None = None
    """Whether clients of other regions may connect. Default true."""
    address_name: str | None = None
    """Name of a reserved internal address."""
    ssl_policy: str | None = None
    """Name of a regional SSL policy."""


class BodyRouter(_Settings):
    """The callout that reads the model's name."""

    replicas: int | None = None
    """Pods. Default 2."""
    max_body_bytes: int | None = None
    """Default 10 MiB."""
    allow_client_headers: list[str] | None = None
    """Trusted headers that clients may send after all."""
    stream_timeout_s: int | None = None
    """Seconds that the router may be busy with one request. Default 3600."""
    drain_timeout_s: int | None = None
    log_level: str | None = None
    tls_secret: str | None = None
    cpu: str | None = None
    memory: str | None = None
    timeout_ms: int | None = None
    """Milliseconds per message of the routing extension. Default 1,000."""


class Scorer(_Settings):
    """A scorer of the pickers' profile."""

    type: str
    weight: float | None = None
    parameters: dict[str, Any] | None = None


class Picker(_Settings):
    """The endpoint pickers, one per pool, all alike."""

    scorers: list[Scorer] | None = None
    drain_timeout_s: int | None = None
    log_level: str | None = None
    tls_secret: str | None = None
    cpu: str | None = None
    memory: str | None = None


class Adapter(_Settings):
    """A LoRA adapter."""

    name: str
    source: str


class Accelerator(_Settings):
    """GPUs of one replica."""

    type: str | None = None
    count: int | None = None


class SecretKey(_Settings):
    """A key of a Secret."""

    name: str
    key: str | None = None


class Serving(_Settings):
    """How replicas serve. Stands at a model, and at a replica set where it differs from its model."""

    replicas: int | None = None
    """Default 1."""
    image: str | None = None
    """vLLM image. Default `vllmImage`."""
    source: str | None = None
    """Model id on the hub, or path. Required at the model or at each of its replica sets."""
    max_loras: int | None = None
    max_lora_rank: int | None = None
    allow_runtime_lora_updates: bool | None = None
    max_model_len: int | None = None
    extra_args: list[str] | None = None
    accelerator: Accelerator | None = None
    node_selector: dict[str, str] | None = None
    cpu: str | None = None
    memory: str | None = None
    shared_memory_mib: int | None = None
    cache_gib: int | None = None
    startup_timeout_s: int | None = None
    drain_timeout_s: int | None = None
    hf_token_secret: SecretKey | None = None


class ReplicaSet(Serving):
    """One uniform set of replicas, with a pool of its own."""

    name: str
    """Short name within the model, e.g. `a`."""
    weight: int | None = None
    """Share of the model's requests. Default 1."""


class Objective(_Settings):
    """A class of requests."""

    name: str
    priority: int


class Model(Serving):
    """A model that clients name in requests."""

    name: str
    replica_sets: list[ReplicaSet]
    adapters: list[Adapter] | None = None
    paths: list[str] | None = None
    """Paths that clients may call, matched exactly. Default all that the body router lets through."""
    objective: str | None = None
    """The objective that all of its requests get."""
    objectives: list[Objective] | None = None
    objective_api: str | None = None
    failure_mode: str | None = None
    """`FailClose` or `FailOpen`, when a picker does not answer."""
    timeout_s: int | None = None
    draining_timeout_s: int | None = None
    log_sample_rate: float | None = None
    security_policy: str | None = None


class Callout(_Settings):
    """A callout of the traffic extension, in the order of requests."""

    name: str
    events: list[str]
    service: str | None = None
    port: int | None = None
    service_namespace: str | None = None
    authority: str | None = None
    google_api_service: str | None = None
    timeout_ms: int | None = None
    fail_open: bool | None = None
    request_body_mode: str | None = None
    response_body_mode: str | None = None
    metadata: dict[str, str] | None = None


class Kubernetes(_Settings):
    """The cluster. Without any field the ambient kubeconfig counts."""

    context: str | None = None
    """Context of the kubeconfig."""
    cluster_identifier: str | None = None
    """`projects/P/locations/L/clusters/C`: keeps objects in place when only the kubeconfig changes."""


class Settings(_Settings):
    """Everything that an environment configures, each field a key `penstock:<field>` of `Pulumi.<env>.yaml`."""

    namespace: str = "inference"
    """Namespace of everything."""
    create_namespace: bool = True
    image: str = ""
    """Image of Penstock's services; required."""
    vllm_image: str = ""
    """vLLM image; required unless every model names its own."""
    zone_count: int = 1
    """Zones that the nodes span."""
    gateway: Gateway = Field(default_factory=Gateway)
    body_router: BodyRouter = Field(default_factory=BodyRouter)
    picker: Picker = Field(default_factory=Picker)
    models: list[Model] = Field(default_factory=list)
    callouts: list[Callout] = Field(default_factory=list)
    kubernetes: Kubernetes = Field(default_factory=Kubernetes)
    kubeconfig: SecretStr | None = None
    """Kubeconfig of the cluster, a secret."""


def read() -> dict[str, Any]:
    """Return what `pulumi.Config` holds under `penstock:`: strings as they are, everything else parsed from JSON.

    `pulumi.Config` cannot list its keys, without which a misspelt key would be ignored in silence; hence the runtime's
    own map.
    """
    config = pulumi.runtime.config
    values: Mapping[str, Any] = {**config.get_config_env(), **config.CONFIG.get()}
    found = {key.removeprefix(PREFIX): value for key, value in values.items() if key.startswith(PREFIX)}
    return {key: value if key in _text_keys() else _parse(value) for key, value in found.items()}


def _text_keys() -> set[str]:
    fields = Settings.model_fields.items()
    return {
        to_camel(name) for name, field in fields if {str, SecretStr} & {field.annotation, *get_args(field.annotation)}
    }


def _parse(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value  # reported as a value of the wrong type
