"""Every environment as a whole: what the provider would refuse, and what the architecture promises."""

import json
import subprocess
import sys

import pytest
import yaml
from penstock import ConfigErrors

from cli.graph import gcp_types
from cli.graph.model import UNKNOWN, Graph
from cli.graph.project import environments, load_project
from cli.graph.providers import Answers
from cli.graph.recorder import record
from infra import program
from tests.support import golden
from tests.support.recordings import recorded

pytestmark = pytest.mark.xdist_group("recordings")

ALL = environments(golden.ROOT)
TWO_STACKS = ["dev", "prod", "staging"]


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    return {name: recorded(name) for name in ALL}


def test_the_environments_are_those_of_the_documentation() -> None:
    assert ALL == ["dev", "local", "prod", "staging"]
    text = (golden.ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
    assert all(f"## `{name}`" in text for name in ALL)


@pytest.mark.parametrize("preview", [False, True], ids=["update", "preview"])
@pytest.mark.parametrize("environment", ALL)
def test_the_provider_takes_every_google_cloud_resource(environment: str, preview: bool) -> None:
    graph = recorded(environment, preview=preview)
    found = {verdict.resource.key: (verdict.status, verdict.errors) for verdict in gcp_types.judge(graph)}
    assert found == dict.fromkeys(found, ("ok", ()))
    assert bool(found) == (environment != "local")


@pytest.mark.parametrize("environment", TWO_STACKS)
def test_a_preview_of_the_gateway_stack_knows_the_platform(environment: str) -> None:
    """Its provider and networks come from a stack that was updated before: nothing of them is unknown."""
    graph = recorded(environment, preview=True)
    for item in graph.resources:
        if item.part == "gateway" and item.type == "pulumi:providers:kubernetes":
            assert UNKNOWN not in json.dumps(dict(item.inputs))
            return
    pytest.fail("no provider")


@pytest.mark.parametrize("environment", TWO_STACKS)
def test_objects_of_kubernetes_never_use_an_ambient_cluster(environment: str, graphs: dict[str, Graph]) -> None:
    for item in graphs[environment].resources:
        if item.type.startswith("kubernetes:"):
            wanted = "cluster-kubernetes" if item.part == "platform" else "kubernetes"
            assert item.options["provider"] == f"pulumi:providers:kubernetes::{wanted}", item.key


def test_what_holds_data_is_protected_in_prod(graphs: dict[str, Graph]) -> None:
    found = {item.type: item for item in graphs["prod"].resources}
    assert found["gcp:storage/bucket:Bucket"].options["protect"]
    assert found["gcp:container/cluster:Cluster"].inputs["deletionProtection"]


def test_prod_is_the_reference_architecture(graphs: dict[str, Graph]) -> None:
    resources = graphs["prod"].resources
    of = {item.name: item.inputs for item in resources}
    count = {type_: sum(item.type == type_ for item in resources) for type_ in {item.type for item in resources}}

    weights = {ref["name"]: ref["weight"] for ref in of["llama-3-1-405b-route"]["spec"]["rules"][0]["backendRefs"]}
    assert weights == {"llama-3-1-405b-a": 90, "llama-3-1-405b-b": 10}
    assert of["llama-3-1-405b-a-leader-worker-set"]["spec"]["leaderWorkerTemplate"]["size"] == 2
    chain = of["extensions-traffic"]["spec"]["extensionChains"][0]["extensions"]
    assert [entry["name"] for entry in chain] == ["api-management", "guardrails", "model-armor"]
    assert count["gcp:compute/forwardingRule:ForwardingRule"] == 2
    rules = [item.inputs for item in resources if item.type == "gcp:compute/forwardingRule:ForwardingRule"]
    assert {rule["project"] for rule in rules} == {"example-clients-a", "example-clients-b"}
    assert {rule["target"] for rule in rules} == {
        "projects/example-inference-prod/regions/us-central1/serviceAttachments/penstock-prod-attachment"
    }
    assert count["kubernetes:keda.sh/v1alpha1:ScaledObject"] == 2
    assert count["kubernetes:networking.gke.io/v1:Network"] == 9  # a second gVNIC and eight rails
    assert count["gcp:compute/regionSecurityPolicy:RegionSecurityPolicy"] == 1


def test_the_attachment_publishes_the_listener_with_tls(graphs: dict[str, Graph]) -> None:
    (attachment,) = [item for item in graphs["prod"].resources if item.name == "publication-attachment"]
    assert attachment.inputs["targetService"].endswith("-https")
    assert any("Gateway::gateway-gateway" in key for key in attachment.dependencies)


@pytest.mark.parametrize("preview", [False, True], ids=["update", "preview"])
@pytest.mark.parametrize("environment", TWO_STACKS)
def test_two_stacks_declare_what_one_stack_does(environment: str, preview: bool, graphs: dict[str, Graph]) -> None:
    project, answers = load_project(environment, golden.ROOT), Answers()
    config = {**project.config, "penstock:stacks": "one"}
    one = record(
        program.main,
        environment,
        config=config,
        preview=preview,
        functions=answers.functions,
        outputs=answers.outputs,
    )
    between = {"pulumi:pulumi:StackReference::platform", "pulumi:providers:kubernetes::kubernetes"}
    assert {item.key for item in one.resources} == {item.key for item in graphs[environment].resources} - between


def test_another_stack_than_the_two_is_refused() -> None:
    config = load_project("dev", golden.ROOT).config
    for stack in ("dev", "dev-platfrom", "-gateway"):
        with pytest.raises(ConfigErrors, match="a stack called `<env>-platform` or `<env>-gateway`"):
            record(program.main, stack, config=config)


def test_example_digests_and_missing_services_are_named(graphs: dict[str, Graph]) -> None:
    assert any("the digest of" in note for note in graphs["prod"].notes)
    assert any("services.guardrails" in note for note in graphs["dev"].notes)
    assert graphs["local"].notes == ()


def test_no_environment_names_what_could_be_real() -> None:
    for name in ALL:
        config = yaml.safe_load((golden.ROOT / f"Pulumi.{name}.yaml").read_text(encoding="utf-8"))["config"]
        assert config.get("penstock:project", "example-").startswith("example-")


def test_importing_the_components_imports_none_of_the_providers_modules() -> None:
    """They take a second: what declares nothing in Google Cloud shall not wait for them."""
    script = "import sys, penstock; print([name for name in sys.modules if name.startswith('pulumi_gcp.compute.')])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


SERVICES = {"projects": "cloudresourcemanager", "serviceaccount": "iam"}


@pytest.mark.parametrize("environment", TWO_STACKS)
def test_the_apis_of_every_resource_are_documented(environment: str, graphs: dict[str, Graph]) -> None:
    text = (golden.ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
    table = text.partition("| environment | APIs |")[2].partition("\n\n")[0]
    rows = {line.split("`")[1]: line for line in table.splitlines() if "`" in line}
    named = rows["dev"] + rows[environment]
    modules = {item.type.split(":")[1].split("/")[0] for item in graphs[environment].resources if "gcp:" in item.type}
    assert [name for name in sorted(modules) if f"`{SERVICES.get(name, name)}`" not in named] == []
