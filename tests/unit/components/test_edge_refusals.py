"""What InferenceGateway, ServicePublication and PrivateEndpoint refuse: path, value, what was expected and the fix."""

import penstock
import pytest

from tests.support.arguments import args_of, declared, problems

PLACE = {"project": "producer-1", "region": "us-central1"}
SUBNETWORK = "projects/producer-1/regions/us-central1/subnetworks/nodes"
NETWORK = "projects/consumer-1/global/networks/main"
LIMIT = {"count": 60, "interval_s": 60, "headers": ["x-api-key"]}
CHOICE = {"count": 60, "interval_s": 60}


def certificate(**changes):
    given = {"domains": ["llm.example.com"], **changes}
    return {**PLACE, "tls": {"certificate": {key: value for key, value in given.items() if value is not None}}}


def limits(*changes, **armor):
    return {**PLACE, "armor": {"rate_limits": [{**LIMIT, **change} for change in changes], **armor}}


def keyed(**key):
    return {**PLACE, "armor": {"rate_limits": [{**CHOICE, **key}]}}


def rules(match="request.path == '/x'", action="deny(403)", **armor):
    return {**PLACE, "armor": {"rules": [{"match": match, "action": action}], **armor}}


GATEWAY = [
    ({"pod_security": "none"}, "pod_security", "none", "Pod Security", "Use one of"),
    ({"log_sample_rate": 1.5}, "log_sample_rate", 1.5, "0 to 1", "at most 1"),
    ({"address": {"subnetwork": SUBNETWORK}}, "project", None, "`address` is made", "Set it"),
    ({"address": {"subnetwork": SUBNETWORK}}, "region", None, "`address` is made", "Set it"),
    ({"ssl": {}, "region": "us-central1"}, "project", None, "`ssl` is made", "Set it"),
    ({**certificate(), "region": None}, "region", None, "`tls.certificate` is made", "Set it"),
    ({**PLACE, "project": "P"}, "project", "P", "project id", "Give the id"),
    ({**PLACE, "region": "central"}, "region", "central", "a region", "us-central1"),
    ({**PLACE, "ssl": {}, "prefix": "Gw"}, "prefix", "Gw", "RFC 1035", "Rename"),
    ({**PLACE, "ssl": {}, "prefix": "g" * 44}, "prefix", "g" * 44, "at most 43", "by 1 char"),
    ({"labels": {"Team": "x"}}, "labels.Team", "x", "lower-case", "Rename"),
    ({**PLACE, "address": {"subnetwork": "nodes"}}, "address.subnetwork", "nodes", "URI of a subnetwork", "projects/"),
    (
        {"project": "producer-1", "region": "us-east1", "address": {"subnetwork": SUBNETWORK}},
        "address.subnetwork",
        SUBNETWORK,
        "in us-east1",
        "regions/us-east1",
    ),
    (
        {**PLACE, "address": {"subnetwork": SUBNETWORK, "ip_address": "10.0.0.0/24"}},
        "address.ip_address",
        "10.0.0.0/24",
        "IPv4",
        "10.0.0.10",
    ),
    (
        {**PLACE, "address": {"subnetwork": SUBNETWORK}, "address_name": "vip"},
        "address_name",
        "vip",
        "either `address`",
        "Remove one",
    ),
    ({**PLACE, "ssl": {}, "ssl_policy": "p"}, "ssl_policy", "p", "either `ssl`", "Remove one"),
    ({**PLACE, "ssl": {}, "tls": None}, "ssl", {}, "HTTPS listener", "Configure `tls`"),
    ({**PLACE, "ssl": {"profile": "CUSTOM"}}, "ssl.profile", "CUSTOM", "SSL profile", "Use one of"),
    ({**PLACE, "ssl": {"min_version": "TLS_1_3"}}, "ssl.min_version", "TLS_1_3", "with MODERN", "Choose"),
    ({**PLACE, "ssl": {"profile": "RESTRICTED", "min_version": "1"}}, "ssl.min_version", "1", "TLS_1_3", "Choose"),
    (certificate(domains=[]), "tls.certificate.domains", [], "1 to 100", "hostname"),
    (certificate(domains=["localhost"]), "tls.certificate.domains[0]", "localhost", "two labels", "llm.example"),
    (certificate(domains=["a.*.com"]), "tls.certificate.domains[0]", "a.*.com", "DNS name", "llm.example"),
    (certificate(domains=["a.com", "a.com"]), "tls.certificate.domains[1]", "a.com", "once", "Remove"),
    (
        {**certificate(domains=["*.example.com"]), "hostname": "a.b.example.com"},
        "tls.certificate.domains",
        ["*.example.com"],
        "a.b.example.com",
        "Add",
    ),
    (certificate(dns_zone="Zone"), "tls.certificate.dns_zone", "Zone", "managed zone", "Rename"),
    (certificate(dns_zone_project="P"), "tls.certificate.dns_zone_project", "P", "identifier or number", "my-project"),
    (certificate(issuance_config="ca"), "tls.certificate.issuance_config", "ca", "Gateway's region", "projects/"),
    (
        certificate(
            issuance_config="projects/p/locations/us-central1/certificateIssuanceConfigs/ca", dns_zone="example-com"
        ),
        "tls.certificate.dns_zone",
        "example-com",
        "no zone",
        "Remove",
    ),
    ({**PLACE, "armor": {}}, "armor", {}, "at least one of", "Add a limit"),
    (rules(action="deny(500)"), "armor.rules[0].action", "deny(500)", "an action", "Did you mean"),
    (rules(match=""), "armor.rules[0].match", "", "condition", "Write"),
    (rules(match="x" * 2049), "armor.rules[0].match", "x" * 2049, "2048", "Write"),
    (
        rules(match="inIpRange(origin.ip, '10.0.0.0/8')"),
        "armor.rules[0].match",
        "inIpRange(origin.ip, '10.0.0.0/8')",
        "Private Service Connect",
        "allow_ip_keys",
    ),
    (limits({"match": "origin.region_code == 'DE'"}), "armor.rate_limits[0].match", ..., "Private", "header"),
    (limits({"count": 0}), "armor.rate_limits[0].count", 0, "1 to 1000000", "at least 1"),
    (limits({"count": 10_001, "ban_s": 60}), "armor.rate_limits[0].count", 10_001, "1 to 10000", "at most"),
    (limits({"interval_s": 5}), "armor.rate_limits[0].interval_s", 5, "10 to 3600", "at least 10"),
    (limits({"ban_s": 0}), "armor.rate_limits[0].ban_s", 0, "seconds", "at least"),
    (limits({"status": 500}), "armor.rate_limits[0].status", 500, "403, 404, 429, 502", "Choose"),
    (limits({"headers": []}), "armor.rate_limits[0].headers", [], "1 to 3 headers", "Keep"),
    (limits({"headers": ["a b"]}), "armor.rate_limits[0].headers[0]", "a b", "name of a header", "x-api-key"),
    (limits({"key": "ALL"}), "armor.rate_limits[0]", ..., "exactly one", "Name the header"),
    (keyed(), "armor.rate_limits[0]", {"headers": None, "key": None}, "exactly one", "Name the header"),
    (keyed(key="COOKIE"), "armor.rate_limits[0].key", "COOKIE", "a key", "Use one of"),
    *[
        (keyed(key=key), "armor.rate_limits[0].key", key, "Private Service Connect", "allow_ip_keys")
        for key in ("IP", "XFF_IP", "USER_IP", "REGION_CODE")
    ],
    (limits({}, {"count": 5}), "armor.rate_limits[1]", "every request", "rate_limits[0]", "narrower"),
    (limits({}, {"match": "true"}), "armor.rate_limits[1]", "true", "rate_limits[0]", "narrower"),
    (limits({"match": "true"}, {"match": "true"}), "armor.rate_limits[1]", "true", "rate_limits[0]", "narrower"),
]

