"""Which forwarding rule of a Gateway to publish. Pure: the caller looks things up.

GKE makes one rule per listener and writes their names into an annotation. Names do not tell the port, and the
annotation is no documented contract, so what it says is a hint: address and port decide where there is a choice.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import PenstockError

ANNOTATION = "networking.gke.io/forwarding-rules"
"""Comma-separated names, or paths like `/projects/N/regions/R/forwardingRules/NAME`. Source: GKE's Gateway controller,
observed; not documented."""

SCHEME = "INTERNAL_MANAGED"
"""Scheme of the rules of internal Application Load Balancers. Source: Compute API v1, ForwardingRule."""

_NAME = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
_ENTRY = re.compile(
    rf"(?:(?:https://[^/]+/compute/[^/]+)?/?projects/[^/]+/regions/(?P<region>[^/]+)/forwardingRules/)?(?P<name>{_NAME})"
)


class PublicationError(PenstockError):
    """The Gateway's forwarding rule cannot be told: there is none, or more than one."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What tells a forwarding rule; `port_range` is written `443-443`."""

    name: str
    ip_address: str
    port_range: str
    scheme: str = SCHEME

    def covers(self, port: int) -> bool:
        """Return whether the rule's port range contains `port`."""
        low, _, high = self.port_range.partition("-")
        return low.isdecimal() and int(low) <= port <= int(high if high.isdecimal() else low)


def annotated(metadata: Mapping[str, Any], region: str) -> list[str]:
    """Return the names of the rules in `region` that a Gateway's annotation lists, each once, in its order.

    What is no name or path of a regional rule is passed over: the names only narrow a choice down.
    """
    text = (metadata.get("annotations") or {}).get(ANNOTATION)
    entries = str(text or "").split(",")
    found = [match for entry in entries if (match := _ENTRY.fullmatch(entry.strip()))]
    return list(dict.fromkeys(match["name"] for match in found if match["region"] in (None, region)))


def path(project: str, region: str, name: str) -> str:
    """Return a rule's URI. Always the same for the same rule, however its name was learnt, so that nothing differs."""
    return f"projects/{project}/regions/{region}/forwardingRules/{name}"


def choose(rules: Iterable[Rule], names: Sequence[str], address: str, port: int) -> str | None:
    """Return the name of the rule that serves `port` of the Gateway, or None when there is none.

    Args:
        rules: every rule of project and region.
        names: those that the annotation lists; empty when there is none.
        address: the Gateway's IPv4 address; empty when it is not known, then only listed rules count.
        port: of the listener.

    Raises:
        PublicationError: several rules fit, or nothing tells which rules are the Gateway's.
    """
    if not names and not address:
        raise PublicationError(
            f"the Gateway has no annotation `{ANNOTATION}` and its address is not known, expected one of both. Refresh "
            "the stack once the Gateway is programmed, reserve its address, or name the rule in `forwarding_rule`"
        )
    fits = [rule for rule in rules if rule.scheme == SCHEME and rule.covers(port)]
    if address:
        fits = [rule for rule in fits if rule.ip_address == address]
    listed = [rule for rule in fits if rule.name in names]
    if listed or not address:
        fits = listed
    if len(fits) > 1:
        several = ", ".join(sorted(rule.name for rule in fits))
        raise PublicationError(
            f"{len(fits)} forwarding rules serve {_where(address, port)}: {several}, expected one. Name the Gateway's "
            "in `forwarding_rule`"
        )
    return fits[0].name if fits else None


def none_found(names: Sequence[str], address: str, port: int, project: str, region: str) -> PublicationError:
    """Return the error that no rule serves the Gateway's port."""
    listed = f" The Gateway's annotation lists {', '.join(names)}." if names else ""
    return PublicationError(
        f"no forwarding rule of {project} in {region} serves {_where(address, port)}, expected one.{listed} Look at "
        "the Gateway's conditions, refresh the stack if its listeners changed, or name the rule in `forwarding_rule`"
    )


def _where(address: str, port: int) -> str:
    return f"port {port} of {address or 'the Gateway'}"
