"""What InferenceGateway makes outside of the cluster, and in which order."""

import penstock
import pulumi
import pytest

from cli.graph.gcp_types import judge
from cli.graph.model import UNKNOWN
from cli.graph.recorder import record
from tests.support.arguments import args_of, children, declared, of_kind

SUBNETWORK = "projects/producer-1/regions/us-central1/subnetworks/nodes"
PLACE = {"project": "producer-1", "region": "us-central1", "labels": {"team": "inference"}}
CERTIFICATE = {"domains": ["llm.example.com", "*.llm.example.com", "chat.example.com"], "dns_zone": "example-com"}
WHOLE = {
    **PLACE,
    "hostname": "llm.example.com",
    "tls": {"certificate": CERTIFICATE},
    "redirect_http": True,
    "address": {"subnetwork": SUBNETWORK},
    "ssl": {},
    "armor": {"rate_limits": [{"count": 60, "interval_s": 60, "headers": ["x-api-key"]}]},
}
AUTHORIZATION = "gcp:certificatemanager/dnsAuthorization:DnsAuthorization"
RECORDS = {
    AUTHORIZATION: lambda resource: {
        "dnsResourceRecords": [
            {"name": f"_acme.{resource.inputs['domain']}.", "type": "CNAME", "data": "proof.example."}
        ]
    },
    "gcp:compute/address:Address": lambda resource: {"address": "10.0.0.7"},
}


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


def graph_of(*, preview=False, **changes):
    def program() -> None:
        made = penstock.InferenceGateway("it", args_of("InferenceGateway", **changes))
        for name in ("address", "gateway_metadata", "security_policy", "certificate_names", "dns_records"):
            pulumi.export(name, getattr(made, name))

    return record(program, "test", preview=preview, outputs=RECORDS)


def resource(graph, name):
    (found,) = [item for item in graph.resources if item.name == name]
    return found


def before(graph, name):
    """Names of the resources that `name` waits for."""
    return {key.rpartition("::")[2] for key in resource(graph, name).dependencies}


def test_nothing_is_made_outside_of_the_cluster_unless_asked(preview):
    graph = graph_of(preview=preview)
    assert not [item.type for item in graph.resources if item.type.startswith("gcp:")]
    assert (graph.outputs["address"], graph.outputs["security_policy"]) == ("", "")
    assert (graph.outputs["certificate_names"], graph.outputs["dns_records"]) == ([], [])


def test_inventory_of_a_whole_gateway(preview):
    graph = graph_of(preview=preview, **WHOLE)
    own = "penstock:index:InferenceGateway::it"
    assert all(item.parent == own for item in children(graph))
    assert sorted(item.name for item in children(graph)) == [
        "it-address",
        "it-armor",
        "it-authorization-chat.example.com",
        "it-authorization-llm.example.com",
        "it-certificate",
        "it-gateway",
        "it-namespace",
        "it-policy",
        "it-record-chat.example.com",
        "it-record-llm.example.com",
        "it-redirect",
        "it-ssl-policy",
    ]


def test_inputs_are_what_the_provider_knows(preview):
    verdicts = list(judge(graph_of(preview=preview, **WHOLE)))
    assert len(verdicts) == 8
    assert [(item.resource.name, item.errors) for item in verdicts if item.status != "ok"] == []


def test_gateway_refers_to_what_is_made_by_names_that_previews_know(preview):
    graph = graph_of(preview=preview, **WHOLE)
    names = penstock.InferenceGateway.names(args_of("InferenceGateway", **WHOLE))
    gateway = of_kind(graph, "Gateway")["spec"]
    assert gateway["addresses"] == [{"type": "NamedAddress", "value": names["address"]}]
    https = next(item for item in gateway["listeners"] if item["name"] == "https")
    assert https["tls"]["options"] == {"networking.gke.io/cert-manager-certs": names["certificate"]}
    assert of_kind(graph, "GCPGatewayPolicy")["spec"]["default"]["sslPolicy"] == names["ssl_policy"]
    assert graph.outputs["security_policy"] == names["security_policy"] == resource(graph, "it-armor").inputs["name"]
    assert graph.outputs["certificate_names"] == [names["certificate"]]
    assert [resource(graph, f"it-{role}").inputs["name"] for role in ("address", "certificate", "ssl-policy")] == [
        names["address"],
        names["certificate"],
        names["ssl_policy"],
    ]


