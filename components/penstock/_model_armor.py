"""Model Armor's resources in the cloud: templates, the floor setting and roles."""

from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_gcp as gcp

from ._identity import condition, principal
from .manifests import guardrails, model_armor
from .manifests.location import gcp_labels

if TYPE_CHECKING:
    from .guardrails import GuardrailsArgs


def declare(name: str, args: "GuardrailsArgs", opts: pulumi.ResourceOptions) -> None:
    """Register templates, floor setting and roles; `opts` are those of a child."""
    labels = gcp_labels(args.get("labels"))
    for template in args.get("templates", []):
        filters: Any = model_armor.filter_config(template["filters"])
        metadata: Any = model_armor.template_metadata(template)
        gcp.modelarmor.Template(
            f"{name}-template-{template['name']}",
            project=args["project"],
            location=args["region"],
            template_id=model_armor.template_id(args, template),
            filter_config=filters,
            template_metadata=metadata,
            labels=labels,
            opts=opts,
        )
    if args.get("floor") is not None:
        _floor(name, args, opts)
    if args["mode"] == guardrails.MODEL_ARMOR:
        _agent_roles(name, args, opts)
    if guardrails.calls_google_apis(args):
        account = guardrails.HOST if args.get("served_by") == guardrails.HOST else guardrails.NAME
        member = principal(args["project"], args["project_number"], args["namespace"], account)
        _template_user(f"{name}-workload-user", member, args, opts)


def _floor(name: str, args: "GuardrailsArgs", opts: pulumi.ResourceOptions) -> None:
    floor = args["floor"]
    filters: Any = model_armor.filter_config(floor["filters"])
    metadata: Any = {"multiLanguageDetection": {"enableMultiLanguageDetection": floor.get("multi_language", True)}}
    gcp.modelarmor.Floorsetting(
        f"{name}-floor",
        parent=f"projects/{args['project']}",
        location="global",
        filter_config=filters,
        enable_floor_setting_enforcement=floor.get("enforce", True),
        floor_setting_metadata=metadata,
        opts=opts,
    )


def _agent_roles(name: str, args: "GuardrailsArgs", opts: pulumi.ResourceOptions) -> None:
    """Give the load balancer's service agent its roles; it exists once the service's identity has been made."""
    project = args["project"]
    identity = gcp.projects.ServiceIdentity(
        f"{name}-agent", project=project, service="networkservices.googleapis.com", opts=opts
    )
    after = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[identity]))
    member = model_armor.agent(args)
    for role in model_armor.AGENT_ROLES:
        short = role.rpartition(".")[2].lower()
        gcp.projects.IAMMember(f"{name}-agent-{short}", project=project, role=role, member=member, opts=after)
    _template_user(f"{name}-agent-user", member, args, after)


def _template_user(name: str, member: str, args: "GuardrailsArgs", opts: pulumi.ResourceOptions) -> None:
    limited: Any = condition("templates", model_armor.templates_expression(args), "Templates of the Gateway's region")
    gcp.projects.IAMMember(
        name,
        project=args["project"],
        role=model_armor.USER,
        member=member,
        condition=limited if args.get("conditions", False) else None,
        opts=opts,
    )
