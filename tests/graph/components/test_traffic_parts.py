"""What API management and guardrails declare in each of their modes."""

import json
import re

import penstock
import pytest
import yaml

from cli.graph import gcp_types
from cli.graph.model import UNKNOWN
from cli.graph.providers import outputs_of
from tests.support.arguments import IMAGE, VALID, args_of, children, declared, inputs_of, names_of, of_kind, problems
from tests.support.traffic import (
    CLOUD,
    FILTERS,
    MEMORYSTORE,
    MODEL_ARMOR,
    NEMO,
    SHARED,
    TEMPLATE,
    VALKEY,
    VARIANTS,
)

AGENT = "serviceAccount:service-123456789012@gcp-sa-dep.iam.gserviceaccount.com"


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


def pod_of(**changes):
    return of_kind(declared("ApiManagement", **changes), "Deployment")["spec"]["template"]["spec"]


def config_of(component, file="config.yaml", **changes):
    return yaml.safe_load(of_kind(declared(component, **changes), "ConfigMap")["data"][file])


CONDITIONED = {"storage.googleapis.com"}
"""Services that conditions on resource names are written for. Source: IAM, "Resource attributes for IAM Conditions"; of
those not listed there, Model Armor and Memorystore among them, IAM knows no names, and such a condition never holds."""


@pytest.mark.parametrize("variant", VARIANTS)
class TestEveryMode:
    def test_no_role_hangs_on_a_name_that_iam_does_not_know(self, variant, preview):
        component, changes = VARIANTS[variant]
        for resource in declared(component, preview=preview, **changes).resources:
            service = resource.inputs.get("role", "").removeprefix("roles/").partition(".")[0]
            assert "condition" not in resource.inputs or f"{service}.googleapis.com" in CONDITIONED, resource.key

    def test_networks_are_named_as_their_apis_read_them(self, variant, preview):
        """Compute Engine reads whole URIs and those from `projects/` on; the others read only the latter."""
        component, changes = VARIANTS[variant]
        whole = json.loads(
            json.dumps(changes).replace('"projects/', '"https://www.googleapis.com/compute/v1/projects/')
        )
        for resource in declared(component, preview=preview, **whole).resources:
            if not resource.type.startswith(("gcp:compute/", "gcp:dns/")):
                text = json.dumps(dict(resource.inputs))
                assert not re.search(r"compute/v1/projects/[^/]+/(global/networks|regions/[^/]+/subnet)", text), (
                    resource.key
                )

    def test_is_accepted_and_correct_by_the_providers_types(self, variant, preview):
        component, changes = VARIANTS[variant]
        assert problems(component, **changes) == []
        graph = declared(component, preview=preview, **changes)
        wrong = {verdict.resource.key: verdict.errors for verdict in gcp_types.judge(graph) if verdict.status != "ok"}
        assert wrong == {}

    def test_preview_declares_what_the_update_declares(self, variant):
        component, changes = VARIANTS[variant]
        update, before = (declared(component, preview=preview, **changes) for preview in (False, True))
        assert [resource.key for resource in update.resources] == [resource.key for resource in before.resources]

    def test_every_cloud_resource_names_its_project_and_every_child_its_parent(self, variant, preview):
        component, changes = VARIANTS[variant]
        graph = declared(component, preview=preview, **changes)
        own = f"penstock:index:{component}::it"
        for resource in children(graph):
            assert resource.parent in (own, "penstock:index:PrivateEndpoint::it-northbound")
            assert resource.name.startswith("it-")
            if resource.type.startswith("gcp:") and "apigee" not in resource.type and "read" not in resource.options:
                assert (
                    "project" in resource.inputs or "parent" in resource.inputs or "serviceAccountId" in resource.inputs
                )


