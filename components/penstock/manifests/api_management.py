"""API management: entries in the traffic chain, the bundled service's configuration, and what is refused."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from .._naming import check_label
from ..errors import ConfigError
from . import apigee, guardrails, management_store
from .callout import CONFIG_DIR, Callout
from .common import Manifest, check_image, check_mode_fields, check_model_name, check_range, check_word
from .extensions import EVENTS, TIMEOUT_MS, TIMEOUT_RANGE_MS
from .location import check_cloud
from .route import PATHS
from .traffic_callout import STREAM_TIMEOUT_S as STREAM_TIMEOUT_S
from .traffic_callout import made, workload_problems

if TYPE_CHECKING:
    from ..api_management import ApiManagementArgs, ApiProduct, TemplateRule, UsageLimit
    from ..extensions import ExtensionCallout

NAME = guardrails.HOST
GRPC_PORT = 9006
HEALTH_PORT = 9007

BUNDLED, APIGEE = "bundled", "apigee"
MODES = (BUNDLED, APIGEE)
SCOPES = ("organization", "team", "user", "key", "model")
KINDS = ("requests", "tokens", "concurrent", "cost")
WINDOWS = ("minute", "hour", "day", "month")
APPROVALS = ("auto", "manual")

GUARDRAILS_FILE = "guardrails.yaml"
_PEPPER = {"name": NAME, "key": "pepper"}
_POLICY = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")
_FIELDS: Mapping[str, tuple[str, ...]] = {
    BUNDLED: ("store", "pepper_secret", "guardrails", "workload", "image"),
    APIGEE: ("apigee",),
}
"""Fields that only one mode reads; in the other they would promise what does not happen."""


def callouts(args: "ApiManagementArgs") -> "list[ExtensionCallout]":
    """Return the entries of the traffic chain; none for an Apigee that only stands in front, as a bridge."""
    if args["mode"] == APIGEE and not apigee.in_chain(args):
        return []
    entry: ExtensionCallout = {
        "name": NAME,
        "purpose": "management",
        "service_namespace": args["namespace"],
        "events": list(EVENTS),
        "timeout_ms": args.get("timeout_ms", TIMEOUT_MS),
        "fail_open": args.get("fail_open", False),
        "request_body_mode": "FullDuplexStreamed",
        "response_body_mode": "FullDuplexStreamed",
    }
    if args["mode"] == APIGEE:
        entry["apigee_backend"] = apigee.backend_name(args)
        entry["metadata"] = apigee.metadata(args)
    else:
        entry["service"], entry["port"] = NAME, GRPC_PORT
    return [entry]


def cluster_features(args: "ApiManagementArgs") -> list[str]:
    """Return the names, in the cluster's catalogue, of what the cluster must be new enough for."""
    return ["apigee"] if args["mode"] == APIGEE and apigee.in_chain(args) else []


def calls_google_apis(args: "ApiManagementArgs") -> bool:
    """Return whether the workload calls Google APIs: for tokens to Memorystore, or for guardrails."""
    if args["mode"] != BUNDLED:
        return False
    screens = args.get("guardrails")
    by_iam = management_store.kind(args) == management_store.MEMORYSTORE
    return by_iam or (screens is not None and guardrails.calls_google_apis(screens))


def config(args: "ApiManagementArgs") -> str:
    """Return the service's configuration file (YAML): store, products, limits and template rules."""
    document = {
        "store": management_store.document(args),
        "products": [_product(product) for product in args.get("products", [])],
        "limits": [_limit(limit) for limit in args.get("limits", [])],
        "templateRules": [_rule(rule) for rule in args.get("template_rules", [])],
    }
    return yaml.safe_dump(document, sort_keys=False)


def callout(args: "ApiManagementArgs", store_address: Any) -> Callout:
    """Return the callout that the objects are made from; `store_address` is `host:port`, or None for SQLite."""
    files = {"config.yaml": config(args)}
    flags: tuple[str, ...] = ()
    if args.get("guardrails") is not None:
        files[GUARDRAILS_FILE] = guardrails.config(args["guardrails"])
        flags = (f"--guardrails-file={CONFIG_DIR}/{GUARDRAILS_FILE}",)
    embedded = management_store.kind(args) == management_store.SQLITE
    workload = args.get("workload", {})
    pepper = args.get("pepper_secret", {})
    key = {"name": pepper.get("name", _PEPPER["name"]), "key": pepper.get("key", _PEPPER["key"])}
    secret: Manifest = {"name": "PENSTOCK_KEY_PEPPER", "valueFrom": {"secretKeyRef": key}}
    return made(
        NAME,
        "apimgmt",
        args["namespace"],
        args["image"],
        (GRPC_PORT, HEALTH_PORT),
        files,
        workload,
        flags=flags,
        recreate=embedded,
        env=(secret, *management_store.environment(args, store_address)),
        volumes=management_store.volumes(args),
        mounts=management_store.mounts(args),
        **({"replicas": 1} if embedded else {}),
    )


def problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be rendered."""
    yield from check_label(f"{path}.namespace", args["namespace"], what="a namespace")
    yield from check_range(f"{path}.timeout_ms", args.get("timeout_ms", TIMEOUT_MS), *TIMEOUT_RANGE_MS, "ms")
    if args["mode"] not in MODES:
        yield from check_word(f"{path}.mode", args["mode"], MODES)
        return
    yield from check_mode_fields(path, args, args["mode"], _FIELDS)
    yield from _limit_problems(args, path)
    yield from _product_problems(args, path)
    yield from _rule_problems(args, path)
    if args["mode"] == BUNDLED:
        yield from _bundled_problems(args, path)
    else:
        yield from apigee.problems(args, path)
    if args["mode"] == APIGEE or management_store.kind(args) == management_store.MEMORYSTORE:
        yield from check_cloud(path, args, "resources live in a project", f"-{NAME}")


def _product(product: "ApiProduct") -> Manifest:
    return {
        "name": product["name"],
        "displayName": product.get("display_name", product["name"]),
        "approval": product.get("approval", APPROVALS[0]),
        "models": list(product["models"]),
        "operations": list(product.get("operations", PATHS)),
        "limits": list(product.get("limits", [])),
    }


def _limit(limit: "UsageLimit") -> Manifest:
    found: Manifest = {name: limit[name] for name in ("name", "scope", "kind", "amount")}
    if limit.get("window"):
        found["window"] = limit["window"]
    return found | ({"models": list(limit["models"])} if limit.get("models") else {})


def _rule(rule: "TemplateRule") -> Manifest:
    found: Manifest = {"name": rule["name"], "required": list(rule.get("required", []))}
    if rule.get("allowed") is not None:
        found["allowed"] = list(rule["allowed"])
    return found | {"denied": list(rule.get("denied", []))}


def _limit_problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    limits = args.get("limits", [])
    for index, limit in enumerate(limits):
        where = f"{path}.limits[{index}]"
        yield from _name_problems([other["name"] for other in limits], index, where, "a limit's name")
        yield from check_word(f"{where}.scope", limit["scope"], SCOPES)
        yield from check_word(f"{where}.kind", limit["kind"], KINDS)
        yield from check_range(f"{where}.amount", limit["amount"], 1, 2**53, "an amount")
        window = limit.get("window")
        if (window is None) != (limit["kind"] == "concurrent"):
            expected = "no window with kind concurrent" if window else f"one of {', '.join(WINDOWS)}"
            yield ConfigError(f"{where}.window", window, expected, "Remove it" if window else "Set it")
        elif window is not None:
            yield from check_word(f"{where}.window", window, WINDOWS)


def _product_problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    products, known = args.get("products", []), [limit["name"] for limit in args.get("limits", [])]
    for index, product in enumerate(products):
        where = f"{path}.products[{index}]"
        yield from _name_problems([other["name"] for other in products], index, where, "a product's name")
        yield from check_word(f"{where}.approval", product.get("approval", APPROVALS[0]), APPROVALS)
        if not product["models"]:
            yield ConfigError(f"{where}.models", [], "at least one model", "Name the models that its keys open")
        for number, model in enumerate(product["models"]):
            yield from check_model_name(f"{where}.models[{number}]", model)
        for number, operation in enumerate(product.get("operations", [])):
            if operation not in PATHS:
                yield from check_word(f"{where}.operations[{number}]", operation, PATHS)
        for number, limit in enumerate(product.get("limits", [])):
            yield from check_word(f"{where}.limits[{number}]", limit, known)


def _rule_problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    rules = args.get("template_rules", [])
    for index, rule in enumerate(rules):
        where = f"{path}.template_rules[{index}]"
        yield from _name_problems([other["name"] for other in rules], index, where, "a rule's name")
        lists: Mapping[str, list[str]] = {
            "required": rule.get("required", []),
            "allowed": rule.get("allowed", []),
            "denied": rule.get("denied", []),
        }
        for field, policies in lists.items():
            for number, policy in enumerate(policies):
                if not _POLICY.fullmatch(policy):
                    yield ConfigError(f"{where}.{field}[{number}]", policy, "a policy's name", "Correct it")
                elif field != "denied" and policy in lists["denied"]:
                    expected = "a policy that the same rule does not deny"
                    yield ConfigError(f"{where}.{field}[{number}]", policy, expected, "Remove it from one of them")


def _name_problems(names: list[str], index: int, where: str, what: str) -> Iterator[ConfigError]:
    yield from check_label(f"{where}.name", names[index], what=what)
    if names[index] in names[:index]:
        yield ConfigError(f"{where}.name", names[index], "each name once", "Rename one of them")


def _bundled_problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    if args.get("image") is None:
        yield ConfigError(f"{path}.image", None, "the image of Penstock's services", "Set it")
    else:
        yield from check_image(f"{path}.image", args["image"])
    if args.get("pepper_secret") is not None:
        yield from check_label(f"{path}.pepper_secret.name", args["pepper_secret"]["name"], what="a Secret's name")
    yield from workload_problems(args.get("workload", {}), f"{path}.workload")
    yield from management_store.problems(args, path)
    screens = args.get("guardrails")
    if screens is None:
        return
    yield from guardrails.problems(screens, f"{path}.guardrails")
    if screens.get("served_by") != NAME:
        expected = f"`{NAME}`: guardrails with a workload of their own are no part of this one"
        where, fix = f"{path}.guardrails.served_by", f"Set it to `{NAME}`, or leave `guardrails` out"
        yield ConfigError(where, screens.get("served_by"), expected, fix)
    if screens["namespace"] != args["namespace"]:
        where, expected = f"{path}.guardrails.namespace", f"`{args['namespace']}`, as here"
        yield ConfigError(where, screens["namespace"], expected, "Use one namespace")
