"""What the security base declares: who may talk to whom, and which logs are kept."""

import re

import penstock

from tests.support.arguments import declared, inputs_of, of_kind
from tests.support.traffic import (
    VALKEY,
    with_rules,
)

HUB = (
    *("huggingface.co", "cas-server.xethub.hf.co", "cas-server.xethub-eu.hf.co", "transfer.xethub.hf.co"),
    *("transfer.xethub-eu.hf.co", "us.aws.cdn.hf.co", "eu.aws.cdn.hf.co", "us.gcp.cdn.hf.co", "cdn-lfs-us-1.hf.co"),
)
"""Where downloads of models lead. Source: Hugging Face Hub, "Downloading models", behind a firewall."""


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
            assert {port["port"] for port in rule["ports"]} == ports - {9090, 9010}  # metrics; admin on loopback

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
