"""Replica counts that follow the queue: a HorizontalPodAutoscaler, or KEDA, which can also scale to zero.

CPU says nothing of a replica that waits for its GPUs; what waits in its queue says that there are too few of them.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._labels import labels
from .._naming import PICKER_SUFFIX, check_label
from ..errors import ConfigError
from .common import Manifest, check_range, check_word, manifest

if TYPE_CHECKING:
    from ..replica_set import Autoscaling, ModelReplicaSetArgs

HPA = "hpa"
KEDA = "keda"
AUTOSCALERS = (HPA, KEDA)

QUEUE_METRIC = "vllm:num_requests_waiting"
"""Requests that wait in one replica. Source: vLLM 0.32, `/metrics`."""
_ADAPTER_METRIC = f"prometheus.googleapis.com|{QUEUE_METRIC}|gauge"
"""The same by the custom metrics adapter: Cloud Monitoring's name with `|` for `/`. Source: GKE, "Autoscale on custom
metrics", custom-metrics-stackdriver-adapter with the new resource model."""

QUEUE_LENGTH = 5
"""Default waiting requests per replica; the picker calls a replica saturated from the same depth on."""
REPLICAS_MAX = 1000
_UP_WINDOW_S, _DOWN_WINDOW_S, _COOLDOWN_S, _UP_STEP = 30, 900, 1800, 2
_UP_PERIOD_S, _DOWN_PERIOD_S = 60, 300
_WINDOW_MAX_S = 3600
"""Longest stabilization window. Source: autoscaling/v2 HPAScalingRules."""

PROMETHEUS = "https://monitoring.googleapis.com/v1/projects/{}/location/global/prometheus"
"""Prometheus API of a project's metrics. Source: Cloud Monitoring, "Query using PromQL"."""
_POLLING_S = 15
_ACTIVITY_WINDOW = "2m"


def fewest(args: "ModelReplicaSetArgs") -> int:
    """Return the fewest replicas that there may be."""
    scaling = args.get("autoscaling")
    return scaling.get("min", 1) if scaling else args.get("replicas", 1)


def autoscaler(args: "ModelReplicaSetArgs", api_version: str, kind: str) -> list[Manifest]:
    """Return the objects that scale the workload of that version and kind; none without `autoscaling`."""
    scaling = args.get("autoscaling")
    if not scaling:
        return []
    target = {"apiVersion": api_version, "kind": kind, "name": args["name"]}
    return _keda(args, scaling, target) if scaling.get("by", HPA) == KEDA else [_hpa(args, scaling, target)]


def picker_activity(pool: str, namespace: str, counters: tuple[str, ...], cluster: str | None = None) -> str:
    """Return PromQL: requests per second that reached the picker of `pool`, by the counters that see all of them.

    The picker is what sees requests while no replica is there to report a queue.
    """
    chosen = _chosen(f"{pool}{PICKER_SUFFIX}", namespace, cluster)
    return " + ".join(f"(sum(rate({name}{chosen}[{_ACTIVITY_WINDOW}])) or vector(0))" for name in counters)


PENSTOCK_COUNTERS = ("penstock_picker_decision_seconds_count", "penstock_picker_refusals_total")
UPSTREAM_COUNTERS = ("inference_objective_request_total", "inference_objective_request_error_total")
"""What counts requests with and without a pick. Source: Gateway API Inference Extension 1.5; llm-d-router 0.10 emits
the same beside its own."""


def problems(args: "ModelReplicaSetArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why the replica count cannot be kept."""
    replicas, scaling = args.get("replicas"), args.get("autoscaling")
    if scaling is None:
        yield from check_range(f"{path}.replicas", args.get("replicas", 1), 0, REPLICAS_MAX, "replicas")
        return
    where = f"{path}.autoscaling"
    if replicas is not None:
        expected = "no fixed number: the autoscaler sets it, and each update would set it back"
        yield ConfigError(f"{path}.replicas", replicas, expected, "Remove it, or remove `autoscaling`")
    by, least = scaling.get("by", HPA), scaling.get("min", 1)
    yield from check_word(f"{where}.by", by, AUTOSCALERS, "`hpa` or `keda`")
    yield from check_range(f"{where}.max", scaling["max"], 1, REPLICAS_MAX, "replicas")
    yield from check_range(f"{where}.min", least, 0, REPLICAS_MAX, "replicas")
    if least > scaling["max"]:
        yield ConfigError(f"{where}.min", least, f"at most `max`, {scaling['max']}", "Lower it, or raise `max`")
    if least == 0 and by == HPA:
        fix = "Use `by: keda`, or at least 1"
        yield ConfigError(f"{where}.min", least, "at least 1: without a replica nothing reports a queue", fix)
    yield from _number_problems(scaling, where)
    yield from _keda_problems(scaling, where, by)


def _number_problems(scaling: "Autoscaling", where: str) -> Iterator[ConfigError]:
    checked = (
        ("queue_length", scaling.get("queue_length", QUEUE_LENGTH), 1, 10_000, "requests"),
        ("scale_up_window_s", scaling.get("scale_up_window_s", _UP_WINDOW_S), 0, _WINDOW_MAX_S, "seconds"),
        ("scale_down_window_s", scaling.get("scale_down_window_s", _DOWN_WINDOW_S), 0, _WINDOW_MAX_S, "seconds"),
        ("scale_up_step", scaling.get("scale_up_step", _UP_STEP), 1, 100, "replicas"),
        ("cooldown_s", scaling.get("cooldown_s", _COOLDOWN_S), 60, 86_400, "seconds"),
    )
    for field, value, low, high, unit in checked:
        yield from check_range(f"{where}.{field}", value, low, high, unit)


def _keda_problems(scaling: "Autoscaling", where: str, by: str) -> Iterator[ConfigError]:
    server, project = scaling.get("prometheus"), scaling.get("project")
    if by == KEDA and server is None and project is None:
        fix = "Name the project that the replicas' metrics go to"
        yield ConfigError(f"{where}.project", None, "a project, whose metrics are asked", fix)
    if server is not None and not server.startswith(("http://", "https://")):
        yield ConfigError(f"{where}.prometheus", server, "the URL of a Prometheus server", "Begin it with `http://`")
    if scaling.get("cluster") is not None:
        yield from check_label(f"{where}.cluster", scaling["cluster"], what="a cluster's name")
    given: tuple[tuple[str, object], ...] = (
        ("cooldown_s", scaling.get("cooldown_s")),
        ("activation_query", scaling.get("activation_query")),
    )
    for field, value in given:
        if value is not None and (by != KEDA or scaling.get("min", 1) > 0):
            fix = "Remove it, or use `by: keda` with `min: 0`"
            yield ConfigError(f"{where}.{field}", value, "scaling to zero, which it is for", fix)


def _behavior(scaling: "Autoscaling") -> Manifest:
    """Return fast but not hasty steps up, and one replica at a time down: each takes minutes to come back."""
    up = {"type": "Pods", "value": scaling.get("scale_up_step", _UP_STEP), "periodSeconds": _UP_PERIOD_S}
    down = {"type": "Pods", "value": 1, "periodSeconds": _DOWN_PERIOD_S}
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": scaling.get("scale_up_window_s", _UP_WINDOW_S),
            "policies": [up],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": scaling.get("scale_down_window_s", _DOWN_WINDOW_S),
            "policies": [down],
        },
    }


