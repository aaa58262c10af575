"""What is declared but has no effect is named, whatever it is."""

from collections.abc import Callable

from cli.graph.model import Resource
from cli.local.coverage import unrealized
from cli.local.model import Plan
from cli.local.objects import Objects
from tests.support.local_manifests import callout, declaration, deployment, gateway, graph, manifest, route


def named(*more: dict[str, object]) -> dict[str, tuple[str, ...]]:
    declared = graph(declaration(route(), *more))
    return {item.what: item.objects for item in unrealized(declared, Objects.of_graph(declared))}


def test_a_plain_declaration_leaves_nothing_out() -> None:
    assert named(*callout("guard")) == {}


def test_kinds_and_fields_are_named_with_their_objects() -> None:
    container = {
        "command": ["python", "-m", "services.x"],
        "ports": [{"containerPort": 1}],
        "resources": {"limits": {"nvidia.com/gpu": 1}},
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    }
    found = named(
        manifest("PodDisruptionBudget", "p", "policy/v1", spec={}),
        manifest("Strange", "s", "example.com/v1", spec={}),
        deployment("x", "callout", container, nodeSelector={"gpu": "yes"}, futureField={"a": 1}),
    )
    assert found == {
        "PodDisruptionBudget": ("p",),
        "Strange": ("s",),
        "Deployment spec.template.spec.containers[].resources": ("x",),
        "Deployment spec.template.spec.containers[].env[].valueFrom.secretKeyRef": ("x",),
        "Deployment spec.template.spec.nodeSelector": ("x",),
        "Deployment spec.template.spec.futureField": ("x",),
    }


def test_a_second_container_is_named() -> None:
    item = deployment("x", "callout", {"command": ["python", "-m", "services.x"]})
    item["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "i"})
    assert "Deployment spec.template.spec.containers[sidecar]" in named(item)


def test_a_redirect_that_leads_nowhere_is_named() -> None:
    redirect = [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}]
    assert named(route("up", filters=redirect, backendRefs=[])) == {"HTTPRoute redirect to https": ("up",)}


def test_an_https_listener_and_other_resources_are_named(plan_of: Callable[..., Plan]) -> None:
    declared = graph(
        [gateway(protocol="HTTPS", tls={"mode": "Terminate"})],
        Resource("gcp:compute/network:Network", "vpc", None, True, {}),
    )
    found = {item.what: item.reason for item in unrealized(declared, Objects.of_graph(declared))}
    assert found == {
        "gcp:compute/network:Network": "only Kubernetes objects are realized",
        "Gateway spec.listeners[].tls": "the listener is served in clear text on 127.0.0.1",
        "Gateway HTTPS listener": "served in clear text on 127.0.0.1",
    }
