"""What `InferenceCluster` declares, with preview off and on."""

import json
import shutil
import subprocess

import penstock
import pulumi
import pytest
from penstock.manifests.kubeconfig import kubeconfig_text

from cli.graph import gcp_types
from cli.graph.model import UNKNOWN
from cli.graph.providers import outputs_of
from cli.graph.recorder import record
from cli.graph.wire import is_secret
from tests.support.arguments import args_of, declared

CLUSTER = "gcp:container/cluster:Cluster"
POOL = "gcp:container/nodePool:NodePool"
EMAIL = "llm-nodes@producer-1.iam.gserviceaccount.com"
WINDOW = {"start": "2026-01-03T01:00:00Z", "end": "2026-01-03T13:00:00Z", "recurrence": "FREQ=WEEKLY;BYDAY=SA"}

SHAPES = [
    {},
    {"zones": None, "release_channel": "RAPID", "multi_networking": True, "gcs_fuse": False, "secret_manager": False},
    {"ip_endpoint": True, "authorized_networks": [{"cidr": "203.0.113.0/24", "name": "office"}]},
    {"maintenance_window": WINDOW, "notification_topic": "projects/p/topics/t", "kms_key": "k", "labels": {"a": "b"}},
    {"cpu_pool": {"machine_type": "c3-standard-8", "min_nodes": 3, "max_nodes": 6, "disk_gib": 200}},
    {"repositories": [{"location": "us", "name": "images", "project": "other"}], "deletion_protection": False},
]


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


def only(graph, type_):
    (found,) = (resource for resource in graph.resources if resource.type == type_)
    return found


def cluster(**changes):
    return only(declared("InferenceCluster", **changes), CLUSTER).inputs


@pytest.mark.parametrize("changes", SHAPES, ids=lambda item: ",".join(item) or "defaults")
def test_every_argument_is_one_of_the_provider(changes, preview):
    graph = declared("InferenceCluster", preview=preview, **changes)
    verdicts = list(gcp_types.judge(graph))
    assert len(verdicts) >= 5
    assert [(item.resource.key, item.errors) for item in verdicts if item.status != "ok"] == []
    for item in verdicts:
        assert item.resource.inputs["project"] in ("producer-1", "other")


def test_control_plane_is_reached_by_its_dns_endpoint_alone():
    inputs = cluster()
    assert inputs["controlPlaneEndpointsConfig"] == {
        "dnsEndpointConfig": {
            "allowExternalTraffic": True,
            "enableK8sCertsViaDns": False,
            "enableK8sTokensViaDns": False,
        },
        "ipEndpointsConfig": {"enabled": False},
    }
    assert inputs["masterAuth"] == {"clientCertificateConfig": {"issueClientCertificate": False}}
    assert "masterAuthorizedNetworksConfig" not in inputs
    assert (
        cluster(dns_endpoint_external=False)["controlPlaneEndpointsConfig"]["dnsEndpointConfig"]["allowExternalTraffic"]
        is False
    )


def test_ip_endpoint_is_guarded_by_the_networks_that_are_named():
    inputs = cluster(ip_endpoint=True, authorized_networks=[{"cidr": "203.0.113.0/24"}])
    assert inputs["controlPlaneEndpointsConfig"]["ipEndpointsConfig"] == {"enabled": True}
    block = {"cidrBlock": "203.0.113.0/24", "displayName": "203.0.113.0/24"}
    assert inputs["masterAuthorizedNetworksConfig"] == {"cidrBlocks": [block]}


