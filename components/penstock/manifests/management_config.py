"""The configuration file of bundled API management, and what of it can be refused before anything is deployed."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from .._naming import check_label
from ..errors import ConfigError
from . import management_store
from .common import Manifest, check_model_name, check_range, check_word
from .keys import camel, plain
from .route import PATHS

if TYPE_CHECKING:
    from ..api_management import ApiManagementArgs, ApiProduct, TemplateRule, UsageLimit

SCOPES = ("organization", "group", "team", "user", "key", "model")
KINDS = ("requests", "tokens", "concurrent", "cost")
WINDOWS = ("minute", "hour", "day", "month")
APPROVALS = ("auto", "manual")
MODES = ("enforce", "shadow", "off")
ROLES = ("developer", "teamLead", "admin")
STATUSES = ("approved", "pending", "revoked")
FORMATS = ("jsonl", "parquet")
RESERVES = ("learned", "bytes")
POLICIES = (
    "credentials",
    "access",
    "validation",
    "prompt-limit",
    "spike-arrest",
    "limits",
    "external",
    "script",
    "cache",
)
"""Policies that the service has; a contract test holds this to its registry."""

ALWAYS, USUALLY, SEVERAL = ("credentials", "access"), ("validation", "limits"), ("external", "script")
"""In every chain; in every chain that does not switch them off; policies that may stand in a chain more than once."""

ANY_MODEL = "*"
SECTIONS = ("estimation", "ledger", "recording", "tracing", "portal")
LISTS = ("organizations", "teams", "developers", "groups", "apps", "rate_plans", "policies")
"""Arguments that are handed on as they are, with keys in camelCase."""

_POLICY = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,62}")


def config(args: "ApiManagementArgs") -> str:
    """Return the service's configuration file (YAML). What is not set is left to the service's defaults."""
    document: Manifest = {"store": management_store.document(args)}
    given: Any = args
    for name in LISTS:
        if given.get(name):
            document[camel(name)] = [plain(item) for item in given[name]]
    document["products"] = [_product(product) for product in args.get("products", [])]
    document["limits"] = [_limit(limit) for limit in args.get("limits", [])]
    document["templateRules"] = [_rule(rule) for rule in args.get("template_rules", [])]
    if args.get("key_value_maps"):
        document["keyValueMaps"] = [{"name": name} for name in args["key_value_maps"]]
    for name in SECTIONS:
        if given.get(name):
            document[name] = plain(given[name])
    return yaml.safe_dump(document, sort_keys=False)


def _product(product: "ApiProduct") -> Manifest:
    usual: Manifest = {"displayName": product["name"], "approval": APPROVALS[0], "operations": list(PATHS)}
    return {**usual, "limits": [], **plain(product)}


def _limit(limit: "UsageLimit") -> Manifest:
    return {name: value for name, value in plain(limit).items() if value not in (None, "", [])}


def _rule(rule: "TemplateRule") -> Manifest:
    return {"required": [], "denied": [], **plain(rule)}


def problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why products, limits, rules and people cannot be used."""
    yield from _limit_problems(args, path)
    yield from _product_problems(args, path)
    yield from _rule_problems(args, path)
    yield from _policy_problems(args.get("policies", []), f"{path}.policies")
    yield from _people_problems(args, path)
    for index in range(len(args.get("rate_plans", []))):
        yield from _name_problems(_names(args, "rate_plans"), index, f"{path}.rate_plans[{index}]", "a plan's name")
    export = args.get("ledger", {}).get("export")
    if export is not None:
        if not re.match(r"(gs|s3)://[a-z0-9]|file:///", export["url"]):
            expected = "gs://bucket/prefix, s3://bucket/prefix or file:///folder"
            yield ConfigError(f"{path}.ledger.export.url", export["url"], expected, "Correct it")
        yield from check_word(f"{path}.ledger.export.format", export.get("format", FORMATS[0]), FORMATS)
    yield from check_word(
        f"{path}.estimation.reserve", args.get("estimation", {}).get("reserve", RESERVES[0]), RESERVES
    )
    days = args.get("ledger", {}).get("retention_days", 90)
    yield from check_range(f"{path}.ledger.retention_days", days, 1, 3650, "days")


def rule_problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    """Yield what template rules do not let products have, in mode `bundled`: the service would refuse to start."""
    for rule in args.get("template_rules", []):
        for index, product in enumerate(args.get("products", [])):
            own = product.get("policies", [])
            chain = _chain(args.get("policies", []), own)
            where = f"{path}.products[{index}].policies"
            for name in rule.get("required", []):
                found = [use for use in chain if use["policy"] == name and use.get("mode", MODES[0]) == MODES[0]]
                if not found or all(use.get("when") is not None and use in own for use in found):
                    expected = f"the policy {name} enforced without a condition: rule `{rule['name']}` requires it"
                    yield ConfigError(where, found or None, expected, "Add it to `policies`, or change the rule")
            listed = [use["policy"] for use in (*args.get("policies", []), *own)]
            allowed = rule.get("allowed")
            for name in dict.fromkeys(use["policy"] for use in chain):
                unlisted = allowed is not None and name in listed and name not in (*allowed, *ALWAYS)
                if name in rule.get("denied", []) or unlisted:
                    expected = f"no policy that template rule `{rule['name']}` does not let in"
                    yield ConfigError(where, name, expected, "Take it out, or change the rule")


