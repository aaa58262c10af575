"""What ProducerNetwork makes, for a VPC of its own, one that exists, and a Shared VPC."""

import ipaddress

import penstock
import pulumi
import pytest

from cli.graph.gcp_types import judge
from cli.graph.recorder import record
from tests.support.arguments import args_of, children, declared

VIP = [f"199.36.153.{octet}" for octet in range(8, 12)]
RESTRICTED = [f"199.36.153.{octet}" for octet in range(4, 8)]
RANGES = {"node_cidr": "10.1.0.0/20", "pod_cidr": "10.2.0.0/16", "service_cidr": "10.3.0.0/20"}
SUBNET = {"subnetwork": "nodes", "pods_range": "pods", "services_range": "services"}
SHARED = {
    "network": "shared",
    "project": "host-project",
    **SUBNET,
    "proxy_subnetwork": "proxies",
    "psc_subnetworks": ["psc-a", "psc-b"],
}
NETWORK = "gcp:compute/network:Network"
SUBNETWORK = "gcp:compute/subnetwork:Subnetwork"
FIREWALL = "gcp:compute/firewall:Firewall"


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


def graph_of(*, preview=False, **changes):
    def program() -> None:
        made = penstock.ProducerNetwork("it", args_of("ProducerNetwork", **changes))
        for name in penstock.ProducerNetwork.__annotations__:
            pulumi.export(name, getattr(made, name))

    return record(program, "test", preview=preview)


def of_type(graph, type_):
    return {item.name: dict(item.inputs) for item in graph.resources if item.type == type_}


def resource(graph, name):
    (found,) = [item for item in graph.resources if item.name == name]
    return found


def test_every_uri_is_known_in_previews_and_waits_for_what_it_names(preview):
    graph = graph_of(preview=preview)
    prefix = "https://www.googleapis.com/compute/v1/projects/producer-1"
    assert graph.outputs == {
        "network": f"{prefix}/global/networks/penstock-dev-vpc",
        "network_name": "penstock-dev-vpc",
        "subnetwork": f"{prefix}/regions/us-central1/subnetworks/penstock-dev-nodes",
        "subnetwork_name": "penstock-dev-nodes",
        "pods_range": "penstock-dev-pods",
        "services_range": "penstock-dev-services",
        "psc_subnetworks": [f"{prefix}/regions/us-central1/subnetworks/penstock-dev-psc-0"],
        "node_tag": "penstock-dev-node",
    }
    assert f"{NETWORK}::it-vpc" in resource(graph, "it-nodes").dependencies
    assert f"{SUBNETWORK}::it-nodes" in resource(graph, "it-nat").dependencies


def test_arguments_are_those_that_the_provider_knows(preview):
    for changes in (
        {},
        {"nat": False, "flow_log_sampling": 0.5, "firewall_logs": True, "regional_apis": ["modelarmor"]},
    ):
        for verdict in judge(graph_of(preview=preview, **changes)):
            assert verdict.status == "ok", verdict


def test_subnets_have_their_purposes(preview):
    subnets = of_type(graph_of(preview=preview, psc_cidrs=["10.20.0.0/24", "10.21.0.0/28"]), SUBNETWORK)
    assert subnets["it-proxies"]["purpose"] == "REGIONAL_MANAGED_PROXY"
    assert subnets["it-proxies"]["role"] == "ACTIVE"
    assert [subnets[f"it-psc-{index}"]["ipCidrRange"] for index in (0, 1)] == ["10.20.0.0/24", "10.21.0.0/28"]
    assert {subnets[f"it-psc-{index}"]["purpose"] for index in (0, 1)} == {"PRIVATE_SERVICE_CONNECT"}
    nodes = subnets["it-nodes"]
    assert nodes["privateIpGoogleAccess"] is True
    assert nodes["secondaryIpRanges"] == [
        {"rangeName": "penstock-dev-pods", "ipCidrRange": "10.4.0.0/14"},
        {"rangeName": "penstock-dev-services", "ipCidrRange": "10.8.0.0/20"},
    ]
    assert "logConfig" not in nodes


def test_flows_are_logged_when_asked(preview):
    nodes = of_type(graph_of(preview=preview, flow_log_sampling=0.25), SUBNETWORK)["it-nodes"]
    assert nodes["logConfig"] == {"flowSampling": 0.25, "metadata": "INCLUDE_ALL_METADATA"}


def test_only_proxies_and_health_checks_come_in_and_only_to_nodes(preview):
    rules = of_type(graph_of(preview=preview, proxy_cidr="10.30.0.0/24"), FIREWALL)
    sources = {name: rule["sourceRanges"] for name, rule in rules.items()}
    assert sources == {
        "it-allow-proxies": ["10.30.0.0/24"],
        "it-allow-health-checks": ["35.191.0.0/16", "130.211.0.0/22"],
    }
    for rule in rules.values():
        assert rule["direction"] == "INGRESS"
        assert rule["network"].endswith("/global/networks/penstock-dev-vpc")
        assert rule["allows"] == [{"protocol": "tcp", "ports": ["8000", "9002-9009"]}]
        assert rule["targetTags"] == ["penstock-dev-node"]
        assert "targetServiceAccounts" not in rule
        assert all(ipaddress.ip_network(source).prefixlen >= 16 for source in rule["sourceRanges"])


