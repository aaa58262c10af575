"""ext_proc filters of the Envoy bootstrap: service extensions, their conditions, and endpoint pickers."""

from collections.abc import Iterable
from typing import Any

from cli.local.cel import parse
from cli.local.envoy_clusters import METADATA_NAMESPACE, Config, duration, typed
from cli.local.model import Backend, Extension, Traffic

EXT_PROC = "envoy.filters.http.ext_proc"
PICKER_FILTER = "penstock.endpoint_picker"
_EXTERNAL_PROCESSOR = "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"
_PER_ROUTE = "envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"
_SUBSET_HINT = "envoy.lb.subset_hint"
"""Source: Gateway API Inference Extension, proposal 004 "Endpoint Picker Protocol" 1.0.0."""

# With trailers subscribed to, the stream lasts until the end of the answer although Envoy sends nothing of it: the
# picker learns that the request has ended. Sending the answer's headers too would cost the picker a fifth more CPU for
# each request, to learn which replica served a retried one (`python -m benchmarks.path`).
_PICKER_MODE = {
    "request_header_mode": "SEND",
    "request_body_mode": "FULL_DUPLEX_STREAMED",
    "request_trailer_mode": "SEND",
    "response_header_mode": "SKIP",
    "response_body_mode": "NONE",
    "response_trailer_mode": "SEND",
}
_NOTHING = {
    "request_header_mode": "SKIP",
    "request_body_mode": "NONE",
    "request_trailer_mode": "SKIP",
    "response_header_mode": "SKIP",
    "response_body_mode": "NONE",
    "response_trailer_mode": "SKIP",
}


def extension_filters(traffic: Traffic, *, routing: bool) -> list[Config]:
    """Return the filters of the routing or of the traffic extensions, in order."""
    return [_extension(extension) for extension in traffic.extensions if extension.routing is routing]


def metadata_filters(traffic: Traffic) -> list[Config]:
    """Return the filter that attaches the declared `metadata` of extensions, where there is any."""
    entries = [
        {"metadata_namespace": item.metadata_namespace, "value": dict(item.metadata), "allow_overwrite": True}
        for item in traffic.extensions
        if item.metadata
    ]
    if not entries:
        return []
    config = typed("envoy.extensions.filters.http.set_metadata.v3.Config", metadata=entries)
    return [{"name": "penstock.extension_metadata", "typed_config": config}]


def _extension(extension: Extension) -> Config:
    processor = typed(
        _EXTERNAL_PROCESSOR,
        grpc_service=_grpc(extension.cluster, extension.authority),
        processing_mode=_mode(extension),
        message_timeout=duration(extension.timeout_s),
        failure_mode_allow=extension.fail_open,
        # Only a route extension may change where a request goes.
        route_cache_action="DEFAULT" if extension.routing else "RETAIN",
        mutation_rules={"allow_all_routing": extension.routing},
    )
    # A mode cannot be overridden in full duplex (Envoy, ProcessingMode).
    if not extension.request_full_duplex and not extension.response_full_duplex and not extension.observe:
        processor["allow_mode_override"] = True
    if extension.observe:
        processor["observability_mode"] = True
    if extension.forward_headers:
        patterns = [{"exact": name.lower()} for name in (*_PSEUDO_HEADERS, *extension.forward_headers)]
        processor["forward_rules"] = {"allowed_headers": {"patterns": patterns}}
    namespaces = [extension.metadata_namespace] if extension.metadata else []
    if "ResponseHeaders" in extension.events and not extension.routing:
        namespaces.append(METADATA_NAMESPACE)  # which replica has answered: picker protocol 1.0
    if namespaces:
        processor["metadata_options"] = {"forwarding_namespaces": {"untyped": namespaces}}
    name = f"penstock.extension.{extension.name}"
    if not extension.when and not any(extension.unless):
        return {"name": name, "typed_config": processor}
    return {"name": name, "typed_config": _conditional(extension, processor)}


_PSEUDO_HEADERS = (":method", ":path", ":authority", ":scheme", ":status")


