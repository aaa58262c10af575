"""What API management declares in mode `apigee`."""

import penstock
import pulumi
import pytest

from cli.graph.providers import outputs_of
from cli.graph.recorder import record
from tests.support.arguments import args_of, declared, inputs_of, names_of, of_kind, problems
from tests.support.traffic import (
    APIGEE,
    BRIDGED,
    VARIANTS,
    with_apigee,
)


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


class TestApigee:
    def test_organization_exists_and_environment_can_take_extensions(self):
        graph = declared("ApiManagement", **APIGEE)
        assert names_of(graph, "gcp:apigee/organization:Organization") == []
        environment = inputs_of(graph, "it-environment")
        assert (environment["orgId"], environment["type"]) == ("organizations/producer-1", "INTERMEDIATE")
        properties = environment["properties"]["properties"]
        assert properties == [{"name": "apigee-service-extension-enabled", "value": "true"}]

    def test_a_new_organization_is_protected(self):
        graph = declared("ApiManagement", **VARIANTS["apigee-new"][1])
        (organization,) = [item for item in graph.resources if item.type == "gcp:apigee/organization:Organization"]
        assert organization.options["protect"] is True
        (environment,) = [item for item in graph.resources if item.name == "it-environment"]
        assert organization.key in environment.dependencies

    def test_operator_impersonates_its_account_with_four_roles(self):
        graph = declared("ApiManagement", **APIGEE)
        email = "penstock-dev-apim@producer-1.iam.gserviceaccount.com"
        roles = {
            item.inputs["role"] for item in graph.resources if item.inputs.get("member") == f"serviceAccount:{email}"
        }
        assert roles == {
            "roles/apigee.admin",
            "roles/networkservices.serviceExtensionsAdmin",
            "roles/compute.networkAdmin",
            "roles/compute.loadBalancerAdmin",
        }
        identity = inputs_of(graph, "it-operator-identity")
        assert identity["member"] == "serviceAccount:producer-1.svc.id.goog[apim/apim-ksa]"
        release = inputs_of(graph, "it-operator-release")
        assert (release["version"], release["namespace"]) == ("1.1.1", "apim")
        assert release["values"]["serviceAccount"] == email

    def test_backend_is_awaited_and_waits_for_the_operator(self):
        graph = declared("ApiManagement", **APIGEE)
        backend = of_kind(graph, "ApigeeBackendService")
        assert backend["metadata"]["annotations"]["pulumi.com/waitFor"] == "jsonpath={.status.currentState}=CREATED"
        (resource,) = [item for item in graph.resources if item.name == "it-backend"]
        assert "kubernetes:helm.sh/v3:Release::it-operator-release" in resource.dependencies

    def test_backend_waits_for_a_runtime_that_its_proxy_is_deployed_to(self):
        graph = declared("ApiManagement", **with_apigee(instance={"name": "runtime"}))
        (resource,) = [item for item in graph.resources if item.name == "it-backend"]
        assert "gcp:apigee/instanceAttachment:InstanceAttachment::it-instance-attachment" in resource.dependencies

    def test_entry_names_the_backend_and_asks_for_bodies(self):
        (entry,) = penstock.ApiManagement.callouts(args_of("ApiManagement", **APIGEE))
        name = of_kind(declared("ApiManagement", **APIGEE), "ApigeeBackendService")["metadata"]["name"]
        assert entry["apigee_backend"] == name
        assert entry["metadata"] == {
            "apigee-extension-processor": name,
            "apigee-request-body": "true",
            "apigee-response-body": "true",
        }
        graph = declared("Extensions", callouts=[entry], namespace="default")
        (chain,) = of_kind(graph, "GCPTrafficExtension")["spec"]["extensionChains"]
        reference = {"group": "apim.googleapis.com", "kind": "ApigeeBackendService", "name": name}
        assert chain["extensions"][0]["backendRef"] == reference
        assert "authority" not in chain["extensions"][0]

    def test_products_carry_their_quota_and_rules_their_lists(self):
        graph = declared("ApiManagement", **VARIANTS["apigee-new"][1])
        operations = of_kind(graph, "APIOperationSet")["spec"]
        assert operations["quota"] == {"limit": 60, "interval": 1, "timeUnit": "minute"}
        assert operations["apiProductRefs"][0]["name"] == of_kind(graph, "APIProduct")["metadata"]["name"]
        assert {item["path"] for item in operations["restOperations"]} >= {"/v1/chat/completions"}
        rule = of_kind(graph, "ApimTemplateRule")
        assert rule["spec"] == {"requiredList": ["SpikeArrest"], "denyList": ["JavaScript"], "override": False}
        assert of_kind(graph, "ApimTemplate")["spec"]["apimTemplateRule"]["name"] == rule["metadata"]["name"]

    def test_bridge_connects_both_networks(self):
        def program():
            made = penstock.ApiManagement("it", args_of("ApiManagement", **{**APIGEE, "apigee": BRIDGED}))
            pulumi.export("attachment", made.service_attachment)

        graph = record(program, "test", outputs=outputs_of())
        attachment = graph.outputs["attachment"]
        assert inputs_of(graph, "it-southbound")["serviceAttachment"] == BRIDGED["bridge"]["service_attachment"]
        target = inputs_of(graph, "it-target")
        assert target["sSlInfo"]["commonName"] == {"value": "llm.internal.example.com"}
        assert target["sSlInfo"]["enforce"] is True
        rule = inputs_of(graph, "it-northbound-rule")
        assert (rule["target"], rule["project"], rule["loadBalancingScheme"]) == (attachment, "client-1", "")
        assert inputs_of(graph, "it-instance")["consumerAcceptLists"] == ["producer-1", "client-1"]

    def test_a_bridge_alone_needs_neither_operator_nor_chain(self):
        args = {**APIGEE, "namespace": "inference", "apigee": {**BRIDGED, "service_extension": False}}
        assert problems("ApiManagement", **args) == []
        assert penstock.ApiManagement.callouts(args_of("ApiManagement", **args)) == []
        graph = declared("ApiManagement", **args)
        assert list(graph.manifests()) == []
        assert penstock.ApiManagement.cluster_features(args_of("ApiManagement", **args)) == []

    def test_what_exists_is_not_made(self):
        existing = {
            "environment": {"name": "llm", "create": False},
            "environment_group": {"name": "g", "hostnames": ["llm.example.com"], "create": False},
            "instance": {"name": "runtime", "create": False},
            "operator": {"install": False},
        }
        graph = declared("ApiManagement", **with_apigee(**existing))
        made = {item.type for item in graph.resources if item.type.startswith("gcp:") and "read" not in item.options}
        assert made == {
            "gcp:apigee/envGroupAttachment:EnvGroupAttachment",
            "gcp:apigee/instanceAttachment:InstanceAttachment",
        }

    def test_extension_needs_a_cluster_that_knows_it(self):
        assert penstock.ApiManagement.cluster_features(args_of("ApiManagement", **APIGEE)) == ["apigee"]
