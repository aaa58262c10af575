"""Names, ranges and checks of the networks between nodes. Knows nothing of Pulumi."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._cidr import check_apart, check_cidr, parts
from .._naming import check_label
from ..errors import ConfigError
from . import nccl
from .location import check_place, check_zone
from .rdma import DRANET, RAILS, ROCE, check_mode, check_rails, network_names

if TYPE_CHECKING:
    from ..rdma import RdmaNetworkArgs

CIDR = "192.168.0.0/16"
"""Default: a /20 for each of up to nine subnets, thus for up to 4,092 nodes."""
MTU = 8896
"""Bytes, the largest packet of Google Cloud: what RDMA networks are made for. Source: GKE, "Maximize GPU network
bandwidth with GPUDirect RDMA"."""

_FIELDS = {ROCE: ("zone", "cidr", "other_cidrs"), DRANET: ("namespaces",)}
"""Fields that belong to one mode only."""
_LONGEST_SUFFIX = "-gvnic-1-allow-internal"


def network_profile(project: str, zone: str) -> str:
    """Return the profile of RoCE networks in a zone. Source: VPC, "RDMA network profiles"."""
    return f"projects/{project}/global/networkProfiles/{zone}-vpc-roce"


def subnets(cidr: str, rails: int) -> dict[str, str]:
    """Return the range of each further network of a node by the name of its Network object, gVNIC first."""
    return dict(zip(network_names(rails), parts(cidr, rails + 1), strict=True))


def installs_nccl(args: "RdmaNetworkArgs") -> bool:
    """Return whether the installer is declared: by default in mode `roce`, where GKE surely brings none."""
    return args.get("nccl_installer", args["mode"] == ROCE)


def problems(args: "RdmaNetworkArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot be declared."""
    mode = args["mode"]
    yield from check_mode(f"{path}.mode", mode)
    yield from check_label(f"{path}.name", args["name"], _LONGEST_SUFFIX, "the networks' base name")
    yield from nccl.problems(args.get("nccl_image"), f"{path}.nccl_image")
    if "nccl_image" in args and not installs_nccl(args):
        fix = "Turn `nccl_installer` on, or remove the image"
        yield ConfigError(f"{path}.nccl_image", args["nccl_image"], "an installer that uses it", fix)
    if "rails" in args:
        yield from check_rails(f"{path}.rails", args["rails"])
    if mode not in _FIELDS:
        return
    given: dict[str, Any] = dict(args)
    for field in _FIELDS[DRANET if mode == ROCE else ROCE]:
        if field in given:
            expected = f"a field of mode `{mode}`: GKE mixes no networks of ours with those that it manages"
            yield ConfigError(f"{path}.{field}", given[field], expected, "Remove it, or choose the other mode")
    yield from (_roce_problems if mode == ROCE else _dranet_problems)(args, path)


def _dranet_problems(args: "RdmaNetworkArgs", path: str) -> Iterator[ConfigError]:
    namespaces = args.get("namespaces", [])
    if not namespaces:
        fix = "Name the namespaces of replicas that span nodes"
        yield ConfigError(f"{path}.namespaces", namespaces, "at least one namespace", fix)
    for index, namespace in enumerate(namespaces):
        yield from check_label(f"{path}.namespaces[{index}]", namespace, what="a namespace")
        if namespace in namespaces[:index]:
            yield ConfigError(f"{path}.namespaces[{index}]", namespace, "every namespace once", "Remove it")
    if installs_nccl(args) and "rails" not in args:
        fix = "Set it: the installer's image and nodes depend on the machine"
        yield ConfigError(f"{path}.rails", None, "the RDMA interfaces of the machine, 4 or 8", fix)


def _roce_problems(args: "RdmaNetworkArgs", path: str) -> Iterator[ConfigError]:
    for field in ("project", "region", "zone", "rails"):
        if field not in args:
            yield ConfigError(f"{path}.{field}", None, "a value in mode `roce`", "Set it, it has no default")
    if "project" in args and "region" in args:
        yield from check_place(path, args)
    region, zone = args.get("region"), args.get("zone")
    if region and zone:
        yield from check_zone(f"{path}.zone", zone, region)
    cidr = args.get("cidr", CIDR)
    yield from check_cidr(f"{path}.cidr", cidr, f"the range of up to {max(RAILS) + 1} subnets", longest=24)
    others = [(f"{path}.other_cidrs[{index}]", other) for index, other in enumerate(args.get("other_cidrs", []))]
    for where, other in others:
        yield from check_cidr(where, other, "a range of the nodes' first network", longest=32)
        yield from check_apart([(f"{path}.cidr", cidr), (where, other)])
