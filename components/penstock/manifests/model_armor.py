"""Model Armor's vocabulary: filters, templates and the metadata by which a load balancer's extension calls it.

The same words describe templates in the cloud and the built-in engine's. Source: Model Armor API v1, `Template` and
`FloorSetting`; Service Extensions, "Configure extensions to Google services".
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .common import check_model_name, check_range, check_word
from .extensions import EVENTS, METADATA_VALUE_MAX, metadata_problems

if TYPE_CHECKING:
    from ..extensions import ExtensionCallout
    from ..guardrails import FloorSetting, GuardrailFilters, GuardrailsArgs, GuardrailTemplate, SensitiveData

FILTER_TYPES = ("SEXUALLY_EXPLICIT", "HATE_SPEECH", "HARASSMENT", "DANGEROUS")
CONFIDENCES = ("LOW_AND_ABOVE", "MEDIUM_AND_ABOVE", "HIGH")
ENFORCEMENTS = ("INSPECT_AND_BLOCK", "INSPECT_ONLY")
INFO_TYPE_ACTIONS = ("block", "redact")
VERSIONS = {"stable": "FILTER_VERSION_ALIAS_STABLE", "latest": "FILTER_VERSION_ALIAS_LATEST"}

SETTINGS_KEY = "model_armor_settings"
"""Metadata key under which the extension reads its templates, a JSON list. Source: as above."""
CATCH_ALL = "default"
"""Model name that stands for every model without an entry. Source: as above."""

USER = "roles/modelarmor.user"
"""Role to sanitize by a template. Source: Model Armor, "IAM permissions"."""
AGENT_ROLES = ("roles/container.admin", "roles/modelarmor.calloutUser", "roles/serviceusage.serviceUsageConsumer")
"""Roles of the load balancer's service agent in the Gateway's project, beside `USER` in the templates'.

Source: Google Cloud, "Integrate Model Armor with GKE"; no condition is documented for them.
"""

_MESSAGE_MAX = 1024


def host(region: str) -> str:
    """Return the regional host name of the API."""
    return f"modelarmor.{region}.rep.googleapis.com"


def template_id(args: "GuardrailsArgs", template: "GuardrailTemplate") -> str:
    """Return the id of a template: base name and own name."""
    return f"{args['name']}-{template['name']}"


def resource_name(args: "GuardrailsArgs", template: "GuardrailTemplate") -> str:
    """Return the full resource name of a template, from plain values."""
    return f"projects/{args['project']}/locations/{args['region']}/templates/{template_id(args, template)}"


def templates_expression(args: "GuardrailsArgs") -> str:
    """Return the IAM condition for the region's templates, by project id or number: both forms of names are in use."""
    parents = (args["project"], args["project_number"])
    tests = [
        f'resource.name.startsWith("projects/{parent}/locations/{args["region"]}/templates/")' for parent in parents
    ]
    return " || ".join(tests)


def agent(args: "GuardrailsArgs") -> str:
    """Return the IAM member of Service Extensions' service agent."""
    return f"serviceAccount:service-{args['project_number']}@gcp-sa-dep.iam.gserviceaccount.com"


def filter_config(filters: "GuardrailFilters") -> dict[str, Any]:
    """Return `filterConfig`. Filters that are not named are left out, which is off."""
    found: dict[str, Any] = {}
    if filters.get("responsible_ai"):
        levels = filters["responsible_ai"].items()
        rai = [{"filterType": kind, "confidenceLevel": level} for kind, level in levels]
        found["raiSettings"] = {"raiFilters": rai}
    if filters.get("prompt_injection"):
        level = filters["prompt_injection"]
        found["piAndJailbreakFilterSettings"] = {"filterEnforcement": "ENABLED", "confidenceLevel": level}
    if filters.get("malicious_links"):
        found["maliciousUriFilterSettings"] = {"filterEnforcement": "ENABLED"}
    sensitive = filters.get("sensitive_data")
    if sensitive and sensitive.get("inspect_template"):
        advanced = {"inspectTemplate": sensitive["inspect_template"]}
        if sensitive.get("deidentify_template"):
            advanced["deidentifyTemplate"] = sensitive["deidentify_template"]
        found["sdpSettings"] = {"advancedConfig": advanced}
    elif sensitive and sensitive.get("basic"):
        found["sdpSettings"] = {"basicConfig": {"filterEnforcement": "ENABLED"}}
    return found


def template_metadata(template: "GuardrailTemplate") -> dict[str, Any]:
    """Return `templateMetadata`. A filter that could not run fails the call: skipped is not passed."""
    found: dict[str, Any] = {
        "enforcementType": template.get("enforcement", ENFORCEMENTS[0]),
        "filterVersionSelector": {"alias": VERSIONS[template.get("filter_version", "stable")]},
        "ignorePartialInvocationFailures": False,
        "logSanitizeOperations": template.get("log_content", False),
        "logTemplateOperations": True,
        "multiLanguageDetection": {"enableMultiLanguageDetection": template.get("multi_language", True)},
    }
    custom = {
        "customPromptSafetyErrorCode": template.get("prompt_error_code"),
        "customPromptSafetyErrorMessage": template.get("prompt_error_message"),
        "customLlmResponseSafetyErrorCode": template.get("answer_error_code"),
        "customLlmResponseSafetyErrorMessage": template.get("answer_error_message"),
    }
    return found | {key: value for key, value in custom.items() if value is not None}


