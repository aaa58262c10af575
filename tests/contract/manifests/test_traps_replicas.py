"""Replica sets and pools against what is known to go wrong on GKE, one test per trap, and the rules around them."""

import penstock
import pytest
import yaml
from penstock.manifests import upstream

from tests.support.arguments import IMAGE, declared, of_kind
from tests.support.groups import GROUP, container, group, templates

WEIGHTS = {"bucket": "models", "path": "llama/8b", "project": "p", "project_number": "1"}
SCALED = {"replicas": None, "autoscaling": {"max": 4}}
TO_ZERO = {"replicas": None, "autoscaling": {"max": 4, "min": 0, "by": "keda", "project": "p"}}
GAIE = {"picker": {"profile": "gaie-1.5"}}
LLM_D = {"picker": {"profile": "llm-d-router-0.10"}}
BY_API = {"picker": {"image": IMAGE, "discovery": "kubernetes"}}


def pod(**changes):
    return of_kind(declared("ModelReplicaSet", **changes), "Deployment")["spec"]["template"]


@pytest.mark.parametrize(
    ("profile", "image", "config_api", "objective_api", "protocol"),
    [
        (
            "gaie-1.5",
            "registry.k8s.io/gateway-api-inference-extension/epp:v1.5.0",
            "inference.networking.x-k8s.io/v1alpha1",
            "inference.networking.x-k8s.io/v1alpha2",
            None,
        ),
        (
            "llm-d-router-0.10",
            "ghcr.io/llm-d/llm-d-router-endpoint-picker:v0.10.0",
            "llm-d.ai/v1alpha1",
            "llm-d.ai/v1alpha2",
            "http2",
        ),
    ],
)
def test_trap_5_image_configuration_and_objectives_of_upstreams_picker_go_by_its_release(
    profile, image, config_api, objective_api, protocol
):
    graph = declared("InferencePool", picker={"profile": profile}, objectives=[{"name": "batch", "priority": -1}])
    epp = of_kind(graph, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert epp["image"] == image
    config = yaml.safe_load(of_kind(graph, "ConfigMap")["data"]["config.yaml"])
    assert (config["apiVersion"], config["kind"]) == (config_api, "EndpointPickerConfig")
    assert of_kind(graph, "InferenceObjective")["apiVersion"] == objective_api
    assert of_kind(graph, "Service")["spec"]["ports"][0].get("appProtocol") == protocol


def test_trap_7_a_pool_selects_leaders_and_only_leaders_of_multi_node_replicas():
    leader, worker = (template["metadata"]["labels"] for template in templates())
    graph = declared("InferencePool", leader_only=True)
    selector = of_kind(graph, "InferencePool")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= leader.items()
    assert not selector.items() <= worker.items()
    assert of_kind(graph, "Service", "m1-a-replicas")["spec"]["selector"] == selector
    everywhere = of_kind(declared("InferencePool"), "InferencePool")["spec"]["selector"]["matchLabels"]
    assert everywhere.items() <= worker.items()


@pytest.mark.parametrize("changes", [{}, BY_API, GAIE, LLM_D, {"leader_only": True}], ids=str)
def test_trap_9_every_pool_has_a_timeout_for_whole_answers(changes):
    policy = of_kind(declared("InferencePool", **changes), "GCPBackendPolicy")["spec"]
    assert policy["default"]["timeoutSec"] == 600
    assert (policy["targetRef"]["kind"], policy["targetRef"]["name"]) == ("InferencePool", "m1-a")


def test_trap_11_a_pool_of_many_ports_is_refused_only_beyond_50_network_endpoint_groups():
    ports = list(range(8000, 8008))
    assert of_kind(declared("InferencePool", **GAIE, target_ports=ports, zone_count=6), "InferencePool")
    with pytest.raises(Exception, match="50 network endpoint groups, not 8 x 7"):
        declared("InferencePool", **GAIE, target_ports=ports, zone_count=7)


@pytest.mark.parametrize("changes", [GAIE, LLM_D, {"objective_api": "gaie-1.5"}], ids=str)
def test_trap_13_objectives_refer_to_the_group_of_the_pool(changes):
    graph = declared("InferencePool", **changes, objectives=[{"name": "batch", "priority": -1}])
    made = of_kind(graph, "InferenceObjective")
    assert made["spec"]["poolRef"] == {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "m1-a"}
    assert made["metadata"]["name"] == "m1-a-batch"


class TestWeights:
    def test_a_bucket_is_mounted_read_only(self):
        template = pod(source=None, weights=WEIGHTS)
        assert template["metadata"]["annotations"]["gke-gcsfuse/volumes"] == "true"
        volume = next(item for item in template["spec"]["volumes"] if item["name"] == "weights")["csi"]
        assert (volume["driver"], volume["readOnly"]) == ("gcsfuse.csi.storage.gke.io", True)
        options = volume["volumeAttributes"]["mountOptions"].split(",")
        assert {"only-dir=llama/8b", "uid=2000", "file-cache:enable-parallel-downloads:true"} <= set(options)
        mount = next(item for item in container(template)["volumeMounts"] if item["name"] == "weights")
        assert mount == {"name": "weights", "mountPath": "/models", "readOnly": True}
        assert container(template)["command"] == ["vllm", "serve", "/models"]
        assert "initContainers" not in template["spec"]

    def test_streamed_weights_wait_for_the_identity(self):
        template = pod(source=None, weights=WEIGHTS | {"method": "streamer"})
        assert container(template)["command"] == ["vllm", "serve", "gs://models/llama/8b"]
        assert "--load-format=runai_streamer" in container(template)["args"]
        assert not [item for item in template["spec"]["volumes"] if "csi" in item]
        (waits,) = template["spec"]["initContainers"]
        assert "Metadata-Flavor" in waits["command"][-1]
        compile(waits["command"][-1], "wait", "exec")
        assert waits["securityContext"]["allowPrivilegeEscalation"] is False

    def test_whole_bucket(self):
        assert container(pod(source=None, weights=WEIGHTS | {"path": None, "method": "streamer"}))["command"][-1] == (
            "gs://models"
        )

    def test_adapters_are_looked_up_in_the_bucket_at_run_time_only_when_asked(self):
        weights = WEIGHTS | {"adapters_path": "lora"}
        for runtime in (False, True):
            template = pod(source=None, weights=weights, allow_runtime_lora_updates=runtime)
            env = {item["name"]: item.get("value") for item in container(template)["env"]}
            assert env.get("VLLM_LORA_RESOLVER_CACHE_DIR") == ("/adapters" if runtime else None)
            volume = next(item for item in template["spec"]["volumes"] if item["name"] == "adapters")["csi"]
            options = volume["volumeAttributes"]["mountOptions"].split(",")
            assert "only-dir=lora" in options
            assert "metadata-cache:ttl-secs:-1" not in options  # new adapters must be seen


class TestAutoscaling:
    @pytest.mark.parametrize(("changes", "kind"), [({}, "Deployment"), (GROUP, "LeaderWorkerSet")])
    @pytest.mark.parametrize("scaled", [SCALED, TO_ZERO], ids=["hpa", "keda"])
    def test_nothing_else_says_how_many_replicas_there_are(self, changes, kind, scaled):
        graph = declared("ModelReplicaSet", **changes, **scaled)
        workload = of_kind(graph, kind)
        assert "replicas" not in workload["spec"]
        (target,) = [
            item["spec"]["scaleTargetRef"]
            for item in graph.manifests()
            if item["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
        ]
        assert target == {"apiVersion": workload["apiVersion"], "kind": kind, "name": workload["metadata"]["name"]}

    def test_hpa_follows_the_queue_and_never_the_cpu(self):
        hpa = of_kind(declared("ModelReplicaSet", **SCALED), "HorizontalPodAutoscaler")["spec"]
        (metric,) = hpa["metrics"]
        assert metric["type"] == "Pods"
        assert metric["pods"]["metric"]["name"] == "prometheus.googleapis.com|vllm:num_requests_waiting|gauge"
        assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "5"}
        assert (hpa["minReplicas"], hpa["maxReplicas"]) == (1, 4)

    def test_replicas_go_slowly_and_come_faster(self):
        for graph in (declared("ModelReplicaSet", **SCALED), declared("ModelReplicaSet", **TO_ZERO)):
            (spec,) = [
                item["spec"]
                for item in graph.manifests()
                if item["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
            ]
            behavior = spec.get("behavior") or spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
            assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 900
            assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 30

    def test_an_autoscaler_has_the_metrics_it_goes_by(self):
        monitored = of_kind(declared("ModelReplicaSet", **SCALED), "PodMonitoring")["spec"]
        labels = pod(**SCALED)["metadata"]["labels"]
        assert monitored["selector"]["matchLabels"].items() <= labels.items()
        (endpoint,) = monitored["endpoints"]
        assert endpoint["port"] in [item["name"] for item in container(pod())["ports"]]
        assert "PodMonitoring" not in {item["kind"] for item in declared("ModelReplicaSet").manifests()}

    def test_only_leaders_are_monitored(self):
        monitored = of_kind(declared("ModelReplicaSet", **GROUP, monitoring=True), "PodMonitoring")["spec"]
        leader, worker = (template["metadata"]["labels"] for template in templates())
        assert monitored["selector"]["matchLabels"].items() <= leader.items()
        assert not monitored["selector"]["matchLabels"].items() <= worker.items()

    def test_from_zero_the_picker_tells_that_there_are_requests(self):
        graph = declared("ModelReplicaSet", **TO_ZERO)
        spec = of_kind(graph, "ScaledObject")["spec"]
        assert (spec["minReplicaCount"], spec["cooldownPeriod"]) == (0, 1800)
        queue, activity = spec["triggers"]
        assert 'vllm:num_requests_waiting{job="m1-a",namespace="inference"}' in queue["metadata"]["query"]
        assert 'penstock_picker_refusals_total{job="m1-a-picker"' in activity["metadata"]["query"]
        assert activity["metadata"]["activationThreshold"] == "0"
        assert int(activity["metadata"]["threshold"]) > 10**5  # asks for one replica, never more
        assert "fallback" not in spec

    def test_every_counter_of_the_default_query_is_one_of_the_picker(self):
        from penstock.manifests.autoscaling import PENSTOCK_COUNTERS
        from prometheus_client import generate_latest

        from services.picker import observe

        assert observe.REFUSALS
        served = generate_latest().decode()
        for name in PENSTOCK_COUNTERS:  # a series that only begins with the first request never rises
            assert f"\n{name}" in served
        assert '\npenstock_picker_refusals_total{reason="no_endpoints"}' in served

    def test_keda_asks_with_its_own_identity(self):
        graph = declared("ModelReplicaSet", **TO_ZERO)
        assert of_kind(graph, "TriggerAuthentication")["spec"] == {"podIdentity": {"provider": "gcp"}}
        for trigger in of_kind(graph, "ScaledObject")["spec"]["triggers"]:
            assert trigger["authenticationRef"] == {"name": "m1-a"}
            assert trigger["metadata"]["serverAddress"].startswith("https://monitoring.googleapis.com/v1/projects/p/")

    def test_another_prometheus_is_asked_without_identity(self):
        scaling = {"max": 2, "by": "keda", "prometheus": "http://prometheus.monitoring:9090", "cluster": "c1"}
        graph = declared("ModelReplicaSet", replicas=None, autoscaling=scaling)
        assert "TriggerAuthentication" not in {item["kind"] for item in graph.manifests()}
        (trigger,) = of_kind(graph, "ScaledObject")["spec"]["triggers"]
        assert 'cluster="c1"' in trigger["metadata"]["query"]
        assert "authenticationRef" not in trigger

    def test_a_group_that_may_be_gone_is_not_awaited(self):
        annotations = group(**TO_ZERO)["metadata"]["annotations"]
        assert "pulumi.com/waitFor" not in annotations


class TestPickers:
    @pytest.mark.parametrize("changes", [BY_API, GAIE, LLM_D], ids=str)
    def test_who_reads_the_api_has_a_token_and_just_enough_rights(self, changes):
        graph = declared("InferencePool", **changes)
        spec = of_kind(graph, "Deployment")["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is True
        assert of_kind(graph, "ServiceAccount")["automountServiceAccountToken"] is False
        rules = of_kind(graph, "Role")["rules"]
        assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch"}
        resources = {resource for rule in rules for resource in rule["resources"]}
        assert {"pods", "inferencepools", "inferenceobjectives"} <= resources
        assert "secrets" not in resources
        binding = of_kind(graph, "RoleBinding")
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": spec["serviceAccountName"], "namespace": "inference"}
        ]
        assert "ClusterRole" not in {item["kind"] for item in graph.manifests()}

    def test_by_dns_no_right_is_asked_for(self):
        kinds = {item["kind"] for item in declared("InferencePool").manifests()}
        assert not kinds & {"Role", "RoleBinding", "ClusterRole", "PodMonitoring"}

    def test_penstocks_picker_finds_replicas_by_the_api_when_asked(self):
        graph = declared("InferencePool", **BY_API)
        args = of_kind(graph, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
        assert "--replicas=kubernetes" in args
        assert [item["metadata"]["name"] for item in graph.manifests() if item["kind"] == "Service"] == ["m1-a-picker"]

    @pytest.mark.parametrize("changes", [GAIE, LLM_D], ids=str)
    def test_upstream_is_probed_on_9003_by_the_name_it_knows(self, changes):
        epp = of_kind(declared("InferencePool", **changes), "Deployment")["spec"]["template"]["spec"]["containers"][0]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert epp[probe]["grpc"] == {"port": 9003, "service": "inference-extension"}
        assert "command" not in epp  # the image's own
        assert {"--pool-name=m1-a", "--pool-namespace=inference", "--metrics-endpoint-auth=false"} <= set(epp["args"])

    @pytest.mark.parametrize("profile", upstream.PROFILES)
    def test_upstreams_pod_outlives_its_drain_and_is_restricted(self, profile):
        spec = of_kind(declared("InferencePool", picker={"profile": profile}), "Deployment")["spec"]
        assert spec["strategy"] == {"type": "Recreate"}
        pod = spec["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] == 130
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}

    def test_upstream_reads_the_certificate_that_is_mounted(self):
        graph = declared("InferencePool", picker={"profile": "gaie-1.5", "tls_secret": "s"})
        spec = of_kind(graph, "Deployment")["spec"]["template"]["spec"]
        path = next(a.partition("=")[2] for a in spec["containers"][0]["args"] if a.startswith("--cert-path="))
        assert path in [item["mountPath"] for item in spec["containers"][0]["volumeMounts"]]

    @pytest.mark.parametrize("profile", upstream.PROFILES)
    def test_both_pickers_read_the_same_configuration(self, profile):
        from services.extproc.config import parse_config
        from services.picker import config as picker_config

        scorers = [{"type": "prefix-cache-scorer", "weight": 2.0}, {"type": "queue-scorer"}]
        graph = declared("InferencePool", picker={"profile": profile, "scorers": scorers})
        text = of_kind(graph, "ConfigMap")["data"]["config.yaml"]
        found = picker_config.interpret(parse_config(text, picker_config.EndpointPickerConfig))
        assert dict(found.scorers) == {"prefix-cache-scorer": 2.0, "queue-scorer": 2.0}

    def test_metrics_are_read_with_a_token_where_one_is_asked_for(self):
        graph = declared("InferencePool", picker={"profile": "gaie-1.5", "metrics_auth": True}, monitoring=True)
        (endpoint,) = of_kind(graph, "PodMonitoring", "m1-a-picker")["spec"]["endpoints"]
        secret = of_kind(graph, "Secret", endpoint["authorization"]["credentials"]["secret"]["name"])
        assert secret["type"] == "kubernetes.io/service-account-token"
        assert not {"data", "stringData"} & set(secret)
        reviews = of_kind(graph, "ClusterRole", "inference:m1-a-picker")["rules"]
        assert [rule["resources"] for rule in reviews] == [["tokenreviews"], ["subjectaccessreviews"]]
        reader = of_kind(graph, "ClusterRole", "inference:m1-a-picker-metrics")["rules"]
        assert reader == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
        collector = of_kind(graph, "RoleBinding", "m1-a-picker-metrics")["subjects"]
        assert collector == [{"kind": "ServiceAccount", "name": "collector", "namespace": "gmp-system"}]

    @pytest.mark.parametrize("changes", [{}, GAIE], ids=str)
    def test_monitoring_finds_the_pickers_port(self, changes):
        graph = declared("InferencePool", **changes, monitoring=True)
        monitored = of_kind(graph, "PodMonitoring")["spec"]
        template = of_kind(graph, "Deployment")["spec"]["template"]
        assert monitored["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert monitored["endpoints"][0]["port"] in [item["name"] for item in container(template)["ports"]]

    def test_activity_is_that_of_the_picker_in_use(self):

        args = {"name": "m1-a", "namespace": "ns", "picker": {"profile": "gaie-1.5"}}
        assert "inference_objective_request_error_total" in penstock.InferencePool.activity_query(args)
        args["picker"] = {"image": IMAGE}
        assert "penstock_picker_refusals_total" in penstock.InferencePool.activity_query(args, "c1")

    def test_a_route_names_the_objectives_of_each_pool_as_its_picker_knows_them(self):
        pools = [{"name": "m1-a", "objective_objects": True}, {"name": "m1-b"}]
        (rule,) = of_kind(declared("ModelRoute", pools=pools, objective="batch"), "HTTPRoute")["spec"]["rules"]
        assert "filters" not in rule
        named = [ref["filters"][0]["requestHeaderModifier"]["set"][0]["value"] for ref in rule["backendRefs"]]
        assert named == ["m1-a-batch", "batch"]
        graph = declared("InferencePool", **GAIE, objectives=[{"name": "batch", "priority": -1}])
        assert of_kind(graph, "InferenceObjective")["metadata"]["name"] == named[0]


def test_replicas_keep_idle_connections_longer_than_the_load_balancer_reuses_them():
    """Or it sends a request into a connection that is being closed, and the client gets a 502 or 503."""
    container = of_kind(declared("ModelReplicaSet"), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    seconds = {entry["name"]: entry.get("value") for entry in container["env"]}["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"]
    assert int(seconds) > 600
