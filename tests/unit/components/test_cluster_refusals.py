"""What `InferenceCluster` refuses: path, value, what was expected, and the fix."""

import pytest

from tests.support.arguments import problems

NETWORK = {"cidr": "203.0.113.0/24"}
WINDOW = {"start": "2026-01-03T01:00:00Z", "end": "2026-01-03T13:00:00Z", "recurrence": "FREQ=WEEKLY;BYDAY=SA,SU"}
REPOSITORY = {"location": "us-central1", "name": "images"}

REFUSED = [
    # changes, path, value, words of what was expected, words of the fix
    ({"name": "Llm"}, "name", "Llm", "RFC 1035", "Rename"),
    ({"name": "l" * 25}, "name", "l" * 25, "24 characters", "by 1 characters"),
    ({"project": "Producer"}, "project", "Producer", "project id", "id"),
    ({"region": "us-central1-a", "zones": None}, "region", "us-central1-a", "a region", "`us-central1`"),
    ({"zones": []}, "zones", [], "one zone", "remove the field"),
    ({"zones": ["us-east1-b"]}, "zones[0]", "us-east1-b", "zone of us-central1", "`us-central1-a`"),
    ({"zones": ["us-central1-a"] * 2}, "zones[1]", "us-central1-a", "once", "Remove"),
    ({"labels": {"part-of": "x"}}, "labels.part-of", "x", "your own", "Remove"),
    ({"labels": {"Team": "x"}}, "labels.Team", "x", "lower-case", "Rename"),
    ({"labels": {"team": "a b"}}, "labels.team", "a b", "lower-case", "Rename"),
    ({"min_version": "1.35"}, "min_version", "1.35", "whole GKE version", "get-server-config"),
    (
        {"min_version": "1.34.0-gke.1", "features": ["dranet"]},
        "min_version",
        "1.34.0-gke.1",
        "feature `dranet`",
        "1.34.1-gke.1829001",
    ),
    (
        {"min_version": "1.32.0-gke.1", "accelerators": ["b200"]},
        "min_version",
        "1.32.0-gke.1",
        "accelerator `b200`",
        "1.32.2-gke.1422000",
    ),
    ({"features": ["drannet"]}, "features[0]", "drannet", "known feature", "`dranet`"),
    ({"accelerators": ["h200"]}, "accelerators[0]", "h200", "catalogue", "h200-ultra"),
    ({"release_channel": "regular"}, "release_channel", "regular", "release channel", "RE"),
    ({"features": ["autoscaling-metric"]}, "release_channel", "REGULAR", "`autoscaling-metric`", "RAPID"),
    (
        {"features": ["fqdn-policy"], "fqdn_network_policy": False},
        "fqdn_network_policy",
        False,
        "`fqdn-policy`",
        "Turn it on",
    ),
    ({"authorized_networks": [NETWORK]}, "authorized_networks", 1, "IP endpoint", "`ip_endpoint`"),
    ({"ip_endpoint": True}, "ip_endpoint", True, "`authorized_networks`", "DNS endpoint"),
    (
        {"ip_endpoint": True, "authorized_networks": [{"cidr": "203.0.113.1/24"}]},
        "authorized_networks[0].cidr",
        "203.0.113.1/24",
        "host bits",
        "203.0.113.0/24",
    ),
    (
        {"ip_endpoint": True, "authorized_networks": [{"cidr": "0.0.0.0/0"}]},
        "authorized_networks[0].cidr",
        "0.0.0.0/0",
        "all of the internet",
        "ranges",
    ),
    ({"monitoring_components": ["DCGM"]}, "monitoring_components", ["DCGM"], "SYSTEM_COMPONENTS", "Add"),
    (
        {"monitoring_components": ["SYSTEM_COMPONENTS", "DCMG"]},
        "monitoring_components[1]",
        "DCMG",
        "component",
        "`DCGM`",
    ),
    ({"logging_components": ["SYSTEM_COMPONENTS", "DCGM"]}, "logging_components[1]", "DCGM", "component", "WORKLOADS"),
    (
        {"maintenance_window": {**WINDOW, "start": "01:00"}},
        "maintenance_window.start",
        "01:00",
        "RFC 3339",
        "2026-01-03T01:00:00Z",
    ),
    (
        {"maintenance_window": {**WINDOW, "recurrence": "weekly"}},
        "maintenance_window.recurrence",
        "weekly",
        "RFC 5545",
        "FREQ=",
    ),
    ({"cpu_pool": {"min_nodes": 0}}, "cpu_pool.min_nodes", 0, "from 1", "at least 1"),
    ({"cpu_pool": {"max_nodes": 1001}}, "cpu_pool.max_nodes", 1001, "1000", "at most 1000"),
    ({"cpu_pool": {"min_nodes": 4, "max_nodes": 3}}, "cpu_pool.min_nodes", 4, "`max_nodes`, 3", "raise"),
    ({"cpu_pool": {"disk_gib": 10}}, "cpu_pool.disk_gib", 10, "GiB", "at least 20"),
    ({"cpu_pool": {"machine_type": "big"}}, "cpu_pool.machine_type", "big", "machine type", "`n2-standard-8`"),
    (
        {"cpu_pool": {"machine_type": "a3-highgpu-8g"}},
        "cpu_pool.machine_type",
        "a3-highgpu-8g",
        "without accelerators",
        "AcceleratorPool",
    ),
    ({"repositories": [REPOSITORY, REPOSITORY]}, "repositories[1]", REPOSITORY, "once", "Remove"),
]


@pytest.mark.parametrize(("changes", "path", "value", "expected", "fix"), REFUSED, ids=lambda item: str(item)[:50])
def test_refused(changes, path, value, expected, fix):
    (error,) = problems("InferenceCluster", **changes)
    assert (error.path, error.value) == (f"args.{path}", value)
    assert expected in error.expected
    assert fix in error.fix
    assert not error.fix.endswith(".")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"zones": None},
        {"name": "l" * 24},
        {
            "features": ["gateway-api-1.5", "inference-pool", "dranet", "apigee", "fqdn-policy"],
            "accelerators": ["b200"],
        },
        {"features": ["autoscaling-metric"], "release_channel": "RAPID"},
        {"ip_endpoint": True, "authorized_networks": [NETWORK, {"cidr": "198.51.100.7/32", "name": "office"}]},
        {"maintenance_window": WINDOW, "labels": {"team": "llm", "cost-center": ""}},
        {"repositories": [REPOSITORY, {**REPOSITORY, "location": "us"}]},
        {"logging_components": ["SYSTEM_COMPONENTS", "APISERVER"], "monitoring_components": []},
    ],
    ids=lambda item: str(item)[:60],
)
def test_accepted(changes):
    assert [str(error) for error in problems("InferenceCluster", **changes)] == []


def test_everything_wrong_is_named_at_once():
    found = problems("InferenceCluster", name="L", min_version="new", ip_endpoint=True)
    assert [error.path for error in found] == ["args.name", "args.min_version", "args.ip_endpoint"]