@pytest.mark.parametrize(("changes", "port"), [({}, 443), ({"tls": None}, 80)])
def test_routes_and_publication_meet_at_one_listener(changes, port):
    args = args_of("InferenceGateway", **changes)
    (listener,) = of_kind(declared("InferenceGateway", **changes), "Gateway")["spec"]["listeners"]
    assert listener["name"] == penstock.InferenceGateway.listener_name(args)
    assert listener["port"] == penstock.InferenceGateway.listener_port(args) == port


def test_what_the_gateway_needs_is_there_before_it_and_stays_after_it(preview):
    graph = graph_of(preview=preview, **WHOLE)
    assert {"it-namespace", "it-policy", "it-address", "it-certificate"} <= before(graph, "it-gateway")
    assert {"it-namespace", "it-ssl-policy"} <= before(graph, "it-policy")
    assert {"it-record-chat.example.com", "it-record-llm.example.com"} <= before(graph, "it-certificate")


def test_address_is_internal_and_shared_by_listeners():
    inputs = resource(graph_of(**WHOLE), "it-address").inputs
    assert (inputs["addressType"], inputs["purpose"]) == ("INTERNAL", "SHARED_LOADBALANCER_VIP")
    assert inputs["subnetwork"] == SUBNETWORK
    assert inputs["labels"] == {"team": "inference", "part-of": "penstock"}
    assert "address" not in inputs


def test_another_fixed_address_is_another_reservation():
    """The old one cannot be deleted while the Gateway holds it, nor can a second one take its name."""

    def named(ip_address):
        graph = graph_of(**{**WHOLE, "address": {"subnetwork": SUBNETWORK, "ip_address": ip_address}})
        found = resource(graph, "it-address").inputs
        assert found["address"] == ip_address
        return found["name"]

    assert named("10.0.0.7") != named("10.0.0.8")


def test_other_domains_are_another_certificate_but_keep_their_proofs():
    one = graph_of(**WHOLE)
    two = graph_of(**{**WHOLE, "tls": {"certificate": {**CERTIFICATE, "domains": ["llm.example.com"]}}})
    assert resource(one, "it-certificate").inputs["name"] != resource(two, "it-certificate").inputs["name"]
    proof = "it-authorization-llm.example.com"
    assert resource(one, proof).inputs == resource(two, proof).inputs
    assert resource(one, proof).inputs["type"] == "PER_PROJECT_RECORD"


def test_records_are_set_in_the_given_zone():
    inputs = resource(graph_of(**WHOLE), "it-record-llm.example.com").inputs
    assert inputs["managedZone"] == "example-com"
    assert (inputs["name"], inputs["type"], inputs["rrdatas"]) == (
        "_acme.llm.example.com.",
        "CNAME",
        ["proof.example."],
    )


def test_without_a_zone_the_records_to_set_are_told():
    certificate = {"domains": ["llm.example.com"]}
    changes = {**PLACE, "hostname": "llm.example.com", "tls": {"certificate": certificate}}
    graph = graph_of(**changes)
    assert "gcp:dns/recordSet:RecordSet" not in {item.type for item in graph.resources}
    record_ = {"domain": "llm.example.com", "name": "_acme.llm.example.com.", "type": "CNAME", "data": "proof.example."}
    assert graph.outputs["dns_records"] == [record_]
    assert graph_of(preview=True, **changes).outputs["dns_records"] == UNKNOWN


def test_a_private_authority_needs_no_proof(preview):
    issuance = "projects/producer-1/locations/us-central1/certificateIssuanceConfigs/ca"
    tls = {"certificate": {"domains": ["llm.corp.internal"], "issuance_config": issuance}}
    graph = graph_of(preview=preview, **PLACE, tls=tls)
    managed = resource(graph, "it-certificate").inputs["managed"]
    assert managed == {"domains": ["llm.corp.internal"], "issuanceConfig": issuance}
    assert graph.outputs["dns_records"] == []


def test_ssl_policy_is_modern_unless_configured():
    assert resource(graph_of(**PLACE, ssl={}), "it-ssl-policy").inputs["profile"] == "MODERN"
    inputs = resource(
        graph_of(**PLACE, ssl={"profile": "RESTRICTED", "min_version": "TLS_1_3"}), "it-ssl-policy"
    ).inputs
    assert (inputs["profile"], inputs["minTlsVersion"]) == ("RESTRICTED", "TLS_1_3")


