"""What single components register, with preview off and on."""

import json

import penstock
import pulumi
import pytest

from cli.graph.model import UNKNOWN
from cli.graph.providers import outputs_of
from cli.graph.recorder import record
from cli.graph.wire import is_secret
from tests.support import component_schema
from tests.support.arguments import CALLOUT, VALID, args_of, children, declared, of_kind

RDMA_NAMES = ["gvnic-1", *(f"rdma-{rail}" for rail in range(8))]
INVENTORY = {
    "InferenceGateway": {
        "kubernetes:core/v1:Namespace": ["it-namespace"],
        "kubernetes:gateway.networking.k8s.io/v1:Gateway": ["it-gateway"],
        "kubernetes:networking.gke.io/v1:GCPGatewayPolicy": ["it-policy"],
    },
    "BodyRouter": {
        "kubernetes:core/v1:ServiceAccount": ["it-service-account"],
        "kubernetes:core/v1:ConfigMap": ["it-config"],
        "kubernetes:apps/v1:Deployment": ["it-deployment"],
        "kubernetes:core/v1:Service": ["it-service"],
        "kubernetes:networking.gke.io/v1:HealthCheckPolicy": ["it-health"],
        "kubernetes:networking.gke.io/v1:GCPBackendPolicy": ["it-backend"],
        "kubernetes:policy/v1:PodDisruptionBudget": ["it-budget"],
    },
    "ModelReplicaSet": {
        "kubernetes:core/v1:ServiceAccount": ["it-service-account"],
        "kubernetes:apps/v1:Deployment": ["it-deployment"],
        "kubernetes:policy/v1:PodDisruptionBudget": ["it-budget"],
    },
    "InferencePool": {
        "kubernetes:core/v1:Service": ["it-replicas", "it-picker-service"],
        "kubernetes:core/v1:ServiceAccount": ["it-picker-service-account"],
        "kubernetes:core/v1:ConfigMap": ["it-picker-config"],
        "kubernetes:apps/v1:Deployment": ["it-picker-deployment"],
        "kubernetes:inference.networking.k8s.io/v1:InferencePool": ["it-pool"],
        "kubernetes:networking.gke.io/v1:HealthCheckPolicy": ["it-health"],
        "kubernetes:networking.gke.io/v1:GCPBackendPolicy": ["it-backend"],
    },
    "ModelRoute": {"kubernetes:gateway.networking.k8s.io/v1:HTTPRoute": ["it-route"]},
    "Extensions": {"kubernetes:networking.gke.io/v1:GCPRoutingExtension": ["it-routing"]},
    "Guardrails": {
        "kubernetes:core/v1:ServiceAccount": ["it-service-account"],
        "kubernetes:core/v1:ConfigMap": ["it-config"],
        "kubernetes:apps/v1:Deployment": ["it-deployment"],
        "kubernetes:core/v1:Service": ["it-service"],
        "kubernetes:networking.gke.io/v1:HealthCheckPolicy": ["it-health"],
        "kubernetes:networking.gke.io/v1:GCPBackendPolicy": ["it-backend"],
        "kubernetes:policy/v1:PodDisruptionBudget": ["it-budget"],
    },
    "ApiManagement": {
        "kubernetes:core/v1:PersistentVolumeClaim": ["it-data"],
        "kubernetes:core/v1:ServiceAccount": ["it-service-account"],
        "kubernetes:core/v1:ConfigMap": ["it-config"],
        "kubernetes:apps/v1:Deployment": ["it-deployment"],
        "kubernetes:core/v1:Service": ["it-service"],
        "kubernetes:networking.gke.io/v1:HealthCheckPolicy": ["it-health"],
        "kubernetes:networking.gke.io/v1:GCPBackendPolicy": ["it-backend"],
        "kubernetes:policy/v1:PodDisruptionBudget": ["it-budget"],
    },
    "SecurityBase": {
        "kubernetes:networking.k8s.io/v1:NetworkPolicy": [
            *[f"it-policy-{path}" for path in ("default-deny", "dns", "callouts", "pickers", "replicas")],
            *[f"it-policy-{path}" for path in ("metrics-callouts", "metrics-replicas", "nodes-m1-a")],
        ],
        "gcp:projects/iAMAuditConfig:IAMAuditConfig": [
            f"it-audit-{service}" for service in ("container", "modelarmor", "networkservices", "storage")
        ],
        "gcp:logging/projectBucketConfig:ProjectBucketConfig": ["it-audit-bucket"],
        "gcp:logging/projectSink:ProjectSink": ["it-audit-sink"],
    },
    "ServicePublication": {"gcp:compute/serviceAttachment:ServiceAttachment": ["it-attachment"]},
    "PrivateEndpoint": {
        "gcp:compute/address:Address": ["it-address"],
        "gcp:compute/forwardingRule:ForwardingRule": ["it-rule"],
        "gcp:dns/managedZone:ManagedZone": ["it-zone"],
        "gcp:dns/recordSet:RecordSet": ["it-record"],
    },
    "InferenceCluster": {
        "gcp:serviceaccount/account:Account": ["it-nodes"],
        "gcp:projects/iAMMember:IAMMember": ["it-node-role", "it-pull"],
        "gcp:container/cluster:Cluster": ["it-cluster"],
        "gcp:container/nodePool:NodePool": ["it-cpu"],
        "pulumi:providers:kubernetes": ["it-kubernetes"],
    },
    "AcceleratorPool": {"gcp:container/nodePool:NodePool": ["it-pool"]},
    "ComputeClass": {"kubernetes:cloud.google.com/v1:ComputeClass": ["it-class"]},
    "ProducerNetwork": {
        "gcp:compute/network:Network": ["it-vpc"],
        "gcp:compute/subnetwork:Subnetwork": ["it-nodes", "it-proxies", "it-psc-0"],
        "gcp:compute/router:Router": ["it-router"],
        "gcp:compute/routerNat:RouterNat": ["it-nat"],
        "gcp:compute/firewall:Firewall": ["it-allow-proxies", "it-allow-health-checks"],
        "gcp:dns/managedZone:ManagedZone": ["it-googleapis-com", "it-gcr-io", "it-pkg-dev"],
        "gcp:dns/recordSet:RecordSet": [
            f"it-{zone}-{record}" for zone in ("googleapis-com", "gcr-io", "pkg-dev") for record in ("a", "cname")
        ],
    },
    "RdmaNetwork": {
        "gcp:compute/network:Network": ["it-gvnic-1", "it-rdma"],
        "gcp:compute/firewall:Firewall": ["it-gvnic-1-allow-internal"],
        "gcp:compute/subnetwork:Subnetwork": [f"it-{name}-subnet" for name in RDMA_NAMES],
        "kubernetes:networking.gke.io/v1:GKENetworkParamSet": [f"it-{name}-params" for name in RDMA_NAMES],
        "kubernetes:networking.gke.io/v1:Network": [f"it-{name}-network" for name in RDMA_NAMES],
        "kubernetes:apps/v1:DaemonSet": ["it-nccl"],
    },
    "ClusterAddons": {
        "kubernetes:core/v1:Namespace": ["it-lws-system-namespace", "it-keda-namespace", "it-custom-metrics-namespace"],
        "kubernetes:helm.sh/v3:Release": ["it-lws", "it-keda"],
        "gcp:projects/iAMMember:IAMMember": ["it-keda-viewer", "it-metrics-viewer"],
        "kubernetes:core/v1:ServiceAccount": ["it-metrics-account"],
        "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole": ["it-metrics-reader"],
        "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding": [
            "it-metrics-reader-binding",
            "it-metrics-delegator",
        ],
        "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding": ["it-metrics-auth-reader"],
        "kubernetes:apps/v1:Deployment": ["it-metrics-deployment"],
        "kubernetes:policy/v1:PodDisruptionBudget": ["it-metrics-budget"],
        "kubernetes:core/v1:Service": ["it-metrics-service"],
        "kubernetes:apiregistration.k8s.io/v1:APIService": ["it-metrics-custom-v1beta1", "it-metrics-custom-v1beta2"],
        "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition": [
            "it-inferenceobjectives.inference.networking.x-k8s.io",
            "it-inferencemodelrewrites.inference.networking.x-k8s.io",
        ],
    },
    "ModelBucket": {"gcp:storage/bucket:Bucket": ["it-bucket"]},
}


