"""InferencePool, the Service of its replicas, its policies and objectives."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._labels import LEADER, labels, selector
from .._naming import PICKER_SUFFIX, REPLICAS_SUFFIX, check_label
from ..errors import ConfigError, did_you_mean
from . import access, autoscaling, callout, monitoring, picker, replica_set, upstream
from .common import GKE_API, INFERENCE_API, Manifest, check_range, check_word, health_check_policy, manifest, target_ref

if TYPE_CHECKING:
    from ..pool import InferencePoolArgs, Objective

TIMEOUT_S = 600
"""Default time for a whole answer, in seconds. GKE's is 30, and it ignores the timeouts of an HTTPRoute."""

NEGS_MAX = 50
"""Network endpoint groups of one backend service; a pool makes one per target port and zone. Source: GCP quotas."""

TARGET_PORTS_MAX = 8
"""Source: inference.networking.k8s.io/v1 InferencePool, `spec.targetPorts`."""

OBJECTIVE_APIS = {
    "gaie-1.5": "inference.networking.x-k8s.io/v1alpha2",
    "llm-d-0.10": "llm-d.ai/v1alpha2",
}
"""API version of InferenceObjective by picker release: the kind moved from the one project to the other."""

FAILURE_MODES = ("FailOpen", "FailClose")

_INT32 = 2**31


def target_ports(args: "InferencePoolArgs") -> list[int]:
    """Return the ports on which the replicas serve."""
    return list(args.get("target_ports", [replica_set.PORT]))


def replica_labels(args: "InferencePoolArgs") -> dict[str, str]:
    """Return the labels by which the pool selects its replicas; of a replica with several nodes, the leader."""
    own = dict(args.get("selector") or replica_set.pool_selector(args["name"]))
    return own | ({LEADER: "true"} if args.get("leader_only") else {})


def pool(args: "InferencePoolArgs") -> Manifest:
    """Return the InferencePool. It fails closed by default: an unreachable picker answers 503, not a random replica."""
    name = args["name"]
    spec = {
        "selector": {"matchLabels": replica_labels(args)},
        "targetPorts": [{"number": port} for port in target_ports(args)],
        "endpointPickerRef": {
            "group": "",
            "kind": "Service",
            "name": f"{name}{PICKER_SUFFIX}",
            "port": {"number": picker.GRPC_PORT},
            "failureMode": args.get("failure_mode", "FailClose"),
        },
    }
    return manifest(f"{INFERENCE_API}/v1", "InferencePool", name, args["namespace"], labels(name), spec=spec)


def replicas_service(args: "InferencePoolArgs") -> Manifest:
    """Return the headless Service whose A records are the ready replicas: how the picker finds them without RBAC."""
    name = f"{args['name']}{REPLICAS_SUFFIX}"
    ports = [{"name": f"http-{port}", "port": port, "targetPort": port} for port in target_ports(args)]
    spec = {"clusterIP": "None", "selector": replica_labels(args), "ports": ports}
    return manifest("v1", "Service", name, args["namespace"], labels(name), spec=spec)


def health_policy(args: "InferencePoolArgs") -> Manifest:
    """Return the HealthCheckPolicy: `GET /health` of vLLM on the first target port."""
    port = target_ports(args)[0]
    check = {"requestPath": "/health", "portSpecification": "USE_FIXED_PORT", "port": port}
    config = {"type": "HTTP", "httpHealthCheck": check}
    target = target_ref(INFERENCE_API, "InferencePool", args["name"])
    return health_check_policy(args["name"], args["namespace"], target, config, interval_s=5)


def backend_policy(args: "InferencePoolArgs") -> Manifest:
    """Return the GCPBackendPolicy: the time for a whole answer, the drain, request logs, and Cloud Armor."""
    name = args["name"]
    default: Manifest = {
        "timeoutSec": args.get("timeout_s", TIMEOUT_S),
        "connectionDraining": {"drainingTimeoutSec": args.get("draining_timeout_s", 60)},
    }
    if args.get("log_sample_rate"):
        default["logging"] = {"enabled": True, "sampleRate": round(args["log_sample_rate"] * 1_000_000)}
    if args.get("security_policy") is not None:
        default["securityPolicy"] = args["security_policy"]
    spec = {"default": default, "targetRef": target_ref(INFERENCE_API, "InferencePool", name)}
    return manifest(f"{GKE_API}/v1", "GCPBackendPolicy", name, args["namespace"], labels(name), spec=spec)


def objective_api(args: "InferencePoolArgs") -> str | None:
    """Return the API version of the InferenceObjectives, or None if there shall be none: upstream's picker needs them.

    The kind moved from the one project to the other, and each release of the picker reads its own.
    """
    profile = upstream.profile(args)
    return profile.objective_api if profile else OBJECTIVE_APIS.get(args.get("objective_api") or "")


def objective(args: "InferencePoolArgs", item: "Objective") -> Manifest:
    """Return one InferenceObjective, for a picker that reads these objects (Penstock's reads its objectives file).

    Objectives of different pools share a namespace, so the pool's name is part of theirs; it is by this name that a
    header names them.
    """
    name = f"{args['name']}-{item['name']}"
    spec = {"poolRef": target_ref(INFERENCE_API, "InferencePool", args["name"]), "priority": item["priority"]}
    version, tags = objective_api(args) or "", labels(args["name"])
    return manifest(version, "InferenceObjective", name, args["namespace"], tags, spec=spec)


def picker_objects(args: "InferencePoolArgs") -> dict[str, Manifest]:
    """Return the picker's objects by role: Penstock's, or those of an upstream profile."""
    if upstream.profile(args):
        return {
            "account": upstream.account(args),
            "config": upstream.config_map(args),
            "deployment": upstream.deployment(args),
            "service": upstream.service(args),
        }
    made = picker.callout(args, target_ports(args)[0])
    return {
        "account": callout.account(made),
        "config": callout.config_map(made),
        "deployment": callout.deployment(made),
        "service": callout.service(made),
    }


