"""The Apigee Operator's objects, and what is refused of Apigee's settings.

No public schema exists for apim.googleapis.com. Shapes are those of Apigee Operator 1.1, "Resource reference",
and of Google's samples; those of templates and their rules are the least certain.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .._labels import labels
from .._naming import check_label
from ..errors import ConfigError
from .common import APIGEE_API, WAIT_FOR, WAIT_TIMEOUT, Manifest, check_range, check_word, manifest
from .location import check_network, check_project, check_subnetwork
from .route import PATHS

if TYPE_CHECKING:
    from ..api_management import ApiManagementArgs, ApiProduct, TemplateRule
    from ..apigee_settings import ApigeeBridge, ApigeeSettings, ApigeeTemplate

OPERATOR_NAMESPACE, OPERATOR_ACCOUNT = "apim", "apim-ksa"
OPERATOR_VERSION = "1.1.1"
CHARTS = "oci://us-docker.pkg.dev/apigee-release/apigee-k8s-tooling-helm-charts"
OPERATOR_ROLES = (
    "roles/apigee.admin",
    "roles/networkservices.serviceExtensionsAdmin",
    "roles/compute.networkAdmin",
    "roles/compute.loadBalancerAdmin",
)
"""Namespace, ServiceAccount, charts and roles. Source: Apigee Operator 1.1, "Install the Apigee Operator"."""

EXTENSION_PROPERTY = "apigee-service-extension-enabled"
"""Environment property without which no extension reaches it. Source: as above."""
ENVIRONMENT_TYPES = ("INTERMEDIATE", "COMPREHENSIVE")
BILLING_TYPES = ("PAYG", "SUBSCRIPTION", "EVALUATION")
RUNTIME_TYPES = ("CLOUD", "HYBRID")
DOCUMENTED_NAMESPACE = "default"

OPERATIONS_SUFFIX = "-operations"
ACCOUNT_SUFFIX = "-apim"
ACCOUNT_MAX = 30
"""Longest id of a service account. Source: IAM, "Create service accounts"."""
RULE_LISTS = {"required": "requiredList", "allowed": "allowList", "denied": "denyList"}

_WAIT_S = 1800
_HOSTNAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+")


def in_chain(args: "ApiManagementArgs") -> bool:
    """Return whether Apigee takes part in the Gateway's traffic chain."""
    return args.get("apigee", {}).get("service_extension", True)


def backend_name(args: "ApiManagementArgs") -> str:
    """Return the name of the ApigeeBackendService, and so of the proxy that Apigee makes for it."""
    return args.get("name", "")


def metadata(args: "ApiManagementArgs") -> dict[str, str]:
    """Return the extension's metadata: the proxy, and that bodies are wanted both ways."""
    name = backend_name(args)
    return {"apigee-extension-processor": name, "apigee-request-body": "true", "apigee-response-body": "true"}


def backend(args: "ApiManagementArgs", places: Mapping[str, Any]) -> Manifest:
    """Return the ApigeeBackendService, awaited until it is made: the extension refers to it.

    Args:
        args: of the component.
        places: `network` and `subnetwork` from `projects/` on; may be outputs.
    """
    location = {"name": args["region"], **places}
    environment = args["apigee"]["environment"]["name"]
    spec = {"apigeeEnv": environment, "defaultSecurityEnabled": True, "locations": [location]}
    wait = {WAIT_FOR: "jsonpath={.status.currentState}=CREATED", WAIT_TIMEOUT: str(_WAIT_S)}
    return _object("ApigeeBackendService", backend_name(args), args, spec, wait)


def product(args: "ApiManagementArgs", item: "ApiProduct") -> Manifest:
    """Return an APIProduct that the backend enforces."""
    spec = {
        "name": item["name"],
        "approvalType": item.get("approval", "auto"),
        "description": f"Models {', '.join(item['models'])}",
        "displayName": item.get("display_name", item["name"]),
        "enforcementRefs": [_ref("ApigeeBackendService", backend_name(args), args)],
        "attributes": [{"name": "access", "value": "private"}, {"name": "models", "value": ",".join(item["models"])}],
    }
    return _object("APIProduct", item["name"], args, spec)


