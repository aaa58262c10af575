"""Manifests against what is known to go wrong on GKE, one test per trap."""

import pytest
import yaml

from services.bodyrouter.headers import BASE_MODEL_HEADER, MODEL_HEADER
from services.bodyrouter.operations import ROUTED
from tests.support.arguments import CALLOUT, IMAGE, args_of, declared, of_kind


def pod_of(component, **changes):
    return of_kind(declared(component, **changes), "Deployment")["spec"]["template"]["spec"]


def flag(args, name):
    return next(arg.partition("=")[2] for arg in args if arg.startswith(f"{name}="))


CALLOUTS = [("BodyRouter", "body-router", 9004, 9005), ("InferencePool", "m1-a-picker", 9002, 9003)]


@pytest.mark.parametrize(("component", "name", "port", "health"), CALLOUTS)
class TestCallouts:
    def test_service_speaks_http2_over_tls(self, component, name, port, health):
        graph = declared(component)
        (served,) = of_kind(graph, "Service", name)["spec"]["ports"]
        assert served["appProtocol"] == "HTTP2"
        assert served["port"] == served["targetPort"] == port
        assert "--tls-mode=self-signed" in pod_of(component)["containers"][0]["args"]

    def test_tls_files_come_from_a_secret(self, component, name, port, health):
        changes = {"tls_secret": "s"} if component == "BodyRouter" else {"picker": {"image": IMAGE, "tls_secret": "s"}}
        pod = pod_of(component, **changes)
        assert {"name": "tls", "secret": {"secretName": "s"}} in pod["volumes"]
        mount = next(item for item in pod["containers"][0]["volumeMounts"] if item["name"] == "tls")
        assert flag(pod["containers"][0]["args"], "--tls-dir") == mount["mountPath"]

    def test_probes_ask_the_plaintext_health_port(self, component, name, port, health):
        container = pod_of(component)["containers"][0]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["grpc"]["port"] == health
            assert container[probe]["timeoutSeconds"] <= container[probe]["periodSeconds"]
        # a start may take a minute; a busy process is not killed for one slow answer
        assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] == 60
        assert container["livenessProbe"]["failureThreshold"] == 3
        assert container["readinessProbe"]["grpc"]["service"] == "readiness"
        assert container["livenessProbe"]["grpc"]["service"] == "liveness"
        assert flag(container["args"], "--health-port") == str(health)

    def test_pod_binds_its_own_address_only(self, component, name, port, health):
        container = pod_of(component)["containers"][0]
        assert "--address=$(POD_IP)" in container["args"]
        assert {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}} in container["env"]

    def test_every_port_flag_is_a_container_port(self, component, name, port, health):
        container = pod_of(component)["containers"][0]
        flags = {int(arg.rpartition("=")[2]) for arg in container["args"] if "-port=" in arg}
        assert flags == {item["containerPort"] for item in container["ports"]}

    def test_pod_outlives_its_drain(self, component, name, port, health):
        pod = pod_of(component)
        container = pod["containers"][0]
        stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = float(flag(container["args"], "--drain-timeout"))
        assert pod["terminationGracePeriodSeconds"] > stop + drain

    def test_mounted_configuration_is_the_file_that_is_named(self, component, name, port, health):
        pod = pod_of(component)
        container = pod["containers"][0]
        path = flag(container["args"], "--config-file")
        mount = next(item for item in container["volumeMounts"] if path.startswith(f"{item['mountPath']}/"))
        volume = next(item for item in pod["volumes"] if item["name"] == mount["name"])
        data = of_kind(declared(component), "ConfigMap", volume["configMap"]["name"])["data"]
        assert path.removeprefix(f"{mount['mountPath']}/") in data

    def test_image_runs_the_module_of_the_service(self, component, name, port, health):
        command = pod_of(component)["containers"][0]["command"]
        assert command[:2] == ["python", "-m"]
        assert command[2] in ("services.bodyrouter", "services.picker")