PUBLICATION = [
    ({"name": "n" * 53}, "name", "n" * 53, "at most 52", "by 1 char"),
    ({"project": "P"}, "project", "P", "project id", "Give the id"),
    ({"region": "us"}, "region", "us", "a region", "us-central1"),
    ({"port": 0}, "port", 0, "a port", "at least 1"),
    ({"accept": []}, "accept", [], "at least one consumer", "Name the projects"),
    ({"accept": [{"limit": 1}]}, "accept[0]", {"limit": 1}, "exactly one", "Name one"),
    (
        {"accept": [{"project": "consumer-1", "network": NETWORK, "limit": 1}]},
        "accept[0]",
        ...,
        "exactly one",
        "Name one",
    ),
    ({"accept": [{"project": "consumer-1", "limit": 0}]}, "accept[0].limit", 0, "endpoints", "at least 1"),
    ({"accept": [{"project": "C", "limit": 1}]}, "accept[0].project", "C", "identifier or number", "my-project"),
    ({"accept": [{"network": "main", "limit": 1}]}, "accept[0].network", "main", "URI of a VPC", "projects/"),
    (
        {"accept": [{"project": "consumer-1", "limit": 1}, {"network": NETWORK, "limit": 1}]},
        "accept",
        ...,
        "cannot mix",
        "by network",
    ),
    ({"accept": [{"project": "consumer-1", "limit": 1}] * 2}, "accept[1].project", "consumer-1", "once", "Remove"),
    ({"reject": ["consumer-1"]}, "reject[0]", "consumer-1", "not accepted", "one of the lists"),
    ({"reject": [NETWORK]}, "reject[0]", NETWORK, "identifier or number", "my-project"),
    (
        {"accept": [{"network": NETWORK, "limit": 1}], "reject": ["consumer-2"]},
        "reject[0]",
        "consumer-2",
        "URI of a VPC",
        "projects/",
    ),
    ({"nat_subnetworks": []}, "nat_subnetworks", [], "at least one", "PRIVATE_SERVICE_CONNECT"),
    ({"nat_subnetworks": ["psc"]}, "nat_subnetworks[0]", "psc", "subnetwork in us-central1", "projects/"),
    ({"propagated_connection_limit": -1}, "propagated_connection_limit", -1, "networks", "at least 0"),
    ({"domain_name": "llm.example.com"}, "domain_name", "llm.example.com", "ending in a dot", "llm.example.com."),
    ({"gateway_metadata": None}, "gateway_metadata", None, "tells the Gateway's rule", "InferenceGateway"),
    ({"forwarding_rule": "a/b"}, "forwarding_rule", "a/b", "name of a forwarding rule", "alone"),
]

