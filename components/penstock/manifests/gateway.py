"""Namespace, Gateway and GCPGatewayPolicy."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._labels import labels
from .._naming import LABEL_MAX, check_label
from ..errors import ConfigError, did_you_mean
from . import armor, certificate
from .common import (
    GATEWAY_API,
    GKE_API,
    POD_SECURITY,
    WAIT_FOR,
    WAIT_TIMEOUT,
    Manifest,
    check_range,
    check_word,
    manifest,
    target_ref,
)
from .location import check_ipv4, check_labels, check_name, check_place, check_subnetwork

if TYPE_CHECKING:
    from ..gateway import GatewayTls, InferenceGatewayArgs, SslPolicy

CLASS = "gke-l7-rilb"
"""The regional internal Application Load Balancer. Source: GKE, "GatewayClass capabilities"."""

HTTPS_PORT, HTTP_PORT = 443, 80

ADDRESS_PURPOSE = "SHARED_LOADBALANCER_VIP"
"""Lets the forwarding rules of several listeners share the address. Source: Compute API v1, Address."""

REDIRECT_SUFFIX = "-redirect"
REDIRECT_STATUS = 301
"""The one permanent redirect of core support. Source: Gateway API 1.5, HTTPRequestRedirectFilter."""

CERT_MANAGER_OPTION = "networking.gke.io/cert-manager-certs"
PRE_SHARED_OPTION = "networking.gke.io/pre-shared-certs"
"""Listener TLS options: comma-separated regional certificates. Source: GKE, "Secure a Gateway"."""

_WAIT_TIMEOUT_S = 900
_HOSTNAME = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SOURCES = ("cert_manager_certs", "pre_shared_certs", "secret_names")
_MADE = ("address", "ssl", "armor")
_LONGEST = "-vip-255-255-255-255"

SSL_PROFILE, SSL_VERSION = "MODERN", "TLS_1_2"
"""Defaults of an SSL policy made here; the load balancer's own are COMPATIBLE and TLS_1_0."""
_PROFILES = {
    "COMPATIBLE": ("TLS_1_0", "TLS_1_1", "TLS_1_2"),
    "MODERN": ("TLS_1_0", "TLS_1_1", "TLS_1_2"),
    "RESTRICTED": ("TLS_1_2", "TLS_1_3"),
    "FIPS_202205": ("TLS_1_2",),
}
"""Profiles and the lowest versions that go with them. Source: Compute API v1, SslPolicy."""


def listener_name(args: "InferenceGatewayArgs") -> str:
    """Return the name of the Gateway's listener, to which routes attach."""
    return "https" if args.get("tls") else "http"


def listener_port(args: "InferenceGatewayArgs") -> int:
    """Return the port of that listener, which is the one to publish."""
    return HTTPS_PORT if args.get("tls") else HTTP_PORT


def namespace(args: "InferenceGatewayArgs") -> Manifest:
    """Return the Namespace. Its pods must meet the "restricted" Pod Security Standard, as all of Penstock's do.

    Where a lower level is enforced, deviations from "restricted" are still logged and shown.
    """
    name, level = args["namespace"], args.get("pod_security", POD_SECURITY[0])
    modes = {"enforce": level} if level == POD_SECURITY[0] else dict.fromkeys(("audit", "warn"), POD_SECURITY[0])
    security = {f"pod-security.kubernetes.io/{mode}": value for mode, value in ({"enforce": level} | modes).items()}
    return manifest("v1", "Namespace", name, None, labels(name) | security)


def names(args: "InferenceGatewayArgs") -> dict[str, str]:
    """Return the physical names of the Google Cloud resources that the component makes, by role; pure.

    Roles: `address`, `ssl_policy`, `security_policy`, `certificate`.
    """
    start, found = certificate.prefix(args), {}
    if "address" in args:
        fixed = args["address"].get("ip_address")
        found["address"] = f"{start}-vip-{fixed.replace('.', '-')}" if fixed else f"{start}-vip"
    if "ssl" in args:
        found["ssl_policy"] = f"{start}-tls"
    if "armor" in args:
        found["security_policy"] = f"{start}-armor"
    if made := (args.get("tls") or {}).get("certificate"):
        found["certificate"] = certificate.certificate_name(start, made)
    return found


def pool_settings(args: "InferenceGatewayArgs") -> dict[str, Any]:
    """Return the plain arguments of every pool behind the Gateway that follow from the Gateway's; pure."""
    return {"log_sample_rate": args["log_sample_rate"]} if "log_sample_rate" in args else {}


def gateway(args: "InferenceGatewayArgs") -> Manifest:
    """Return the Gateway: HTTPS on 443 with `tls`, plain HTTP on 80 without, or with a redirect to HTTPS."""
    tls = args.get("tls")
    listeners = [_listener("https", HTTPS_PORT, "HTTPS", args) | {"tls": _terminate(tls, args)}] if tls else []
    if not tls or args.get("redirect_http"):
        listeners.append(_listener("http", HTTP_PORT, "HTTP", args))
    spec: Manifest = {"gatewayClassName": args.get("class_name", CLASS), "listeners": listeners}
    address = names(args).get("address", args.get("address_name"))
    if address is not None:
        spec["addresses"] = [{"type": "NamedAddress", "value": address}]
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
    ssl_policy = names(args).get("ssl_policy", args.get("ssl_policy"))
    if ssl_policy is not None:
        default["sslPolicy"] = ssl_policy
    spec = {"default": default, "targetRef": target_ref(GATEWAY_API, "Gateway", name)}
    return manifest(f"{GKE_API}/v1", "GCPGatewayPolicy", name, args["namespace"], labels(name), spec=spec)


