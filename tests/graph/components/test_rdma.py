"""What RdmaNetwork makes in both modes, and what pods are given to use it."""

import ipaddress
import json

import penstock
import pulumi
import pytest
from penstock.manifests import nccl, rdma

from cli.graph.gcp_types import judge
from cli.graph.recorder import record
from tests.support.arguments import args_of, children, of_kind

RAIL_NAMES = [f"rdma-{rail}" for rail in range(8)]
DRANET = {"project": None, "region": None, "zone": None, "rails": None, "mode": "dranet"}


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


def graph_of(*, preview=False, **changes):
    def program() -> None:
        made = penstock.RdmaNetwork("it", args_of("RdmaNetwork", **changes))
        pulumi.export("node_networks", made.node_networks)

    return record(program, "test", preview=preview)


def resource(graph, name):
    (found,) = [item for item in graph.resources if item.name == name]
    return found


def test_roce_network_has_the_profile_of_its_zone_and_no_firewall(preview):
    graph = graph_of(preview=preview)
    vpc = resource(graph, "it-rdma").inputs
    assert vpc["networkProfile"] == "projects/producer-1/global/networkProfiles/us-central1-a-vpc-roce"
    assert vpc["mtu"] == resource(graph, "it-gvnic-1").inputs["mtu"] == 8896
    assert vpc["autoCreateSubnetworks"] is False
    assert "networkProfile" not in resource(graph, "it-gvnic-1").inputs
    (rule,) = [item.inputs for item in graph.resources if item.type == "gcp:compute/firewall:Firewall"]
    assert rule["network"].endswith("/penstock-dev-gvnic-1")
    assert rule["sourceRanges"] == [resource(graph, "it-gvnic-1-subnet").inputs["ipCidrRange"]]


@pytest.mark.parametrize("rails", [4, 8])
def test_nodes_get_the_gvnic_first_and_then_one_subnet_for_each_rail(rails, preview):
    graph = graph_of(preview=preview, rails=rails)
    networks = graph.outputs["node_networks"]
    assert [each["subnetwork"] for each in networks] == [
        "penstock-dev-gvnic-1",
        *(f"penstock-dev-rdma-{rail}" for rail in range(rails)),
    ]
    assert [each["network"] for each in networks] == ["penstock-dev-gvnic-1", *["penstock-dev-rdma"] * rails]


def test_subnets_are_apart_and_within_the_range(preview):
    graph = graph_of(preview=preview, cidr="10.64.0.0/16")
    found = [
        ipaddress.ip_network(item.inputs["ipCidrRange"])
        for item in graph.resources
        if item.type == "gcp:compute/subnetwork:Subnetwork"
    ]
    assert len(found) == 9
    assert all(each.subnet_of(ipaddress.ip_network("10.64.0.0/16")) for each in found)
    assert not any(one.overlaps(other) for index, one in enumerate(found) for other in found[:index])


def test_arguments_are_those_that_the_provider_knows(preview):
    for verdict in judge(graph_of(preview=preview)):
        assert verdict.status == "ok", verdict


def test_objects_refer_to_vpc_subnet_and_parameters_by_name(preview):
    graph = graph_of(preview=preview)
    for name in ["gvnic-1", *RAIL_NAMES]:
        params = of_kind(graph, "GKENetworkParamSet", name)["spec"]
        vpc = "penstock-dev-gvnic-1" if name == "gvnic-1" else "penstock-dev-rdma"
        mode = "NetDevice" if name == "gvnic-1" else "RDMA"
        assert params == {"vpc": vpc, "vpcSubnet": f"penstock-dev-{name}", "deviceMode": mode}
        network = of_kind(graph, "Network", name)["spec"]
        assert network["type"] == "Device"
        assert network["parametersRef"] == {
            "group": "networking.gke.io",
            "kind": "GKENetworkParamSet",
            "name": name,
        }
        # deleted in the other order: parameters that a Network refers to are kept by their finalizer
        assert any(key.endswith(f"it-{name}-params") for key in resource(graph, f"it-{name}-network").dependencies)


def test_kubernetes_objects_take_the_provider_that_is_given():
    import pulumi_kubernetes as k8s

    def program() -> None:
        provider = k8s.Provider("cluster", context="c")
        penstock.RdmaNetwork("it", args_of("RdmaNetwork"), pulumi.ResourceOptions(providers=[provider]))

    graph = record(program, "test")
    for name in ("it-nccl", "it-rdma-0-network"):
        assert "cluster" in json.dumps(dict(resource(graph, name).options))
    assert "cluster" not in json.dumps(dict(resource(graph, "it-rdma").options))


