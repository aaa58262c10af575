"""What ServicePublication declares, and how it finds the Gateway's forwarding rule."""

import penstock
import pulumi
import pytest
from penstock.manifests.forwarding_rules import ANNOTATION, PublicationError

from cli.graph.gcp_types import judge
from cli.graph.model import UNKNOWN
from cli.graph.monitor import UnansweredFunction
from cli.graph.recorder import record
from tests.support.arguments import args_of

LIST = "gcp:compute/getForwardingRules:getForwardingRules"
GATEWAY = "kubernetes:gateway.networking.k8s.io/v1:Gateway"
RULE = "projects/producer-1/regions/us-central1/forwardingRules/"


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


def rule(name, port=443, address="10.0.0.7", scheme="INTERNAL_MANAGED"):
    return {"name": name, "ipAddress": address, "portRange": f"{port}-{port}", "loadBalancingScheme": scheme}


def annotated(text):
    return {"name": "gw", "annotations": {ANNOTATION: text}}


def published(*rules, preview=False, **changes):
    """Return the attachment's target, and how often rules were looked up."""
    asked = []

    def listed(args):
        asked.append(args)
        return {"id": "all", "project": args["project"], "region": args["region"], "rules": list(rules)}

    def program() -> None:
        made = penstock.ServicePublication("it", args_of("ServicePublication", **changes))
        pulumi.export("rule", made.forwarding_rule)

    graph = record(program, "test", preview=preview, functions={LIST: listed})
    (attachment,) = [item for item in graph.resources if item.name == "it-attachment"]
    assert attachment.inputs["targetService"] == graph.outputs["rule"]
    assert all(args == {"project": "producer-1", "region": "us-central1"} for args in asked)
    return graph.outputs["rule"], len(asked)


def attachment_of(*, preview=False, **changes):
    def program() -> None:
        made = penstock.ServicePublication("it", args_of("ServicePublication", **changes))
        pulumi.export("uri", made.attachment)

    graph = record(program, "test", preview=preview)
    assert graph.outputs["uri"] == "projects/producer-1/regions/us-central1/serviceAttachments/llm-attachment"
    assert [verdict.errors for verdict in judge(graph)] == [()]
    return graph.resources[-1]


@pytest.mark.parametrize(
    "text",
    [
        "gkegw1-a",
        "/projects/1234/regions/us-central1/forwardingRules/gkegw1-a",
        "projects/producer-1/regions/us-central1/forwardingRules/gkegw1-a",
        "https://www.googleapis.com/compute/v1/projects/producer-1/regions/us-central1/forwardingRules/gkegw1-a",
    ],
)
def test_one_listed_rule_is_taken_without_a_lookup_and_always_written_the_same(text, preview):
    assert published(preview=preview, gateway_metadata=annotated(text)) == (f"{RULE}gkegw1-a", 0)


def test_of_several_listed_rules_the_one_of_the_port_is_taken(preview):
    metadata, rules = annotated("gkegw1-a,gkegw1-b"), (rule("gkegw1-a", 80), rule("gkegw1-b"))
    assert published(*rules, preview=preview, gateway_metadata=metadata) == (f"{RULE}gkegw1-b", 1)
    assert published(*rules, preview=preview, gateway_metadata=metadata, port=80) == (f"{RULE}gkegw1-a", 1)


def test_without_the_annotation_address_and_port_tell_the_rule(preview):
    rules = (rule("other", address="10.0.0.8"), rule("redirect", 80), rule("gkegw1-b"), rule("l4", scheme="INTERNAL"))
    found = published(*rules, preview=preview, gateway_metadata={"name": "gw"}, address="10.0.0.7")
    assert found == (f"{RULE}gkegw1-b", 1)
    found = published(*rules, preview=preview, gateway_metadata=None, address="10.0.0.7")
    assert found == (f"{RULE}gkegw1-b", 1)


def test_a_stale_annotation_does_not_hide_the_rule_on_the_address():
    metadata = annotated("gone-1,gone-2")
    assert published(rule("new"), gateway_metadata=metadata, address="10.0.0.7") == (f"{RULE}new", 1)


def test_a_named_rule_is_taken_as_it_is(preview):
    assert published(preview=preview, forwarding_rule="mine", gateway_metadata=None) == (f"{RULE}mine", 0)