class TestModelArmor:
    def test_template_has_all_filters_and_skips_none(self):
        template = inputs_of(declared("Guardrails", **MODEL_ARMOR), "it-template-base")
        assert (template["location"], template["templateId"]) == ("us-central1", "penstock-dev-base")
        assert template["labels"] == {"part-of": "penstock"}
        assert template["filterConfig"] == {
            "raiSettings": {
                "raiFilters": [
                    {"filterType": "HATE_SPEECH", "confidenceLevel": "HIGH"},
                    {"filterType": "DANGEROUS", "confidenceLevel": "MEDIUM_AND_ABOVE"},
                ]
            },
            "piAndJailbreakFilterSettings": {"filterEnforcement": "ENABLED", "confidenceLevel": "MEDIUM_AND_ABOVE"},
            "maliciousUriFilterSettings": {"filterEnforcement": "ENABLED"},
            "sdpSettings": {"basicConfig": {"filterEnforcement": "ENABLED"}},
        }
        metadata = template["templateMetadata"]
        assert metadata["enforcementType"] == "INSPECT_AND_BLOCK"
        assert metadata["ignorePartialInvocationFailures"] is False
        assert metadata["logSanitizeOperations"] is False

    def test_advanced_data_protection_and_custom_errors_are_passed_on(self):
        sensitive = {"inspect_template": "projects/p/inspectTemplates/i", "deidentify_template": "projects/p/d"}
        own = {"prompt_error_code": 451, "answer_error_message": "no", "enforcement": "INSPECT_ONLY"}
        templates = [{"name": "base", "filters": {"sensitive_data": sensitive}, "filter_version": "latest", **own}]
        template = inputs_of(declared("Guardrails", **{**MODEL_ARMOR, "templates": templates}), "it-template-base")
        assert template["filterConfig"]["sdpSettings"]["advancedConfig"] == {
            "inspectTemplate": "projects/p/inspectTemplates/i",
            "deidentifyTemplate": "projects/p/d",
        }
        metadata = template["templateMetadata"]
        assert metadata["customPromptSafetyErrorCode"] == 451
        assert metadata["customLlmResponseSafetyErrorMessage"] == "no"
        assert metadata["filterVersionSelector"] == {"alias": "FILTER_VERSION_ALIAS_LATEST"}
        assert metadata["enforcementType"] == "INSPECT_ONLY"

    def test_service_agent_gets_its_four_roles_and_on_request_templates_of_the_region_only(self):
        graph = declared("Guardrails", **{**MODEL_ARMOR, "conditions": True})
        roles = {
            resource.inputs["role"]: resource.inputs.get("condition", {}).get("expression")
            for resource in graph.resources
            if resource.inputs.get("member") == AGENT
        }
        assert roles == {
            "roles/container.admin": None,
            "roles/modelarmor.calloutUser": None,
            "roles/serviceusage.serviceUsageConsumer": None,
            "roles/modelarmor.user": " || ".join(
                f'resource.name.startsWith("projects/{project}/locations/us-central1/templates/")'
                for project in ("producer-1", "123456789012")
            ),
        }

    def test_a_callout_that_calls_the_api_has_an_identity_for_it(self):
        graph = declared("Guardrails", **VARIANTS["armor-callout"][1])
        account = of_kind(graph, "ServiceAccount")["metadata"]["name"]
        assert inputs_of(graph, "it-workload-user")["member"].endswith(f"/subject/ns/inference/sa/{account}")
        shared = {**MODEL_ARMOR, "streaming": "callout", "served_by": "api-management"}
        member = inputs_of(declared("Guardrails", **shared), "it-workload-user")["member"]
        assert member.endswith("/sa/api-management")
        assert penstock.Guardrails.calls_google_apis(shared)
        assert not penstock.Guardrails.calls_google_apis(MODEL_ARMOR)

    def test_floor_setting_is_the_projects(self):
        floor = inputs_of(declared("Guardrails", **VARIANTS["armor-callout"][1]), "it-floor")
        assert (floor["parent"], floor["location"]) == ("projects/producer-1", "global")
        assert floor["enableFloorSettingEnforcement"] is True

    def test_unscreened_streams_declare_no_workload(self):
        assert list(declared("Guardrails", **MODEL_ARMOR).manifests()) == []