def test_dranet_makes_claim_templates_and_nothing_else(preview):
    graph = graph_of(preview=preview, **DRANET, namespaces=["inference", "batch"])
    assert [item.type for item in children(graph)] == ["kubernetes:resource.k8s.io/v1:ResourceClaimTemplate"] * 2
    assert graph.outputs["node_networks"] == []
    for manifest in graph.manifests():
        (request,) = manifest["spec"]["spec"]["devices"]["requests"]
        assert request["exactly"] == {"deviceClassName": "mrdma.google.com", "allocationMode": "All"}
        assert manifest["metadata"]["name"] == "rdma"


@pytest.mark.parametrize(
    ("rails", "types", "suffix"), [(8, ["nvidia-h200-141gb", "nvidia-b200"], "gib:"), (4, ["nvidia-gb200"], "arm64:")]
)
def test_installer_runs_on_the_machines_of_its_image(rails, types, suffix, preview):
    spec = of_kind(graph_of(preview=preview, rails=rails), "DaemonSet")["spec"]["template"]["spec"]
    terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms[0]["matchExpressions"][0]["values"] == types
    assert all(suffix in each["image"] for each in spec["initContainers"])


def test_installer_is_privileged_only_where_it_writes_to_the_kernel():
    pod = nccl.daemon_set(8)["spec"]["template"]["spec"]
    privileged = [each["name"] for each in pod["initContainers"] if each["securityContext"].get("privileged")]
    assert privileged == ["quiet"]
    (left,) = pod["containers"]
    assert left["securityContext"]["runAsNonRoot"] is True
    assert "@sha256:" in left["image"]
    assert pod["automountServiceAccountToken"] is False


def test_installer_is_made_in_both_modes_when_asked(preview):
    assert "DaemonSet" not in {each["kind"] for each in graph_of(preview=preview, nccl_installer=False).manifests()}
    graph = graph_of(
        preview=preview, **DRANET | {"rails": 8}, namespaces=["n"], nccl_installer=True, nccl_image="gib:v9"
    )
    images = {each["image"] for each in of_kind(graph, "DaemonSet")["spec"]["template"]["spec"]["initContainers"]}
    assert images == {"gib:v9"}


class TestPods:
    @pytest.mark.parametrize("rails", [4, 8])
    def test_roce_pods_name_every_network_in_the_order_of_the_nodes_interfaces(self, rails):
        annotations = rdma.pod_rdma("roce", rails)["annotations"]
        interfaces = json.loads(annotations["networking.gke.io/interfaces"])
        assert annotations["networking.gke.io/default-interface"] == "eth0"
        assert [each["interfaceName"] for each in interfaces] == [f"eth{index}" for index in range(rails + 2)]
        assert [each["network"] for each in interfaces] == ["default", "gvnic-1", *RAIL_NAMES[:rails]]

    def test_dranet_pods_claim_what_the_template_gives(self):
        pod = rdma.pod_rdma("dranet", 8)
        assert pod["annotations"] == {}
        assert pod["resourceClaims"] == [{"name": "rdma", "resourceClaimTemplateName": "rdma"}]
        assert pod["container"]["resources"] == {"claims": [{"name": "rdma"}]}
        assert rdma.claim_template("n")["metadata"]["name"] == "rdma"

    @pytest.mark.parametrize("mode", rdma.MODES)
    def test_libraries_that_nccl_loads_are_mounted_read_only(self, mode):
        pod = rdma.pod_rdma(mode, 8, "nvidia-h200-141gb")
        env = {each["name"]: each["value"] for each in pod["container"]["env"]}
        mounts = {each["mountPath"]: each for each in pod["container"]["volumeMounts"]}
        for path in [*env["LD_LIBRARY_PATH"].split(":"), env["NCCL_TUNER_CONFIG_PATH"]]:
            assert any(path.startswith(f"{mount}/") for mount in mounts), path
        assert all(each["readOnly"] for each in mounts.values())
        assert {each["name"] for each in mounts.values()} == {each["name"] for each in pod["volumes"]}
        assert env["NCCL_NET"] == "gIB"

    def test_hosts_folders_are_those_that_the_installer_fills(self):
        volumes = nccl.daemon_set(8)["spec"]["template"]["spec"]["volumes"]
        filled = {each["hostPath"]["path"] for each in volumes}
        for volume in rdma.pod_rdma("roce", 8)["volumes"]:
            assert any(path.startswith(volume["hostPath"]["path"]) for path in filled)

    def test_a_machine_without_a_known_tuner_file_gets_none(self):
        names = {each["name"] for each in rdma.pod_rdma("roce", 4, "nvidia-gb200")["container"]["env"]}
        assert "NCCL_TUNER_CONFIG_PATH" not in names
