"""The stand-in for `gcp` refuses what it is there to refuse; otherwise deployments by it would show nothing."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.engine.cloud import Cloud
from tests.support.engine.gcp import Gcp
from tests.support.engine.provider import Refused, paths_that_differ

NETWORK = "gcp:compute/network:Network"
SUBNETWORK = "gcp:compute/subnetwork:Subnetwork"
CLUSTER = "gcp:container/cluster:Cluster"
MEMBER = "gcp:projects/iAMMember:IAMMember"
P = {"project": "p"}
LINK = "https://www.googleapis.com/compute/v1/projects/p/global/networks/n"
NODES: dict[str, Any] = {**P, "name": "s", "region": "r", "ipCidrRange": "10.0.0.0/24", "network": LINK}


@pytest.fixture
def gcp(tmp_path: Path) -> Gcp:
    return Gcp(Cloud(tmp_path))


def create(gcp: Gcp, type_: str, inputs: dict[str, Any]) -> str:
    return gcp.create(type_, "x", "urn", inputs, False)[0]


@pytest.mark.parametrize(
    ("type_", "inputs", "reason"),
    [
        (NETWORK, {**P, "autoCreateSubnetwork": False}, "autoCreateSubnetwork"),
        (SUBNETWORK, {**P, "name": "s", "region": "r"}, "network"),
        (NETWORK, {"name": "n"}, "project"),
        ("gcp:compute/nothing:Nothing", P, "no resource type"),
    ],
)
def test_wrong_inputs_are_refused(gcp: Gcp, type_: str, inputs: dict[str, Any], reason: str) -> None:
    _, failures = gcp.check(type_, "x", {}, inputs, b"seed")
    assert any(reason in failure for failure in failures)


def test_a_resource_without_a_name_gets_one_and_keeps_it(gcp: Gcp) -> None:
    first, _ = gcp.check(NETWORK, "vpc", {}, P, b"one")
    again, _ = gcp.check(NETWORK, "vpc", first, P, b"two")
    assert first["name"].startswith("vpc-")
    assert again["name"] == first["name"]


def test_references_are_needed_and_hold(gcp: Gcp) -> None:
    with pytest.raises(Refused, match="networks/n` was not found"):
        create(gcp, SUBNETWORK, NODES)
    network = create(gcp, NETWORK, {**P, "name": "n"})
    with pytest.raises(Refused, match="already exists"):
        create(gcp, NETWORK, {**P, "name": "n"})
    subnetwork = create(gcp, SUBNETWORK, NODES)
    with pytest.raises(Refused, match="already being used"):
        gcp.delete(NETWORK, "urn", network, {})
    gcp.delete(SUBNETWORK, "urn", subnetwork, {})
    gcp.delete(NETWORK, "urn", network, {})


def test_a_member_of_an_identity_pool_needs_a_cluster_that_made_it(gcp: Gcp) -> None:
    pool = "projects/1/locations/global/workloadIdentityPools/p.svc.id.goog/subject/ns/a/sa/b"
    grant = {**P, "role": "roles/viewer", "member": f"principal://iam.googleapis.com/{pool}"}
    with pytest.raises(Refused, match="Identity Pool does not exist"):
        create(gcp, MEMBER, grant)
    identity = {"workloadIdentityConfig": {"workloadPool": "p.svc.id.goog"}}
    cluster = create(gcp, CLUSTER, {**P, "name": "c", "location": "r", **identity})
    create(gcp, MEMBER, grant)
    with pytest.raises(Refused, match="deletion_protection"):
        gcp.delete(CLUSTER, "urn", cluster, {})


@pytest.mark.parametrize(
    ("old", "new", "replaces", "delete_first"),
    [
        ({"name": "s", "network": "a"}, {"name": "s", "network": "b"}, {"network"}, True),
        ({"name": "s", "network": "a"}, {"name": "t", "network": "a"}, {"name"}, False),
        ({"name": "s", "role": "A"}, {"name": "s", "role": "B"}, set(), False),
    ],
)
def test_replacement_follows_the_table(
    gcp: Gcp, old: dict[str, Any], new: dict[str, Any], replaces: set[str], delete_first: bool
) -> None:
    changes = gcp.diff(SUBNETWORK, old, new)
    assert (changes.replaces, changes.delete_first) == (replaces, delete_first)


def test_differences_are_told_by_their_deepest_path() -> None:
    old = {"a": [{"b": 1}, 2], "c": {"x/y": 1}, "__defaults": []}
    new = {"a": [{"b": 2}], "c": {"x/y": 2, "z": 1}}
    told = {"a[0].b": "update", "a[1]": "delete", 'c["x/y"]': "update", "c.z": "add"}
    assert paths_that_differ(old, new) == told