def settings(args: "GuardrailsArgs") -> str:
    """Return the extension's `model_armor_settings`: which template screens which model's prompts and answers."""
    entries = [
        {"model": model, "user_prompt_template_id": name, "model_response_template_id": name}
        for template in args.get("templates", [])
        for name in [resource_name(args, template)]
        for model in template.get("models", [CATCH_ALL])
    ]
    return json.dumps(entries, separators=(",", ":"))


def callout(args: "GuardrailsArgs") -> "ExtensionCallout":
    """Return Model Armor's entry in the traffic chain. It takes no body mode and no authority."""
    return {
        "name": "model-armor",
        "purpose": "guardrails",
        "google_api_service": host(args["region"]),
        "events": list(EVENTS),
        "timeout_ms": args.get("timeout_ms", 1000),
        "fail_open": args.get("fail_open", False),
        "metadata": {SETTINGS_KEY: settings(args)},
    }


def settings_problems(args: "GuardrailsArgs", path: str) -> Iterator[ConfigError]:
    """Yield why the extension could not carry the templates: length and characters of metadata are limited."""
    text = settings(args)
    if len(text) > METADATA_VALUE_MAX:
        count = sum(len(template.get("models", [CATCH_ALL])) for template in args.get("templates", []))
        expected = (
            f"templates for fewer models: {count} need {len(text)} of {METADATA_VALUE_MAX} characters of metadata"
        )
        yield ConfigError(path, count, expected, "Let more models share the catch-all template, or shorten `name`")
    else:
        for error in metadata_problems({SETTINGS_KEY: text}, path):
            yield ConfigError(path, error.value, error.expected, "Rename the models or templates that contain them")


def filter_problems(filters: "GuardrailFilters", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `filters` cannot be rendered."""
    for kind, level in filters.get("responsible_ai", {}).items():
        where = f"{path}.responsible_ai.{kind}"
        yield from check_word(where, kind, FILTER_TYPES)
        yield from check_word(where, level, CONFIDENCES)
    if filters.get("prompt_injection") is not None:
        yield from check_word(f"{path}.prompt_injection", filters["prompt_injection"], CONFIDENCES)
    if filters.get("sensitive_data"):
        yield from _sensitive_problems(filters["sensitive_data"], f"{path}.sensitive_data")
    if not filter_config(filters) and not filters.get("sensitive_data", {}).get("info_types"):
        yield ConfigError(path, dict(filters), "at least one filter", "Name what is looked for, or use mode `off`")


def template_problems(template: "GuardrailTemplate", path: str) -> Iterator[ConfigError]:
    """Yield every reason why a template cannot be rendered; its name depends on where it goes."""
    yield from filter_problems(template["filters"], f"{path}.filters")
    yield from check_word(f"{path}.enforcement", template.get("enforcement", ENFORCEMENTS[0]), ENFORCEMENTS)
    yield from check_word(f"{path}.filter_version", template.get("filter_version", "stable"), VERSIONS)
    for index, model in enumerate(template.get("models", [])):
        yield from check_model_name(f"{path}.models[{index}]", model)
    fields: Mapping[str, Any] = template
    for side in ("prompt", "answer"):
        code, message = fields.get(f"{side}_error_code"), fields.get(f"{side}_error_message")
        if code is not None:
            yield from check_range(f"{path}.{side}_error_code", code, 400, 599, "a status of an error")
        if message is not None and not 0 < len(message) <= _MESSAGE_MAX:
            where, expected = f"{path}.{side}_error_message", f"1 to {_MESSAGE_MAX} characters"
            yield ConfigError(where, message, expected, "Change its length")


def floor_problems(floor: "FloorSetting", path: str) -> Iterator[ConfigError]:
    """Yield every reason why a floor setting cannot be rendered."""
    yield from filter_problems(floor["filters"], f"{path}.filters")


def _sensitive_problems(sensitive: "SensitiveData", path: str) -> Iterator[ConfigError]:
    if sensitive.get("basic") and sensitive.get("inspect_template"):
        yield ConfigError(f"{path}.basic", True, "either `basic` or `inspect_template`", "Remove one of them")
    if sensitive.get("deidentify_template") and not sensitive.get("inspect_template"):
        yield ConfigError(
            f"{path}.deidentify_template", sensitive["deidentify_template"], "`inspect_template` too", "Add it"
        )
    for kind, action in sensitive.get("info_types", {}).items():
        yield from check_word(f"{path}.info_types.{kind}", action, INFO_TYPE_ACTIONS)
