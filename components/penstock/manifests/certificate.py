"""Names and checks of a regional certificate. Knows nothing of Pulumi."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .._naming import check_label
from ..errors import ConfigError
from .location import check_project

if TYPE_CHECKING:
    from ..certificate import GatewayCertificate

AUTHORIZATION_TYPE = "PER_PROJECT_RECORD"
"""The one type that regional authorizations take. Source: Certificate Manager API v1, DnsAuthorization.Type."""

RECORD_TTL_S = 300
_DOMAINS_MAX = 100
"""Most names of one certificate. Source: Certificate Manager, "Quotas and limits"."""
_HASH = 8
_DOMAIN = re.compile(r"(\*\.)?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ISSUANCE = re.compile(r"projects/[^/]+/locations/([^/]+)/certificateIssuanceConfigs/[^/]+")


def prefix(args: Mapping[str, Any]) -> str:
    """Return what the names of the Gateway's Google Cloud resources begin with."""
    return str(args.get("prefix") or args["name"])


def certificate_name(start: str, certificate: "GatewayCertificate") -> str:
    """Return the certificate's name. It tells the domains, since they can be changed only by another certificate."""
    return f"{start}-cert-{_digest([*certificate['domains'], certificate.get('issuance_config', '')])}"


def authorization_name(start: str, domain: str) -> str:
    """Return the name of a domain's authorization."""
    return f"{start}-dns-{_digest([domain])}"


def authorized(certificate: "GatewayCertificate") -> list[str]:
    """Return the domains to prove, each once: an authorization covers a domain and its wildcard."""
    if certificate.get("issuance_config"):
        return []
    return list(dict.fromkeys(domain.removeprefix("*.") for domain in certificate["domains"]))


def covers(domains: Iterable[str], hostname: str) -> bool:
    """Return whether a certificate for `domains` serves `hostname`: a wildcard stands for exactly one label."""
    wildcard = f"*.{hostname.partition('.')[2]}"
    return any(domain in (hostname, wildcard) for domain in domains)


def problems(certificate: "GatewayCertificate", args: Mapping[str, Any], path: str) -> Iterator[ConfigError]:
    """Yield every reason why the certificate is refused; `args` are the Gateway's."""
    domains, hostname = certificate["domains"], args.get("hostname")
    if not 1 <= len(domains) <= _DOMAINS_MAX:
        yield ConfigError(f"{path}.domains", domains, f"1 to {_DOMAINS_MAX} DNS names", "Name the Gateway's hostname")
    for at, domain in enumerate(domains):
        if not (_DOMAIN.fullmatch(domain) and len(domain) <= 253):
            fix = "Write it like `llm.example.com`"
            yield ConfigError(f"{path}.domains[{at}]", domain, "a DNS name in lower case with at least two labels", fix)
        elif domain in domains[:at]:
            yield ConfigError(f"{path}.domains[{at}]", domain, "each domain once", "Remove it")
    if hostname and domains and not covers(domains, hostname):
        fix = f"Add `{hostname}`"
        yield ConfigError(f"{path}.domains", domains, f"the Gateway's hostname {hostname} among them", fix)
    yield from _issuance_problems(certificate, args.get("region"), path)
    if certificate.get("dns_zone"):
        yield from check_label(f"{path}.dns_zone", certificate["dns_zone"], what="a managed zone's name")
    yield from check_project(f"{path}.dns_zone_project", certificate.get("dns_zone_project"))


def _issuance_problems(certificate: "GatewayCertificate", region: str | None, path: str) -> Iterator[ConfigError]:
    issuance = certificate.get("issuance_config")
    if not issuance:
        return
    found = _ISSUANCE.fullmatch(issuance)
    if not found or found[1] != region:
        fix = f"Write it like `projects/my-project/locations/{region}/certificateIssuanceConfigs/my-config`"
        yield ConfigError(f"{path}.issuance_config", issuance, "an issuance configuration in the Gateway's region", fix)
    if certificate.get("dns_zone"):
        fix = "Remove it"
        yield ConfigError(
            f"{path}.dns_zone", certificate["dns_zone"], "no zone: a private authority asks no proof", fix
        )


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_HASH]
