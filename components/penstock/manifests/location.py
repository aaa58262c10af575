"""Where Google Cloud resources live, and what they are called: checks that the components for them share."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .._labels import PART_OF
from ..errors import ConfigError

PART_OF_LABEL = PART_OF.rpartition("/")[2]
"""`part-of`: labels of Google Cloud allow no prefix with a slash."""

_PROJECT = re.compile(r"[a-z][-a-z0-9]{4,28}[a-z0-9]")
_REGION = re.compile(r"[a-z]+-[a-z]+[0-9]+")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
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
    if not _PROJECT.fullmatch(args["project"]):
        expected = "a project id: 6 to 30 lower-case letters, digits and hyphens"
        yield ConfigError(f"{path}.project", args["project"], expected, "Give the id, neither number nor display name")
    region = args["region"]
    if not _REGION.fullmatch(region):
        yield ConfigError(f"{path}.region", region, "a region", "Write it like `us-central1`")
    yield from _check_zones(f"{path}.zones", args.get("zones"), region)


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
        if zone.rpartition("-")[0] != region:
            yield ConfigError(f"{path}[{index}]", zone, f"a zone of {region}", f"Write it like `{region}-a`")
        elif zone in (zones or ())[:index]:
            yield ConfigError(f"{path}[{index}]", zone, "every zone once", "Remove it")
