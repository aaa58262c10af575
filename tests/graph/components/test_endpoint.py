"""What PrivateEndpoint declares in one network, in several, and in a central one."""

import penstock
import pulumi
import pytest

from cli.graph.gcp_types import judge
from cli.graph.model import UNKNOWN
from cli.graph.recorder import record
from tests.support.arguments import args_of

CENTRAL = "projects/services-1/global/networks/access"
OTHERS = ["projects/consumer-2/global/networks/a", "projects/consumer-3/global/networks/b"]
ANSWERS = {
    "gcp:compute/address:Address": lambda resource: {"address": resource.inputs.get("address", "10.128.0.99")},
    "gcp:compute/forwardingRule:ForwardingRule": lambda resource: {
        "pscConnectionStatus": "ACCEPTED",
        "pscConnectionId": "42",
    },
}


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


def graph_of(*, preview=False, **changes):
    def program() -> None:
        made = penstock.PrivateEndpoint("it", args_of("PrivateEndpoint", **changes))
        for name in ("address", "status", "connection_id"):
            pulumi.export(name, getattr(made, name))

    graph = record(program, "test", preview=preview, outputs=ANSWERS)
    assert [(item.resource.name, item.errors) for item in judge(graph) if item.status != "ok"] == []
    return graph


def inputs(graph, name):
    (found,) = [item.inputs for item in graph.resources if item.name == name]
    return found


def test_rule_has_the_empty_scheme_and_it_is_really_sent(preview):
    assert inputs(graph_of(preview=preview), "it-rule")["loadBalancingScheme"] == ""


def test_rule_connects_the_networks_address_to_the_attachment(preview):
    rule = inputs(graph_of(preview=preview), "it-rule")
    assert rule["target"] == "projects/producer-1/regions/us-central1/serviceAttachments/llm-attachment"
    assert rule["network"] == "projects/consumer-1/global/networks/main"
    assert rule["ipAddress"] == "projects/consumer-1/regions/us-central1/addresses/llm-address"
    assert (rule["allowPscGlobalAccess"], rule["noAutomateDnsZone"], rule["recreateClosedPsc"]) == (True, True, True)


def test_every_switch_of_the_rule_can_be_turned():
    rule = inputs(graph_of(global_access=False, google_dns=True, recreate_closed=False), "it-rule")
    assert (rule["allowPscGlobalAccess"], rule["noAutomateDnsZone"], rule["recreateClosedPsc"]) == (False, False, False)


def test_address_is_the_consumers():
    address = inputs(graph_of(), "it-address")
    assert (address["addressType"], address["purpose"], address["project"]) == (
        "INTERNAL",
        "GCE_ENDPOINT",
        "consumer-1",
    )
    assert address["address"] == "10.128.0.10"


def test_name_resolves_to_the_address_and_hides_nothing_else(preview):
    graph = graph_of(preview=preview)
    zone, record_ = inputs(graph, "it-zone"), inputs(graph, "it-record")
    assert (zone["dnsName"], zone["visibility"]) == ("llm.example.com.", "private")
    seen = zone["privateVisibilityConfig"]["networks"]
    assert seen == [{"networkUrl": "projects/consumer-1/global/networks/main"}]
    assert (record_["name"], record_["type"]) == ("llm.example.com.", "A")
    assert (record_["rrdatas"], record_["managedZone"]) == (["10.128.0.10"], "llm-zone")


def test_an_address_that_google_chooses_is_unknown_before(preview):
    graph = graph_of(preview=preview, ip_address=None)
    expected = UNKNOWN if preview else "10.128.0.99"
    assert inputs(graph, "it-record")["rrdatas"] == [expected]
    assert graph.outputs["address"] == expected


def test_status_is_told():
    assert (graph_of().outputs["status"], graph_of().outputs["connection_id"]) == ("ACCEPTED", "42")
    assert graph_of(preview=True).outputs["status"] == UNKNOWN


def test_zone_may_span_a_parent_domain():
    graph = graph_of(zone_domain="example.com")
    assert inputs(graph, "it-zone")["dnsName"] == "example.com."
    assert inputs(graph, "it-record")["name"] == "llm.example.com."


def test_a_zone_that_exists_takes_the_record(preview):
    graph = graph_of(preview=preview, zone="corp")
    assert "it-zone" not in {item.name for item in graph.resources}
    assert inputs(graph, "it-record")["managedZone"] == "corp"


def test_without_a_hostname_there_is_no_dns(preview):
    graph = graph_of(preview=preview, hostname=None)
    assert not [item.type for item in graph.resources if item.type.startswith("gcp:dns")]


def test_a_services_access_network_serves_many(preview):
    """Networks that see the zone itself, and projects with a peering zone of their own."""
    peerings = [{"name": "consumer-3", "project": "consumer-3", "networks": [OTHERS[1]]}]
    graph = graph_of(
        preview=preview,
        project="services-1",
        network=CENTRAL,
        subnetwork="projects/services-1/regions/us-central1/subnetworks/access",
        dns_networks=[OTHERS[0]],
        dns_peerings=peerings,
    )
    seen = inputs(graph, "it-zone")["privateVisibilityConfig"]["networks"]
    assert [item["networkUrl"] for item in seen] == [CENTRAL, OTHERS[0]]
    peering = inputs(graph, "it-peering-consumer-3")
    assert peering["peeringConfig"] == {"targetNetwork": {"networkUrl": CENTRAL}}
    assert (peering["project"], peering["name"]) == ("consumer-3", "consumer-3-peering")
    assert [item["networkUrl"] for item in peering["privateVisibilityConfig"]["networks"]] == [OTHERS[1]]
    assert "peeringConfig" not in inputs(graph, "it-zone")


def test_several_networks_take_a_component_each(preview):
    def program() -> None:
        publication = penstock.ServicePublication("publication", args_of("ServicePublication"))
        for number in (1, 2):
            project = f"consumer-{number}"
            changes = {
                "name": f"llm-{number}",
                "project": project,
                "network": f"projects/{project}/global/networks/main",
                "subnetwork": f"projects/{project}/regions/us-central1/subnetworks/main",
                "attachment": publication.attachment,
            }
            penstock.PrivateEndpoint(project, args_of("PrivateEndpoint", **changes))

    graph = record(program, "test", preview=preview)
    rules = [item for item in graph.resources if item.type.endswith(":ForwardingRule")]
    assert [item.inputs["project"] for item in rules] == ["consumer-1", "consumer-2"]
    for item in rules:
        assert "gcp:compute/serviceAttachment:ServiceAttachment::publication-attachment" in item.dependencies
        assert item.inputs["target"].endswith("/serviceAttachments/llm-attachment")


def test_what_holds_a_name_goes_before_its_successor_comes():
    options = {item.name: item.options for item in graph_of().resources}
    assert [name for name, found in options.items() if found.get("deleteBeforeReplace")] == ["it-address", "it-rule"]
    rule = next(item for item in graph_of().resources if item.name == "it-rule")
    assert rule.property_dependencies["ipAddress"] == ("gcp:compute/address:Address::it-address",)
