"""The one GCPRoutingExtension and the one GCPTrafficExtension of a Gateway.

GKE takes one resource of each kind per forwarding rule and runs only the first chain that matches, so that all callouts
share one chain. Source: networking.gke.io/v1 schemas and "Configure GKE Service Extensions".
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .._labels import labels
from .._naming import ROUTING_SUFFIX, TRAFFIC_SUFFIX, check_label
from ..errors import ConfigError, did_you_mean
from .common import (
    APIGEE_API,
    GATEWAY_API,
    GKE_API,
    Manifest,
    check_range,
    check_word,
    check_words,
    manifest,
    target_ref,
)

if TYPE_CHECKING:
    from ..extensions import ExtensionCallout, ExtensionsArgs, RoutingCallout

CALLOUTS_MAX = 3
METADATA_MAX = 16
METADATA_VALUE_MAX = 1023
CEL_MAX = 512
TIMEOUT_MS = 1000
TIMEOUT_RANGE_MS = (10, 10_000)
REQUEST_EVENTS = ("RequestHeaders", "RequestBody", "RequestTrailers")
EVENTS = (*REQUEST_EVENTS, "ResponseHeaders", "ResponseBody", "ResponseTrailers")
BODY_MODES = ("Streamed", "FullDuplexStreamed")
PURPOSES = ("management", "guardrails")
"""Purposes in the order of requests: a refused key costs no screening."""
BACKENDS = ("service", "google_api_service", "apigee_backend")

MATCH_ALL = "request.path.startsWith('/')"
"""Every request. Narrower paths would save nothing, since routes serve only inference paths, and would let a request
past the body router, which takes trust headers away, or past a guardrail, if path normalization ever differed."""

_METADATA_KEY = re.compile(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:\s\[\]{}]{1,63}")
_METADATA_VALUE = re.compile(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:\"\s\[\]{}]+")
_GOOGLE_SERVICE = re.compile(r"[a-z0-9.-]+\.(googleapis|sandbox\.googleapis)\.com")
_AUTHORITY = re.compile(r"[A-Za-z0-9\-_:%.\[\]]{1,1000}")
_CHAIN = "penstock"


def routing(args: "ExtensionsArgs") -> Manifest:
    """Return the GCPRoutingExtension. It fails closed: without the body router a client's own headers would route."""
    callout = args["routing"]
    extension: Manifest = {
        "name": callout["name"],
        "backendRef": _service_ref(callout["service"], callout["port"]),
        "authority": _authority(callout["service"], args["namespace"]),
        "timeout": f"{callout.get('timeout_ms', TIMEOUT_MS)}ms",
        "supportedEvents": list(REQUEST_EVENTS),
        "requestBodySendMode": "FullDuplexStreamed",
        "failOpen": False,
    }
    return _resource(args, "GCPRoutingExtension", ROUTING_SUFFIX, [extension])


def traffic(args: "ExtensionsArgs") -> Manifest | None:
    """Return the GCPTrafficExtension with the callouts in their order, or None without any."""
    extensions = [_extension(callout, args["namespace"]) for callout in args.get("callouts", [])]
    return _resource(args, "GCPTrafficExtension", TRAFFIC_SUFFIX, extensions) if extensions else None


