"""Checks of projects, networks, subnetworks and addresses that arguments refer to. Knows nothing of Pulumi."""

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError

_PROJECT = re.compile(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]|[0-9]+")
_NETWORK = re.compile(r"(https://[^ ]+/)?projects/[^/ ]+/global/networks/[a-z][a-z0-9-]*")
_SUBNETWORK = re.compile(r"(https://[^ ]+/)?projects/[^/ ]+/regions/([^/ ]+)/subnetworks/[a-z][a-z0-9-]*")


def check_project(path: str, value: Any) -> Iterator[ConfigError]:
    """Yield an error unless `value` is a project's identifier or number; outputs are known only in the update."""
    if isinstance(value, str) and not _PROJECT.fullmatch(value):
        yield ConfigError(path, value, "a project's identifier or number", "Write it like `my-project-1`")


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
