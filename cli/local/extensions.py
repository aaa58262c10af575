"""From GCPRoutingExtension and GCPTrafficExtension to the callouts of a Gateway, in their order."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cli.local.bypass import bypassed
from cli.local.cel import CelError, parse
from cli.local.model import Cluster, Extension, PlanError
from cli.local.objects import Object, Objects

KINDS = {"GCPRoutingExtension": True, "GCPTrafficExtension": False}
"""Kind of extension -> whether it runs before routing."""

_NAMESPACES = {True: "com.google.lb_route_extension", False: "com.google.lb_traffic_extension"}
"""First parts of the metadata namespace. Source: Network Services API, ExtensionChain.Extension.metadata."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DEFAULT_TIMEOUT = "1000ms"
"""Source: GCPTrafficExtension CRD (networking.gke.io/v1), `timeout`."""

ResolveService = Callable[[str, str, int | None], Cluster]
"""(namespace, name, port) -> cluster. Raises `PlanError`."""


def extensions_of(objects: Objects, gateway: Object, resolve: ResolveService) -> list[Extension]:
    """Return the callouts of `gateway`: routing first, then traffic, each in the order of its chains.

    Raises:
        PlanError: with every problem: two resources of a kind for one Gateway, a condition or backend that cannot be
            realized. A callout is never applied to more requests than declared, and left out only if `bypassed`
            says why, which the plan's warnings repeat.
    """
    problems: list[str] = []
    found: list[Extension] = []
    for kind, routing in KINDS.items():
        attached = [item for item in objects.of(kind) if _targets(item, gateway)]
        if len(attached) > 1:
            names = ", ".join(item.name for item in attached)
            problems.append(f"{gateway}: has {len(attached)} {kind} ({names}); a Gateway takes one, merge their chains")
        for item in attached:
            try:
                found += _of_resource(objects, item, routing, resolve)
            except PlanError as error:
                problems += error.problems
    problems += _truncating(found)
    if problems:
        raise PlanError(problems)
    return found


def _truncating(extensions: list[Extension]) -> Iterator[str]:
    """Yield chains in which Envoy loses the end of streamed answers, with status 200 and no error.

    Seen with Envoy 1.40 in 3% to 20% of streams, where the callout behind takes response bodies and the one in front
    response headers only; envoyproxy/envoy issues 41654 and 43983 describe it.
    """
    for position, front in enumerate(extensions):
        if front.routing or "ResponseHeaders" not in front.events or "ResponseBody" in front.events:
            continue
        chain = front.name.rpartition("/")[0]
        for behind in extensions[position + 1 :]:
            if behind.name.rpartition("/")[0] == chain and "ResponseBody" in behind.events:
                yield (
                    f"extension {front.name} takes response headers but no bodies, in front of {behind.name}, which "
                    f"does: Envoy would cut off some streamed answers. Add ResponseBody to the supportedEvents of "
                    f"{front.name}, or put it behind the other"
                )


def _targets(item: Object, gateway: Object) -> bool:
    return item.namespace == gateway.namespace and any(
        (ref.get("kind"), ref.get("name")) == ("Gateway", gateway.name) for ref in item.spec.get("targetRefs") or []
    )


def _of_resource(objects: Objects, item: Object, routing: bool, resolve: ResolveService) -> Iterator[Extension]:
    problems: list[str] = []
    earlier: tuple[tuple[str, ...], ...] = ()
    for chain in item.spec.get("extensionChains") or []:
        where = f"{item}, chain {chain['name']}"
        when = tuple(_conditions(chain, where, problems))
        for entry in chain["extensions"]:
            if not routing and bypassed(objects, item.namespace, entry):
                continue
            try:
                yield _extension(item, routing, chain["name"], entry, when, earlier, resolve)
            except PlanError as error:
                problems += [f"{where}: {problem}" for problem in error.problems]
        earlier = (*earlier, when)
    if problems:
        raise PlanError(problems)


def _conditions(chain: Mapping[str, Any], where: str, problems: list[str]) -> Iterator[str]:
    for expression in (chain.get("matchCondition") or {}).get("celExpressions") or []:
        if expression.get("backendRefs"):
            problems.append(
                f"{where}: matchCondition with backendRefs is not supported; match on path, host or headers"
            )
        text = expression.get("celMatcher")
        if not text:
            continue
        try:
            parse(text)
        except CelError as error:
            problems.append(f"{where}: celMatcher {text!r}: {error}")
        yield text


def _extension(
    item: Object,
    routing: bool,
    chain: str,
    entry: Mapping[str, Any],
    when: tuple[str, ...],
    unless: tuple[tuple[str, ...], ...],
    resolve: ResolveService,
) -> Extension:
    ref = entry.get("backendRef") or {}
    if ref.get("kind", "Service") != "Service" or "name" not in ref:
        target = entry.get("googleAPIServiceName") or f"{ref.get('kind')} {ref.get('name')}"
        raise PlanError([f"extension {entry['name']} calls {target}; only a Service can be run on this machine"])
    events = frozenset(entry.get("supportedEvents") or ["RequestHeaders"])
    request_fd = entry.get("requestBodySendMode") == "FullDuplexStreamed"
    response_fd = entry.get("responseBodySendMode") == "FullDuplexStreamed"
    for side, full_duplex in (("Request", request_fd), ("Response", response_fd)):
        missing = {f"{side}Body", f"{side}Trailers"} - events if full_duplex else set()
        if missing:
            need = ", ".join(sorted(missing))
            raise PlanError([f"extension {entry['name']}: FullDuplexStreamed needs {need} in supportedEvents"])
    cluster = resolve(item.namespace, ref["name"], ref.get("port"))
    return Extension(
        name=f"{item.name}/{chain}/{entry['name']}",
        routing=routing,
        cluster=cluster.name,
        authority=entry.get("authority", ""),
        events=events,
        request_full_duplex=request_fd,
        response_full_duplex=response_fd,
        timeout_s=seconds(entry.get("timeout", _DEFAULT_TIMEOUT)),
        fail_open=bool(entry.get("failOpen", False)),
        forward_headers=tuple(entry.get("forwardHeaders") or ()),
        metadata=dict(entry.get("metadata") or {}),
        metadata_namespace=f"{_NAMESPACES[routing]}.{item.name}.{chain}.{entry['name']}",
        observe=bool(entry.get("observabilityMode", False)),
        when=when,
        unless=unless,
    )


def seconds(text: str) -> float:
    """Return a Kubernetes duration such as `500ms` or `1m30s` in seconds. Raises `PlanError`."""
    if not re.fullmatch(rf"(?:{_DURATION.pattern})+", text):
        raise PlanError([f"{text!r} is not a duration; write for example 500ms, 10s or 1m30s"])
    return sum(float(value) * _UNITS[unit] for value, unit in _DURATION.findall(text))