@pytest.mark.parametrize("component", ["BodyRouter", "InferencePool", "ModelReplicaSet"])
class TestPods:
    def test_meets_the_restricted_pod_security_standard(self, component):
        pod = pod_of(component)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}

    def test_has_an_account_of_its_own_without_a_token(self, component):
        graph, pod = declared(component), pod_of(component)
        account = of_kind(graph, "ServiceAccount", pod["serviceAccountName"])
        assert account["automountServiceAccountToken"] is False
        assert pod["automountServiceAccountToken"] is False

    def test_environment_is_what_the_manifest_says(self, component):
        assert pod_of(component)["enableServiceLinks"] is False

    def test_states_requests_and_a_memory_limit(self, component):
        resources = pod_of(component)["containers"][0]["resources"]
        assert resources["requests"]["cpu"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
        assert "cpu" not in resources["limits"]

    def test_selector_matches_the_template(self, component):
        spec = of_kind(declared(component), "Deployment")["spec"]
        assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()

    def test_is_spread_over_zones_and_nodes(self, component):
        keys = [item["topologyKey"] for item in pod_of(component)["topologySpreadConstraints"]]
        assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]


def test_trap_1_all_callouts_share_one_chain_of_one_resource():
    graph = declared("Extensions", callouts=[{**CALLOUT, "name": name} for name in ("keys", "quota", "guardrails")])
    (chain,) = of_kind(graph, "GCPTrafficExtension")["spec"]["extensionChains"]
    assert [item["name"] for item in chain["extensions"]] == ["keys", "quota", "guardrails"]
    (chain,) = of_kind(graph, "GCPRoutingExtension")["spec"]["extensionChains"]
    assert len(chain["extensions"]) == 1


def test_routing_extension_sees_every_request_and_fails_closed():
    (chain,) = of_kind(declared("Extensions"), "GCPRoutingExtension")["spec"]["extensionChains"]
    assert chain["matchCondition"]["celExpressions"] == [{"celMatcher": "request.path.startsWith('/')"}]
    (extension,) = chain["extensions"]
    assert extension["failOpen"] is False
    assert extension["supportedEvents"] == ["RequestHeaders", "RequestBody", "RequestTrailers"]
    assert extension["requestBodySendMode"] == "FullDuplexStreamed"
    assert extension["authority"]


def test_google_services_get_no_authority_and_no_body_mode():
    armor = {
        "name": "armor",
        "google_api_service": "modelarmor.us-central1.rep.googleapis.com",
        "events": ["RequestBody", "ResponseBody"],
        "metadata": {"model_armor_settings": '[{"model": "default"}]'},
    }
    (chain,) = of_kind(declared("Extensions", callouts=[armor]), "GCPTrafficExtension")["spec"]["extensionChains"]
    (extension,) = chain["extensions"]
    assert extension["googleAPIServiceName"] == armor["google_api_service"]
    assert not {"authority", "backendRef", "requestBodySendMode"} & set(extension)


def test_global_access_can_be_declined():
    policy = of_kind(declared("InferenceGateway", allow_global_access=False, ssl_policy="p"), "GCPGatewayPolicy")
    assert policy["spec"]["default"] == {"allowGlobalAccess": False, "sslPolicy": "p"}


def test_trap_4_global_access_is_on_before_anything_attaches():
    assert of_kind(declared("InferenceGateway"), "GCPGatewayPolicy")["spec"]["default"]["allowGlobalAccess"] is True


def test_trap_9_the_timeout_is_the_pools_and_not_the_routes():
    (rule,) = of_kind(declared("ModelRoute"), "HTTPRoute")["spec"]["rules"]
    assert "timeouts" not in rule
    policy = of_kind(declared("InferencePool"), "GCPBackendPolicy")["spec"]
    assert policy["default"]["timeoutSec"] == 600
    assert policy["targetRef"]["kind"] == "InferencePool"


def test_every_setting_of_the_pools_backend_is_used():
    changes = {"timeout_s": 90, "draining_timeout_s": 5, "log_sample_rate": 0.25, "security_policy": "armor"}
    assert of_kind(declared("InferencePool", **changes), "GCPBackendPolicy")["spec"]["default"] == {
        "timeoutSec": 90,
        "connectionDraining": {"drainingTimeoutSec": 5},
        "logging": {"enabled": True, "sampleRate": 250_000},
        "securityPolicy": "armor",
    }


@pytest.mark.parametrize(
    ("api", "version"),
    [("gaie-1.5", "inference.networking.x-k8s.io/v1alpha2"), ("llm-d-0.10", "llm-d.ai/v1alpha2")],
)
def test_traps_5_and_13_objectives_by_picker_release_refer_to_the_pools_group(api, version):
    graph = declared("InferencePool", objectives=[{"name": "batch", "priority": -1}], objective_api=api)
    objective = of_kind(graph, "InferenceObjective")
    assert objective["apiVersion"] == version
    assert objective["spec"]["poolRef"]["group"] == "inference.networking.k8s.io"