class TestGuardrailsConfiguration:
    def test_bundled_screens_everything_by_its_templates(self):
        found = config_of("Guardrails")
        assert found["backends"] == [{"kind": "builtin"}]
        assert found["screen"] == {"prompts": True, "answers": "all"}
        assert found["streamedRequests"] == "accept"
        assert [template["name"] for template in found["templates"]] == ["base"]

    def test_info_types_are_the_built_in_engines(self):
        filters = {"sensitive_data": {"info_types": {"EMAIL_ADDRESS": "redact"}}}
        (template,) = config_of("Guardrails", templates=[{"name": "base", "filters": filters}])["templates"]
        assert template["infoTypes"] == {"EMAIL_ADDRESS": "redact"}

    def test_model_armor_as_backend_is_named_by_its_templates(self):
        found = config_of("Guardrails", backends=["builtin", "model_armor"], **CLOUD)
        assert found["backends"] == [{"kind": "builtin"}, {"kind": "modelArmor", "location": "us-central1"}]
        (template,) = found["templates"]
        assert template["resource"] == "projects/producer-1/locations/us-central1/templates/penstock-dev-base"

    @pytest.mark.parametrize(
        ("streaming", "screen", "requests", "backends"),
        [
            ("refuse", {"prompts": False, "answers": "none"}, "refuse", []),
            (
                "callout",
                {"prompts": False, "answers": "streamed"},
                "accept",
                [{"kind": "modelArmor", "location": "us-central1"}],
            ),
        ],
    )
    def test_beside_model_armor_it_does_what_model_armor_leaves(self, streaming, screen, requests, backends):
        found = config_of("Guardrails", **{**MODEL_ARMOR, "streaming": streaming, "image": IMAGE})
        assert (found["screen"], found["streamedRequests"], found["backends"]) == (screen, requests, backends)

    def test_nemo_is_asked_at_its_address(self):
        (backend,) = config_of("Guardrails", **NEMO)["backends"]
        assert backend == {
            "kind": "nemo",
            "url": "http://nemo.guardrails.svc:8000",
            "configId": "default",
            "timeoutMs": 800,
        }


