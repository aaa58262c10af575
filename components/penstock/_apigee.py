"""Declares Apigee: organization, environment, runtime, operator, its objects, and the bridge between two networks."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_gcp as gcp
import pulumi_kubernetes as k8s

from ._apply import apply, child_options
from ._compute import relative
from ._identity import workload_pool
from .endpoint import PrivateEndpoint
from .manifests import apigee as manifests

if TYPE_CHECKING:
    from .api_management import ApiManagementArgs
    from .apigee_settings import ApigeeBridge, ApigeeInstance

Made = list[pulumi.Resource]


def declare(name: str, args: "ApiManagementArgs", parent: pulumi.Resource) -> pulumi.Output[str]:
    """Register everything that the settings ask for.

    Returns:
        The URI of the instance's service attachment, empty where the instance is not named.
    """
    environment = _environment(name, args, parent, _organization(name, args, parent))
    attachment, runtime = _instance(name, args, parent, environment)
    if manifests.in_chain(args):
        _objects(name, args, parent, [*environment, *runtime, *_operator(name, args, parent)])
    bridge = args["apigee"].get("bridge")
    if bridge is not None:
        _bridge(name, args, bridge, parent, environment, attachment)
    return attachment


def organization_id(args: "ApiManagementArgs") -> str:
    """Return `organizations/<name>`, from plain values."""
    return f"organizations/{args['apigee'].get('organization', {}).get('name', args['project'])}"


def _organization(name: str, args: "ApiManagementArgs", parent: pulumi.Resource) -> Made:
    wanted = args["apigee"].get("organization", {})
    if not wanted.get("create", False):
        return []
    # An organization that is deleted takes its history along and blocks its name: never by accident.
    protected = pulumi.ResourceOptions.merge(child_options(parent), pulumi.ResourceOptions(protect=True))
    made = gcp.apigee.Organization(
        f"{name}-organization",
        project_id=args["project"],
        analytics_region=wanted["analytics_region"],
        billing_type=wanted.get("billing_type", manifests.BILLING_TYPES[0]),
        runtime_type=wanted.get("runtime_type", manifests.RUNTIME_TYPES[0]),
        disable_vpc_peering=wanted.get("disable_vpc_peering", True),
        retention=wanted.get("retention"),
        opts=protected,
    )
    return [made]


def _environment(name: str, args: "ApiManagementArgs", parent: pulumi.Resource, after: Made) -> Made:
    settings, organization = args["apigee"], organization_id(args)
    environment, group = settings["environment"], settings.get("environment_group")
    made: Made = list(after)
    if environment.get("create", True):
        extension: Any = {"properties": [{"name": manifests.EXTENSION_PROPERTY, "value": "true"}]}
        resource = gcp.apigee.Environment(
            f"{name}-environment",
            org_id=organization,
            name=environment["name"],
            type=environment.get("type", manifests.ENVIRONMENT_TYPES[0]),
            properties=extension,
            opts=child_options(parent, after),
        )
        made.append(resource)
    if group is None:
        return made
    if group.get("create", True):
        resource_group = gcp.apigee.EnvGroup(
            f"{name}-environment-group",
            org_id=organization,
            name=group["name"],
            hostnames=list(group["hostnames"]),
            opts=child_options(parent, after),
        )
        made.append(resource_group)
    attached = gcp.apigee.EnvGroupAttachment(
        f"{name}-environment-group-attachment",
        envgroup_id=f"{organization}/envgroups/{group['name']}",
        environment=environment["name"],
        opts=child_options(parent, made),
    )
    return [*made, attached]


def _instance(
    name: str, args: "ApiManagementArgs", parent: pulumi.Resource, after: Made
) -> tuple[pulumi.Output[str], Made]:
    """Return the URI of the instance's service attachment, and what the environment runs on once it is there."""
    wanted = args["apigee"].get("instance")
    if wanted is None:
        return pulumi.Output.from_input(""), []
    identifier = f"{organization_id(args)}/instances/{wanted['name']}"
    if wanted.get("create", True):
        instance = gcp.apigee.Instance(
            f"{name}-instance",
            org_id=organization_id(args),
            name=wanted["name"],
            location=args["region"],
            consumer_accept_lists=_accepted(args, wanted),
            opts=child_options(parent, after),
        )
        after = [*after, instance]
    else:
        instance = gcp.apigee.Instance.get(f"{name}-instance", identifier, opts=child_options(parent))
    attached = gcp.apigee.InstanceAttachment(
        f"{name}-instance-attachment",
        instance_id=identifier,
        environment=args["apigee"]["environment"]["name"],
        opts=child_options(parent, after),
    )
    return instance.service_attachment, [attached]


def _accepted(args: "ApiManagementArgs", wanted: "ApigeeInstance") -> list[str]:
    client = args["apigee"].get("bridge", {}).get("client")
    default = [args["project"], *([client["project"]] if client else [])]
    return list(wanted.get("consumer_accept_list", dict.fromkeys(default)))


