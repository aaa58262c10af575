"""Names: slugs, derived names and their limits. Knows nothing of Pulumi."""

import re
from collections.abc import Iterator

from .errors import ConfigError

LABEL_MAX = 63
"""Longest DNS label and label value, in characters. Source: RFC 1123; Kubernetes "Object Names and IDs"."""

_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_RULE = "a DNS label (RFC 1035): lower-case letters, digits and hyphens, from a letter to a letter or digit"

PICKER_SUFFIX = "-picker"
REPLICAS_SUFFIX = "-replicas"
ROUTING_SUFFIX = "-routing"
TRAFFIC_SUFFIX = "-traffic"


def slug(model: str) -> str:
    """Return the DNS-safe form of a model's name: `llama-3.1-8b` becomes `llama-3-1-8b`.

    May be empty (a name without any letter or digit) or begin with a digit; `check_label` refuses both.
    """
    return re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")


def pool_name(model: str, replica_set: str) -> str:
    """Return the name that a replica set, its Deployment and its InferencePool share."""
    return f"{slug(model)}-{replica_set}"


def pool_object_names(pool: str) -> tuple[str, ...]:
    """Return the names of the workloads and Services of one pool and its replicas, each taken in the namespace."""
    return (pool, f"{pool}{PICKER_SUFFIX}", f"{pool}{REPLICAS_SUFFIX}")


def check_label(path: str, value: str, suffix: str = "", what: str = "name") -> Iterator[ConfigError]:
    """Yield an error unless `value` is a DNS label and stays one with the longest `suffix` that is put behind it.

    RFC 1035 labels are asked for where RFC 1123 would do for most kinds: Services accept no leading digit.
    """
    if not _LABEL.fullmatch(value):
        yield ConfigError(path, value, f"{what}: {_LABEL_RULE}", "Rename it")
    elif len(value) + len(suffix) > LABEL_MAX:
        room = LABEL_MAX - len(suffix)
        behind = f" (`{suffix}` is put behind it)" if suffix else ""
        fix = f"Shorten it by {len(value) - room} characters"
        yield ConfigError(path, value, f"{what}: at most {room} characters{behind}", fix)