def test_rules_may_aim_at_the_nodes_accounts_instead(preview):
    account = "nodes@producer-1.iam.gserviceaccount.com"
    graph = graph_of(preview=preview, node_service_accounts=[account], backend_ports=["8000", "9002"])
    for rule in of_type(graph, FIREWALL).values():
        assert rule["targetServiceAccounts"] == [account]
        assert "targetTags" not in rule
        assert rule["allows"][0]["ports"] == ["8000", "9002"]


def test_nat_serves_the_nodes_and_logs_errors(preview):
    nat = resource(graph_of(preview=preview), "it-nat").inputs
    (served,) = nat["subnetworks"]
    assert served["name"].endswith("/subnetworks/penstock-dev-nodes")
    assert served["sourceIpRangesToNats"] == ["ALL_IP_RANGES"]
    assert nat["logConfig"] == {"enable": True, "filter": "ERRORS_ONLY"}


@pytest.mark.parametrize(("access", "addresses"), [("private", VIP), ("restricted", RESTRICTED)])
def test_google_names_resolve_to_the_chosen_addresses(access, addresses, preview):
    graph = graph_of(preview=preview, google_apis=access)
    records = {item["name"]: item["rrdatas"] for item in of_type(graph, "gcp:dns/recordSet:RecordSet").values()}
    assert records == {
        f"{access}.googleapis.com.": addresses,
        "*.googleapis.com.": [f"{access}.googleapis.com."],
        "gcr.io.": addresses,
        "*.gcr.io.": ["gcr.io."],
        "pkg.dev.": addresses,
        "*.pkg.dev.": ["pkg.dev."],
    }
    for zone in of_type(graph, "gcp:dns/managedZone:ManagedZone").values():
        assert zone["visibility"] == "private"
        assert zone["privateVisibilityConfig"]["networks"] == [{"networkUrl": graph.outputs["network"]}]


def test_without_nat_there_is_no_way_out_but_to_google(preview):
    graph = graph_of(preview=preview, nat=False)
    assert resource(graph, "it-vpc").inputs["deleteDefaultRoutesOnCreate"] is True
    route = resource(graph, "it-google-apis").inputs
    assert (route["destRange"], route["nextHopGateway"]) == ("199.36.153.8/30", "default-internet-gateway")
    assert not of_type(graph, "gcp:compute/routerNat:RouterNat")


def test_regional_apis_get_an_endpoint_whose_zone_is_more_specific(preview):
    graph = graph_of(preview=preview, regional_apis=["modelarmor"])
    host = "modelarmor.us-central1.rep.googleapis.com"
    endpoint = resource(graph, "it-modelarmor").inputs
    assert endpoint["targetGoogleApi"] == host
    assert endpoint["network"] == "projects/producer-1/global/networks/penstock-dev-vpc"
    assert resource(graph, "it-modelarmor-zone").inputs["dnsName"] == f"{host}."
    address = resource(graph, "it-modelarmor-a")
    assert "gcp:networkconnectivity/regionalEndpoint:RegionalEndpoint::it-modelarmor" in address.dependencies


def test_in_a_vpc_that_exists_only_what_is_missing_is_made(preview):
    existing = {"network": "main", **SUBNET}
    graph = graph_of(preview=preview, existing=existing, **RANGES)
    assert sorted(item.name for item in children(graph)) == [
        "it-allow-health-checks",
        "it-allow-proxies",
        "it-proxies",
        "it-psc-0",
    ]
    assert graph.outputs["subnetwork"].endswith("/projects/producer-1/regions/us-central1/subnetworks/nodes")
    assert graph.outputs["pods_range"] == "pods"
    assert resource(graph, "it-proxies").inputs["network"].endswith("/projects/producer-1/global/networks/main")


def test_nat_and_zones_can_be_added_to_a_vpc_that_exists(preview):
    graph = graph_of(preview=preview, existing={"network": "main"}, nat=True, google_apis="private")
    assert of_type(graph, "gcp:compute/routerNat:RouterNat").keys() == {"it-nat"}
    assert len(of_type(graph, "gcp:dns/managedZone:ManagedZone")) == 3
    assert not of_type(graph, NETWORK)


def test_routes_of_a_vpc_that_exists_are_not_ours(preview):
    graph = graph_of(preview=preview, existing={"network": "main"}, google_apis="private")
    assert of_type(graph, "gcp:dns/managedZone:ManagedZone")
    assert not of_type(graph, "gcp:compute/route:Route")


def test_in_a_shared_vpc_nothing_is_made(preview):
    graph = graph_of(preview=preview, existing=SHARED, proxy_cidr="10.5.0.0/24", **RANGES)
    assert children(graph) == []
    host = "https://www.googleapis.com/compute/v1/projects/host-project"
    assert graph.outputs["network"] == f"{host}/global/networks/shared"
    assert graph.outputs["psc_subnetworks"] == [
        f"{host}/regions/us-central1/subnetworks/psc-a",
        f"{host}/regions/us-central1/subnetworks/psc-b",
    ]


def test_ranges_are_known_before_anything_is_made():
    assert penstock.ProducerNetwork.ranges(args_of("ProducerNetwork", proxy_cidr="10.30.0.0/24")) == {
        "nodes": "10.0.0.0/20",
        "pods": "10.4.0.0/14",
        "services": "10.8.0.0/20",
        "proxy": "10.30.0.0/24",
        "psc": ["10.10.0.0/24"],
    }


def test_resources_carry_labels_where_they_can():
    graph = declared("ProducerNetwork", labels={"team": "inference"})
    zone = resource(graph, "it-googleapis-com").inputs
    assert zone["labels"] == {"part-of": "penstock", "team": "inference"}
