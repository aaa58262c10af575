"""What API management, guardrails and the security base declare in each of their modes."""

import json
import re

import penstock
import pulumi
import pytest
import yaml

from cli.graph import gcp_types
from cli.graph.model import UNKNOWN
from cli.graph.providers import outputs_of
from cli.graph.recorder import record
from tests.support.arguments import IMAGE, VALID, args_of, children, declared, of_kind, problems
from tests.support.traffic import (
    APIGEE,
    BRIDGED,
    CLOUD,
    FILTERS,
    MEMORYSTORE,
    MODEL_ARMOR,
    NEMO,
    SHARED,
    TEMPLATE,
    VALKEY,
    VARIANTS,
    with_apigee,
    with_rules,
)

AGENT = "serviceAccount:service-123456789012@gcp-sa-dep.iam.gserviceaccount.com"


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


def names_of(graph, type_):
    return [resource.name for resource in graph.resources if resource.type == type_]


def inputs_of(graph, name):
    (found,) = [dict(resource.inputs) for resource in graph.resources if resource.name == name]
    return found


def pod_of(**changes):
    return of_kind(declared("ApiManagement", **changes), "Deployment")["spec"]["template"]["spec"]


def config_of(component, file="config.yaml", **changes):
    return yaml.safe_load(of_kind(declared(component, **changes), "ConfigMap")["data"][file])


HUB = (
    *("huggingface.co", "cas-server.xethub.hf.co", "cas-server.xethub-eu.hf.co", "transfer.xethub.hf.co"),
    *("transfer.xethub-eu.hf.co", "us.aws.cdn.hf.co", "eu.aws.cdn.hf.co", "us.gcp.cdn.hf.co", "cdn-lfs-us-1.hf.co"),
)
"""Where downloads of models lead. Source: Hugging Face Hub, "Downloading models", behind a firewall."""
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


class TestSecurity:
    def policies(self, **changes):
        graph = declared("SecurityBase", **with_rules(**changes))
        return {item["metadata"]["name"]: item["spec"] for item in graph.manifests()}

    def test_everything_is_closed_first(self):
        deny = self.policies()["default-deny"]
        assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    def test_balancer_and_health_checks_reach_exactly_the_ports_that_pods_have(self):
        found = self.policies()
        ranges = ["10.9.0.0/23", "35.191.0.0/16", "130.211.0.0/22"]
        workloads = {
            "callouts": [declared("BodyRouter"), declared("ApiManagement"), declared("Guardrails")],
            "pickers": [declared("InferencePool")],
        }
        for policy, graphs in workloads.items():
            (rule,) = found[policy]["ingress"]
            assert [peer["ipBlock"]["cidr"] for peer in rule["from"]] == ranges
            specs = [of_kind(graph, "Deployment")["spec"]["template"] for graph in graphs]
            for spec in specs:
                assert found[policy]["podSelector"]["matchLabels"].items() <= spec["metadata"]["labels"].items()
            ports = {port["containerPort"] for spec in specs for port in spec["spec"]["containers"][0]["ports"]}
            assert {port["port"] for port in rule["ports"]} == ports - {9090}

    def test_replicas_are_reached_by_balancer_and_pickers_only(self):
        (rule,) = self.policies()["replicas"]["ingress"]
        assert rule["ports"] == [{"protocol": "TCP", "port": 8000}]
        assert rule["from"][-1] == {"podSelector": {"matchLabels": {"penstock.dev/role": "picker"}}}
        assert self.policies()["pickers"]["egress"][0]["ports"] == rule["ports"]

    def test_nodes_of_one_replica_talk_among_themselves(self):
        spec = self.policies()["nodes-llama-a"]
        peers = [{"podSelector": {"matchLabels": {"penstock.dev/replica-set": "llama-a"}}}]
        assert (spec["ingress"], spec["egress"]) == ([{"from": peers}], [{"to": peers}])

    def test_only_named_workloads_reach_google_apis_and_identities(self):
        spec = self.policies()["google-apis"]
        assert spec["podSelector"]["matchExpressions"][0]["values"] == ["llama-a", "guardrails"]
        cidrs = [peer["ipBlock"]["cidr"] for rule in spec["egress"] for peer in rule["to"]]
        assert cidrs == ["199.36.153.8/30", "10.0.0.0/20", "169.254.169.254/32", "169.254.169.252/32"]
        restricted = self.policies(google_apis="restricted")["google-apis"]
        assert restricted["egress"][0]["to"][0]["ipBlock"]["cidr"] == "199.36.153.4/30"

    def test_hub_is_open_by_name_for_those_that_need_it(self):
        spec = self.policies()["hub"]
        assert spec["podSelector"]["matchExpressions"][0]["values"] == ["gemma-a"]
        assert {"name": "huggingface.co"} in spec["egress"][0]["matches"]
        assert {"pattern": "*.hf.co"} in spec["egress"][0]["matches"]
        patterns = [item.get("pattern", item.get("name")) for item in spec["egress"][0]["matches"]]
        expressions = [re.escape(pattern).replace(r"\*", "[-a-z0-9]*") for pattern in patterns]  # `*` is no dot in GKE
        for host in HUB:
            assert any(re.fullmatch(expression, host) for expression in expressions), host
        assert penstock.SecurityBase.cluster_features(with_rules()) == ["fqdn-policy"]
        assert "hub" not in self.policies(hub_clients=[])

    def test_store_is_reached_by_api_management_only(self):
        found = self.policies()
        assert found["store-clients"]["ingress"][0]["from"] == [{"podSelector": found["store"]["podSelector"]}]
        valkey = of_kind(declared("ApiManagement", **VALKEY), "StatefulSet")["spec"]["template"]["metadata"]["labels"]
        assert found["store-clients"]["podSelector"]["matchLabels"].items() <= valkey.items()
        remote = self.policies(store="memorystore", store_ranges=["10.0.0.0/20"])
        assert remote["store"]["egress"][0]["to"] == [{"ipBlock": {"cidr": "10.0.0.0/20"}}]
        assert "store-clients" not in remote

    def test_pickers_reach_the_api_server_only_where_it_is_named(self):
        assert self.policies()["pickers-api-server"]["egress"][0]["ports"] == [{"protocol": "TCP", "port": 443}]
        assert "pickers-api-server" not in self.policies(api_server_ranges=[])

    def test_audit_logs_are_kept_and_not_locked_by_default(self):
        graph = declared("SecurityBase")
        bucket, sink = inputs_of(graph, "it-audit-bucket"), inputs_of(graph, "it-audit-sink")
        assert (bucket["retentionDays"], bucket["locked"]) == (365, False)
        assert sink["destination"].endswith(f"/locations/us-central1/buckets/{bucket['bucketId']}")
        kinds = inputs_of(graph, "it-audit-container")["auditLogConfigs"]
        assert [item["logType"] for item in kinds] == ["ADMIN_READ", "DATA_WRITE"]


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
