"""Where Google Cloud resources live, what they are called, and what they refer to: checks that components share.

References may be Pulumi outputs, which are known only in the update; they pass. Knows nothing of Pulumi itself.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._labels import PART_OF
from .._naming import check_label
from ..errors import ConfigError

PART_OF_LABEL = PART_OF.rpartition("/")[2]
"""`part-of`: labels of Google Cloud allow no prefix with a slash."""

_CLOUD_FIELDS = ("name", "project", "project_number", "region")
_PROJECT = re.compile(r"[a-z][-a-z0-9]{4,28}[a-z0-9]")
_PROJECT_REFERENCE = re.compile(rf"([a-z0-9.-]+:)?{_PROJECT.pattern}|[0-9]+")
_REGION = re.compile(r"[a-z]+-[a-z]+[0-9]+")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NETWORK = re.compile(r"(https://[^ ]+/)?projects/[^/ ]+/global/networks/[a-z][a-z0-9-]*")
_SUBNETWORK = re.compile(r"(https://[^ ]+/)?projects/[^/ ]+/regions/([^/ ]+)/subnetworks/[a-z][a-z0-9-]*")
_LABEL_KEY = re.compile(r"[a-z][-_a-z0-9]{0,62}")
_LABEL_VALUE = re.compile(r"[-_a-z0-9]{0,63}")


def gcp_labels(user: Mapping[str, str] | None) -> dict[str, str]:
    """Return the labels of a Google Cloud resource: the user's, and that it is Penstock's."""
    return {**(user or {}), PART_OF_LABEL: "penstock"}


def check_name(path: str, value: str, limit: int, why: str) -> Iterator[ConfigError]:
    """Yield an error unless `value` may begin the names of resources (RFC 1035) and has at most `limit` characters.

    Args:
        path: where it stands.
        value: the name.
        limit: most characters.
        why: what sets the limit, e.g. "cluster names have at most 40".
    """
    if not _NAME.fullmatch(value):
        expected = "lower-case letters, digits and hyphens, from a letter to a letter or digit (RFC 1035)"
        yield ConfigError(path, value, expected, "Rename it")
    elif len(value) > limit:
        expected = f"at most {limit} characters ({why})"
        yield ConfigError(path, value, expected, f"Shorten it by {len(value) - limit} characters")


def check_place(path: str, args: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield an error for each of `project`, `region` and `zones` in `args` that cannot be one."""
    yield from check_own_project(f"{path}.project", args["project"])
    region = args["region"]
    if not _REGION.fullmatch(region):
        yield ConfigError(f"{path}.region", region, "a region", "Write it like `us-central1`")
    yield from _check_zones(f"{path}.zones", args.get("zones"), region)


def check_zone(path: str, zone: str, region: str) -> Iterator[ConfigError]:
    """Yield an error unless `zone` is one of `region`."""
    if zone.rpartition("-")[0] != region:
        yield ConfigError(path, zone, f"a zone of {region}", f"Write it like `{region}-a`")


def check_cloud(path: str, args: Mapping[str, Any], why: str, suffix: str = "") -> Iterator[ConfigError]:
    """Yield what is wrong or missing of the fields by which a mode that makes Google Cloud resources names them.

    Args:
        path: where they stand.
        args: `name`, `project`, `project_number`, `region` and `labels`, each optional by its type.
        why: what needs them, e.g. "resources live in a project".
        suffix: longest one that is put behind the name.
    """
    missing = [field for field in _CLOUD_FIELDS if not args.get(field)]
    for field in missing:
        yield ConfigError(f"{path}.{field}", None, f"a value: {why}", "Set it")
    if missing:
        return
    yield from check_label(f"{path}.name", args["name"], suffix, "a base name")
    yield from check_place(path, args)
    yield from check_project_number(f"{path}.project_number", args["project_number"])
    yield from check_labels(f"{path}.labels", args.get("labels", {}))


def check_own_project(path: str, value: str) -> Iterator[ConfigError]:
    """Yield an error unless `value` is a plain project id: names of accounts and resources are built from it."""
    if not _PROJECT.fullmatch(value):
        expected = "a project id: 6 to 30 lower-case letters, digits and hyphens"
        yield ConfigError(path, value, expected, "Give the id, neither number nor display name")


def check_project(path: str, value: Any) -> Iterator[ConfigError]:
    """Yield an error unless `value` refers to a project: an id, one of a domain (`example.com:id`), or a number."""
    if isinstance(value, str) and not _PROJECT_REFERENCE.fullmatch(value):
        yield ConfigError(path, value, "a project's identifier or number", "Write it like `my-project-1`")


def check_project_number(path: str, value: str) -> Iterator[ConfigError]:
    """Yield an error unless `value` is a project's number."""
    if not (value.isascii() and value.isdecimal()):
        fix = "Look it up with `gcloud projects describe`, and write it as a string like `123456789012`"
        yield ConfigError(path, value, "the project's number, digits only", fix)


def check_network(path: str, value: Any) -> Iterator[ConfigError]:
    """Yield an error unless `value` is the URI of a VPC network."""
    if isinstance(value, str) and not _NETWORK.fullmatch(value):
        fix = "Write it like `projects/my-project/global/networks/my-network`"
        yield ConfigError(path, value, "the URI of a VPC network", fix)


def check_subnetwork(path: str, value: Any, region: str) -> Iterator[ConfigError]:
    """Yield an error unless `value` is the URI of a subnetwork in `region`."""
    if not isinstance(value, str):
        return
    found = _SUBNETWORK.fullmatch(value)
    if not found or found[2] != region:
        fix = f"Write it like `projects/my-project/regions/{region}/subnetworks/my-subnetwork`"
        yield ConfigError(path, value, f"the URI of a subnetwork in {region}", fix)


def check_ipv4(path: str, value: str) -> Iterator[ConfigError]:
    """Yield an error unless `value` is an IPv4 address without a prefix length."""
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        yield ConfigError(path, value, "an IPv4 address", "Write it like `10.0.0.10`")


def check_labels(path: str, labels: Mapping[str, str]) -> Iterator[ConfigError]:
    """Yield an error for each label that Google Cloud refuses, or that is Penstock's own."""
    for key, value in labels.items():
        if key == PART_OF_LABEL:
            yield ConfigError(f"{path}.{key}", value, "a label of your own", "Remove it, it is set to `penstock`")
        elif not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            expected = "key and value of at most 63 lower-case letters, digits, hyphens and underscores"
            yield ConfigError(f"{path}.{key}", value, expected, "Rename it")


def _check_zones(path: str, zones: Sequence[str] | None, region: str) -> Iterator[ConfigError]:
    if zones is not None and not zones:
        yield ConfigError(path, [], "at least one zone", f"Name zones of {region}, or remove the field")
    for index, zone in enumerate(zones or ()):
        yield from check_zone(f"{path}[{index}]", zone, region)
        if zone in (zones or ())[:index]:
            yield ConfigError(f"{path}[{index}]", zone, "every zone once", "Remove it")