def problems(args: "InferenceGatewayArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be rendered."""
    yield from check_label(f"{path}.name", args["name"], REDIRECT_SUFFIX, "the Gateway's name")
    yield from check_label(f"{path}.namespace", args["namespace"], what="a namespace")
    hostname = args.get("hostname")
    if hostname is not None and not (_HOSTNAME.fullmatch(hostname) and len(hostname) <= 253):
        yield ConfigError(f"{path}.hostname", hostname, "a DNS name in lower case", "Write it like `llm.example.com`")
    for field in ("ssl_policy", "ssl"):
        if args.get(field) is not None and not args.get("tls"):
            fix = "Configure `tls`, or remove it"
            yield ConfigError(f"{path}.{field}", args.get(field), "an HTTPS listener to apply it to", fix)
    if args.get("redirect_http"):
        where, fix = f"{path}.redirect_http", "Configure it, or remove the redirect"
        if not args.get("tls"):
            yield ConfigError(where, True, "`tls`: without it there is no HTTPS to redirect to", fix)
        if args.get("address_name") is None and args.get("address") is None:
            expected = "`address` or `address_name`: two listeners share one of purpose SHARED_LOADBALANCER_VIP"
            yield ConfigError(where, True, expected, fix)
    if args.get("tls") is not None:
        yield from _tls_problems(args["tls"], args, f"{path}.tls")
    level = args.get("pod_security", POD_SECURITY[0])
    yield from check_word(f"{path}.pod_security", level, POD_SECURITY, "a Pod Security level")
    yield from check_range(f"{path}.log_sample_rate", args.get("log_sample_rate", 0), 0, 1, "a share")
    yield from _cloud_problems(args, path)


def _cloud_problems(args: "InferenceGatewayArgs", path: str) -> Iterator[ConfigError]:
    """Check what is made outside of the cluster."""
    yield from check_labels(f"{path}.labels", args.get("labels", {}))
    made = [field for field in _MADE if field in args] + (["tls.certificate"] if _certificate(args) else [])
    for field in ("project", "region"):
        if made and not args.get(field):
            expected = f"the {field} in which {', '.join(f'`{item}`' for item in made)} is made"
            yield ConfigError(f"{path}.{field}", None, expected, "Set it")
    if args.get("project") and args.get("region"):
        yield from check_place(path, args)
    if made:
        room, why = LABEL_MAX - len(_LONGEST), f"`{_LONGEST}` may be put behind it"
        yield from check_name(f"{path}.prefix", certificate.prefix(args), room, why)
    for new, old in (("address", "address_name"), ("ssl", "ssl_policy")):
        if args.get(new) is not None and args.get(old) is not None:
            yield ConfigError(f"{path}.{old}", args.get(old), f"either `{new}` or `{old}`", "Remove one of them")
    if "address" in args:
        yield from check_subnetwork(f"{path}.address.subnetwork", args["address"]["subnetwork"], args.get("region", ""))
        if "ip_address" in args["address"]:
            yield from check_ipv4(f"{path}.address.ip_address", args["address"]["ip_address"])
    if "ssl" in args:
        yield from _ssl_problems(args["ssl"], f"{path}.ssl")
    if "armor" in args:
        yield from armor.problems(args["armor"], f"{path}.armor")


def _certificate(args: "InferenceGatewayArgs") -> Any:
    return (args.get("tls") or {}).get("certificate")


def _ssl_problems(ssl: "SslPolicy", path: str) -> Iterator[ConfigError]:
    profile, version = ssl.get("profile", SSL_PROFILE), ssl.get("min_version", SSL_VERSION)
    if profile not in _PROFILES:
        yield ConfigError(f"{path}.profile", profile, "an SSL profile", did_you_mean(profile, _PROFILES))
    elif version not in _PROFILES[profile]:
        allowed = ", ".join(_PROFILES[profile])
        yield ConfigError(f"{path}.min_version", version, f"one of {allowed} with {profile}", "Choose one of them")


def _listener(name: str, port: int, protocol: str, args: "InferenceGatewayArgs") -> Manifest:
    found: Manifest = {"name": name, "port": port, "protocol": protocol}
    found["allowedRoutes"] = {"namespaces": {"from": "Same"}}
    if args.get("hostname"):
        found["hostname"] = args["hostname"]
    return found


def _terminate(tls: "GatewayTls", args: "InferenceGatewayArgs") -> Manifest:
    if tls.get("secret_names"):
        refs = [{"group": "", "kind": "Secret", "name": name} for name in tls["secret_names"]]
        return {"mode": "Terminate", "certificateRefs": refs}
    made = names(args).get("certificate")
    managed = [made] if made else tls.get("cert_manager_certs")
    option = CERT_MANAGER_OPTION if managed else PRE_SHARED_OPTION
    return {"mode": "Terminate", "options": {option: ",".join(managed or tls["pre_shared_certs"])}}


def _tls_problems(tls: "GatewayTls", args: "InferenceGatewayArgs", path: str) -> Iterator[ConfigError]:
    sources = (*_SOURCES, "certificate")
    given = [source for source in sources if tls.get(source)]
    if len(given) != 1:
        fix = "Give certificates in one of them"
        yield ConfigError(path, dict(tls), f"exactly one of {', '.join(sources)}", fix)
    if "certificate" in tls:
        yield from certificate.problems(tls["certificate"], args, f"{path}.certificate")
    for source in _SOURCES:
        names: Any = tls.get(source) or []
        for index, name in enumerate(names):
            yield from check_label(f"{path}.{source}[{index}]", name, what="a certificate's or Secret's name")
