"""Traps of the edge: publishing a Gateway, global access, and listeners that share an address."""

import penstock
import pytest
from penstock.manifests.forwarding_rules import ANNOTATION

from cli.graph.recorder import record
from tests.support.arguments import args_of, declared, of_kind

GATEWAY = "kubernetes:gateway.networking.k8s.io/v1:Gateway::gateway-gateway"
POLICY = "kubernetes:networking.gke.io/v1:GCPGatewayPolicy::gateway-policy"
LIST = "gcp:compute/getForwardingRules:getForwardingRules"
PLACE = {"project": "producer-1", "region": "us-central1"}
ADDRESS = {"subnetwork": "projects/producer-1/regions/us-central1/subnetworks/nodes", "ip_address": "10.0.0.7"}


def published(*, preview=False, annotation="https-rule", rules=(), **changes):
    """Return the graph of a Gateway and its publication, wired as a program does."""

    def live(resource):
        metadata = resource.inputs["metadata"]
        added = {ANNOTATION: annotation} if annotation else {}
        return {"metadata": {**metadata, "annotations": {**metadata["annotations"], **added}}}

    def listed(args):
        found = [
            {"name": name, "ipAddress": "10.0.0.7", "portRange": f"{port}-{port}", "loadBalancingScheme": scheme}
            for name, port, scheme in rules
        ]
        return {"id": "all", **args, "rules": found}

    def program() -> None:
        gateway = penstock.InferenceGateway("gateway", args_of("InferenceGateway", **PLACE, **changes))
        own = {"gateway_metadata": gateway.gateway_metadata, "address": gateway.address}
        penstock.ServicePublication("it", args_of("ServicePublication", **own))

    outputs = {GATEWAY.partition("::")[0]: live}
    return record(program, "test", preview=preview, functions={LIST: listed}, outputs=outputs)


def resource(graph, key):
    (found,) = [item for item in graph.resources if item.key == key]
    return found


def attachment(graph):
    return resource(graph, "gcp:compute/serviceAttachment:ServiceAttachment::it-attachment")


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


def test_trap_3_the_gateway_is_published_by_its_live_forwarding_rule_and_by_no_kubernetes_object():
    graph = published()
    assert attachment(graph).inputs["targetService"].endswith("/forwardingRules/https-rule")
    assert "ServiceAttachment" not in {manifest["kind"] for manifest in graph.manifests()}
    annotations = of_kind(graph, "Gateway")["metadata"]["annotations"]
    assert annotations["pulumi.com/waitFor"] == "condition=Programmed"


def test_trap_3_without_the_annotation_address_and_port_find_the_rule():
    rules = [("https-rule", 443, "INTERNAL_MANAGED"), ("l4", 443, "INTERNAL")]
    graph = published(annotation=None, rules=rules, address=ADDRESS)
    assert attachment(graph).inputs["targetService"].endswith("/forwardingRules/https-rule")


def test_trap_3_the_attachment_is_gone_before_the_gateway(preview):
    """Dependents are deleted first; while an attachment refers to it, the rule cannot be deleted."""
    assert GATEWAY in attachment(published(preview=preview)).dependencies


def test_trap_4_global_access_is_on_before_the_gateway_is_programmed_and_so_before_the_attachment(preview):
    graph = published(preview=preview)
    policy = resource(graph, POLICY)
    assert policy.inputs["spec"]["default"]["allowGlobalAccess"] is True
    assert POLICY in resource(graph, GATEWAY).dependencies
    assert GATEWAY not in policy.dependencies
    assert POLICY in attachment(graph).dependencies


def test_trap_4_endpoints_let_clients_of_other_regions_in():
    rule = next(item for item in declared("PrivateEndpoint").resources if item.name == "it-rule")
    assert rule.inputs["allowPscGlobalAccess"] is True


def test_trap_8_listeners_share_an_address_of_the_purpose_that_allows_it(preview):
    graph = published(preview=preview, redirect_http=True, address=ADDRESS)
    reserved = resource(graph, "gcp:compute/address:Address::gateway-address").inputs
    assert reserved["purpose"] == "SHARED_LOADBALANCER_VIP"
    spec = of_kind(graph, "Gateway")["spec"]
    assert [item["port"] for item in spec["listeners"]] == [443, 80]
    assert spec["addresses"] == [{"type": "NamedAddress", "value": reserved["name"]}]


def test_trap_8_of_the_listeners_rules_the_one_of_https_is_published():
    rules = [("http-rule", 80, "INTERNAL_MANAGED"), ("https-rule", 443, "INTERNAL_MANAGED")]
    graph = published(annotation="http-rule,https-rule", rules=rules, redirect_http=True, address=ADDRESS)
    assert attachment(graph).inputs["targetService"].endswith("/forwardingRules/https-rule")


def test_trap_8_a_redirect_without_a_shared_address_is_refused():
    found = list(penstock.InferenceGateway.problems(args_of("InferenceGateway", redirect_http=True), "args"))
    assert [error.path for error in found] == ["args.redirect_http"]
    assert "SHARED_LOADBALANCER_VIP" in found[0].expected
