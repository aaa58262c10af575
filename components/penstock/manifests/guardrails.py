"""Guardrails: entries in the traffic chain, the configuration of Penstock's own callout, and what is refused."""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from .._naming import check_label
from ..errors import ConfigError
from . import model_armor
from .callout import Callout
from .common import check_image, check_mode_fields, check_range, check_word
from .extensions import EVENTS, REQUEST_EVENTS, TIMEOUT_MS, TIMEOUT_RANGE_MS
from .location import check_cloud
from .model_armor import CATCH_ALL
from .traffic_callout import STREAM_TIMEOUT_S as STREAM_TIMEOUT_S
from .traffic_callout import made, workload_problems

if TYPE_CHECKING:
    from ..extensions import ExtensionCallout
    from ..guardrails import GuardrailsArgs, GuardrailTemplate

NAME = "guardrails"
HOST = "api-management"
"""The workload that serves them when both are bundled."""
GRPC_PORT = 9008
HEALTH_PORT = 9009

MODEL_ARMOR, BUNDLED, NEMO, REPLICA, OFF = "model_armor", "bundled", "nemo", "replica", "off"
MODES = (MODEL_ARMOR, BUNDLED, NEMO, REPLICA, OFF)
REFUSE, CALLOUT, UNSCREENED = "refuse", "callout", "unscreened"
STREAMING = (REFUSE, CALLOUT, UNSCREENED)
BUILTIN = "builtin"
BACKENDS = (BUILTIN, MODEL_ARMOR)
OWN = "own"

_NEMO_MS = 800
_URL = re.compile(r"https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[\w./-]*)?")

_FIELDS: Mapping[str, tuple[str, ...]] = {
    MODEL_ARMOR: ("templates", "streaming", "floor"),
    BUNDLED: ("templates", "backends", "floor"),
    NEMO: ("nemo",),
    REPLICA: (),
    OFF: (),
}
"""Fields that only some modes read; anywhere else they would promise what does not happen."""


def uses_model_armor(args: "GuardrailsArgs") -> bool:
    """Return whether templates of Model Armor are declared."""
    return args["mode"] == MODEL_ARMOR or (args["mode"] == BUNDLED and MODEL_ARMOR in _backends(args))


def calls_google_apis(args: "GuardrailsArgs") -> bool:
    """Return whether the callout of ours calls Model Armor's REST API."""
    in_callout = args["mode"] == BUNDLED or args.get("streaming") == CALLOUT
    return in_callout and uses_model_armor(args)


def has_engine(args: "GuardrailsArgs") -> bool:
    """Return whether a callout of ours takes part, wherever it runs."""
    return args["mode"] in (BUNDLED, NEMO) or args.get("streaming") in (REFUSE, CALLOUT)


def has_workload(args: "GuardrailsArgs") -> bool:
    """Return whether that callout is a workload of its own."""
    return has_engine(args) and args.get("served_by", OWN) == OWN


def streams_screened(args: "GuardrailsArgs") -> bool:
    """Return whether no streamed answer reaches a client unscreened."""
    return has_engine(args)


def callouts(args: "GuardrailsArgs") -> "list[ExtensionCallout]":
    """Return the entries of the traffic chain: what refuses streams stands in front, since it costs least."""
    own: list[ExtensionCallout] = [_own(args)] if has_workload(args) else []
    return [*own, model_armor.callout(args)] if args["mode"] == MODEL_ARMOR else own


def config(args: "GuardrailsArgs") -> str:
    """Return the engine's configuration file (YAML), for the own workload or for API management's.

    `backends` decide in their order; `screen` says what they see; `templates` are Model Armor's messages in camelCase.
    """
    whole = args["mode"] != MODEL_ARMOR
    streams = args.get("streaming") == CALLOUT
    document = {
        "backends": _backend_documents(args),
        "screen": {"prompts": whole, "answers": "all" if whole else "streamed" if streams else "none"},
        "streamedRequests": "refuse" if args.get("streaming") == REFUSE else "accept",
        "failOpen": args.get("fail_open", False),
        "templates": [_template(args, template) for template in args.get("templates", []) if whole or streams],
    }
    return yaml.safe_dump(document, sort_keys=False)