def _operator(name: str, args: "ApiManagementArgs", parent: pulumi.Resource) -> Made:
    """Install the operator. Its KSA impersonates a service account: it knows no principals of workload identity."""
    settings, project = args["apigee"].get("operator", {}), args["project"]
    if not settings.get("install", True):
        return []
    short = f"{args['name']}{manifests.ACCOUNT_SUFFIX}"
    email = f"{short}@{project}.iam.gserviceaccount.com"
    account = gcp.serviceaccount.Account(
        f"{name}-operator",
        project=project,
        account_id=short,
        display_name="Apigee Operator for Kubernetes",
        opts=child_options(parent),
    )
    after = child_options(parent, [account])
    granted: Made = []
    for role in manifests.OPERATOR_ROLES:
        grant = f"{name}-operator-{role.removeprefix('roles/').replace('.', '-').lower()}"
        granted.append(
            gcp.projects.IAMMember(grant, project=project, role=role, member=f"serviceAccount:{email}", opts=after)
        )
    ksa = f"{workload_pool(project)}[{manifests.OPERATOR_NAMESPACE}/{manifests.OPERATOR_ACCOUNT}]"
    identity = gcp.serviceaccount.IAMMember(
        f"{name}-operator-identity",
        service_account_id=f"projects/{project}/serviceAccounts/{email}",
        role="roles/iam.workloadIdentityUser",
        member=f"serviceAccount:{ksa}",
        opts=after,
    )
    version = settings.get("version", manifests.OPERATOR_VERSION)
    crds = _release(f"{name}-operator-crds", "apigee-apim-operator-crds", version, {}, child_options(parent))
    values = {
        "projectId": project,
        "serviceAccount": email,
        "apigeeOrg": organization_id(args).removeprefix("organizations/"),
        "generateEnv": False,
    }
    options = child_options(parent, [crds, identity, *granted])
    return [_release(f"{name}-operator-release", "apigee-apim-operator-helm", version, values, options)]


def _release(
    name: str, chart: str, version: str, values: Mapping[str, Any], opts: pulumi.ResourceOptions
) -> "k8s.helm.v3.Release":
    return k8s.helm.v3.Release(
        name,
        name=chart,
        chart=f"{manifests.CHARTS}/{chart}",
        version=version,
        namespace=manifests.OPERATOR_NAMESPACE,
        create_namespace=True,
        values=dict(values),
        opts=opts,
    )


def _objects(name: str, args: "ApiManagementArgs", parent: pulumi.Resource, after: Made) -> None:
    """Declare the operator's objects. The backend is a proxy that it deploys, which takes a runtime to deploy it to."""
    settings = args["apigee"]
    places = {key: relative(settings[key]) for key in ("network", "subnetwork")}
    backend = apply(f"{name}-backend", manifests.backend(args, places), child_options(parent, after))
    for item in args.get("products", []):
        role = f"{name}-product-{item['name']}"
        product = apply(role, manifests.product(args, item), child_options(parent, [backend]))
        apply(f"{role}-operations", manifests.operations(args, item), child_options(parent, [product]))
    rules: Sequence[Any] = args.get("template_rules", [])
    made = [_named(f"{name}-rule", item, manifests.rule, args, parent, after) for item in rules]
    for template in args["apigee"].get("templates", []):
        _named(f"{name}-template", template, manifests.template, args, parent, [*after, *made])


def _named(
    role: str, item: Any, render: Callable[..., Any], args: "ApiManagementArgs", parent: pulumi.Resource, after: Made
) -> pulumi.Resource:
    return apply(f"{role}-{item['name']}", render(args, item), child_options(parent, after))


def _bridge(
    name: str,
    args: "ApiManagementArgs",
    bridge: "ApigeeBridge",
    parent: pulumi.Resource,
    after: Made,
    attachment: pulumi.Output[str],
) -> None:
    """Connect Apigee to the Gateway's publication, and the client-facing network to Apigee."""
    southbound = gcp.apigee.EndpointAttachment(
        f"{name}-southbound",
        org_id=organization_id(args),
        endpoint_attachment_id=args["name"],
        location=args["region"],
        service_attachment=bridge["service_attachment"],
        opts=child_options(parent, after),
    )
    tls: dict[str, Any] = {"enabled": True, "enforce": True, "common_name": {"value": bridge["hostname"]}}
    if bridge.get("trust_store") is not None:
        tls["trust_store"] = bridge["trust_store"]
    checked: Any = tls
    gcp.apigee.TargetServer(
        f"{name}-target",
        env_id=f"{organization_id(args)}/environments/{args['apigee']['environment']['name']}",
        name=args["name"],
        host=southbound.host,
        port=443,
        protocol="HTTP",
        s_sl_info=checked,
        opts=child_options(parent, after),
    )
    client = bridge.get("client")
    if client is not None:
        PrivateEndpoint(
            f"{name}-northbound",
            {
                "name": f"{args['name']}-apigee",
                "project": client["project"],
                "region": args["region"],
                "hostname": client["hostname"],
                "global_access": False,
                "network": client["network"],
                "subnetwork": client["subnetwork"],
                "attachment": attachment,
            },
            child_options(parent),
        )
