"""The component `InferencePool`: one pool of replicas and its endpoint picker."""

from typing import Any, NotRequired, TypedDict

import pulumi

from ._apply import apply, child_options
from ._shape import conform
from .errors import raise_if
from .manifests import pool as manifests
from .manifests.picker import reads_api


class Scorer(TypedDict):
    """One scorer of the picker's profile."""

    type: str
    """Upstream's name, e.g. `prefix-cache-scorer`."""
    weight: NotRequired[float]
    """Its share in the sum of scores. Default upstream's."""
    parameters: NotRequired[dict[str, Any]]
    """Parameters of the scorer, by upstream's names."""


class Picker(TypedDict):
    """The pool's endpoint picker: Penstock's, or a release of the upstream one."""

    profile: NotRequired[str]
    """`penstock`, `gaie-1.5` or `llm-d-router-0.10`. Default `penstock`."""
    discovery: NotRequired[str]
    """How Penstock's picker finds replicas: `dns`, or `kubernetes` by watching pods. Default `dns`."""
    metrics_auth: NotRequired[bool]
    """Whether an upstream picker asks for a token at `/metrics`. Default false."""
    scorers: NotRequired[list[Scorer]]
    """Scorers and weights. Default prefix cache 3, queue 2, KV cache 2, LoRA affinity 1."""
    drain_timeout_s: NotRequired[int]
    """Seconds to finish open streams after SIGTERM. Default 30."""
    log_level: NotRequired[str]
    """`debug`, `info`, `warning` or `error`. Default `info`."""
    tls_secret: NotRequired[str]
    """TLS Secret of the picker's server. Default: it makes a self-signed certificate, which GKE accepts."""
    cpu: NotRequired[str]
    """CPU request. Default `1`."""
    memory: NotRequired[str]
    """Memory request and limit. Default `1Gi`."""
    image: NotRequired[pulumi.Input[str]]
    """Image, pinned by tag or digest: of Penstock's services (required), or of the profile (default its own)."""


class Objective(TypedDict):
    """A class of requests that the picker knows by name."""

    name: str
    """Value of the objective header."""
    priority: int
    """Higher goes first; a negative one is shed first."""


class InferencePoolArgs(TypedDict):
    """Arguments of `InferencePool`."""

    name: str
    """Name of the pool, a DNS label of at most 54 characters."""
    namespace: str
    """Namespace of pool, picker and replicas."""
    picker: Picker
    """The pool's endpoint picker."""
    selector: NotRequired[dict[str, str]]
    """Labels of the replicas' pods. Default: those of the `ModelReplicaSet` with the pool's name."""
    leader_only: NotRequired[bool]
    """Whether a replica has several nodes, of which the leader alone serves. Default false."""
    monitoring: NotRequired[bool]
    """Whether managed Prometheus reads the picker's metrics. Default false."""
    target_ports: NotRequired[list[int]]
    """Ports that each replica serves on. Default 8000."""
    failure_mode: NotRequired[str]
    """Without the picker: `FailClose` answers 503, `FailOpen` picks any replica. Default `FailClose`."""
    timeout_s: NotRequired[int]
    """Seconds for a whole answer, streams included. Default 600."""
    startup_timeout_s: NotRequired[int]
    """Seconds that a replica may take to be ready; the picker waits for the first one. Default 1800."""
    draining_timeout_s: NotRequired[int]
    """Seconds that a leaving replica's connections live on. Default 60."""
    log_sample_rate: NotRequired[float]
    """Share of requests that the load balancer logs, 0 to 1. Default 0."""
    zone_count: NotRequired[int]
    """Zones that the nodes span: the pool makes a network endpoint group per port and zone. Default 1."""
    objectives: NotRequired[list[Objective]]
    """Priorities by name; requests without one have priority 0."""
    objective_api: NotRequired[str]
    """Also declare InferenceObjective objects, for `gaie-1.5` or `llm-d-0.10` tools. Default: none."""
    security_policy: NotRequired[pulumi.Input[str]]
    """Name of a regional Cloud Armor policy."""


class InferencePool(pulumi.ComponentResource):
    """InferencePool, its picker and what that may read, HealthCheckPolicy, GCPBackendPolicy, objectives, monitoring."""

    pool_name: pulumi.Output[str]
    """Name of the InferencePool object."""

    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""
    activity_query = staticmethod(manifests.activity_query)
    """Returns PromQL that tells requests without replicas: `activation_query` of a set that scales to zero."""

    def __init__(self, name: str, args: InferencePoolArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(InferencePoolArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:InferencePool", name, None, opts)

        pool = self._api_picker(name, args) if reads_api(args["picker"]) else self._dns_picker(name, args)
        apply(f"{name}-health", manifests.health_policy(args), child_options(self, [pool]))
        apply(f"{name}-backend", manifests.backend_policy(args), child_options(self, [pool]))
        if manifests.objective_api(args):
            for item in args.get("objectives", []):
                role = f"{name}-objective-{item['name']}"
                apply(role, manifests.objective(args, item), child_options(self, [pool]))
        for role, made in manifests.picker_monitoring(args).items():
            apply(f"{name}-picker-{role}", made, child_options(self))

        self.pool_name = pulumi.Output.from_input(args["name"])
        self.register_outputs({"poolName": self.pool_name})

    def _dns_picker(self, name: str, args: InferencePoolArgs) -> pulumi.Resource:
        """Register the Service of the replicas, the picker that resolves it, and the pool."""
        apply(f"{name}-replicas", manifests.replicas_service(args), child_options(self))
        service = self._picker(name, args, [])
        return apply(f"{name}-pool", manifests.pool(args), child_options(self, [service]))

    def _api_picker(self, name: str, args: InferencePoolArgs) -> pulumi.Resource:
        """Register the pool, and the picker that reads it: not ready, and neither is its Service, until it has."""
        pool = apply(f"{name}-pool", manifests.pool(args), child_options(self))
        access = [
            apply(f"{name}-picker-{role}", made, child_options(self))
            for role, made in manifests.picker_access(args).items()
        ]
        self._picker(name, args, [pool, *access])
        return pool

    def _picker(self, name: str, args: InferencePoolArgs, before: list[pulumi.Resource]) -> pulumi.Resource:
        made = manifests.picker_objects(args)
        account = apply(f"{name}-picker-service-account", made["account"], child_options(self))
        config = apply(f"{name}-picker-config", made["config"], child_options(self))
        apply(f"{name}-picker-deployment", made["deployment"], child_options(self, [account, config, *before]))
        return apply(f"{name}-picker-service", made["service"], child_options(self, before))
