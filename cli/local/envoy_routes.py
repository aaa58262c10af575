"""Virtual hosts and routes of the Envoy bootstrap, with Gateway API's precedence.

Source: Gateway API v1.5, HTTPRouteRule.matches and HTTPRoute.hostnames.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cli.local.envoy_clusters import Config, duration, typed
from cli.local.envoy_extensions import picker_override
from cli.local.model import Backend, Listener, PlanError, Rule

HEADER_MUTATION = "penstock.route_headers"
_LOCAL_NAMES = ("127.0.0.1", "localhost")
_RETRY_BODY_BYTES = 16 * 1024 * 1024
"""How much of a request body is kept for a retry."""

CLIENT_PROTOCOL = "x-client-protocol"
"""Header that says which protocol the client speaks; set by the listener, over whatever a client sends."""

_RETRIES = {
    "retry_on": "connect-failure,refused-stream",
    "num_retries": 2,
    "retriable_request_headers": [{"name": CLIENT_PROTOCOL, "string_match": {"exact": "HTTP/1.1"}}],
}
"""Only what the replica has not begun to work on: a prompt must not be computed, nor charged, twice. HTTP/2 requests
are not retried: with trailers, Envoy 1.40 would send the body of a retriable request twice (envoyproxy/envoy 45470)."""


def virtual_hosts(listener: Listener) -> list[Config]:
    """Return the virtual hosts of a listener. A request that no rule matches gets 404 in OpenAI's error shape."""
    hosts: dict[str, list[tuple[tuple[Any, ...], Config]]] = {}
    for pattern in _host_patterns(listener):
        routes = hosts.setdefault(pattern, [])
        for order, rule in enumerate(listener.rules):
            specificity = _covers(rule, listener, pattern)
            if specificity is None:
                continue
            for index, match in enumerate(rule.matches or ({},)):
                key = (-specificity, *_precedence(match), rule.route, order, index)
                routes.append((key, _route(rule, match, f"{rule.route}/{order}/{index}")))
    main = next(iter(hosts))
    return [
        {
            "name": pattern,
            "domains": _domains(pattern, hosts, main),
            "routes": [route for _, route in sorted(routes, key=lambda item: item[0])] + [_not_found()],
        }
        for pattern, routes in hosts.items()
    ]


def _host_patterns(listener: Listener) -> list[str]:
    """Return every host name pattern in use, the listener's own where a rule has none; at least one."""
    patterns = [name for rule in listener.rules for name in rule.hostnames or (listener.hostname,)]
    return list(dict.fromkeys(patterns)) or [listener.hostname]


def _domains(pattern: str, hosts: Mapping[str, Any], main: str) -> list[str]:
    """Return Envoy's domains; the main host also answers to this machine's names, which clients here use."""
    if pattern == "*":
        return ["*"]
    local = [f"{name}{port}" for name in _LOCAL_NAMES for port in ("", ":*")] if "*" not in hosts else []
    return [pattern, f"{pattern}:*", *(local if pattern == main else [])]


def _covers(rule: Rule, listener: Listener, pattern: str) -> int | None:
    """Return how specific the rule's best host name for `pattern` is, None where it has none."""
    lengths = []
    for name in rule.hostnames or (listener.hostname,):
        if name == "*" or name == pattern or (name.startswith("*.") and pattern.endswith(name[1:])):
            lengths.append(0 if name == "*" else len(name))
    return max(lengths, default=None)


def _precedence(match: Mapping[str, Any]) -> tuple[int, ...]:
    """Order matches: exact path, pattern, longest prefix; then method; then number of headers, of parameters."""
    path = match.get("path") or {}
    kind = path.get("type", "PathPrefix")
    rank = {"Exact": 0, "RegularExpression": 1}.get(kind, 2)
    return (
        rank,
        -len(path.get("value", "/")),
        0 if "method" in match else 1,
        -len(match.get("headers") or ()),
        -len(match.get("queryParams") or ()),
    )


def _route(rule: Rule, match: Mapping[str, Any], name: str) -> Config:
    filters = {entry["type"]: entry for entry in rule.filters}
    route: Config = {"name": name, "match": _match(match)}
    unknown = set(filters) - {"RequestHeaderModifier", "ResponseHeaderModifier", "URLRewrite", "RequestRedirect"}
    if unknown:
        raise PlanError([f"HTTPRoute {rule.route}: filter {', '.join(sorted(unknown))} cannot be realized locally"])
    if "RequestRedirect" in filters:
        return {**route, "redirect": _redirect(filters["RequestRedirect"]["requestRedirect"], match)}
    targets = [backend for backend in rule.backends if backend.weight > 0]
    per_filter = _header_mutations(rule.filters)
    if not targets:
        # Gateway API: a rule without a usable backend answers 500.
        return {**route, **_answer(500, "This route has no backend.", "server_error", "no_backend")}
    action: Config = {
        "timeout": duration(max(backend.timeout_s for backend in targets)),
        "idle_timeout": duration(max(backend.timeout_s for backend in targets)),
        "retry_policy": _RETRIES,
    }
    if len(targets) == 1:
        action["cluster"] = targets[0].cluster
        per_filter |= {**_header_mutations((*rule.filters, *targets[0].filters)), **picker_override(targets[0])}
    else:
        action["weighted_clusters"] = {"clusters": [_weighted(backend) for backend in targets]}
    if "URLRewrite" in filters:
        action |= _rewrite(filters["URLRewrite"]["urlRewrite"], match)
    if per_filter:
        route["typed_per_filter_config"] = per_filter
    return {**route, "route": action, "request_body_buffer_limit": str(_RETRY_BODY_BYTES)}