class TestBundledManagement:
    def test_configuration_is_what_was_declared(self):
        rules = [{"name": "keys", "required": ["credentials"], "denied": ["script"]}]
        found = config_of("ApiManagement", template_rules=rules)
        (product,) = found["products"]
        assert (product["name"], product["models"], product["limits"]) == ("chat", ["m1"], ["per-key"])
        assert "/v1/chat/completions" in product["operations"]
        assert found["limits"] == VALID["ApiManagement"]["limits"]
        assert found["templateRules"] == [{"name": "keys", "required": ["credentials"], "denied": ["script"]}]

    def test_the_pepper_comes_by_reference(self):
        env = pod_of(pepper_secret={"name": "hashing", "key": "k"})["containers"][0]["env"]
        reference = {"secretKeyRef": {"name": "hashing", "key": "k"}}
        assert {"name": "PENSTOCK_KEY_PEPPER", "valueFrom": reference} in env

    def test_embedded_store_is_one_pod_with_a_volume(self):
        graph = declared("ApiManagement")
        spec = of_kind(graph, "Deployment")["spec"]
        assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
        claim = of_kind(graph, "PersistentVolumeClaim")["metadata"]["name"]
        pod = spec["template"]["spec"]
        (volume,) = [item for item in pod["volumes"] if "persistentVolumeClaim" in item]
        assert volume["persistentVolumeClaim"]["claimName"] == claim
        path = config_of("ApiManagement")["store"]["path"]
        (mount,) = [item for item in pod["containers"][0]["volumeMounts"] if item["name"] == volume["name"]]
        assert path.startswith(f"{mount['mountPath']}/")

    def test_memorystore_speaks_tls_and_knows_callers_by_identity(self, preview):
        graph = declared("ApiManagement", preview=preview, **MEMORYSTORE)
        instance = inputs_of(graph, "it-store")
        assert instance["authorizationMode"] == "IAM_AUTH"
        assert instance["transitEncryptionMode"] == "SERVER_AUTHENTICATION"
        assert instance["deletionProtectionEnabled"] is True
        grant = inputs_of(graph, "it-store-user")
        assert grant["role"] == "roles/memorystore.dbConnectionUser"
        assert grant["member"].endswith("/sa/api-management")
        env = of_kind(graph, "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
        (address,) = [item["value"] for item in env if item["name"] == "PENSTOCK_STORE_ADDRESS"]
        (store,) = [item for item in graph.resources if item.name == "it-store"]
        (endpoint,) = outputs_of()[store.type](store)["endpoints"]
        of = {
            each["connectionType"]: each["ipAddress"]
            for each in (x["pscAutoConnection"] for x in endpoint["connections"])
        }
        assert len(of) == 2
        assert address == (UNKNOWN if preview else f"{of['CONNECTION_TYPE_PRIMARY']}:6379")

    def test_memorystores_authority_is_mounted_where_the_configuration_says(self):
        graph = declared("ApiManagement", **MEMORYSTORE)
        config = yaml.safe_load(of_kind(graph, "ConfigMap", "api-management")["data"]["config.yaml"])["store"]
        assert (config["auth"], config["tls"]) == ("iam", True)
        assert "BEGIN CERTIFICATE" in of_kind(graph, "ConfigMap", "api-management-store")["data"]["ca.crt"]
        mounts = of_kind(graph, "Deployment")["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        (mount,) = [item["mountPath"] for item in mounts if item["name"] == "store"]
        assert config["caFile"] == f"{mount}/ca.crt"

    def test_the_password_of_the_valkey_pod_is_only_ever_a_reference(self):
        graph = declared("ApiManagement", **VALKEY)
        container = of_kind(graph, "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
        reference = {"secretKeyRef": {"name": "valkey", "key": "word"}}
        assert container["env"] == [{"name": "VALKEY_PASSWORD", "valueFrom": reference}]
        assert container["args"][-2:] == ["--requirepass", "$(VALKEY_PASSWORD)"]
        env = of_kind(graph, "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
        assert {"name": "PENSTOCK_STORE_PASSWORD", "valueFrom": reference} in env
        assert container["securityContext"]["readOnlyRootFilesystem"] is True

    def test_what_calls_google_apis_says_so(self):
        assert penstock.ApiManagement.calls_google_apis(args_of("ApiManagement", **MEMORYSTORE))
        assert not penstock.ApiManagement.calls_google_apis(args_of("ApiManagement"))
        shared = {**SHARED, "backends": ["model_armor"], **CLOUD}
        assert penstock.ApiManagement.calls_google_apis(args_of("ApiManagement", guardrails=shared))


def test_no_secret_is_in_what_is_declared():
    for component, changes in VARIANTS.values():
        graph = declared(component, **changes)
        assert not [item["kind"] for item in graph.manifests() if item["kind"] == "Secret"]
        assert "password:" not in json.dumps([dict(item.inputs) for item in graph.resources], default=str).lower()


def test_templates_of_two_models_are_two_templates():
    templates = [TEMPLATE, {"name": "own", "filters": {"prompt_injection": "HIGH"}, "models": ["m1"]}]
    graph = declared("Guardrails", **{**MODEL_ARMOR, "templates": templates})
    assert names_of(graph, "gcp:modelarmor/template:Template") == ["it-template-base", "it-template-own"]
    assert FILTERS["malicious_links"] is True