def test_pool_is_health_checked_on_its_own_path_and_port():
    graph = declared("InferencePool", target_ports=[9000])
    check = of_kind(graph, "HealthCheckPolicy")["spec"]["default"]["config"]
    assert check == {
        "type": "HTTP",
        "httpHealthCheck": {"requestPath": "/health", "portSpecification": "USE_FIXED_PORT", "port": 9000},
    }


def test_body_router_is_health_checked_over_grpc():
    check = of_kind(declared("BodyRouter"), "HealthCheckPolicy")["spec"]["default"]["config"]
    assert check == {"type": "GRPC", "grpcHealthCheck": {"portSpecification": "USE_FIXED_PORT", "port": 9005}}


def test_body_router_is_given_more_than_the_default_30_seconds():
    policy = of_kind(declared("BodyRouter", stream_timeout_s=120), "GCPBackendPolicy")["spec"]
    assert policy["default"]["timeoutSec"] == 120
    assert policy["targetRef"] == {"group": "", "kind": "Service", "name": "body-router"}
    assert of_kind(declared("BodyRouter"), "GCPBackendPolicy")["spec"]["default"]["timeoutSec"] > 600


def test_pool_refers_to_its_picker_by_service_and_port():
    graph = declared("InferencePool", failure_mode="FailOpen")
    ref = of_kind(graph, "InferencePool")["spec"]["endpointPickerRef"]
    service = of_kind(graph, "Service", ref["name"])
    assert ref["port"]["number"] == service["spec"]["ports"][0]["port"]
    assert ref["failureMode"] == "FailOpen"