@pytest.fixture(params=[False, True], ids=["update", "preview"])
def preview(request):
    return request.param


@pytest.mark.parametrize("component", sorted(VALID))
def test_inventory(component, preview):
    """Type, name and parent: changing one replaces the object in every stack, and needs an alias."""
    graph = declared(component, preview=preview)
    own = f"penstock:index:{component}::it"
    assert graph.resources[0].key == own
    found: dict[str, list[str]] = {}
    for resource in children(graph):
        assert resource.parent == own
        found.setdefault(resource.type, []).append(resource.name)
    assert found == INVENTORY[component]


def test_every_component_is_in_the_inventory():
    assert {cls.__name__ for cls in component_schema.components()} == set(INVENTORY)


@pytest.mark.parametrize("component", sorted(VALID))
def test_preview_declares_what_the_update_declares(component):
    """Values that only an update knows are unknown in a preview; nothing else differs."""
    update, preview = declared(component), declared(component, preview=True)
    assert [resource.key for resource in update.resources] == [resource.key for resource in preview.resources]
    for done, planned in zip(update.resources, preview.resources, strict=True):
        known = {key: value for key, value in planned.inputs.items() if UNKNOWN not in (value, _inside(value))}
        assert done.inputs.keys() == planned.inputs.keys()
        assert known == {key: done.inputs[key] for key in known}


def _inside(value):
    return value["value"] if is_secret(value) else value


def test_a_namespace_that_exists_is_not_declared(preview):
    graph = declared("InferenceGateway", preview=preview, create_namespace=False)
    assert "Namespace" not in {manifest["kind"] for manifest in graph.manifests()}