ENDPOINT = [
    ({"name": "n" * 55}, "name", "n" * 55, "at most 54", "by 1 char"),
    ({"project": "P"}, "project", "P", "project id", "Give the id"),
    ({"labels": {"part-of": "x"}}, "labels.part-of", "x", "your own", "Remove"),
    ({"network": "main"}, "network", "main", "URI of a VPC", "projects/"),
    ({"subnetwork": "main"}, "subnetwork", "main", "URI of a subnetwork", "projects/"),
    ({"ip_address": "fd00::1"}, "ip_address", "fd00::1", "IPv4", "10.0.0.10"),
    ({"attachment": "llm"}, "attachment", "llm", "URI of a service attachment", "projects/"),
    (
        {"attachment": "projects/p/regions/europe-west4/serviceAttachments/llm"},
        "region",
        "us-central1",
        "europe-west4",
        "Put the endpoint into europe-west4",
    ),
    ({"hostname": "llm"}, "hostname", "llm", "two labels", "llm.example.com"),
    ({"hostname": "*.example.com"}, "hostname", "*.example.com", "DNS name", "llm.example.com"),
    ({"hostname": None, "zone": "corp"}, "zone", "corp", "`hostname`", "Set it"),
    ({"hostname": None, "dns_networks": [NETWORK]}, "dns_networks", [NETWORK], "`hostname`", "Set it"),
    ({"zone_domain": "other.com"}, "zone_domain", "other.com", "parent of it", "Shorten"),
    ({"zone_domain": "lm.example.com"}, "zone_domain", "lm.example.com", "parent of it", "Shorten"),
    ({"zone": "Corp"}, "zone", "Corp", "managed zone", "Rename"),
    ({"zone": "corp", "zone_domain": "example.com"}, "zone_domain", "example.com", "zone that exists", "Set it at"),
    ({"dns_networks": [NETWORK]}, "dns_networks[0]", NETWORK, "once", "Remove"),
    ({"dns_networks": ["b"]}, "dns_networks[0]", "b", "URI of a VPC", "projects/"),
    (
        {"dns_peerings": [{"name": "p", "project": "consumer-2", "networks": []}]},
        "dns_peerings[0].networks",
        [],
        "at least one network",
        "Name the networks",
    ),
    (
        {"dns_peerings": [{"name": "p", "project": "consumer-2", "networks": [NETWORK]}] * 2},
        "dns_peerings[1].name",
        "p",
        "all different",
        "Rename",
    ),
    (
        {"dns_peerings": [{"name": "p", "project": "X", "networks": ["n"]}]},
        "dns_peerings[0].networks[0]",
        "n",
        "URI of a VPC",
        "projects/",
    ),
    (
        {"dns_peerings": [{"name": "p", "project": "X", "networks": ["n"]}]},
        "dns_peerings[0].project",
        "X",
        "project id",
        "Give the id",
    ),
]