def test_picker_is_one_pod_that_is_recreated():
    spec = of_kind(declared("InferencePool"), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_picker_is_awaited_as_long_as_its_first_replica_may_take():
    metadata = of_kind(declared("InferencePool", startup_timeout_s=1200), "Deployment")["metadata"]
    assert int(metadata["annotations"]["pulumi.com/timeoutSeconds"]) > 1200
    assert "annotations" not in of_kind(declared("BodyRouter"), "Deployment")["metadata"]


def test_picker_finds_the_replicas_that_the_pool_selects():
    graph = declared("InferencePool")
    replicas = of_kind(graph, "Service", "m1-a-replicas")["spec"]
    assert replicas["clusterIP"] == "None"
    assert replicas["selector"] == of_kind(graph, "InferencePool")["spec"]["selector"]["matchLabels"]
    args = pod_of("InferencePool")["containers"][0]["args"]
    assert flag(args, "--replicas") == "dns:m1-a-replicas.inference.svc:8000"
    labels = of_kind(declared("ModelReplicaSet"), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert replicas["selector"].items() <= labels.items()


def test_picker_gets_its_objectives_as_a_file():
    changes = {"objectives": [{"name": "interactive", "priority": 10}, {"name": "batch", "priority": -1}]}
    assert not any(arg.startswith("--objectives-file") for arg in pod_of("InferencePool")["containers"][0]["args"])
    path = flag(pod_of("InferencePool", **changes)["containers"][0]["args"], "--objectives-file")
    data = of_kind(declared("InferencePool", **changes), "ConfigMap")["data"]
    assert yaml.safe_load(data[path.rpartition("/")[2]]) == changes


class TestRoute:
    def rule(self, **changes):
        (rule,) = of_kind(declared("ModelRoute", **changes), "HTTPRoute")["spec"]["rules"]
        return rule

    def test_matches_the_model_or_its_adapters_on_the_body_routers_operations(self):
        matches = self.rule(model="gemma-3-12b")["matches"]
        found = {
            (match["headers"][0]["name"].lower(), match["headers"][0]["value"], match["path"]["value"])
            for match in matches
        }
        assert found == {
            (header, "gemma-3-12b", path) for header in (MODEL_HEADER, BASE_MODEL_HEADER) for path in ROUTED
        }
        assert {(match["path"]["type"], match["headers"][0]["type"]) for match in matches} == {("Exact", "Exact")}

    def test_management_calls_of_a_replica_match_nothing(self):
        paths = {match["path"]["value"] for match in self.rule()["matches"]}
        assert not paths & {"/v1", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/metrics", "/health", "/sleep"}

    def test_backends_are_weighted_pools_without_a_port(self):
        rule = self.rule(pools=[{"name": "stable", "weight": 90}, {"name": "canary", "weight": 10}])
        kind = {"group": "inference.networking.k8s.io", "kind": "InferencePool"}
        assert rule["backendRefs"] == [
            {**kind, "name": "stable", "weight": 90},
            {**kind, "name": "canary", "weight": 10},
        ]

    def test_objective_is_set_by_the_route(self):
        assert "filters" not in self.rule()
        (modifier,) = self.rule(objective="batch")["filters"]
        header = {"name": "x-gateway-inference-objective", "value": "batch"}
        assert modifier == {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [header]}}


class TestReplicas:
    def container(self, **changes):
        return pod_of("ModelReplicaSet", **changes)["containers"][0]

    def test_serves_the_model_under_the_clients_name(self):
        container = self.container()
        assert container["command"] == ["vllm", "serve", "example/m1"]
        assert container["args"] == ["--served-model-name=m1", "--port=8000"]

    def test_adapters_are_separate_arguments_at_the_end(self):
        adapters = [{"name": "l1", "source": "a/l1"}, {"name": "l2", "source": "/models/l2"}]
        args = self.container(adapters=adapters, extra_args=["--dtype=bfloat16"], max_lora_rank=32)["args"]
        assert args[-3:] == ["--lora-modules", "l1=a/l1", "l2=/models/l2"]
        assert {"--enable-lora", "--max-loras=2", "--max-lora-rank=32", "--dtype=bfloat16"} <= set(args)

    def test_adapters_change_at_runtime_only_when_asked(self):
        def names(**changes):
            return {item["name"] for item in self.container(**changes)["env"]}

        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in names()
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in names(allow_runtime_lora_updates=True)
        assert "--enable-lora" in self.container(allow_runtime_lora_updates=True)["args"]

    def test_hub_token_comes_from_a_secret_only(self):
        env = self.container(hf_token_secret={"name": "hub"})["env"]
        (token,) = [item for item in env if item["name"] == "HF_TOKEN"]
        assert token["valueFrom"] == {"secretKeyRef": {"name": "hub", "key": "token"}}
        assert "value" not in token

    def test_gpus_are_a_limit_a_node_label_and_tensor_parallelism(self):
        pod = pod_of("ModelReplicaSet", accelerator={"type": "nvidia-l4", "count": 2})
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
        assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
        assert "--tensor-parallel-size=2" in pod["containers"][0]["args"]
        assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"

    def test_rollout_needs_no_spare_gpus(self):
        strategy = of_kind(declared("ModelReplicaSet"), "Deployment")["spec"]["strategy"]
        assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}

    def test_shared_memory_is_memory(self):
        pod = pod_of("ModelReplicaSet", shared_memory_mib=512)
        assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "512Mi"}} in pod["volumes"]

    def test_startup_may_take_as_long_as_weights_take(self):
        probe = self.container(startup_timeout_s=1200)["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] == 1200
        metadata = of_kind(declared("ModelReplicaSet", startup_timeout_s=1200), "Deployment")["metadata"]
        assert int(metadata["annotations"]["pulumi.com/timeoutSeconds"]) > 1200

    def test_every_writable_folder_is_a_volume(self):
        container = self.container()
        mounts = {item["mountPath"] for item in container["volumeMounts"]}
        env = {item["name"]: item.get("value", "") for item in container["env"]}
        assert env["HOME"] in mounts
        assert any(env["HF_HOME"].startswith(f"{mount}/") for mount in mounts)

    def test_answers_may_finish_before_the_pod_ends(self):
        pod = pod_of("ModelReplicaSet", drain_timeout_s=120)
        assert pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] == 120
        assert pod["terminationGracePeriodSeconds"] > 120

    def test_pods_are_labelled_as_the_architecture_says(self):
        graph = declared("ModelReplicaSet", model="llama-3.1-8b", name="llama-3-1-8b-a")
        assert of_kind(graph, "Deployment")["spec"]["template"]["metadata"]["labels"] == {
            "app.kubernetes.io/name": "llama-3-1-8b-a",
            "app.kubernetes.io/part-of": "penstock",
            "penstock.dev/role": "replica",
            "penstock.dev/model": "llama-3-1-8b",
            "penstock.dev/replica-set": "llama-3-1-8b-a",
        }


@pytest.mark.parametrize("component", ["InferenceGateway", "BodyRouter", "ModelReplicaSet", "InferencePool"])
def test_every_object_is_labelled_and_in_the_namespace(component):
    for manifest in declared(component, **({"name": "m1-a"} if "name" in args_of(component) else {})).manifests():
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "penstock"
        assert labels["app.kubernetes.io/name"]
        assert manifest["metadata"].get("namespace") == (None if manifest["kind"] == "Namespace" else "inference")
