"""Networks between nodes against what is known to go wrong on GKE."""

import pytest
from penstock.manifests import rdma

from tests.support.arguments import VALID, declared, problems

DRANET = {"mode": "dranet", "project": None, "region": None, "zone": None, "rails": None, "namespaces": ["inference"]}


def test_trap_12_networks_of_ours_and_managed_ones_exclude_each_other():
    """In mode `dranet` no network exists that a node pool could be attached to; in mode `roce` no claim template."""
    dranet, roce = declared("RdmaNetwork", **DRANET), declared("RdmaNetwork")
    assert {item.type for item in dranet.resources if item.custom} == {
        "kubernetes:resource.k8s.io/v1:ResourceClaimTemplate"
    }
    assert dranet.resources[0].outputs["nodeNetworks"] == []
    assert "ResourceClaimTemplate" not in {each["kind"] for each in roce.manifests()}
    assert len(roce.resources[0].outputs["nodeNetworks"]) == 9


@pytest.mark.parametrize("field", ["zone", "cidr", "other_cidrs"])
def test_trap_12_a_mixture_is_refused(field):
    value = {"cidr": "192.168.0.0/16", "other_cidrs": ["10.0.0.0/20"]}.get(field, VALID["RdmaNetwork"].get(field))
    (error,) = problems("RdmaNetwork", **DRANET | {field: value})
    assert error.path == f"args.{field}"
    assert "manages" in error.expected
    (error,) = problems("RdmaNetwork", namespaces=["inference"])
    assert error.path == "args.namespaces"


def test_trap_12_pods_ask_for_networks_in_one_way_only():
    roce, dranet = rdma.pod_rdma("roce", 8), rdma.pod_rdma("dranet", 8)
    assert roce["annotations"]
    assert not roce["resourceClaims"]
    assert not roce["container"]["resources"]
    assert not dranet["annotations"]
    assert dranet["resourceClaims"]


def test_no_firewall_rule_stands_in_a_roce_network():
    graph = declared("RdmaNetwork")
    rules = [item for item in graph.resources if item.type == "gcp:compute/firewall:Firewall"]
    assert rules
    assert not [rule.name for rule in rules if rule.inputs["network"].endswith("-rdma")]