def test_traffic_extension_appears_with_the_first_callout(preview):
    graph = declared("Extensions", preview=preview, callouts=[CALLOUT])
    assert of_kind(graph, "GCPTrafficExtension")["metadata"]["name"] == "gw-traffic"


def test_objectives_become_objects_only_when_an_api_is_named(preview):
    objectives = [{"name": "batch", "priority": -1}]
    graph = declared("InferencePool", preview=preview, objectives=objectives)
    assert "InferenceObjective" not in {manifest["kind"] for manifest in graph.manifests()}
    graph = declared("InferencePool", preview=preview, objectives=objectives, objective_api="gaie-1.5")
    assert of_kind(graph, "InferenceObjective")["spec"]["priority"] == -1


def test_an_unknown_image_stays_unknown_and_secret_values_stay_secret():
    """Values may come from outputs; the objects are declared all the same, and what is secret stays so."""

    class Builder(pulumi.CustomResource):
        image: pulumi.Output[str]

        def __init__(self) -> None:
            super().__init__("test:index:Builder", "builder", {"image": None})

    def program() -> None:
        penstock.ModelReplicaSet("it", args_of("ModelReplicaSet", image=Builder().image))
        address = pulumi.Output.secret("reserved")
        penstock.InferenceGateway("gw", args_of("InferenceGateway", address_name=address))

    graph = record(program, "test", preview=True)
    assert of_kind(graph, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"] == UNKNOWN
    deployment = next(resource for resource in graph.resources if resource.name == "it-deployment")
    assert "test:index:Builder::builder" in deployment.dependencies
    gateway = next(resource for resource in graph.resources if resource.name == "gw-gateway")
    assert is_secret(gateway.inputs["spec"]) or "1b47061264138c4ac30d75fd1eb44270" in json.dumps(gateway.inputs["spec"])


def test_outputs_name_the_objects(preview):
    def program() -> None:
        pulumi.export("gateway", penstock.InferenceGateway("gw", args_of("InferenceGateway")).listener)
        pulumi.export("router", penstock.BodyRouter("router", args_of("BodyRouter")).service_port)
        pulumi.export("set", penstock.ModelReplicaSet("set", args_of("ModelReplicaSet")).replica_set_name)
        pulumi.export("pool", penstock.InferencePool("pool", args_of("InferencePool")).pool_name)
        pulumi.export("route", penstock.ModelRoute("route", args_of("ModelRoute", model="m.1")).route_name)
        pulumi.export("ext", penstock.Extensions("ext", args_of("Extensions")).routing_extension)

    assert record(program, "test", preview=preview).outputs == {
        "gateway": "https",
        "router": 9004,
        "set": "m1-a",
        "pool": "m1-a",
        "route": "m-1",
        "ext": "gw-routing",
    }


def test_children_inherit_the_provider_of_their_component():
    import pulumi_kubernetes as k8s

    def program() -> None:
        provider = k8s.Provider("cluster", context="c")
        penstock.ModelRoute("it", args_of("ModelRoute"), pulumi.ResourceOptions(providers=[provider]))

    route = next(item for item in record(program, "test").resources if item.name == "it-route")
    assert "cluster" in json.dumps(dict(route.options))


@pytest.mark.parametrize("component", sorted(VALID))
def test_components_can_be_made_by_the_component_host(component):
    """As from another language: camelCase names, whole numbers as floats, fields that are None."""
    provider = component_schema.provider()

    def program() -> None:
        provider.construct("it", f"penstock:index:{component}", _wire(args_of(component)))

    found, expected = record(program, "test", outputs=outputs_of()).resources, declared(component).resources
    assert [resource.key for resource in found] == [resource.key for resource in expected]
    assert [dict(resource.inputs) for resource in found] == [dict(resource.inputs) for resource in expected]


def _wire(value):
    if isinstance(value, dict):
        return {_camel(key): _wire(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_wire(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _camel(name):
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def test_a_changed_configuration_leaves_the_pods_alone_since_callouts_reload_it():
    def declares(kind, component, **changes):
        return of_kind(declared(component, **changes), kind)

    for component, changes in (
        ("BodyRouter", {"max_body_bytes": 4096}),
        ("InferencePool", {"objectives": [{"name": "batch", "priority": -2}]}),
    ):
        before = {"objectives": [{"name": "batch", "priority": -1}]} if component == "InferencePool" else {}
        assert declares("ConfigMap", component, **before) != declares("ConfigMap", component, **changes)
        assert declares("Deployment", component, **before) == declares("Deployment", component, **changes)


def test_a_monitored_callout_has_its_metrics_read(preview):
    graph = declared("BodyRouter", preview=preview, monitoring=True)
    spec = of_kind(graph, "PodMonitoring")["spec"]
    pod = of_kind(graph, "Deployment")["spec"]["template"]
    assert spec["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert [endpoint["port"] for endpoint in spec["endpoints"]] == ["metrics"]
    assert "metrics" in [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
    unwatched = declared("BodyRouter", preview=preview)
    assert not any(manifest["kind"] == "PodMonitoring" for manifest in unwatched.manifests())
