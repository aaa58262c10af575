"""What networks, addons and the bucket of weights refuse, with the path, what was expected and the fix."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock._cidr import check_apart, check_cidr, parsed, parts

from tests.support.arguments import problems

SUBNET = {"subnetwork": "nodes", "pods_range": "pods", "services_range": "services"}
RANGES = {"node_cidr": "10.1.0.0/20", "pod_cidr": "10.2.0.0/16", "service_cidr": "10.3.0.0/20"}
WHOLE = {"network": "shared", "project": "host-project", **SUBNET, "proxy_subnetwork": "p", "psc_subnetworks": ["a"]}
SHARED = {"existing": WHOLE, "proxy_cidr": "10.5.0.0/24", **RANGES}
DRANET = {"mode": "dranet", "project": None, "region": None, "zone": None, "rails": None, "namespaces": ["n"]}
KEY = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"


def without(existing, *fields):
    return {key: value for key, value in existing.items() if key not in fields}


REFUSED = [
    ("ProducerNetwork", {"name": "n" * 44}, "args.name", "at most 43 characters", "Shorten it by 1"),
    ("ProducerNetwork", {"name": "Net"}, "args.name", "DNS label", "Rename"),
    ("ProducerNetwork", {"project": "P"}, "args.project", "project id", "id"),
    ("ProducerNetwork", {"region": "central"}, "args.region", "region", "us-central1"),
    ("ProducerNetwork", {"labels": {"A": "b"}}, "args.labels.A", "lower-case", "Rename"),
    ("ProducerNetwork", {"node_cidr": "10.0.0.1/20"}, "args.node_cidr", "IPv4 range", "first address"),
    ("ProducerNetwork", {"node_cidr": "ten"}, "args.node_cidr", "IPv4 range", "first address"),
    ("ProducerNetwork", {"node_cidr": "8.8.0.0/20"}, "args.node_cidr", "private range", "10.0.0.0/8"),
    ("ProducerNetwork", {"node_cidr": "10.0.0.0/30"}, "args.node_cidr", "/29 (smallest)", "larger"),
    ("ProducerNetwork", {"pod_cidr": "10.4.0.0/25"}, "args.pod_cidr", "/24 (smallest)", "larger"),
    ("ProducerNetwork", {"service_cidr": "10.128.0.0/15"}, "args.service_cidr", "/16 (largest)", "smaller"),
    ("ProducerNetwork", {"proxy_cidr": "10.9.0.0/27"}, "args.proxy_cidr", "/26 (smallest)", "larger"),
    ("ProducerNetwork", {"psc_cidrs": ["10.10.0.0/30"]}, "args.psc_cidrs[0]", "/29 (smallest)", "larger"),
    ("ProducerNetwork", {"pod_cidr": "10.0.0.0/16"}, "args.pod_cidr", "apart from 10.0.0.0/20", "Move"),
    ("ProducerNetwork", {"proxy_cidr": "10.8.8.0/23"}, "args.proxy_cidr", "args.service_cidr", "Move"),
    (
        "ProducerNetwork",
        {"psc_cidrs": ["10.10.0.0/24", "10.10.0.128/25"]},
        "args.psc_cidrs[1]",
        "args.psc_cidrs[0]",
        "Move",
    ),
    ("ProducerNetwork", {"mtu": 9000}, "args.mtu", "8896", "at most"),
    ("ProducerNetwork", {"flow_log_sampling": 1.5}, "args.flow_log_sampling", "share", "at most"),
    ("ProducerNetwork", {"google_apis": "privat"}, "args.google_apis", "`private`", "`private`"),
    ("ProducerNetwork", {"google_apis": "none", "nat": False}, "args.nat", "Google APIs", "google_apis"),
    ("ProducerNetwork", {"regional_apis": ["Model Armor"]}, "args.regional_apis[0]", "DNS label", "Rename"),
    ("ProducerNetwork", {"regional_apis": ["a", "a"]}, "args.regional_apis[1]", "each service once", "Remove"),
    ("ProducerNetwork", {"node_tag": "a b"}, "args.node_tag", "DNS label", "Rename"),
    ("ProducerNetwork", {"backend_ports": []}, "args.backend_ports", "one port", "Name"),
    ("ProducerNetwork", {"backend_ports": ["0-70000"]}, "args.backend_ports[0]", "TCP port", "8000"),
    ("ProducerNetwork", {"backend_ports": ["9009-9002"]}, "args.backend_ports[0]", "TCP port", "8000"),
    ("ProducerNetwork", {"node_service_accounts": []}, "args.node_service_accounts", "1 to 10", "Name"),
    ("ProducerNetwork", {"node_service_accounts": ["me@x.org"]}, "args.node_service_accounts[0]", "email", "Write"),
    (
        "ProducerNetwork",
        {"node_service_accounts": ["n@p.iam.gserviceaccount.com"], "node_tag": "t"},
        "args.node_tag",
        "one or the other",
        "Remove",
    ),
    ("ProducerNetwork", {"existing": {"network": "Main"}}, "args.existing.network", "DNS label", "Rename"),
    ("ProducerNetwork", {**SHARED, "existing": {**WHOLE, "project": "H"}}, "args.existing.project", "project", "Write"),
    ("ProducerNetwork", {"existing": {"network": "m"}, "mtu": 1500}, "args.mtu", "not made here", "Remove"),
    (
        "ProducerNetwork",
        {"existing": {"network": "m", "subnetwork": "n"}, **RANGES},
        "args.existing.pods_range",
        "secondary range",
        "Name",
    ),
    (
        "ProducerNetwork",
        {"existing": {"network": "m", "services_range": "s"}},
        "args.existing.services_range",
        "secondary range",
        "none of the three",
    ),
    ("ProducerNetwork", {"existing": {"network": "m", **SUBNET}}, "args.pod_cidr", "existing.subnetwork", "Set it"),
    (
        "ProducerNetwork",
        {"existing": {"network": "m", "proxy_subnetwork": "p"}},
        "args.proxy_cidr",
        "existing.proxy_subnetwork",
        "Set it",
    ),
    (
        "ProducerNetwork",
        {"existing": {"network": "m", "psc_subnetworks": ["a"]}, "psc_cidrs": ["10.11.0.0/24"]},
        "args.psc_cidrs",
        "not both",
        "Remove",
    ),
    *[
        (
            "ProducerNetwork",
            {**SHARED, "existing": without(WHOLE, field)},
            f"args.existing.{field}",
            "nothing is made",
            "name it here",
        )
        for field in ("proxy_subnetwork", "psc_subnetworks")
    ],
    (
        "ProducerNetwork",
        {**SHARED, "existing": without(WHOLE, *SUBNET)},
        "args.existing.subnetwork",
        "nothing is made",
        "name it here",
    ),
    ("ProducerNetwork", {**SHARED, "nat": True}, "args.nat", "nothing to be made", "remove this"),
    ("ProducerNetwork", {**SHARED, "firewall": True}, "args.firewall", "nothing to be made", "remove this"),
    ("ProducerNetwork", {**SHARED, "google_apis": "private"}, "args.google_apis", "nothing to be made", "remove"),
    ("RdmaNetwork", {"mode": "rocce"}, "args.mode", "`roce` or `dranet`", "`roce`"),
    ("RdmaNetwork", {"name": "n" * 41}, "args.name", "at most 40 characters", "Shorten it by 1"),
    ("RdmaNetwork", {"zone": "us-east1-b"}, "args.zone", "a zone of us-central1", "us-central1-a"),
    ("RdmaNetwork", {"zone": None}, "args.zone", "mode `roce`", "Set it"),
    ("RdmaNetwork", {"rails": None}, "args.rails", "mode `roce`", "Set it"),
    ("RdmaNetwork", {"cidr": "192.168.0.0/25"}, "args.cidr", "/24 (smallest)", "larger"),
    ("RdmaNetwork", {"cidr": "1.2.3.0/24"}, "args.cidr", "private range", "Choose"),
    ("RdmaNetwork", {"other_cidrs": ["192.168.128.0/20"]}, "args.other_cidrs[0]", "apart from", "Move"),
    ("RdmaNetwork", {"other_cidrs": ["x"]}, "args.other_cidrs[0]", "IPv4 range", "Write"),
    ("RdmaNetwork", {"namespaces": ["n"]}, "args.namespaces", "mode `roce`", "other mode"),
    ("RdmaNetwork", {"nccl_image": "gib"}, "args.nccl_image", "pinned", "version"),
    ("RdmaNetwork", {"nccl_image": "gib:v1", "nccl_installer": False}, "args.nccl_image", "installer", "Turn"),
    ("RdmaNetwork", {**DRANET, "namespaces": None}, "args.namespaces", "at least one", "Name"),
    ("RdmaNetwork", {**DRANET, "namespaces": ["n", "n"]}, "args.namespaces[1]", "once", "Remove"),
    ("RdmaNetwork", {**DRANET, "namespaces": ["N"]}, "args.namespaces[0]", "DNS label", "Rename"),
    ("RdmaNetwork", {**DRANET, "nccl_installer": True}, "args.rails", "4 or 8", "Set it"),
    *[("RdmaNetwork", {"rails": rails}, "args.rails", "4 or 8", "a4x-highgpu-4g") for rails in (0, 1, 2, 6, 7, 9, 16)],
    ("ClusterAddons", {"project": None}, "args.project", "Cloud Monitoring", "Set it"),
    ("ClusterAddons", {"project_number": None}, "args.project_number", "Cloud Monitoring", "Set it"),
    ("ClusterAddons", {"project_number": "my-project"}, "args.project_number", "number", "123"),
    ("ClusterAddons", {"keda_version": "latest"}, "args.keda_version", "exact", "1.2.3"),
    ("ClusterAddons", {"leader_worker_set_version": ">=0.9"}, "args.leader_worker_set_version", "exact", "1.2.3"),
    ("ClusterAddons", {"keda": False, "keda_version": "2.20.2"}, "args.keda_version", "`keda`", "Turn"),
    ("ClusterAddons", {"keda": None, "keda_namespace": "n"}, "args.keda_namespace", "`keda`", "Turn"),
    ("ClusterAddons", {"custom_metrics_image": "a:latest"}, "args.custom_metrics_image", "pinned", "version"),
    ("ClusterAddons", {"objective_apis": ["gaie-1.6"]}, "args.objective_apis[0]", "gaie-1.5", "gaie-1.5"),
    ("ClusterAddons", {"objective_apis": ["gaie-1.5"] * 2}, "args.objective_apis[1]", "once", "Remove"),
    ("ModelBucket", {"name": "Models"}, "args.name", "lower-case", "Rename"),
    ("ModelBucket", {"name": "my-google-models"}, "args.name", "google", "Rename"),
    ("ModelBucket", {"name": "a" * 64}, "args.name", "3 to 63", "Rename"),
    ("ModelBucket", {"soft_delete_days": 3}, "args.soft_delete_days", "7 to 90", "at least 7"),
    ("ModelBucket", {"old_versions_days": 0}, "args.old_versions_days", "days", "at least 1"),
    ("ModelBucket", {"versioning": False, "old_versions_days": 3}, "args.old_versions_days", "versioning", "Turn"),
    ("ModelBucket", {"versioning": True, "hierarchical_namespace": True}, "args.versioning", "refuses", "Turn"),
    ("ModelBucket", {"force_destroy": True}, "args.force_destroy", "may be deleted", "protect: false"),
    ("ModelBucket", {"kms_key": "k"}, "args.kms_key", "Cloud KMS key", "Write"),
    ("ModelBucket", {"kms_key": KEY, "region": "us-east1"}, "args.kms_key", "us-east1", "Choose"),
]


@pytest.mark.parametrize(
    ("component", "changes", "path", "expected", "fix"), REFUSED, ids=lambda value: str(value)[:50]
)
def test_refused(component, changes, path, expected, fix):
    found = {error.path: error for error in problems(component, **changes)}
    assert path in found
    assert expected in found[path].expected
    assert fix in found[path].fix


ACCEPTED = [
    ("ProducerNetwork", {}),
    ("ProducerNetwork", {"psc_cidrs": []}),
    ("ProducerNetwork", {"proxy_cidr": "10.9.0.0/26", "psc_cidrs": ["10.10.0.0/29", "10.10.0.8/29"]}),
    ("ProducerNetwork", {"pod_cidr": "240.0.0.0/9", "node_cidr": "100.64.0.0/20"}),
    ("ProducerNetwork", {"google_apis": "none"}),
    ("ProducerNetwork", {"existing": {"network": "m"}}),
    ("ProducerNetwork", SHARED),
    ("RdmaNetwork", {"rails": 4, "other_cidrs": ["10.0.0.0/20", "10.4.0.0/14"]}),
    ("RdmaNetwork", DRANET),
    ("RdmaNetwork", {**DRANET, "nccl_installer": True, "rails": 8}),
    ("ClusterAddons", {}),
    ("ClusterAddons", {"keda": None, "custom_metrics": None, "project": None, "project_number": None}),
    ("ModelBucket", {"kms_key": KEY}),
    ("ModelBucket", {"soft_delete_days": 0, "hierarchical_namespace": True}),
]


@pytest.mark.parametrize(("component", "changes"), ACCEPTED, ids=lambda value: str(value)[:50])
def test_accepted(component, changes):
    assert problems(component, **changes) == []


def test_all_that_is_wrong_is_named_at_once():
    changes = {"node_cidr": "x", "proxy_cidr": "10.9.0.0/28", "mtu": 1, "google_apis": "?", "region": "r"}
    paths = {error.path for error in problems("ProducerNetwork", **changes)}
    assert paths == {f"args.{field}" for field in changes}


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"\A[0-9.]{1,15}/[0-9]{1,3}\Z"))
def test_any_text_is_a_range_or_an_error(text):
    errors = list(check_cidr("p", text, "a range"))
    assert len(errors) <= 1
    if not errors:
        assert ipaddress.IPv4Network(text).is_global is False
    overlaps = list(check_apart([("a", text), ("b", text)]))
    assert len(overlaps) == (parsed(text) is not None)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.integers(0, 2**16 - 1), st.integers(16, 24), st.integers(1, 16))
def test_parts_are_equal_apart_and_within(third, prefix, count):
    network = ipaddress.IPv4Network((0x0A000000 + (third << 8), prefix), strict=False)
    found = [ipaddress.IPv4Network(each) for each in parts(str(network), count)]
    assert len(found) == count
    assert {each.prefixlen for each in found} == {prefix + 4}
    assert all(each.subnet_of(network) for each in found)
    assert list(check_apart([(str(each), str(each)) for each in found])) == []