def test_what_a_private_cluster_for_inference_has():
    inputs = cluster()
    assert inputs["location"] == "us-central1"
    assert inputs["nodeLocations"] == ["us-central1-a", "us-central1-b"]
    assert inputs["privateClusterConfig"] == {"enablePrivateNodes": True}
    assert inputs["datapathProvider"] == "ADVANCED_DATAPATH"
    assert "networkPolicy" not in inputs, "Dataplane V2 enforces policies itself"
    assert inputs["gatewayApiConfig"] == {"channel": "CHANNEL_STANDARD"}
    assert inputs["enableIntranodeVisibility"] is True
    assert inputs["enableFqdnNetworkPolicy"] is True
    assert inputs["enableMultiNetworking"] is False
    assert inputs["podAutoscaling"] == {"hpaProfile": "PERFORMANCE"}
    assert inputs["ipAllocationPolicy"] == {
        "clusterSecondaryRangeName": "pods",
        "servicesSecondaryRangeName": "services",
    }
    addons = inputs["addonsConfig"]
    assert addons["httpLoadBalancing"] == {"disabled": False}
    assert addons["dnsCacheConfig"] == {"enabled": True}
    assert addons["gcsFuseCsiDriverConfig"] == {"enabled": True}
    assert inputs["minMasterVersion"] == "1.35.2-gke.1842000"
    assert inputs["releaseChannel"] == {"channel": "REGULAR"}
    assert inputs["costManagementConfig"] == {"enabled": True}
    assert inputs["resourceLabels"] == {"part-of": "penstock"}
    assert inputs["deletionProtection"] is True
    monitoring = inputs["monitoringConfig"]
    assert monitoring["managedPrometheus"] == {"enabled": True}
    assert {"SYSTEM_COMPONENTS", "DCGM"} <= set(monitoring["enableComponents"])


def test_nobody_is_trusted_without_a_name():
    inputs = cluster()
    assert inputs["workloadIdentityConfig"] == {"workloadPool": "producer-1.svc.id.goog"}
    assert inputs["binaryAuthorization"] == {"evaluationMode": "PROJECT_SINGLETON_POLICY_ENFORCE"}
    assert cluster(binary_authorization=False)["binaryAuthorization"] == {"evaluationMode": "DISABLED"}
    assert inputs["rbacBindingConfig"] == {
        "enableInsecureBindingSystemAuthenticated": False,
        "enableInsecureBindingSystemUnauthenticated": False,
    }
    assert inputs["anonymousAuthenticationConfig"] == {"mode": "LIMITED"}
    assert inputs["enableLegacyAbac"] is False
    assert inputs["enableShieldedNodes"] is True
    assert inputs["securityPostureConfig"] == {"mode": "BASIC"}
    assert inputs["secretManagerConfig"] == {"enabled": True}
    assert cluster(kms_key="key")["databaseEncryption"] == {"state": "ENCRYPTED", "keyName": "key"}
    assert "databaseEncryption" not in inputs


def test_the_first_pool_is_taken_away_and_had_the_same_identity():
    """A project may have no usable default service account; later changes to that pool mean nothing."""
    resource = only(declared("InferenceCluster"), CLUSTER)
    assert resource.inputs["removeDefaultNodePool"] is True
    assert resource.inputs["nodeConfig"]["serviceAccount"] == EMAIL
    assert set(resource.options["ignoreChanges"]) == {"initialNodeCount", "nodeConfig"}


def test_nodes_without_accelerators():
    pool = only(declared("InferenceCluster"), POOL)
    assert pool.inputs["autoscaling"] == {
        "totalMinNodeCount": 2,
        "totalMaxNodeCount": 10,
        "locationPolicy": "BALANCED",
    }
    assert pool.inputs["upgradeSettings"] == {"strategy": "SURGE", "maxSurge": 1, "maxUnavailable": 0}
    assert pool.inputs["networkConfig"] == {"enablePrivateNodes": True}
    assert "nodeCount" not in pool.inputs, "the autoscaler alone changes the number"
    node = pool.inputs["nodeConfig"]
    assert node["labels"] == {"penstock.dev/pool": "cpu"}
    assert node["serviceAccount"] == EMAIL
    assert node["imageType"] == "COS_CONTAINERD"
    assert node["metadata"] == {"disable-legacy-endpoints": "true"}
    assert node["workloadMetadataConfig"] == {"mode": "GKE_METADATA"}
    assert node["shieldedInstanceConfig"] == {"enableSecureBoot": True, "enableIntegrityMonitoring": True}
    assert node["kubeletConfig"] == {"insecureKubeletReadonlyPortEnabled": "FALSE"}
    assert CLUSTER + "::it-cluster" in pool.dependencies


def test_nodes_may_do_what_the_least_role_says_and_pull_images(preview):
    graph = declared("InferenceCluster", preview=preview)
    roles = {r.inputs["role"]: r for r in graph.resources if r.type == "gcp:projects/iAMMember:IAMMember"}
    assert set(roles) == {"roles/container.defaultNodeServiceAccount", "roles/artifactregistry.reader"}
    account = only(graph, "gcp:serviceaccount/account:Account")
    for role in roles.values():
        assert role.inputs["member"] == f"serviceAccount:{EMAIL}"
        assert account.key in role.dependencies
        assert role.key in only(graph, CLUSTER).dependencies, "nodes start with what they need"


