"""What ClusterAddons and ModelBucket declare, and with which rights."""

import json

import pytest
from penstock.manifests import metrics_adapter

from cli.graph.gcp_types import judge
from tests.support.arguments import children, declared, of_kind

RELEASE = "kubernetes:helm.sh/v3:Release"


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


def resource(graph, name):
    (found,) = [item for item in graph.resources if item.name == name]
    return found


def only(preview=False, **chosen):
    off = {"leader_worker_set": None, "keda": None, "custom_metrics": None, "objective_apis": None}
    return declared("ClusterAddons", preview=preview, **off | chosen)


class TestAddons:
    def test_nothing_is_installed_unless_chosen(self, preview):
        assert children(only(preview)) == []

    @pytest.mark.parametrize(
        ("chosen", "name", "version"), [("leader_worker_set", "lws", "0.10.0"), ("keda", "keda", "2.20.2")]
    )
    def test_charts_are_pinned_and_awaited_in_a_namespace_made_before(self, chosen, name, version, preview):
        graph = only(preview, **{chosen: True})
        release = resource(graph, f"it-{name}")
        assert release.type == RELEASE
        assert release.inputs["version"] == version
        assert release.inputs["atomic"] is True
        space = resource(graph, f"it-{release.inputs['namespace']}-namespace")
        assert space.key in release.dependencies
        assert space.inputs["metadata"]["name"] == release.inputs["namespace"]

    def test_versions_can_be_chosen(self, preview):
        graph = only(
            preview, keda=True, keda_version="2.19.0", leader_worker_set=True, leader_worker_set_version="0.9.0"
        )
        assert resource(graph, "it-keda").inputs["version"] == "2.19.0"
        assert resource(graph, "it-lws").inputs["version"] == "0.9.0"

    def test_keda_scales_replica_sets_and_reads_no_foreign_secrets(self, preview):
        values = resource(only(preview, keda=True, keda_namespace="inference"), "it-keda").inputs["values"]
        assert values["rbac"]["scaledRefKinds"] == [
            {"apiGroup": "leaderworkerset.x-k8s.io", "kind": "leaderworkersets"}
        ]
        assert values["rbac"]["aggregateToDefaultRoles"] is False
        for part in ("operator", "metricServer"):
            assert values["permissions"][part]["restrict"]["secret"] is True
        assert values["watchNamespace"] == "inference"

    def test_readers_of_metrics_are_kubernetes_accounts_with_one_role(self, preview):
        graph = only(preview, keda=True, custom_metrics=True)
        members = {item.name: item.inputs for item in graph.resources if item.type.endswith(":IAMMember")}
        assert {each["role"] for each in members.values()} == {"roles/monitoring.viewer"}
        prefix = (
            "principal://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/"
            "producer-1.svc.id.goog/subject/ns"
        )
        assert members["it-keda-viewer"]["member"] == f"{prefix}/keda/sa/keda-operator"
        adapter = of_kind(graph, "Deployment")
        account = adapter["spec"]["template"]["spec"]["serviceAccountName"]
        assert members["it-metrics-viewer"]["member"] == f"{prefix}/{adapter['metadata']['namespace']}/sa/{account}"

    def test_external_metrics_have_one_server(self, preview):
        def groups(graph):
            return {each["spec"]["group"] for each in graph.manifests() if each["kind"] == "APIService"}

        assert "external.metrics.k8s.io" in groups(only(preview, custom_metrics=True))
        assert groups(only(preview, custom_metrics=True, keda=True)) == {"custom.metrics.k8s.io"}

    def test_an_api_is_registered_after_what_serves_it(self, preview):
        graph = only(preview, custom_metrics=True)
        for name in ("it-metrics-custom-v1beta2", "it-metrics-external-v1beta1"):
            waits = {key.rpartition("::")[2] for key in resource(graph, name).dependencies}
            assert {"it-metrics-deployment", "it-metrics-service"} <= waits

    def test_adapter_needs_no_root_and_writes_only_where_it_is_told(self):
        graph = only(custom_metrics=True, custom_metrics_image="adapter:v9")
        pod = of_kind(graph, "Deployment")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == "adapter:v9"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        (port,) = container["ports"]
        assert f"--secure-port={port['containerPort']}" in container["args"]
        assert port["containerPort"] >= 1024
        mounts = [each["mountPath"] for each in container["volumeMounts"]]
        assert [arg for arg in container["args"] if arg.startswith("--cert-dir=")] == [f"--cert-dir={mounts[0]}"]
        enforced = of_kind(graph, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        assert enforced == "restricted"

    def test_adapter_may_read_pods_and_nodes_and_nothing_else(self):
        (rule,) = of_kind(only(custom_metrics=True), "ClusterRole")["rules"]
        assert rule == {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}
        subjects = [item["subjects"] for _, item in metrics_adapter.objects(None, True) if "subjects" in item]
        assert all(each == subjects[0] for each in subjects)

    def test_definitions_follow_the_pickers_api(self, preview):
        graph = only(preview, objective_apis=["gaie-1.5", "llm-d-0.10"])
        groups = [each["spec"]["group"] for each in graph.manifests() if each["kind"] == "CustomResourceDefinition"]
        assert groups == ["inference.networking.x-k8s.io"] * 2 + ["llm-d.ai"] * 2


class TestBucket:
    def bucket(self, preview=False, **changes):
        return resource(declared("ModelBucket", preview=preview, **changes), "it-bucket")

    def test_weights_are_private_and_come_back_from_mistakes(self, preview):
        found = self.bucket(preview)
        inputs = found.inputs
        assert inputs["uniformBucketLevelAccess"] is True
        assert inputs["publicAccessPrevention"] == "enforced"
        assert inputs["versioning"] == {"enabled": True}
        assert inputs["softDeletePolicy"] == {"retentionDurationSeconds": 7 * 86_400}
        (rule,) = inputs["lifecycleRules"]
        assert rule == {
            "action": {"type": "Delete"},
            "condition": {"daysSinceNoncurrentTime": 30, "withState": "ARCHIVED"},
        }
        assert inputs["forceDestroy"] is False
        assert inputs["location"] == "US-CENTRAL1"
        assert found.options["protect"] is True
        assert "encryption" not in inputs

    def test_hierarchical_namespace_goes_without_versions(self, preview):
        inputs = self.bucket(preview, hierarchical_namespace=True).inputs
        assert inputs["hierarchicalNamespace"] == {"enabled": True}
        assert not {"versioning", "lifecycleRules"} & set(inputs)
        assert inputs["softDeletePolicy"]

    def test_every_setting_is_used(self, preview):
        key = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
        found = self.bucket(
            preview, kms_key=key, old_versions_days=3, soft_delete_days=0, protect=False, force_destroy=True
        )
        assert found.inputs["encryption"] == {"defaultKmsKeyName": key}
        assert found.inputs["lifecycleRules"][0]["condition"]["daysSinceNoncurrentTime"] == 3
        assert found.inputs["softDeletePolicy"] == {"retentionDurationSeconds": 0}
        assert found.inputs["forceDestroy"] is True
        assert "protect" not in found.options

    def test_arguments_are_those_that_the_provider_knows(self, preview):
        graphs = [declared("ModelBucket", preview=preview), only(preview, keda=True)]
        graphs.append(declared("ModelBucket", preview=preview, hierarchical_namespace=True))
        for graph in graphs:
            for verdict in judge(graph):
                assert verdict.status == "ok", json.dumps([str(error) for error in verdict.errors])