def _mode(extension: Extension) -> Config:
    mode: Config = {}
    for side, full_duplex in (("Request", extension.request_full_duplex), ("Response", extension.response_full_duplex)):
        prefix = side.lower()
        body = "FULL_DUPLEX_STREAMED" if full_duplex else "STREAMED"
        mode[f"{prefix}_header_mode"] = "SEND" if f"{side}Headers" in extension.events else "SKIP"
        mode[f"{prefix}_body_mode"] = body if f"{side}Body" in extension.events else "NONE"
        mode[f"{prefix}_trailer_mode"] = "SEND" if f"{side}Trailers" in extension.events else "SKIP"
    return mode


def _grpc(cluster: str, authority: str = "") -> Config:
    target = {"cluster_name": cluster, **({"authority": authority} if authority else {})}
    return {"envoy_grpc": target}


def _conditional(extension: Extension, processor: Config) -> Config:
    """Skip the filter unless its chain is the first that matches.

    An expression that fails on a request, for example for a header that is not there, counts as false, as in
    Google Cloud: hence "skip where not (condition)" rather than "skip where (not condition)".
    """
    runs: list[Config] = [_any(extension.when)] if extension.when else []
    runs += [{"not_matcher": _any(earlier)} for earlier in extension.unless if earlier]
    skip = {"name": "skip", "typed_config": typed("envoy.extensions.filters.common.matcher.action.v3.SkipFilter")}
    matcher = {"predicate": {"not_matcher": _join("and_matcher", runs)}, "on_match": {"action": skip}}
    return typed(
        "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        extension_config={"name": EXT_PROC, "typed_config": processor},
        xds_matcher={"matcher_list": {"matchers": [matcher]}},
    )


def _any(expressions: Iterable[str]) -> Config:
    return _join("or_matcher", [_cel(expression) for expression in expressions])


def _join(kind: str, predicates: list[Config]) -> Config:
    """Join predicates; Envoy wants two at least in an AND or OR."""
    return predicates[0] if len(predicates) == 1 else {kind: {"predicate": predicates}}


def _cel(expression: str) -> Config:
    matcher = typed("xds.type.matcher.v3.CelMatcher", expr_match={"cel_expr_parsed": {"expr": parse(expression)}})
    attributes = typed("xds.type.matcher.v3.HttpAttributesCelMatchInput")
    return {
        "single_predicate": {
            "input": {"name": "request", "typed_config": attributes},
            "custom_match": {"name": "cel", "typed_config": matcher},
        }
    }


def picker_filters(traffic: Traffic) -> list[Config]:
    """Return the one filter of all endpoint pickers: it does nothing until a route names its picker."""
    pickers = [backend.picker for backend in _backends(traffic) if backend.picker]
    if not pickers:
        return []
    config = typed(
        _EXTERNAL_PROCESSOR,
        grpc_service=_grpc(pickers[0].cluster),
        processing_mode=_NOTHING,
        route_cache_action="RETAIN",
        # A picker that cannot be asked is "no endpoint" to the client, which may retry.
        status_on_error={"code": 503},
        metadata_options={
            "receiving_namespaces": {"untyped": [METADATA_NAMESPACE]},
            "forwarding_namespaces": {"untyped": [METADATA_NAMESPACE, _SUBSET_HINT]},
        },
    )
    return [{"name": PICKER_FILTER, "typed_config": config}]


def picker_override(backend: Backend) -> Config:
    """Return the per-route configuration that asks the picker of `backend`; empty where it has none."""
    if backend.picker is None:
        return {}
    overrides = {
        "grpc_service": _grpc(backend.picker.cluster),
        "processing_mode": _PICKER_MODE,
        "failure_mode_allow": backend.picker.fail_open,
    }
    return {PICKER_FILTER: typed(_PER_ROUTE, overrides=overrides)}


def _backends(traffic: Traffic) -> list[Backend]:
    found: list[Any] = [rule.backends for listener in traffic.listeners for rule in listener.rules]
    return [backend for backends in found for backend in backends]