def operations(args: "ApiManagementArgs", item: "ApiProduct") -> Manifest:
    """Return the APIOperationSet of a product: its paths, and its quota where it has a limit."""
    paths = item.get("operations", PATHS)
    spec: Manifest = {"apiProductRefs": [_ref("APIProduct", item["name"], args)]}
    limit = next((found for found in args.get("limits", []) if found["name"] in item.get("limits", [])), None)
    if limit is not None:
        spec["quota"] = {"limit": limit["amount"], "interval": 1, "timeUnit": limit["window"]}
    spec["restOperations"] = [{"name": _operation(path), "path": path, "methods": ["POST"]} for path in paths]
    return _object("APIOperationSet", f"{item['name']}{OPERATIONS_SUFFIX}", args, spec)


def rule(args: "ApiManagementArgs", item: "TemplateRule") -> Manifest:
    """Return an ApimTemplateRule."""
    given = {"required": item.get("required"), "allowed": item.get("allowed"), "denied": item.get("denied")}
    spec: Manifest = {RULE_LISTS[field]: list(found) for field, found in given.items() if found is not None}
    return _object("ApimTemplateRule", item["name"], args, spec | {"override": False})


def template(args: "ApiManagementArgs", item: "ApigeeTemplate") -> Manifest:
    """Return an ApimTemplate under its rule."""
    spec = {"apimTemplateRule": _ref("ApimTemplateRule", item["rule"], args), "templates": list(item["templates"])}
    return _object("ApimTemplate", item["name"], args, spec)


def problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why mode `apigee` cannot be rendered."""
    settings, where = args.get("apigee"), f"{path}.apigee"
    if settings is None:
        yield ConfigError(where, None, "Apigee's settings", "Set at least its environment")
        return
    if args.get("name"):
        yield from _account_problems(args["name"], settings, f"{path}.name")
    yield from _environment_problems(settings, where)
    yield from _organization_problems(settings, where)
    if in_chain(args):
        yield from _extension_problems(args, settings, path)
    elif settings.get("bridge") is None:
        expected = "true, or a bridge: otherwise Apigee does nothing"
        yield ConfigError(f"{where}.service_extension", False, expected, "Set one of them")
    if settings.get("bridge") is not None:
        yield from _bridge_problems(settings, settings["bridge"], args, f"{where}.bridge")
    yield from _template_problems(args, settings, f"{where}.templates")
    yield from _quota_problems(args, path)


def _object(
    kind: str, name: str, args: "ApiManagementArgs", spec: Manifest, annotations: dict[str, str] | None = None
) -> Manifest:
    version = f"{APIGEE_API}/v1"
    return manifest(version, kind, name, args["namespace"], labels(name), annotations=annotations, spec=spec)


def _ref(kind: str, name: str, args: "ApiManagementArgs") -> Manifest:
    return {"name": name, "kind": kind, "group": APIGEE_API, "namespace": args["namespace"]}


def _operation(path: str) -> str:
    return path.removeprefix("/v1/").replace("/", "-")


def _account_problems(name: str, settings: "ApigeeSettings", path: str) -> Iterator[ConfigError]:
    room = ACCOUNT_MAX - len(ACCOUNT_SUFFIX)
    if settings.get("operator", {}).get("install", True) and len(name) > room:
        expected = f"at most {room} characters: the operator's service account is `<name>{ACCOUNT_SUFFIX}`"
        yield ConfigError(path, name, expected, f"Shorten it by {len(name) - room} characters")


def _environment_problems(settings: "ApigeeSettings", path: str) -> Iterator[ConfigError]:
    environment, group = settings["environment"], settings.get("environment_group")
    yield from check_label(f"{path}.environment.name", environment["name"], what="an environment's name")
    where, given = f"{path}.environment.type", environment.get("type", ENVIRONMENT_TYPES[0])
    yield from check_word(where, given, ENVIRONMENT_TYPES)
    if group is not None:
        yield from check_label(f"{path}.environment_group.name", group["name"], what="an environment group's name")
        if not group["hostnames"]:
            where = f"{path}.environment_group.hostnames"
            yield ConfigError(where, [], "at least one host name", "Name what clients connect to")
        for index, hostname in enumerate(group["hostnames"]):
            yield from _hostname(f"{path}.environment_group.hostnames[{index}]", hostname)
    if settings.get("instance") is not None:
        yield from check_label(f"{path}.instance.name", settings["instance"]["name"], "", "an instance's name")
        for index, project in enumerate(settings["instance"].get("consumer_accept_list", [])):
            yield from check_project(f"{path}.instance.consumer_accept_list[{index}]", project)


def _organization_problems(settings: "ApigeeSettings", path: str) -> Iterator[ConfigError]:
    organization, where = settings.get("organization", {}), f"{path}.organization"
    yield from check_word(f"{where}.billing_type", organization.get("billing_type", BILLING_TYPES[0]), BILLING_TYPES)
    yield from check_word(f"{where}.runtime_type", organization.get("runtime_type", RUNTIME_TYPES[0]), RUNTIME_TYPES)
    if organization.get("create") and not organization.get("analytics_region"):
        yield ConfigError(f"{where}.analytics_region", None, "a region: it cannot be changed later", "Set it")


def _extension_problems(args: "ApiManagementArgs", settings: "ApigeeSettings", path: str) -> Iterator[ConfigError]:
    where = f"{path}.apigee"
    if args["namespace"] != DOCUMENTED_NAMESPACE and not settings.get("any_namespace", False):
        expected = f"`{DOCUMENTED_NAMESPACE}`, where Apigee's documentation puts Gateway, extension and backend"
        fix = "Move all of them there, or set `apigee.any_namespace` to try another one"
        yield ConfigError(f"{path}.namespace", args["namespace"], expected, fix)
    for field in ("network", "subnetwork"):
        if settings.get(field) is None:
            yield ConfigError(f"{where}.{field}", None, f"the Gateway's {field}", "Set it")
    yield from check_network(f"{where}.network", settings.get("network"))
    yield from check_subnetwork(f"{where}.subnetwork", settings.get("subnetwork"), args.get("region", ""))
    version = settings.get("operator", {}).get("version", OPERATOR_VERSION)
    if not _VERSION.fullmatch(version):
        fix = f"Write it like `{OPERATOR_VERSION}`"
        yield ConfigError(f"{where}.operator.version", version, "a version of three numbers", fix)


def _bridge_problems(
    settings: "ApigeeSettings", bridge: "ApigeeBridge", args: "ApiManagementArgs", path: str
) -> Iterator[ConfigError]:
    yield from _hostname(f"{path}.hostname", bridge["hostname"])
    for field in ("instance", "environment_group"):
        if settings.get(field) is None:
            where, expected = f"{path.rpartition('.')[0]}.{field}", "a value: clients of a bridge connect to it"
            yield ConfigError(where, None, expected, "Set it, with `create` false where it exists")
    client = bridge.get("client")
    if client is None:
        return
    yield from check_project(f"{path}.client.project", client["project"])
    yield from check_network(f"{path}.client.network", client["network"])
    yield from check_subnetwork(f"{path}.client.subnetwork", client["subnetwork"], args.get("region", ""))
    hostnames = settings.get("environment_group", {}).get("hostnames", [])
    if client["hostname"] not in hostnames:
        yield from check_word(f"{path}.client.hostname", client["hostname"], hostnames or ["a host name of the group"])


def _template_problems(args: "ApiManagementArgs", settings: "ApigeeSettings", path: str) -> Iterator[ConfigError]:
    rules = [item["name"] for item in args.get("template_rules", [])]
    for index, item in enumerate(settings.get("templates", [])):
        yield from check_label(f"{path}[{index}].name", item["name"], what="a template's name")
        yield from check_word(f"{path}[{index}].rule", item["rule"], rules)


def _quota_problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    """Yield what an APIOperationSet cannot say; Apigee's own policies, e.g. LLMTokenQuota, can say more."""
    used = [name for item in args.get("products", []) for name in item.get("limits", [])]
    for index, item in enumerate(args.get("products", [])):
        yield from check_label(f"{path}.products[{index}].name", item["name"], OPERATIONS_SUFFIX, "a product's name")
        count = len(item.get("limits", []))
        if count:
            yield from check_range(f"{path}.products[{index}].limits", count, 1, 1, "the number of limits in Apigee,")
    for index, limit in enumerate(args.get("limits", [])):
        if limit["name"] in used and (limit["kind"], limit["scope"]) != ("requests", "key"):
            expected = "kind `requests` and scope `key`: an APIOperationSet counts nothing else"
            fix = "Use a token policy in Apigee's proxy, or mode `bundled`"
            yield ConfigError(f"{path}.limits[{index}]", f"{limit['kind']} by {limit['scope']}", expected, fix)


def _hostname(path: str, value: str) -> Iterator[ConfigError]:
    if not _HOSTNAME.fullmatch(value):
        yield ConfigError(path, value, "a DNS name in lower case", "Write it like `llm.example.com`")