def test_live_metadata_is_unknown_until_the_gateway_exists():
    """A preview's answer to a creation holds what was declared, which must not be taken for the live object."""
    assert graph_of(preview=True).outputs["gateway_metadata"] == UNKNOWN
    metadata = graph_of().outputs["gateway_metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("gw", "inference")
    assert metadata["annotations"]["pulumi.com/waitFor"] == "condition=Programmed"


class TestArmor:
    def rules(self, **armor):
        return resource(graph_of(**PLACE, armor=armor), "it-armor").inputs["rules"]

    def test_own_rules_come_first_and_what_is_left_is_allowed(self):
        first, limit, last = self.rules(
            rules=[{"match": "request.path.startsWith('/admin')", "action": "deny(404)", "preview": True}],
            rate_limits=[{"count": 60, "interval_s": 60, "headers": ["x-api-key"]}],
        )
        assert first["priority"] < limit["priority"] < last["priority"] == 2_147_483_647
        assert (first["action"], first["preview"]) == ("deny(404)", True)
        assert first["match"] == {"expr": {"expression": "request.path.startsWith('/admin')"}}
        everything = {"versionedExpr": "SRC_IPS_V1", "config": {"srcIpRanges": ["*"]}}
        assert (last["action"], last["match"], limit["match"]) == ("allow", everything, everything)

    def test_a_limit_is_a_throttle_by_header(self):
        limit, _ = self.rules(rate_limits=[{"count": 60, "interval_s": 30, "headers": ["x-api-key"]}])
        assert limit["action"] == "throttle"
        assert limit["rateLimitOptions"] == {
            "conformAction": "allow",
            "exceedAction": "deny(429)",
            "enforceOnKey": "HTTP_HEADER",
            "enforceOnKeyName": "x-api-key",
            "rateLimitThreshold": {"count": 60, "intervalSec": 30},
        }

    def test_several_headers_are_one_key(self):
        limit, _ = self.rules(rate_limits=[{"count": 1, "interval_s": 30, "headers": ["x-a", "x-b"]}])
        options = limit["rateLimitOptions"]
        assert [item["enforceOnKeyName"] for item in options["enforceOnKeyConfigs"]] == ["x-a", "x-b"]
        assert "enforceOnKey" not in options

    def test_a_limit_may_ban(self):
        limit, _ = self.rules(rate_limits=[{"count": 1, "interval_s": 30, "key": "ALL", "ban_s": 60, "status": 403}])
        assert limit["action"] == "rate_based_ban"
        options = limit["rateLimitOptions"]
        assert (options["banDurationSec"], options["enforceOnKey"]) == (60, "ALL")
        assert options["exceedAction"] == "deny(403)"

    def test_pools_take_it_by_name(self, preview):
        """As an output, so that a pool's policy is made after it and deleted before it."""

        def program() -> None:
            armor = {"rate_limits": [{"count": 60, "interval_s": 60, "headers": ["x-api-key"]}]}
            gateway = penstock.InferenceGateway("it", args_of("InferenceGateway", **PLACE, armor=armor))
            penstock.InferencePool("pool", args_of("InferencePool", security_policy=gateway.security_policy))

        graph = record(program, "test", preview=preview)
        assert of_kind(graph, "GCPBackendPolicy")["spec"]["default"]["securityPolicy"] == "gw-armor"
        assert "it-armor" in before(graph, "pool-backend")


def test_log_sample_rate_is_handed_to_pools():
    settings = penstock.InferenceGateway.pool_settings
    assert settings(args_of("InferenceGateway")) == {}
    given = settings(args_of("InferenceGateway", log_sample_rate=0.25))
    policy = of_kind(declared("InferencePool", **given), "GCPBackendPolicy")["spec"]["default"]
    assert policy["logging"] == {"enabled": True, "sampleRate": 250_000}


def test_namespace_may_enforce_less_but_goes_on_warning():
    labels = of_kind(declared("InferenceGateway", pod_security="privileged"), "Namespace")["metadata"]["labels"]
    found = {key.rpartition("/")[2]: value for key, value in labels.items() if key.startswith("pod-security")}
    assert found == {"enforce": "privileged", "audit": "restricted", "warn": "restricted"}
    labels = of_kind(declared("InferenceGateway"), "Namespace")["metadata"]["labels"]
    assert [key for key in labels if key.startswith("pod-security")] == ["pod-security.kubernetes.io/enforce"]