def _weighted(backend: Backend) -> Config:
    per_filter = {**_header_mutations(backend.filters), **picker_override(backend)}
    config: Config = {"name": backend.cluster, "weight": backend.weight}
    return {**config, "typed_per_filter_config": per_filter} if per_filter else config


def _match(match: Mapping[str, Any]) -> Config:
    path = match.get("path") or {}
    kind, value = path.get("type", "PathPrefix"), path.get("value", "/")
    headers = [_named(entry, "string_match", lower=True) for entry in match.get("headers") or ()]
    if "method" in match:
        headers.append({"name": ":method", "string_match": {"exact": match["method"]}})
    config: Config = {"headers": headers} if headers else {}
    parameters = [_named(entry, "string_match", lower=False) for entry in match.get("queryParams") or ()]
    if parameters:
        config["query_parameters"] = parameters
    if kind == "Exact":
        return {"path": value, **config}
    if kind == "RegularExpression":
        return {"safe_regex": {"regex": value}, **config}
    # Gateway API compares prefixes element by element: /v1 covers /v1/models, not /v10.
    prefix = value.rstrip("/")
    return {"path_separated_prefix": prefix, **config} if prefix else {"prefix": "/", **config}


def _named(entry: Mapping[str, Any], field: str, *, lower: bool) -> Config:
    name = entry["name"].lower() if lower else entry["name"]
    if entry.get("type", "Exact") == "RegularExpression":
        return {"name": name, field: {"safe_regex": {"regex": entry["value"]}}}
    return {"name": name, field: {"exact": entry["value"]}}


def _header_mutations(filters: Sequence[Mapping[str, Any]]) -> Config:
    """Return header changes as a filter's configuration: it runs before the picker, which must see them."""
    mutations: Config = {}
    for entry in filters:
        if entry["type"] == "RequestHeaderModifier":
            mutations.setdefault("request_mutations", []).extend(_changes(entry["requestHeaderModifier"]))
        elif entry["type"] == "ResponseHeaderModifier":
            mutations.setdefault("response_mutations", []).extend(_changes(entry["responseHeaderModifier"]))
    if not mutations:
        return {}
    config = typed("envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute", mutations=mutations)
    return {HEADER_MUTATION: config}


def _changes(modifier: Mapping[str, Any]) -> Iterator[Config]:
    for action, verb in (("OVERWRITE_IF_EXISTS_OR_ADD", "set"), ("APPEND_IF_EXISTS_OR_ADD", "add")):
        for header in modifier.get(verb) or ():
            # A percent sign would begin one of Envoy's format commands.
            value = str(header["value"]).replace("%", "%%")
            yield {"append": {"header": {"key": header["name"].lower(), "value": value}, "append_action": action}}
    for name in modifier.get("remove") or ():
        yield {"remove": name.lower()}


def _rewrite(rewrite: Mapping[str, Any], match: Mapping[str, Any]) -> Config:
    action: Config = {}
    if "hostname" in rewrite:
        action["host_rewrite_literal"] = rewrite["hostname"]
    path = rewrite.get("path") or {}
    if path.get("type") == "ReplaceFullPath":
        action["regex_rewrite"] = _regex(r"^/.*$", path["replaceFullPath"])
    elif path.get("type") == "ReplacePrefixMatch":
        prefix = re.escape(((match.get("path") or {}).get("value") or "/").rstrip("/"))
        replacement = path["replacePrefixMatch"].rstrip("/")
        # A bare prefix must not leave an empty path, nor a replaced one two slashes.
        action["regex_rewrite"] = _regex(f"^{prefix}(?:/|$)", replacement + "/")
    return action


def _regex(pattern: str, substitution: str) -> Config:
    return {"pattern": {"regex": pattern}, "substitution": substitution.replace("\\", "\\\\")}


_REDIRECT_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def _redirect(redirect: Mapping[str, Any], match: Mapping[str, Any]) -> Config:
    action: Config = {"response_code": _REDIRECT_CODES[int(redirect.get("statusCode", 302))]}
    for field, target in (("scheme", "scheme_redirect"), ("hostname", "host_redirect"), ("port", "port_redirect")):
        if field in redirect:
            action[target] = redirect[field]
    path = redirect.get("path") or {}
    if path.get("type") == "ReplaceFullPath":
        action["path_redirect"] = path["replaceFullPath"]
    elif path.get("type") == "ReplacePrefixMatch":
        action |= _rewrite({"path": path}, match)
    return action


def _not_found() -> Config:
    message = "No route matches this request: check the path and the model's name (GET /v1/models lists the models)."
    answer = _answer(404, message, "invalid_request_error", "route_not_found")
    return {"name": "not-found", "match": {"prefix": "/"}, **answer}


def _answer(status: int, message: str, kind: str, code: str) -> Config:
    """Return a direct answer in the shape of OpenAI's errors."""
    error = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    header = {
        "header": {"key": "content-type", "value": "application/json"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    return {
        "direct_response": {"status": status, "body": {"inline_string": json.dumps(error)}},
        "response_headers_to_add": [header],
    }