REFUSED = [
    *[("InferenceGateway", *row) for row in GATEWAY],
    *[("ServicePublication", *row) for row in PUBLICATION],
    *[("PrivateEndpoint", *row) for row in ENDPOINT],
]


@pytest.mark.parametrize(
    ("component", "changes", "path", "value", "expected", "fix"), REFUSED, ids=lambda value: str(value)[:40]
)
def test_refused(component, changes, path, value, expected, fix):
    found = [error for error in problems(component, **changes) if error.path == f"args.{path}"]
    assert len(found) == 1, [str(error) for error in problems(component, **changes)]
    (error,) = found
    assert value is ... or error.value == value
    assert expected in error.expected
    assert fix in error.fix
    assert not error.fix.endswith(".")


@pytest.mark.parametrize(
    ("component", "changes"),
    [
        ("InferenceGateway", {**PLACE, "address": {"subnetwork": SUBNETWORK}, "redirect_http": True}),
        ("InferenceGateway", {**PLACE, "address": {"subnetwork": f"https://compute.example/{SUBNETWORK}"}}),
        ("InferenceGateway", certificate(domains=["*.example.com"]) | {"hostname": "llm.example.com"}),
        ("InferenceGateway", {**PLACE, "ssl": {"profile": "FIPS_202205"}}),
        (
            "InferenceGateway",
            keyed(key="IP") | {"armor": {"rate_limits": [{**CHOICE, "key": "IP"}], "allow_ip_keys": True}},
        ),
        ("InferenceGateway", rules(match="origin.ip == '10.0.0.1'", allow_ip_keys=True)),
        ("InferenceGateway", limits({"match": "has(request.headers['x-tier'])"}, {})),
        ("InferenceGateway", limits({"preview": True}, {})),
        ("InferenceGateway", {"pod_security": "baseline", "log_sample_rate": 1.0}),
        ("ServicePublication", {"accept": [{"project": "123456", "limit": 1}], "reject": ["example.com:legacy-1"]}),
        ("ServicePublication", {"gateway_metadata": None, "address": "10.0.0.7"}),
        ("ServicePublication", {"port": 80, "propagated_connection_limit": 0, "domain_name": "llm.example.com."}),
        ("PrivateEndpoint", {"zone_domain": "com", "ip_address": None}),
        ("PrivateEndpoint", {"zone": "corp", "dns_peerings": []}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_accepted(component, changes):
    assert [str(error) for error in problems(component, **changes)] == []


@pytest.mark.parametrize("component", ["InferenceGateway", "ServicePublication", "PrivateEndpoint"])
def test_everything_wrong_is_told_at_once_and_nothing_is_registered(component):
    changes = {"name": "N", "project": "P", "region": "r"}
    with pytest.raises(penstock.ConfigErrors) as caught:
        declared(component, **changes)
    assert {"it.name", "it.project", "it.region"} <= {error.path for error in caught.value.errors}


@pytest.mark.parametrize(
    ("component", "field"),
    [("ServicePublication", "accept"), ("PrivateEndpoint", "hostname"), ("InferenceGateway", "armor")],
)
def test_what_decides_the_shape_may_not_be_an_output(component, field):
    """Known only in the update, it would make previews lie about what is declared."""
    import pulumi

    from cli.graph.recorder import record

    def program() -> None:
        getattr(penstock, component)("it", args_of(component, **{field: pulumi.Output.from_input("x")}))

    with pytest.raises(penstock.ConfigErrors, match="decides what is declared"):
        record(program, "test")
