"""Namespace, Gateway and GCPGatewayPolicy."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._labels import labels
from .._naming import check_label
from ..errors import ConfigError
from .common import GATEWAY_API, GKE_API, WAIT_FOR, WAIT_TIMEOUT, Manifest, manifest, target_ref

if TYPE_CHECKING:
    from ..gateway import GatewayTls, InferenceGatewayArgs

CLASS = "gke-l7-rilb"
"""The regional internal Application Load Balancer. Source: GKE, "GatewayClass capabilities"."""

REDIRECT_SUFFIX = "-redirect"
REDIRECT_STATUS = 301
"""The one permanent redirect of core support. Source: Gateway API 1.5, HTTPRequestRedirectFilter."""

CERT_MANAGER_OPTION = "networking.gke.io/cert-manager-certs"
PRE_SHARED_OPTION = "networking.gke.io/pre-shared-certs"
"""Listener TLS options: comma-separated regional certificates. Source: GKE, "Secure a Gateway"."""

_WAIT_TIMEOUT_S = 900
_HOSTNAME = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SOURCES = ("cert_manager_certs", "pre_shared_certs", "secret_names")


def listener_name(args: "InferenceGatewayArgs") -> str:
    """Return the name of the Gateway's listener, to which routes attach."""
    return "https" if args.get("tls") else "http"


def namespace(args: "InferenceGatewayArgs") -> Manifest:
    """Return the Namespace. Its pods must meet the "restricted" Pod Security Standard, as all of Penstock's do."""
    name = args["namespace"]
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    return manifest("v1", "Namespace", name, None, labels(name) | enforced)


def gateway(args: "InferenceGatewayArgs") -> Manifest:
    """Return the Gateway: HTTPS on 443 with `tls`, plain HTTP on 80 without, or with a redirect to HTTPS."""
    tls = args.get("tls")
    listeners = [_listener("https", 443, "HTTPS", args) | {"tls": _terminate(tls)}] if tls else []
    if not tls or args.get("redirect_http"):
        listeners.append(_listener("http", 80, "HTTP", args))
    spec: Manifest = {"gatewayClassName": args.get("class_name", CLASS), "listeners": listeners}
    if args.get("address_name") is not None:
        spec["addresses"] = [{"type": "NamedAddress", "value": args["address_name"]}]
    wait = {WAIT_FOR: "condition=Programmed", WAIT_TIMEOUT: str(_WAIT_TIMEOUT_S)}
    name = args["name"]
    return manifest(f"{GATEWAY_API}/v1", "Gateway", name, args["namespace"], labels(name), annotations=wait, spec=spec)


def redirect(args: "InferenceGatewayArgs") -> Manifest:
    """Return the HTTPRoute that answers every plain HTTP request with a redirect to HTTPS."""
    name = f"{args['name']}{REDIRECT_SUFFIX}"
    parent = {"group": GATEWAY_API, "kind": "Gateway", "name": args["name"], "sectionName": "http"}
    moved = {"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": REDIRECT_STATUS}}
    spec = {"parentRefs": [parent], "rules": [{"filters": [moved]}]}
    return manifest(f"{GATEWAY_API}/v1", "HTTPRoute", name, args["namespace"], labels(name), spec=spec)


def gateway_policy(args: "InferenceGatewayArgs") -> Manifest:
    """Return the GCPGatewayPolicy.

    Global access is on by default: it must be on before a service attachment exists, or consumers of other regions
    never reach the endpoint.
    """
    name = args["name"]
    default: Manifest = {"allowGlobalAccess": args.get("allow_global_access", True)}
    if args.get("ssl_policy") is not None:
        default["sslPolicy"] = args["ssl_policy"]
    spec = {"default": default, "targetRef": target_ref(GATEWAY_API, "Gateway", name)}
    return manifest(f"{GKE_API}/v1", "GCPGatewayPolicy", name, args["namespace"], labels(name), spec=spec)


def problems(args: "InferenceGatewayArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be rendered."""
    yield from check_label(f"{path}.name", args["name"], REDIRECT_SUFFIX, "the Gateway's name")
    yield from check_label(f"{path}.namespace", args["namespace"], what="a namespace")
    hostname = args.get("hostname")
    if hostname is not None and not (_HOSTNAME.fullmatch(hostname) and len(hostname) <= 253):
        yield ConfigError(f"{path}.hostname", hostname, "a DNS name in lower case", "Write it like `llm.example.com`")
    if args.get("ssl_policy") is not None and not args.get("tls"):
        fix = "Configure `tls`, or remove it"
        yield ConfigError(f"{path}.ssl_policy", args["ssl_policy"], "an HTTPS listener to apply it to", fix)
    if args.get("redirect_http"):
        where, fix = f"{path}.redirect_http", "Configure it, or remove the redirect"
        if not args.get("tls"):
            yield ConfigError(where, True, "`tls`: without it there is no HTTPS to redirect to", fix)
        if args.get("address_name") is None:
            expected = "`address_name`: two listeners share an address of purpose SHARED_LOADBALANCER_VIP"
            yield ConfigError(where, True, expected, fix)
    if args.get("tls") is not None:
        yield from _tls_problems(args["tls"], f"{path}.tls")


def _listener(name: str, port: int, protocol: str, args: "InferenceGatewayArgs") -> Manifest:
    found: Manifest = {"name": name, "port": port, "protocol": protocol}
    found["allowedRoutes"] = {"namespaces": {"from": "Same"}}
    if args.get("hostname"):
        found["hostname"] = args["hostname"]
    return found


def _terminate(tls: "GatewayTls") -> Manifest:
    if tls.get("secret_names"):
        refs = [{"group": "", "kind": "Secret", "name": name} for name in tls["secret_names"]]
        return {"mode": "Terminate", "certificateRefs": refs}
    managed = tls.get("cert_manager_certs")
    option = CERT_MANAGER_OPTION if managed else PRE_SHARED_OPTION
    return {"mode": "Terminate", "options": {option: ",".join(managed or tls["pre_shared_certs"])}}


def _tls_problems(tls: "GatewayTls", path: str) -> Iterator[ConfigError]:
    given = [source for source in _SOURCES if tls.get(source)]
    if len(given) != 1:
        fix = "Give a non-empty list of certificates in one of them"
        yield ConfigError(path, dict(tls), f"exactly one of {', '.join(_SOURCES)}", fix)
    for source in _SOURCES:
        names: Any = tls.get(source) or []
        for index, name in enumerate(names):
            yield from check_label(f"{path}.{source}[{index}]", name, what="a certificate's or Secret's name")