def _hpa(args: "ModelReplicaSetArgs", scaling: "Autoscaling", target: Manifest) -> Manifest:
    """Return the HorizontalPodAutoscaler; of a LeaderWorkerSet it reads the leaders, which alone have a queue."""
    average = {"type": "AverageValue", "averageValue": str(scaling.get("queue_length", QUEUE_LENGTH))}
    spec = {
        "scaleTargetRef": target,
        "minReplicas": scaling.get("min", 1),
        "maxReplicas": scaling["max"],
        "metrics": [{"type": "Pods", "pods": {"metric": {"name": _ADAPTER_METRIC}, "target": average}}],
        "behavior": _behavior(scaling),
    }
    tags = labels(args["name"])
    return manifest("autoscaling/v2", "HorizontalPodAutoscaler", args["name"], args["namespace"], tags, spec=spec)


def _keda(args: "ModelReplicaSetArgs", scaling: "Autoscaling", target: Manifest) -> list[Manifest]:
    """Return the TriggerAuthentication and the ScaledObject.

    KEDA's operator asks with its own identity, which needs roles/monitoring.viewer. There is no `fallback`: while
    metrics cannot be read, the number of replicas stays what it is. Source: KEDA 2, scaler `prometheus`.
    """
    name, namespace, tags = args["name"], args["namespace"], labels(args["name"])
    least, cluster = scaling.get("min", 1), scaling.get("cluster")
    queue = f"sum({QUEUE_METRIC}{_chosen(name, namespace, cluster)})"
    triggers = [_trigger("queue", queue, scaling.get("queue_length", QUEUE_LENGTH), args)]
    if least == 0:
        active = scaling.get("activation_query") or picker_activity(name, namespace, PENSTOCK_COUNTERS, cluster)
        # asks for one replica, never for more: how many there are is the queue's to say
        triggers.append(_trigger("activity", active, 1_000_000, args))
    spec: Manifest = {
        "scaleTargetRef": target,
        "minReplicaCount": least,
        "maxReplicaCount": scaling["max"],
        "pollingInterval": _POLLING_S,
        "cooldownPeriod": scaling.get("cooldown_s", _COOLDOWN_S),
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(scaling)}},
        "triggers": triggers,
    }
    made = manifest("keda.sh/v1alpha1", "ScaledObject", name, namespace, tags, spec=spec)
    if scaling.get("prometheus"):
        return [made]
    identity = {"podIdentity": {"provider": "gcp"}}
    return [manifest("keda.sh/v1alpha1", "TriggerAuthentication", name, namespace, tags, spec=identity), made]


def _trigger(name: str, query: str, threshold: int, args: "ModelReplicaSetArgs") -> Manifest:
    scaling = args["autoscaling"]
    server = scaling.get("prometheus") or PROMETHEUS.format(scaling.get("project"))
    metadata = {"serverAddress": server, "query": query, "threshold": str(threshold), "activationThreshold": "0"}
    found: Manifest = {"type": "prometheus", "name": name, "metadata": metadata}
    return found if scaling.get("prometheus") else found | {"authenticationRef": {"name": args["name"]}}


def _chosen(job: str, namespace: str, cluster: str | None) -> str:
    """Return the label matchers of one PodMonitoring's series: `job` is its name."""
    wanted = {"job": job, "namespace": namespace} | ({"cluster": cluster} if cluster else {})
    return "{" + ",".join(f'{key}="{value}"' for key, value in wanted.items()) + "}"
