"""The whole program, with preview off and on."""

import json
from pathlib import Path

import pulumi
import pytest
from penstock import ConfigErrors

from cli.graph.recorder import record
from infra import program
from tests.support import recordings

ROOT = Path(__file__).parents[3]
CONFIG = {
    "penstock:image": "a/services:1",
    "penstock:vllmImage": "a/vllm:1",
    "penstock:models": json.dumps([{"name": "m", "source": "a/m", "replicaSets": [{"name": "a"}]}]),
}


def recorded(preview=False, **changes):
    config = {**CONFIG, **{f"penstock:{key}": value for key, value in changes.items()}}
    return record(program.main, "test", preview=preview, config=config)


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


def test_local_declares_the_objects_of_the_architecture(preview):
    graph = recordings.recorded("local", preview=preview)
    found: dict[str, set[str]] = {}
    for manifest in graph.manifests():
        found.setdefault(manifest["kind"], set()).add(manifest["metadata"]["name"])
    pools = {"llama-3-1-8b-a", "llama-3-1-8b-b", "gemma-3-12b-a"}
    pickers = {f"{pool}-picker" for pool in pools}
    callouts = {"body-router", "api-management"}
    assert found == {
        "Namespace": {"inference"},
        "Gateway": {"inference-gateway"},
        "GCPGatewayPolicy": {"inference-gateway"},
        "ServiceAccount": callouts | pools | pickers,
        "ConfigMap": callouts | pickers,
        "Deployment": callouts | pools | pickers,
        "Service": callouts | pickers | {f"{pool}-replicas" for pool in pools},
        "HealthCheckPolicy": callouts | pools,
        "PodDisruptionBudget": callouts | pools,
        "InferencePool": pools,
        "GCPBackendPolicy": callouts | pools,
        "HTTPRoute": {"llama-3-1-8b", "gemma-3-12b"},
        "PersistentVolumeClaim": {"api-management-data"},
        "GCPRoutingExtension": {"inference-gateway-routing"},
        "GCPTrafficExtension": {"inference-gateway-traffic"},
    }
    assert graph.outputs == {
        "gateway": "inference-gateway",
        "namespace": "inference",
        "models": ["llama-3.1-8b", "gemma-3-12b"],
    }


def test_everything_in_the_namespace_waits_for_it(preview):
    graph = recorded(preview)
    waiting = [item for item in graph.resources if not item.custom and item.name != "gateway"]
    assert waiting
    for component in waiting:
        assert "kubernetes:core/v1:Namespace::gateway-namespace" in component.dependencies, component.key


def test_routes_wait_for_their_pools_and_extensions_for_the_body_router(preview):
    graph = recorded(preview)
    components = {item.type.rpartition(":")[2]: item for item in graph.resources if not item.custom}
    assert any("InferencePool::m-a-pool" in key for key in components["ModelRoute"].dependencies)
    assert any("body-router-deployment" in key for key in components["Extensions"].dependencies)


@pytest.mark.parametrize("gateway", [{}, {"tls": {"secretNames": ["s"]}}], ids=["http", "https"])
def test_routes_attach_to_a_listener_that_the_gateway_has(preview, gateway):
    manifests = list(recorded(preview, gateway=json.dumps(gateway)).manifests())
    (listener,) = next(item for item in manifests if item["kind"] == "Gateway")["spec"]["listeners"]
    routes = [item for item in manifests if item["kind"] == "HTTPRoute"]
    assert routes
    for route in routes:
        assert [ref["sectionName"] for ref in route["spec"]["parentRefs"]] == [listener["name"]]


def test_without_a_configured_cluster_the_ambient_kubeconfig_counts_and_config_maps_still_change_in_place(preview):
    (provider,) = [item for item in recorded(preview).resources if item.type == "pulumi:providers:kubernetes"]
    assert provider.inputs == {"enableConfigMapMutable": "true"}


def test_a_configured_cluster_makes_one_provider_for_everything(preview):
    cluster = {"context": "c", "clusterIdentifier": "projects/p/locations/l/clusters/c"}
    graph = recorded(preview, kubernetes=json.dumps(cluster), kubeconfig="top-secret")
    (provider,) = [item for item in graph.resources if item.type == "pulumi:providers:kubernetes"]
    assert provider.inputs["context"] == "c"
    assert provider.inputs["clusterIdentifier"] == cluster["clusterIdentifier"]
    envelope = provider.inputs["kubeconfig"]
    assert envelope["4dabf18193072939515e22adb298388d"] == "1b47061264138c4ac30d75fd1eb44270"
    for item in graph.resources:
        if item.custom and item is not provider:
            assert "kubernetes" in json.dumps(dict(item.options)), item.key


def test_callouts_of_the_settings_reach_the_traffic_extension(preview):
    callouts = [{"name": "keys", "service": "keys", "port": 9006, "events": ["RequestHeaders"], "timeoutMs": 200}]
    graph = recorded(preview, callouts=json.dumps(callouts))
    (traffic,) = [item for item in graph.manifests() if item["kind"] == "GCPTrafficExtension"]
    (extension,) = traffic["spec"]["extensionChains"][0]["extensions"]
    assert (extension["name"], extension["timeout"]) == ("keys", "200ms")


def test_wrong_settings_register_nothing():
    def attempt() -> None:
        with pytest.raises(ConfigErrors) as caught:
            program.main()
        pulumi.export("paths", [error.path for error in caught.value.errors])

    config = {**CONFIG, "penstock:models": "not json", "penstock:zoneCount": "many", "penstock:namespac": "x"}
    graph = record(attempt, "test", config=config)
    assert graph.resources == ()
    assert set(graph.outputs["paths"]) == {"models", "zoneCount", "namespac"}


def test_entry_point_reports_without_a_traceback(monkeypatch):
    import runpy

    def refuse() -> None:
        with pytest.raises(pulumi.RunError, match="configuration error"):
            runpy.run_path(str(ROOT / "infra"), run_name="__main__")

    assert record(refuse, "test", config={}).resources == ()
