"""Address ranges: whether they are private, large enough and apart. Knows nothing of Pulumi."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from .errors import ConfigError

PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "240.0.0.0/4")
"""What a VPC may use unseen from outside: RFC 1918, RFC 6598, RFC 5735 class E. Source: VPC, "Valid IPv4 ranges"."""

LONGEST_PREFIX = 29
"""Prefix of the smallest subnet, which has 4 usable addresses. Source: VPC, "Subnets"."""

_PRIVATE = tuple(ipaddress.IPv4Network(each) for each in PRIVATE)


def parsed(cidr: str) -> ipaddress.IPv4Network | None:
    """Return the range, or None if `cidr` is not one in canonical form."""
    try:
        return ipaddress.IPv4Network(cidr)
    except ValueError:
        return None


def check_cidr(
    path: str, cidr: str, what: str, longest: int = LONGEST_PREFIX, shortest: int = 8
) -> Iterator[ConfigError]:
    """Yield an error unless `cidr` is a private range whose prefix has `shortest` to `longest` bits."""
    network = parsed(cidr)
    if network is None:
        fix = "Write the first address of the range and its prefix length"
        yield ConfigError(path, cidr, f"{what} as an IPv4 range like `10.0.0.0/20`", fix)
    elif not any(network.subnet_of(private) for private in _PRIVATE):
        yield ConfigError(path, cidr, f"{what} within a private range", f"Choose one in {', '.join(PRIVATE)}")
    elif not shortest <= network.prefixlen <= longest:
        expected = f"{what} of size /{shortest} (largest) to /{longest} (smallest)"
        size = "smaller" if network.prefixlen < shortest else "larger"
        yield ConfigError(path, cidr, expected, f"Choose a {size} range")


def check_apart(ranges: Sequence[tuple[str, str]]) -> Iterator[ConfigError]:
    """Yield an error for each range that overlaps an earlier one; `ranges` are pairs of path and CIDR."""
    seen: list[tuple[str, ipaddress.IPv4Network]] = []
    for path, cidr in ranges:
        network = parsed(cidr)
        if network is None:
            continue  # `check_cidr` says so
        other = next(((where, found) for where, found in seen if found.overlaps(network)), None)
        if other:
            expected = f"a range apart from {other[1]} ({other[0]})"
            yield ConfigError(path, cidr, expected, "Move one of the two, no address may belong to both")
        seen.append((path, network))


def parts(cidr: str, count: int) -> list[str]:
    """Return the first `count` of 16 equal parts of a valid range."""
    networks = ipaddress.IPv4Network(cidr).subnets(prefixlen_diff=4)
    return [str(network) for network, _ in zip(networks, range(count), strict=False)]


def flat(ranges: Mapping[str, str | Sequence[str]], path: str) -> list[tuple[str, str]]:
    """Return pairs of path and CIDR of a map whose values are a range or a list of them."""
    found: list[tuple[str, str]] = []
    for field, value in ranges.items():
        if isinstance(value, str):
            found.append((f"{path}.{field}", value))
        else:
            found += [(f"{path}.{field}[{index}]", item) for index, item in enumerate(value)]
    return found