def test_no_rule_is_an_error_in_the_update_and_unknown_in_the_preview():
    changes = {"gateway_metadata": annotated("a,b"), "address": "10.0.0.7"}
    with pytest.raises(PublicationError, match=r"serves port 443 of 10\.0\.0\.7.*annotation lists a, b"):
        published(rule("other", address="10.0.0.8"), **changes)
    assert published(rule("other", address="10.0.0.8"), preview=True, **changes) == (UNKNOWN, 1)


def test_several_rules_are_an_error(preview):
    with pytest.raises(PublicationError, match="2 forwarding rules serve port 443"):
        published(rule("a"), rule("b"), preview=preview, gateway_metadata={"name": "gw"}, address="10.0.0.7")


def test_neither_annotation_nor_address_is_an_error(preview):
    with pytest.raises(PublicationError, match=ANNOTATION):
        published(rule("a"), preview=preview, gateway_metadata={"name": "gw"}, address="")


class TestBehindAGateway:
    """The components together, as a program wires them."""

    def graph(self, text, preview):
        def program() -> None:
            gateway = penstock.InferenceGateway("gateway", args_of("InferenceGateway"))
            changes = {"gateway_metadata": gateway.gateway_metadata, "address": gateway.address}
            penstock.ServicePublication("it", args_of("ServicePublication", **changes))

        def live(resource):
            metadata = resource.inputs["metadata"]
            return {"metadata": {**metadata, "annotations": {**metadata["annotations"], ANNOTATION: text}}}

        return record(program, "test", preview=preview, outputs={GATEWAY: live})

    def test_first_preview_looks_nothing_up(self):
        """With no function answered a lookup would raise."""
        attachment = self.graph("a,b", preview=True).resources[-1]
        assert attachment.inputs["targetService"] == UNKNOWN

    def test_the_update_reads_the_live_annotation(self):
        assert self.graph("gkegw1-a", preview=False).resources[-1].inputs["targetService"] == f"{RULE}gkegw1-a"
        with pytest.raises(UnansweredFunction, match="getForwardingRules"):
            self.graph("a,b", preview=False)

    def test_attachment_comes_after_gateway_and_policy_and_goes_before_them(self, preview):
        attachment = self.graph("gkegw1-a", preview).resources[-1]
        kinds = {key.partition("::")[0].rpartition(":")[2] for key in attachment.dependencies}
        assert {"Gateway", "GCPGatewayPolicy"} <= kinds
        assert any(key.startswith(GATEWAY) for key in attachment.property_dependencies["targetService"])


def test_consumers_are_accepted_one_by_one(preview):
    networks = ["projects/c-consumer-1/global/networks/a", "projects/c-consumer-2/global/networks/b"]
    inputs = attachment_of(
        preview=preview,
        accept=[{"network": networks[0], "limit": 2}, {"network": networks[1], "limit": 3}],
        reject=["projects/c-consumer-3/global/networks/c"],
    ).inputs
    assert inputs["connectionPreference"] == "ACCEPT_MANUAL"
    assert inputs["consumerAcceptLists"] == [
        {"networkUrl": networks[0], "connectionLimit": 2},
        {"networkUrl": networks[1], "connectionLimit": 3},
    ]
    assert inputs["consumerRejectLists"] == ["projects/c-consumer-3/global/networks/c"]


def test_defaults_are_safe():
    inputs = attachment_of().inputs
    assert inputs["enableProxyProtocol"] is False
    assert inputs["reconcileConnections"] is True
    assert inputs["consumerAcceptLists"] == [{"projectIdOrNum": "consumer-1", "connectionLimit": 4}]
    assert not {"domainNames", "propagatedConnectionLimit", "consumerRejectLists"} & set(inputs)


def test_a_limit_of_zero_networks_is_really_sent():
    inputs = attachment_of(propagated_connection_limit=0, domain_name="llm.example.com.").inputs
    assert (inputs["propagatedConnectionLimit"], inputs["sendPropagatedConnectionLimitIfZero"]) == (0, True)
    assert inputs["domainNames"] == ["llm.example.com."]


def test_another_rule_replaces_the_attachment_before_a_second_one_needs_its_subnetwork():
    assert attachment_of().options["deleteBeforeReplace"] is True


def test_the_uri_is_known_without_the_component():
    uri = penstock.ServicePublication.attachment_uri(args_of("ServicePublication"))
    assert uri == "projects/producer-1/regions/us-central1/serviceAttachments/llm-attachment"