def problems(args: "ExtensionsArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be rendered."""
    yield from check_label(f"{path}.gateway", args["gateway"], ROUTING_SUFFIX, "the Gateway's name")
    yield from check_label(f"{path}.namespace", args["namespace"], what="a namespace")
    match = args.get("match", MATCH_ALL)
    if not 0 < len(match) <= CEL_MAX:
        yield ConfigError(f"{path}.match", match, f"a CEL expression of 1 to {CEL_MAX} characters", "Shorten it")
    yield from _routing_problems(args["routing"], args["namespace"], f"{path}.routing")
    callouts = args.get("callouts", [])
    if len(callouts) > CALLOUTS_MAX:
        names = [callout["name"] for callout in callouts]
        fix = "Let one callout process run several filters, or drop one"
        yield ConfigError(f"{path}.callouts", names, f"at most {CALLOUTS_MAX} callouts per Gateway", fix)
    for index, callout in enumerate(callouts):
        where = f"{path}.callouts[{index}]"
        if callout["name"] in [other["name"] for other in callouts[:index]]:
            yield ConfigError(f"{where}.name", callout["name"], "each callout's name once", "Rename one of them")
        yield from _callout_problems(callout, args["namespace"], where)
    yield from _order_problems(callouts, f"{path}.callouts")
    if not args.get("allow_header_only_callouts", False):
        yield from _truncation_problems(callouts, f"{path}.callouts")


def _resource(args: "ExtensionsArgs", kind: str, suffix: str, extensions: list[Manifest]) -> Manifest:
    name = f"{args['gateway']}{suffix}"
    chain = {
        "name": _CHAIN,
        "matchCondition": {"celExpressions": [{"celMatcher": args.get("match", MATCH_ALL)}]},
        "extensions": extensions,
    }
    spec = {"targetRefs": [target_ref(GATEWAY_API, "Gateway", args["gateway"])], "extensionChains": [chain]}
    return manifest(f"{GKE_API}/v1", kind, name, args["namespace"], labels(name), spec=spec)


def _extension(callout: "ExtensionCallout", namespace: str) -> Manifest:
    extension: Manifest = {"name": callout["name"]}
    if callout.get("google_api_service") is not None:
        extension["googleAPIServiceName"] = callout["google_api_service"]
    elif callout.get("apigee_backend") is not None:
        ref = target_ref(APIGEE_API, "ApigeeBackendService", callout["apigee_backend"])
        extension["backendRef"] = ref
    else:
        extension["backendRef"] = _service_ref(callout["service"], callout["port"])
        extension["authority"] = callout.get("authority", _authority(callout["service"], namespace))
    extension["supportedEvents"] = list(callout["events"])
    extension["timeout"] = f"{callout.get('timeout_ms', TIMEOUT_MS)}ms"
    extension["failOpen"] = callout.get("fail_open", False)
    if callout.get("request_body_mode") is not None:
        extension["requestBodySendMode"] = callout["request_body_mode"]
    if callout.get("response_body_mode") is not None:
        extension["responseBodySendMode"] = callout["response_body_mode"]
    if callout.get("metadata"):
        extension["metadata"] = dict(callout["metadata"])
    return extension


def _service_ref(service: str, port: int) -> Manifest:
    return {"group": "", "kind": "Service", "name": service, "port": port}


def _authority(service: str, namespace: str) -> str:
    return f"{service}.{namespace}.svc"


def _routing_problems(callout: "RoutingCallout", namespace: str, path: str) -> Iterator[ConfigError]:
    yield from check_label(f"{path}.name", callout["name"], what="a callout's name")
    yield from check_label(f"{path}.service", callout["service"], what="a Service's name")
    yield from check_range(f"{path}.port", callout["port"], 1, 65535, "a port")
    yield from check_range(f"{path}.timeout_ms", callout.get("timeout_ms", TIMEOUT_MS), *TIMEOUT_RANGE_MS, "ms")
    yield from _namespace_problems(callout.get("service_namespace"), namespace, path)


def _namespace_problems(given: str | None, namespace: str, path: str) -> Iterator[ConfigError]:
    if given is not None and given != namespace:
        expected = f"`{namespace}`: Gateway, extensions and callouts share one namespace"
        yield ConfigError(f"{path}.service_namespace", given, expected, f"Deploy the callout to `{namespace}`")


def _callout_problems(callout: "ExtensionCallout", namespace: str, path: str) -> Iterator[ConfigError]:
    yield from check_label(f"{path}.name", callout["name"], what="a callout's name")
    yield from check_range(f"{path}.timeout_ms", callout.get("timeout_ms", TIMEOUT_MS), *TIMEOUT_RANGE_MS, "ms")
    yield from _namespace_problems(callout.get("service_namespace"), namespace, path)
    yield from _backend_problems(callout, path)
    yield from _event_problems(callout, path)
    yield from metadata_problems(callout.get("metadata", {}), f"{path}.metadata")


def _order_problems(callouts: "list[ExtensionCallout]", path: str) -> Iterator[ConfigError]:
    screened = ""
    for index, callout in enumerate(callouts):
        where, purpose = f"{path}[{index}]", callout.get("purpose")
        if purpose is not None:
            yield from check_word(f"{where}.purpose", purpose, PURPOSES)
        if purpose == "guardrails":
            screened = screened or callout["name"]
        elif purpose == "management" and screened:
            expected = f"a place in front of `{screened}`: what a key forbids is not worth screening"
            yield ConfigError(where, callout["name"], expected, f"Move it before `{screened}`")


def _truncation_problems(callouts: "list[ExtensionCallout]", path: str) -> Iterator[ConfigError]:
    """Yield callouts that would make Envoy lose the end of streamed answers; see `allow_header_only_callouts`."""
    for index, front in enumerate(callouts):
        if "ResponseHeaders" not in front["events"] or "ResponseBody" in front["events"]:
            continue
        behind = next((other for other in callouts[index + 1 :] if "ResponseBody" in other["events"]), None)
        if behind is not None:
            expected = (
                f"ResponseBody as well, in front of `{behind['name']}`, which takes bodies: streams may be cut off"
            )
            fix = "Add ResponseBody, move it behind, or set `allow_header_only_callouts`"
            yield ConfigError(f"{path}[{index}].events", list(front["events"]), expected, fix)


def _backend_problems(callout: "ExtensionCallout", path: str) -> Iterator[ConfigError]:
    given: Mapping[str, Any] = callout
    backends = [field for field in BACKENDS if given.get(field) is not None]
    if len(backends) != 1:
        yield ConfigError(path, callout["name"], f"exactly one of {', '.join(BACKENDS)}", "Name the one that runs")
    google, service, apigee = callout.get("google_api_service"), callout.get("service"), callout.get("apigee_backend")
    if google is not None:
        if not (_GOOGLE_SERVICE.fullmatch(google) and len(google) <= 100):
            fix = "Write it like `modelarmor.us-central1.rep.googleapis.com`"
            yield ConfigError(f"{path}.google_api_service", google, "the host name of a Google API service", fix)
        for field in ("authority", "port", "request_body_mode", "response_body_mode", "service_namespace"):
            if given.get(field) is not None:
                yield ConfigError(f"{path}.{field}", given[field], "no value with a Google service", "Remove it")
    if apigee is not None:
        yield from check_label(f"{path}.apigee_backend", apigee, what="an ApigeeBackendService's name")
        for field in ("authority", "port"):
            if given.get(field) is not None:
                yield ConfigError(f"{path}.{field}", given[field], "no value with an ApigeeBackendService", "Remove it")
    if service is not None:
        yield from check_label(f"{path}.service", service, what="a Service's name")
        if callout.get("port") is None:
            yield ConfigError(f"{path}.port", None, "the Service's port", "Set it")
        else:
            yield from check_range(f"{path}.port", callout["port"], 1, 65535, "a port")
    authority = callout.get("authority")
    if authority is not None and not _AUTHORITY.fullmatch(authority):
        yield ConfigError(f"{path}.authority", authority, "a host name with an optional port", "Correct it")


def _event_problems(callout: "ExtensionCallout", path: str) -> Iterator[ConfigError]:
    events = callout["events"]
    if not events:
        yield ConfigError(f"{path}.events", [], "at least one event", f"Choose from {', '.join(EVENTS)}")
    yield from check_words(f"{path}.events", events, EVENTS)
    for side in ("request", "response"):
        mode = callout.get(f"{side}_body_mode")
        if mode is None:
            continue
        where, title = f"{path}.{side}_body_mode", side.capitalize()
        needed = [f"{title}Body"] + ([f"{title}Trailers"] if mode == "FullDuplexStreamed" else [])
        if mode not in BODY_MODES:
            yield ConfigError(where, mode, f"one of {', '.join(BODY_MODES)}", did_you_mean(mode, BODY_MODES))
        elif missing := [event for event in needed if event not in events]:
            yield ConfigError(where, mode, f"the events {', '.join(needed)}", f"Add {', '.join(missing)} to events")


def metadata_problems(metadata: Mapping[str, str], path: str) -> Iterator[ConfigError]:
    """Yield an error for each entry that the schema's number, length or characters refuse."""
    if len(metadata) > METADATA_MAX:
        yield ConfigError(path, sorted(metadata), f"at most {METADATA_MAX} entries", "Join some of them")
    for key, value in metadata.items():
        where = f"{path}.{key}"
        if not _METADATA_KEY.fullmatch(key):
            expected = "a key of 1 to 63 letters, digits and /-._~%!$&'()*+,;=:[]{}"
            yield ConfigError(where, key, expected, "Rename the key")
        if not 1 <= len(value) <= METADATA_VALUE_MAX:
            expected = f"1 to {METADATA_VALUE_MAX} characters, not {len(value)}"
            yield ConfigError(where, value, expected, "Shorten it, e.g. by fewer entries or shorter names")
        elif not _METADATA_VALUE.fullmatch(value):
            bad = "".join(sorted({char for char in value if not _METADATA_VALUE.fullmatch(char)}))
            expected = f"letters, digits, blanks and /-._~%!$&'()*+,;=:\"[]{{}}, without {bad!r}"
            yield ConfigError(where, value, expected, "Replace these characters")