def picker_access(args: "InferencePoolArgs") -> dict[str, Manifest]:
    """Return, by role, what lets the picker read the Kubernetes API; nothing for one that goes by DNS."""
    name, namespace, settings = f"{args['name']}{PICKER_SUFFIX}", args["namespace"], args["picker"]
    if not picker.reads_api(settings):
        return {}
    tags = labels(name)
    rules = access.UPSTREAM_RULES if upstream.profile(args) else access.PICKER_RULES
    found = {
        "role": access.role(name, namespace, tags, rules),
        "role-binding": access.role_binding(name, namespace, tags),
    }
    if settings.get("metrics_auth"):
        found["reviews"] = access.cluster_role(name, namespace, tags, access.REVIEW_RULES)
        found["reviews-binding"] = access.cluster_role_binding(name, namespace, tags)
    return found


def picker_monitoring(args: "InferencePoolArgs") -> dict[str, Manifest]:
    """Return, by role, what lets managed Prometheus read the picker's metrics."""
    name, namespace = f"{args['name']}{PICKER_SUFFIX}", args["namespace"]
    if not args.get("monitoring"):
        return {}
    guarded = args["picker"].get("metrics_auth")
    token = f"{name}{monitoring.READER_SUFFIX}" if guarded else None
    found = {"monitoring": monitoring.pod_monitoring(name, namespace, selector(name), token_secret=token)}
    reader = monitoring.reader(name, namespace) if guarded else {}
    return found | {f"metrics-{role}": made for role, made in reader.items()}


def activity_query(args: "InferencePoolArgs", cluster: str | None = None) -> str:
    """Return PromQL that is above 0 while requests reach the pool's picker: it starts the first of no replicas."""
    counters = autoscaling.UPSTREAM_COUNTERS if upstream.profile(args) else autoscaling.PENSTOCK_COUNTERS
    return autoscaling.picker_activity(args["name"], args["namespace"], counters, cluster)


def problems(args: "InferencePoolArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be rendered."""
    yield from check_label(f"{path}.name", args["name"], REPLICAS_SUFFIX, "the pool's name")
    yield from check_label(f"{path}.namespace", args["namespace"], what="a namespace")
    yield from check_range(f"{path}.timeout_s", args.get("timeout_s", TIMEOUT_S), 1, _INT32 - 1, "seconds")
    yield from check_range(f"{path}.draining_timeout_s", args.get("draining_timeout_s", 60), 0, 3600, "seconds")
    yield from check_range(f"{path}.log_sample_rate", args.get("log_sample_rate", 0.0), 0, 1, "a share of requests")
    startup_s = args.get("startup_timeout_s", replica_set.STARTUP_S)
    yield from check_range(f"{path}.startup_timeout_s", startup_s, 60, 7200, "seconds")
    mode = args.get("failure_mode", "FailClose")
    yield from check_word(f"{path}.failure_mode", mode, FAILURE_MODES)
    yield from _port_problems(args, path)
    yield from _objective_problems(args, path)
    yield from picker.problems(args["picker"], f"{path}.picker")
    yield from upstream.problems(args["picker"], f"{path}.picker")


def _port_problems(args: "InferencePoolArgs", path: str) -> Iterator[ConfigError]:
    ports, zones, where = target_ports(args), args.get("zone_count", 1), f"{path}.target_ports"
    if not 1 <= len(ports) <= TARGET_PORTS_MAX:
        fix = "Split the replicas into several pools" if ports else "Give at least one port"
        yield ConfigError(where, ports, f"1 to {TARGET_PORTS_MAX} ports", fix)
    for index, port in enumerate(ports):
        yield from check_range(f"{where}[{index}]", port, 1, 65535, "a port")
        if port in ports[:index]:
            yield ConfigError(f"{where}[{index}]", port, "each port once", "Remove one of them")
    if len(ports) > 1 and not upstream.profile(args):
        fix = "Run one server process per replica, on one port"
        yield ConfigError(where, ports, "one port: Penstock's picker balances one endpoint per replica", fix)
    yield from check_range(f"{path}.zone_count", zones, 1, 200, "zones")
    if len(ports) * zones > NEGS_MAX:
        expected = f"ports x zones of at most {NEGS_MAX} network endpoint groups, not {len(ports)} x {zones}"
        yield ConfigError(where, ports, expected, "Use fewer target ports or fewer zones")


def _objective_problems(args: "InferencePoolArgs", path: str) -> Iterator[ConfigError]:
    api = args.get("objective_api")
    if api is not None and api not in OBJECTIVE_APIS:
        fix = did_you_mean(api, OBJECTIVE_APIS)
        yield ConfigError(f"{path}.objective_api", api, f"one of {', '.join(OBJECTIVE_APIS)}", fix)
    elif api is not None and upstream.profile(args) and OBJECTIVE_APIS[api] != objective_api(args):
        expected = f"the API that the picker of profile {args['picker'].get('profile')} reads, {objective_api(args)}"
        yield ConfigError(f"{path}.objective_api", api, expected, "Remove it")
    found = args.get("objectives", [])
    counts = Counter(item["name"] for item in found)
    for index, item in enumerate(found):
        where = f"{path}.objectives[{index}]"
        yield from check_label(f"{where}.name", item["name"], what="an objective's name")
        yield from check_range(f"{where}.priority", item["priority"], -_INT32, _INT32 - 1, "a priority")
        if counts[item["name"]] > 1:
            yield ConfigError(f"{where}.name", item["name"], "each objective once", "Rename one of them")
