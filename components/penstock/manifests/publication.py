"""Names and checks of a service attachment. Knows nothing of Pulumi."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._naming import LABEL_MAX
from ..errors import ConfigError
from .common import check_range
from .location import check_name, check_network, check_place, check_project, check_subnetwork

if TYPE_CHECKING:
    from ..publication import ServicePublicationArgs

PORT = 443
ATTACHMENT_SUFFIX = "-attachment"

_DOMAIN = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?\.){2,}")
_RULE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_KINDS = ("project", "network")


def attachment_name(args: "ServicePublicationArgs") -> str:
    """Return the attachment's physical name."""
    return f"{args['name']}{ATTACHMENT_SUFFIX}"


def attachment_uri(args: "ServicePublicationArgs") -> str:
    """Return the attachment's URI, as endpoints take it for their target."""
    return f"projects/{args['project']}/regions/{args['region']}/serviceAttachments/{attachment_name(args)}"


def problems(args: "ServicePublicationArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why the publication is refused."""
    room = LABEL_MAX - len(ATTACHMENT_SUFFIX)
    yield from check_name(f"{path}.name", args["name"], room, f"`{ATTACHMENT_SUFFIX}` is put behind it")
    yield from check_place(path, args)
    yield from check_range(f"{path}.port", args.get("port", PORT), 1, 65_535, "a port")
    limit = args.get("propagated_connection_limit", 0)
    yield from check_range(f"{path}.propagated_connection_limit", limit, 0, 2**31 - 1, "networks")
    yield from _source_problems(args, path)
    yield from _consumer_problems(args, path)
    subnetworks: Any = args["nat_subnetworks"]
    if subnetworks == []:
        fix = "Make one of purpose PRIVATE_SERVICE_CONNECT and name it"
        yield ConfigError(f"{path}.nat_subnetworks", [], "at least one subnetwork", fix)
    for at, subnetwork in enumerate(subnetworks if isinstance(subnetworks, list) else []):
        yield from check_subnetwork(f"{path}.nat_subnetworks[{at}]", subnetwork, args["region"])
    domain = args.get("domain_name")
    if domain is not None and not _DOMAIN.fullmatch(domain):
        fix = "Write it like `llm.example.com.`"
        yield ConfigError(f"{path}.domain_name", domain, "a verified domain, in lower case and ending in a dot", fix)


def _source_problems(args: "ServicePublicationArgs", path: str) -> Iterator[ConfigError]:
    """Check that something tells which rule is the Gateway's."""
    rule: Any = args.get("forwarding_rule")
    if isinstance(rule, str) and not _RULE.fullmatch(rule):
        yield ConfigError(f"{path}.forwarding_rule", rule, "the name of a forwarding rule", "Give its name alone")
    if rule is None and args.get("gateway_metadata") is None and not args.get("address"):
        expected = "`gateway_metadata`, `address` or `forwarding_rule`: something that tells the Gateway's rule"
        yield ConfigError(f"{path}.gateway_metadata", None, expected, "Pass the output of `InferenceGateway`")


def _consumer_problems(args: "ServicePublicationArgs", path: str) -> Iterator[ConfigError]:
    accept = args["accept"]
    if not accept:
        fix = "Name the projects or networks of the consumers"
        yield ConfigError(f"{path}.accept", [], "at least one consumer", fix)
    seen: list[Any] = []
    kinds = set()
    for at, consumer in enumerate(accept):
        where = f"{path}.accept[{at}]"
        given = [kind for kind in _KINDS if consumer.get(kind) is not None]
        if len(given) != 1:
            yield ConfigError(where, dict(consumer), "exactly one of `project` and `network`", "Name one of them")
            continue
        kind = given[0]
        kinds.add(kind)
        value: Any = consumer.get(kind)
        check = check_project if kind == "project" else check_network
        yield from check(f"{where}.{kind}", value)
        yield from check_range(f"{where}.limit", consumer["limit"], 1, 2**31 - 1, "endpoints")
        if isinstance(value, str) and value in seen:
            yield ConfigError(f"{where}.{kind}", value, "each consumer once", "Remove it, or add up the limits")
        seen.append(value)
    if len(kinds) > 1:
        expected = "consumers that are all projects or all networks; an attachment cannot mix them"
        yield ConfigError(f"{path}.accept", [dict(item) for item in accept], expected, "Name all by network")
    rejected: list[Any] = list(args.get("reject", []))
    for at, value in enumerate(rejected):
        where = f"{path}.reject[{at}]"
        yield from (check_network if kinds == {"network"} else check_project)(where, value)
        if isinstance(value, str) and value in seen:
            yield ConfigError(where, value, "a consumer that is not accepted as well", "Keep it in one of the lists")