def test_named_repositories_take_the_place_of_all_of_the_project():
    repositories = [{"location": "us", "name": "images", "project": "other"}, {"location": "eu", "name": "images"}]
    graph = declared("InferenceCluster", repositories=repositories)
    (role,) = (r for r in graph.resources if r.type == "gcp:projects/iAMMember:IAMMember")
    assert role.inputs["role"] == "roles/container.defaultNodeServiceAccount"
    readers = [r for r in graph.resources if r.type.startswith("gcp:artifactregistry/")]
    assert [(r.name, r.inputs["project"], r.inputs["location"]) for r in readers] == [
        ("it-pull-us-images", "other", "us"),
        ("it-pull-eu-images", "producer-1", "eu"),
    ]


def exported(preview):
    def program():
        made = penstock.InferenceCluster("it", args_of("InferenceCluster"))
        for name in ("cluster_name", "cluster_id", "endpoint", "kubeconfig", "node_service_account"):
            pulumi.export(name, getattr(made, name))
        options = pulumi.ResourceOptions(provider=made.provider())
        penstock.ComputeClass("class", args_of("ComputeClass"), opts=options)

    return record(program, "test", preview=preview, outputs=outputs_of())


def test_outputs(preview):
    outputs = exported(preview).outputs
    assert outputs["cluster_name"] == "llm-cluster"
    assert outputs["cluster_id"] == "projects/producer-1/locations/us-central1/clusters/llm-cluster"
    assert outputs["node_service_account"] == EMAIL
    assert is_secret(outputs["kubeconfig"])
    if preview:
        assert outputs["endpoint"] == outputs["kubeconfig"]["value"] == UNKNOWN
    else:
        server = json.loads(outputs["kubeconfig"]["value"])["clusters"][0]["cluster"]["server"]
        assert server == f"https://{outputs['endpoint']}"
        assert outputs["endpoint"].endswith(".gke.goog")


def test_provider_knows_the_cluster_while_its_kubeconfig_is_unknown(preview):
    """Otherwise a preview would replace every object of the cluster."""
    graph = exported(preview)
    provider = only(graph, "pulumi:providers:kubernetes")
    assert provider.inputs["clusterIdentifier"] == penstock.InferenceCluster.id_of(args_of("InferenceCluster"))
    assert f"{POOL}::it-cpu" in provider.dependencies, "objects go before the nodes that run them"
    used = next(r for r in graph.resources if r.type.endswith(":ComputeClass") and r.custom)
    assert provider.key in str(used.options["provider"])


def test_kubeconfig_has_no_key_in_it():
    config = json.loads(kubeconfig_text("llm-cluster", "gke-1.us-central1.gke.goog"))
    (user,) = config["users"]
    assert set(user["user"]) == {"exec"}
    assert user["user"]["exec"]["command"] == "gke-gcloud-auth-plugin"
    assert user["user"]["exec"]["interactiveMode"] == "Never"
    assert config["clusters"][0]["cluster"] == {"server": "https://gke-1.us-central1.gke.goog"}
    assert config["current-context"] == config["contexts"][0]["name"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_reads_the_kubeconfig(tmp_path):
    path = tmp_path / "config"
    path.write_text(kubeconfig_text("llm-cluster", "127.0.0.1"))
    command = ["kubectl", "config", "current-context", f"--kubeconfig={path}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "llm-cluster"


def test_accelerator_pools_wait_for_nodes_without_accelerators():
    """GKE taints nodes with accelerators only in a cluster that has others."""

    def program():
        made = penstock.InferenceCluster("it", args_of("InferenceCluster"))
        penstock.AcceleratorPool("gpu", args_of("AcceleratorPool", cluster=made.cluster_name))

    graph = record(program, "test", outputs=outputs_of())
    pool = next(resource for resource in graph.resources if resource.name == "gpu-pool")
    assert f"{POOL}::it-cpu" in pool.dependencies
    assert pool.inputs["cluster"] == "llm-cluster"