def callout(args: "GuardrailsArgs") -> Callout:
    """Return the callout that the objects of the workload `guardrails` are made from."""
    ports = (GRPC_PORT, HEALTH_PORT)
    return made(
        NAME,
        "guardrails",
        args["namespace"],
        args["image"],
        ports,
        {"config.yaml": config(args)},
        args.get("workload", {}),
    )


def problems(args: "GuardrailsArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be rendered."""
    yield from check_label(f"{path}.namespace", args["namespace"], what="a namespace")
    yield from check_range(f"{path}.timeout_ms", args.get("timeout_ms", TIMEOUT_MS), *TIMEOUT_RANGE_MS, "ms")
    yield from workload_problems(args.get("workload", {}), f"{path}.workload")
    mode = args["mode"]
    if mode not in MODES:
        yield from check_word(f"{path}.mode", mode, MODES)
        return
    yield from check_mode_fields(path, args, args["mode"], _FIELDS)
    yield from _streaming_problems(args, path)
    yield from _backend_problems(args, path)
    yield from _place_problems(args, path)
    if mode in (MODEL_ARMOR, BUNDLED):
        yield from _template_problems(args, path)
    if uses_model_armor(args):
        yield from _cloud_problems(args, path)


def _backends(args: "GuardrailsArgs") -> list[str]:
    return list(args.get("backends", [BUILTIN]))


def _backend_documents(args: "GuardrailsArgs") -> list[dict[str, Any]]:
    if args["mode"] == NEMO:
        server = args["nemo"]
        timeout_ms = server.get("timeout_ms", _NEMO_MS)
        return [{"kind": "nemo", "url": server["url"], "configId": server["config_id"], "timeoutMs": timeout_ms}]
    if args["mode"] == MODEL_ARMOR:
        kinds = [MODEL_ARMOR] if args.get("streaming") == CALLOUT else []
    else:
        kinds = _backends(args)
    return [
        {"kind": "modelArmor", "location": args["region"]} if kind == MODEL_ARMOR else {"kind": kind} for kind in kinds
    ]


def _template(args: "GuardrailsArgs", template: "GuardrailTemplate") -> dict[str, Any]:
    found: dict[str, Any] = {"name": template["name"]}
    if template.get("models"):
        found["models"] = list(template["models"])
    if uses_model_armor(args):
        found["resource"] = model_armor.resource_name(args, template)
    found["filterConfig"] = model_armor.filter_config(template["filters"])
    found["templateMetadata"] = model_armor.template_metadata(template)
    types = template["filters"].get("sensitive_data", {}).get("info_types")
    return found | ({"infoTypes": dict(types)} if types else {})


def _own(args: "GuardrailsArgs") -> "ExtensionCallout":
    refusing = args.get("streaming") == REFUSE  # it decides by the request alone
    entry: ExtensionCallout = {
        "name": NAME,
        "purpose": "guardrails",
        "service": NAME,
        "port": GRPC_PORT,
        "service_namespace": args["namespace"],
        "events": list(REQUEST_EVENTS if refusing else EVENTS),
        "timeout_ms": args.get("timeout_ms", TIMEOUT_MS),
        "fail_open": args.get("fail_open", False),
        "request_body_mode": "FullDuplexStreamed",
    }
    if not refusing:
        entry["response_body_mode"] = "FullDuplexStreamed"
    return entry


def _streaming_problems(args: "GuardrailsArgs", path: str) -> Iterator[ConfigError]:
    if args["mode"] != MODEL_ARMOR:
        return
    where, streaming = f"{path}.streaming", args.get("streaming")
    if streaming is None:
        expected = f"one of {', '.join(STREAMING)}: Model Armor skips streamed answers"
        yield ConfigError(where, None, expected, "Decide what happens to requests with `stream: true`")
    else:
        yield from check_word(where, streaming, STREAMING)


def _backend_problems(args: "GuardrailsArgs", path: str) -> Iterator[ConfigError]:
    if args["mode"] == BUNDLED:
        backends = _backends(args)
        if not backends:
            yield ConfigError(f"{path}.backends", [], f"one or more of {', '.join(BACKENDS)}", "Name who decides")
        for index, backend in enumerate(backends):
            where = f"{path}.backends[{index}]"
            yield from check_word(where, backend, BACKENDS)
            if backend in backends[:index]:
                yield ConfigError(where, backend, "each backend once", "Remove one of them")
    if args["mode"] == NEMO:
        server = args.get("nemo")
        if server is None:
            yield ConfigError(f"{path}.nemo", None, "the address of the NeMo Guardrails server", "Set it")
            return
        if not _URL.fullmatch(server["url"]):
            fix = "Write it like `http://nemo.guardrails.svc:8000`"
            yield ConfigError(f"{path}.nemo.url", server["url"], "an http or https URL without credentials", fix)
        yield from check_range(f"{path}.nemo.timeout_ms", server.get("timeout_ms", _NEMO_MS), 10, 60_000, "ms")


def _place_problems(args: "GuardrailsArgs", path: str) -> Iterator[ConfigError]:
    place = args.get("served_by", OWN)
    yield from check_word(f"{path}.served_by", place, (OWN, HOST))
    if place == HOST and not has_engine(args):
        expected = "a mode in which a callout of ours takes part"
        yield ConfigError(f"{path}.served_by", place, expected, "Remove it")
    if has_workload(args):
        if args.get("image") is None:
            yield ConfigError(f"{path}.image", None, "the image of Penstock's services", "Set it")
        else:
            yield from check_image(f"{path}.image", args["image"])


def _template_problems(args: "GuardrailsArgs", path: str) -> Iterator[ConfigError]:
    templates = args.get("templates", [])
    catch_all = [template["name"] for template in templates if template.get("models") is None]
    if len(catch_all) != 1:
        expected = "exactly one template without `models`, which every other model falls to"
        yield ConfigError(f"{path}.templates", catch_all, expected, "Leave `models` out of one template")
    prefix = f"{args.get('name', '')}-" if uses_model_armor(args) else ""
    named: dict[str, str] = {}
    for index, template in enumerate(templates):
        where = f"{path}.templates[{index}]"
        yield from check_label(f"{where}.name", template["name"], prefix, "a template's name")
        if template["name"] in [other["name"] for other in templates[:index]]:
            yield ConfigError(f"{where}.name", template["name"], "each template's name once", "Rename one of them")
        if template.get("models") == []:
            yield ConfigError(f"{where}.models", [], "at least one model", "Name models, or leave the field out")
        for number, model in enumerate(template.get("models", [])):
            if model in named or model == CATCH_ALL:
                expected = f"a model that no other template names; `{CATCH_ALL}` stands for the rest"
                yield ConfigError(f"{where}.models[{number}]", model, expected, "Remove it from one of them")
            named.setdefault(model, where)
        yield from model_armor.template_problems(template, where)
        if args["mode"] == MODEL_ARMOR and template["filters"].get("sensitive_data", {}).get("info_types"):
            expected = "mode bundled: Model Armor takes types from an inspect template"
            yield ConfigError(f"{where}.filters.sensitive_data.info_types", "...", expected, "Use `inspect_template`")


def _cloud_problems(args: "GuardrailsArgs", path: str) -> Iterator[ConfigError]:
    found = list(check_cloud(path, args, "Model Armor's templates live in a project"))
    yield from found
    if args.get("floor") is not None:
        yield from model_armor.floor_problems(args["floor"], f"{path}.floor")
    if args["mode"] == MODEL_ARMOR and not found:
        yield from model_armor.settings_problems(args, f"{path}.templates")
