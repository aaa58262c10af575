"""An environment of two stacks becomes one graph; what providers answer offline."""

import json
import subprocess
from pathlib import Path

import pulumi
import pulumi_gcp as gcp
import pulumi_kubernetes as k8s
import pytest

from cli.graph.monitor import UnansweredFunction
from cli.graph.providers import FORWARDING_RULES, outputs_of
from cli.graph.recorder import record
from tests.support.command import penstock

PROGRAM = """
import pulumi
import pulumi_gcp as gcp
from pulumi_kubernetes.core.v1 import ConfigMap

def stacks(environment, config):
    return {"platform": f"{environment}-platform", "gateway": f"{environment}-gateway"}

def main():
    if pulumi.get_stack().endswith("-platform"):
        network = gcp.compute.Network("network", name="n", project="p", auto_create_subnetworks=False)
        pulumi.export("network", network.self_link)
        pulumi.export("kubeconfig", pulumi.Output.secret("hush"))
        return
    before = pulumi.StackReference("platform", f"organization/penstock/{pulumi.get_stack()[:-8]}-platform")
    ConfigMap("map", metadata={"name": "m"}, data={"network": before.require_output("network")})
    if pulumi.Config().get_bool("clash"):
        gcp.compute.Network("network", name="n", project="p")
    if pulumi.Config().get_bool("misspelt"):
        gcp.compute.Subnetwork("subnet", name="s", project="p", network="n", log_config={"flowSamplng": 1})
    pulumi.export("kube", before.require_output("kubeconfig"))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    (root / "infra").mkdir()
    (root / "infra" / "__init__.py").touch()
    (root / "infra" / "program.py").write_text(PROGRAM)
    (root / "Pulumi.yaml").write_text("name: penstock\nruntime: python\nmain: infra/\n")
    (root / "Pulumi.good.yaml").write_text("config: {}\n")
    (root / "Pulumi.clash.yaml").write_text("config: {penstock:clash: true}\n")
    (root / "Pulumi.misspelt.yaml").write_text("config: {penstock:misspelt: true}\n")
    return root


def preview(root: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    return penstock("preview", "--root", str(root), *args)


@pytest.mark.parametrize("mode", ["--preview", "--no-preview"])
def test_parts_join_and_a_stack_reads_what_the_one_before_left(project: Path, mode: str) -> None:
    result = preview(project, "--env", "good", "--json", mode)
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    found = {resource["name"]: resource for resource in document["resources"]}
    assert [(name, resource["part"]) for name, resource in found.items()] == [
        ("network", "platform"),
        ("platform", "gateway"),
        ("map", "gateway"),
    ]
    link = "https://www.googleapis.com/compute/v1/projects/p/global/networks/n"
    assert found["map"]["inputs"]["data"] == {"network": link}
    assert document["outputs"]["kube"] == "[secret]"
    assert "hush" not in result.stdout


def test_each_part_has_its_own_tree(project: Path) -> None:
    lines = preview(project, "--env", "good").stdout.splitlines()
    assert "good-platform: 1 resource" in lines
    assert "good-gateway: 2 resources" in lines
    assert "Google Cloud resources against the provider's arguments: 1 ok" in lines


def test_parts_may_not_share_a_name(project: Path) -> None:
    result = preview(project, "--env", "clash")
    assert result.returncode == 2
    assert "two resources of type `gcp:compute/network:Network` are named `network`" in result.stderr


def test_a_misspelt_argument_fails_the_preview(project: Path) -> None:
    result = preview(project, "--env", "misspelt")
    assert result.returncode == 1
    assert "  invalid    gcp:compute/subnetwork:Subnetwork  subnet" in result.stdout
    assert "logConfig.flowSamplng: got 1" in result.stdout


def exported(program, *, preview=False):
    return record(program, "test", preview=preview, outputs=outputs_of()).outputs


def test_links_and_addresses_are_made_from_names():
    def program() -> None:
        cluster = gcp.container.Cluster("c", name="main", location="r", project="p")
        account = gcp.serviceaccount.Account("a", account_id="nodes", project="p")
        address = gcp.compute.Address("i", name="vip", region="r", project="p")
        pulumi.export("cluster", cluster.id)
        pulumi.export("dns", cluster.control_plane_endpoints_config.dns_endpoint_config.endpoint)
        pulumi.export("email", account.email)
        pulumi.export("address", address.address)
        pulumi.export("link", address.self_link)

    found = exported(program)
    assert found["cluster"] == "projects/p/locations/r/clusters/main"
    assert found["email"] == "nodes@p.iam.gserviceaccount.com"
    assert found["link"].endswith("/projects/p/regions/r/addresses/vip")
    assert found["address"].startswith("192.0.2.")
    assert found["dns"].endswith(".r.gke.goog")


def test_a_gateway_names_a_forwarding_rule_for_each_listener():
    def program() -> None:
        listeners = [{"name": "https", "port": 443}, {"name": "http", "port": 80}]
        made = k8s.apiextensions.CustomResource(
            "g",
            api_version="gateway.networking.k8s.io/v1",
            kind="Gateway",
            metadata={"name": "g", "annotations": {"a": "b"}},
            spec={"gatewayClassName": "x", "listeners": listeners},
        )
        pulumi.export("metadata", made.metadata)  # type: ignore[attr-defined]

    annotations = exported(program)["metadata"]["annotations"]
    assert annotations["a"] == "b"
    assert [rule.rpartition("-")[2] for rule in annotations[FORWARDING_RULES].split(",")] == ["https", "http"]
    assert FORWARDING_RULES not in exported(program, preview=True)["metadata"]["annotations"]


def test_a_provider_function_without_an_answer_is_named():
    with pytest.raises(UnansweredFunction, match="gcp:compute/getZones"):
        exported(lambda: pulumi.export("zones", gcp.compute.get_zones_output(project="p").names))
