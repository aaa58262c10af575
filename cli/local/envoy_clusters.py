"""Clusters of the Envoy bootstrap: endpoints, TLS, health checks and the choice of an endpoint picker."""

from typing import Any

from cli.local.model import LOOPBACK, Cluster, Endpoint, Health

Config = dict[str, Any]

METADATA_NAMESPACE = "envoy.lb"
DESTINATION = "x-gateway-destination-endpoint"
SERVED = "x-gateway-destination-endpoint-served"
"""Source: Gateway API Inference Extension, proposal 004 "Endpoint Picker Protocol" 1.0.0."""

_UNLIMITED = 1_000_000
"""Envoy's circuit breakers default to 1,024 requests, fewer than one busy pool has; GKE sets none either."""
_MAX_RECOVERY_S = 0.5
"""How soon a host that is down is checked again: a restarted process must not wait out a whole interval."""


def typed(name: str, **fields: Any) -> Config:
    """Return a protobuf Any in JSON form."""
    return {"@type": f"type.googleapis.com/{name}", **fields}


def duration(seconds: float) -> str:
    """Return a protobuf Duration in JSON form."""
    return f"{seconds:.3f}s"


def socket_address(port: int) -> Config:
    """Return the address of a local port."""
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


def cluster_config(cluster: Cluster) -> Config:
    """Return Envoy's cluster. No panic threshold: with all hosts down, requests fail (or pass, under failOpen)."""
    config: Config = {
        "name": cluster.name,
        "type": "STATIC",
        "connect_timeout": duration(cluster.connect_timeout_s),
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        "circuit_breakers": {"thresholds": [_thresholds("DEFAULT"), _thresholds("HIGH")]},
        "load_assignment": {
            "cluster_name": cluster.name,
            "endpoints": [{"lb_endpoints": [_endpoint(endpoint) for endpoint in cluster.endpoints]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={"http2_protocol_options": {}} if cluster.http2 else {"http_protocol_options": {}},
            )
        },
    }
    if cluster.picked:
        config["load_balancing_policy"] = _follow_the_pick()
    if cluster.tls:
        config |= _tls(cluster.http2)
    if cluster.health:
        config["health_checks"] = [_health_check(cluster.health)]
    return config


def _thresholds(priority: str) -> Config:
    limits = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    return {"priority": priority, **dict.fromkeys(limits, _UNLIMITED)}


def _endpoint(endpoint: Endpoint) -> Config:
    host: Config = {"address": socket_address(endpoint.port)}
    if endpoint.health_port is not None and endpoint.health_port != endpoint.port:
        host["health_check_config"] = {"port_value": endpoint.health_port}
    return {"endpoint": host}


def _follow_the_pick() -> Config:
    """Return the policy that takes the picker's list in order, then round robin.

    Round robin is reached when the picker is gone (FailOpen), and by a retry that has used up the list.
    """
    round_robin = typed("envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin")
    override = typed(
        "envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost",
        override_host_sources=[
            {"header": DESTINATION},
            {"metadata": {"key": METADATA_NAMESPACE, "path": [{"key": DESTINATION}]}},
        ],
        selected_host_key={"key": METADATA_NAMESPACE, "path": [{"key": SERVED}]},
        fallback_policy={"policies": [_policy("round_robin", round_robin)]},
    )
    return {"policies": [_policy("override_host", override)]}


def _policy(name: str, config: Config) -> Config:
    extension = {"name": f"envoy.load_balancing_policies.{name}", "typed_config": config}
    return {"typed_extension_config": extension}


def _tls(http2: bool) -> Config:
    """Return TLS without verification, as GKE speaks to backends; health checks match the clear text socket."""
    raw = {
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": typed("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"),
    }
    context = {"alpn_protocols": ["h2"]} if http2 else {}
    return {
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": typed(
                "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", common_tls_context=context
            ),
        },
        "transport_socket_matches": [{"name": "health", "match": {"health": "plaintext"}, "transport_socket": raw}],
    }


def _health_check(health: Health) -> Config:
    recovery = min(health.interval_s, _MAX_RECOVERY_S)
    check: Config = {
        "timeout": duration(min(health.timeout_s, health.interval_s)),
        "interval": duration(health.interval_s),
        # Without traffic Envoy knows two intervals only, and would otherwise check once a minute.
        "no_traffic_interval": duration(recovery),
        "no_traffic_healthy_interval": duration(health.interval_s),
        "unhealthy_interval": duration(recovery),
        "unhealthy_edge_interval": duration(recovery),
        "healthy_edge_interval": duration(recovery),
        "healthy_threshold": health.healthy,
        "unhealthy_threshold": health.unhealthy,
        "transport_socket_match_criteria": {"health": "plaintext"},
    }
    if health.kind == "grpc":
        check["grpc_health_check"] = {"service_name": health.target} if health.target else {}
    elif health.kind == "http":
        check["http_health_check"] = {"path": health.target or "/"}
    else:
        check["tcp_health_check"] = {}
    return check
