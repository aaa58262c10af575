"""The Envoy bootstrap: a pure function of the plan."""

from pathlib import Path
from typing import Any

from cli.local.envoy_clusters import (
    DESTINATION,
    METADATA_NAMESPACE,
    SERVED,
    Config,
    cluster_config,
    duration,
    socket_address,
    typed,
)
from cli.local.envoy_extensions import extension_filters, metadata_filters, picker_filters
from cli.local.envoy_routes import CLIENT_PROTOCOL, HEADER_MUTATION, virtual_hosts
from cli.local.model import Listener, Plan, Traffic

_RESERVED = (DESTINATION, f"{DESTINATION}-subset", SERVED)
"""Headers that steer the load balancing below; a client's copies go before anything else looks at them."""

_ERRORS = {
    400: ("invalid_request_error", "bad_request", "The request is not valid HTTP."),
    404: ("invalid_request_error", "not_found", "There is nothing at this path."),
    408: ("invalid_request_error", "request_timeout", "The request did not arrive in time."),
    413: ("invalid_request_error", "request_too_large", "The request is too large."),
    429: ("rate_limit_error", "too_many_requests", "Too many requests. Retry later."),
    431: ("invalid_request_error", "headers_too_large", "The request's headers are too large."),
    500: ("server_error", "internal_error", "The gateway could not process this request."),
    501: ("invalid_request_error", "not_implemented", "The request uses a transfer encoding that is not supported."),
    502: ("server_error", "bad_gateway", "The replica's answer could not be understood. Retry."),
    503: ("server_error", "service_unavailable", "No replica could take this request. Retry later."),
    504: ("server_error", "gateway_timeout", "The answer did not come in time."),
}
_ACCESS_LOG = {
    "time": "%START_TIME%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ)%",
    "model": "%REQ(X-GATEWAY-MODEL-NAME)%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "destination": f"%REQ({DESTINATION.upper()})%",
    "served": f"%DYNAMIC_METADATA({METADATA_NAMESPACE}:{SERVED})%",
    "upstream": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "request_bytes": "%BYTES_RECEIVED%",
    "response_bytes": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "first_byte_ms": "%RESPONSE_DURATION%",
    "protocol": "%PROTOCOL%",
}
"""Neither query strings nor bodies nor credentials: what is logged may be shared."""

_NOBODY = {"address_prefix": "255.255.255.255", "prefix_len": 32}
"""The only "internal" address, so that every client's x-envoy-* headers, which steer timeouts and retries, are removed.
An empty list would make loopback and private addresses internal."""

_STREAM_IDLE_S = 300.0
"""A client that sends nothing for so long is cut off before a route is known; routes have their own timeout."""
_HTTP_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def bootstrap(plan: Plan, access_log: Path) -> Config:
    """Return the bootstrap for `plan`; every request is logged to `access_log`. Raises `PlanError`."""
    traffic = plan.traffic
    return {
        "admin": {"address": socket_address(plan.admin_port)},
        "static_resources": {
            "listeners": [_listener(traffic, listener, access_log) for listener in traffic.listeners],
            "clusters": [cluster_config(cluster) for cluster in traffic.clusters],
        },
    }


def _listener(traffic: Traffic, listener: Listener, access_log: Path) -> Config:
    network = {"name": "envoy.filters.network.http_connection_manager"}
    network["typed_config"] = _http_manager(traffic, listener, access_log)  # type: ignore[assignment]
    return {
        "name": listener.name,
        "address": socket_address(listener.port),
        "filter_chains": [{"filters": [network]}],
    }


def _http_manager(traffic: Traffic, listener: Listener, access_log: Path) -> Config:
    return typed(
        _HTTP_MANAGER,
        stat_prefix=listener.name,
        codec_type="AUTO",
        use_remote_address=True,
        internal_address_config={"cidr_ranges": [_NOBODY]},
        early_header_mutation_extensions=[_drop_reserved_headers()],
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        common_http_protocol_options={"headers_with_underscores_action": "ALLOW"},
        http2_protocol_options={"max_concurrent_streams": 1024},
        request_timeout="0s",
        stream_idle_timeout=duration(_STREAM_IDLE_S),
        generate_request_id=True,
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
        request_id_extension={
            "typed_config": typed("envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig", pack_trace_reason=False)
        },
        access_log=[_access_log(access_log)],
        local_reply_config=_local_replies(),
        route_config={"name": listener.name, "virtual_hosts": virtual_hosts(listener)},
        http_filters=_filters(traffic),
    )


def _filters(traffic: Traffic) -> list[Config]:
    """Return the HTTP filters in the order of the request; routes are chosen anew after the routing extensions."""
    headers = typed("envoy.extensions.filters.http.header_mutation.v3.HeaderMutation")
    router = typed("envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True)
    return [
        *metadata_filters(traffic),
        *extension_filters(traffic, routing=True),
        *extension_filters(traffic, routing=False),
        {"name": HEADER_MUTATION, "typed_config": headers},
        *picker_filters(traffic),
        {"name": "envoy.filters.http.router", "typed_config": router},
    ]


def _drop_reserved_headers() -> Config:
    name = "envoy.http.early_header_mutation.header_mutation"
    protocol = {
        "header": {"key": CLIENT_PROTOCOL, "value": "%PROTOCOL%"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    mutations: list[Config] = [
        *({"remove": header} for header in _RESERVED),
        {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}},
        {"append": protocol},
    ]
    config = typed("envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation", mutations=mutations)
    return {"name": name, "typed_config": config}


def _access_log(path: Path) -> Config:
    config = typed(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        path=str(path),
        log_format={"json_format": _ACCESS_LOG},
    )
    return {"name": "envoy.access_loggers.file", "typed_config": config}


def _local_replies() -> Config:
    """Give Envoy's own error answers OpenAI's shape.

    What callouts and routes answer comes with a content type of its own and stays as it is; Envoy's has none yet.
    """
    return {"mappers": [_error(status) for status in _ERRORS]}


def _error(status: int) -> Config:
    kind, code, message = _ERRORS[status]
    expression = f"response.code == {status} && !('content-type' in response.headers)"
    own = typed("envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", expression=expression)
    error: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": code}
    return {
        "filter": {"extension_filter": {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": own}},
        "body_format_override": {"json_format": {"error": error}},
    }