def _chain(policies: Sequence[Any], own: Sequence[Any]) -> list[Any]:
    """Return the uses that a product's requests pass, as the service merges them."""
    replaced = {use["policy"] for use in own}
    chain = [use for use in policies if use["policy"] not in (*replaced, *ALWAYS)]
    chain += [use for use in own if use["policy"] not in ALWAYS]
    chain += [{"policy": name} for name in USUALLY if all(use["policy"] != name for use in chain)]
    head = [next((use for use in policies if use["policy"] == name), {"policy": name}) for name in ALWAYS]
    return [use for use in (*head, *chain) if use.get("mode", MODES[0]) != MODES[2]]


def _names(args: "ApiManagementArgs", field: str) -> list[str]:
    given: Any = args
    return [str(item["name"]) for item in given.get(field, [])]


def _limit_problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    for index, limit in enumerate(args.get("limits", [])):
        where = f"{path}.limits[{index}]"
        yield from _name_problems(_names(args, "limits"), index, where, "a limit's name")
        yield from check_word(f"{where}.scope", limit["scope"], SCOPES)
        yield from check_word(f"{where}.kind", limit["kind"], KINDS)
        yield from check_word(f"{where}.mode", limit.get("mode", MODES[0]), MODES[:2])
        yield from check_range(f"{where}.amount", limit["amount"], 1, 2**53, "an amount")
        window = limit.get("window")
        if (window is None) != (limit["kind"] == "concurrent"):
            expected = "no window with kind concurrent" if window else f"one of {', '.join(WINDOWS)}"
            yield ConfigError(f"{where}.window", window, expected, "Remove it" if window else "Set it")
        elif window is not None:
            yield from check_word(f"{where}.window", window, WINDOWS)


def _product_problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    known, plans = _names(args, "limits"), _names(args, "rate_plans")
    for index, product in enumerate(args.get("products", [])):
        where = f"{path}.products[{index}]"
        yield from _name_problems(_names(args, "products"), index, where, "a product's name")
        yield from check_word(f"{where}.approval", product.get("approval", APPROVALS[0]), APPROVALS)
        if not product["models"]:
            yield ConfigError(f"{where}.models", [], "at least one model", "Name the models that its keys open")
        for number, model in enumerate(product["models"]):
            if model != ANY_MODEL:
                yield from check_model_name(f"{where}.models[{number}]", model)
        for number, operation in enumerate(product.get("operations", [])):
            if operation not in PATHS:
                yield from check_word(f"{where}.operations[{number}]", operation, PATHS)
        yield from _known(product.get("limits", []), known, f"{where}.limits")
        if product.get("rate_plan") is not None:
            yield from check_word(f"{where}.rate_plan", product["rate_plan"], plans)
        yield from _policy_problems(product.get("policies", []), f"{where}.policies")


def _rule_problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    for index, rule in enumerate(args.get("template_rules", [])):
        where = f"{path}.template_rules[{index}]"
        yield from _name_problems(_names(args, "template_rules"), index, where, "a rule's name")
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


def _policy_problems(uses: Sequence[Any], path: str) -> Iterator[ConfigError]:
    for index, use in enumerate(uses):
        yield from check_word(f"{path}[{index}].policy", use["policy"], POLICIES)
        yield from check_word(f"{path}[{index}].mode", use.get("mode", MODES[0]), MODES)
        if use["policy"] not in SEVERAL and use["policy"] in [other["policy"] for other in uses[:index]]:
            yield ConfigError(f"{path}[{index}].policy", use["policy"], "each policy once", "Merge the two")


def _people_problems(args: "ApiManagementArgs", path: str) -> Iterator[ConfigError]:
    limits, organizations, teams = _names(args, "limits"), _names(args, "organizations"), _names(args, "teams")
    for field in ("organizations", "teams", "developers", "groups", "apps"):
        given: Any = args
        items = given.get(field, [])
        for index, item in enumerate(items):
            where = f"{path}.{field}[{index}]"
            yield from _known(item.get("limits", []), limits, f"{where}.limits")
            if field != "organizations":
                yield from check_word(f"{where}.organization", item["organization"], organizations)
            if field in ("developers", "apps"):
                yield from check_word(f"{where}.team", item["team"], teams)
    for index, person in enumerate(args.get("developers", [])):
        yield from check_word(f"{path}.developers[{index}].role", person.get("role", ROLES[0]), ROLES)
    people, products = _names(args, "developers"), _names(args, "products")
    for index, app in enumerate(args.get("apps", [])):
        where = f"{path}.apps[{index}]"
        yield from check_word(f"{where}.developer", app["developer"], people)
        for number, right in enumerate(app["products"]):
            yield from check_word(f"{where}.products[{number}].product", right["product"], products)
            yield from check_word(f"{where}.products[{number}].status", right.get("status", STATUSES[0]), STATUSES)


def _known(names: Sequence[str], known: Sequence[str], where: str) -> Iterator[ConfigError]:
    for number, name in enumerate(names):
        yield from check_word(f"{where}[{number}]", name, known)


def _name_problems(names: list[str], index: int, where: str, what: str) -> Iterator[ConfigError]:
    yield from check_label(f"{where}.name", names[index], what=what)
    if names[index] in names[:index]:
        yield ConfigError(f"{where}.name", names[index], "each name once", "Rename one of them")
