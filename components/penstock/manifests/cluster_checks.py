"""What `InferenceCluster` refuses. Knows nothing of Pulumi."""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import ConfigError, did_you_mean
from . import versions
from .accelerators import CATALOGUE, check_accelerator
from .cluster import CHANNEL, LOGGING, LOGGING_MORE, MONITORING, MONITORING_MORE, cpu_nodes, readable_repositories
from .common import check_range, check_word
from .location import check_labels, check_name, check_place

if TYPE_CHECKING:
    from ..cluster import AuthorizedNetwork, InferenceClusterArgs, MaintenanceWindow

NAME_MAX = 24
"""With `-nodes` behind it a service account's id has at most 30 characters. Source: IAM, "Create service accounts"."""

CHANNELS = ("RAPID", "REGULAR", "STABLE", "EXTENDED")
"""Release channels. Source: GKE, "About release channels"; a cluster outside of them misses features and fixes."""

SYSTEM = "SYSTEM_COMPONENTS"
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(Z|[+-]\d{2}:\d{2})", re.ASCII)
_MACHINE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")


def problems(args: "InferenceClusterArgs", path: str) -> Iterator[ConfigError]:
    """Yield every reason why `args` cannot make a cluster."""
    yield from check_name(f"{path}.name", args["name"], NAME_MAX, "the service account `<name>-nodes` has at most 30")
    yield from check_place(path, args)
    yield from check_labels(f"{path}.labels", args.get("labels", {}))
    yield from _version_problems(args, path)
    yield from _endpoint_problems(args, path)
    known = {"logging_components": (LOGGING, LOGGING_MORE), "monitoring_components": (MONITORING, MONITORING_MORE)}
    for field, (usual, more) in known.items():
        chosen: Iterable[str] = args.get(field, ())  # type: ignore[assignment]
        yield from _component_problems(f"{path}.{field}", chosen, (*usual, *more))
    if args.get("maintenance_window"):
        yield from _window_problems(args["maintenance_window"], f"{path}.maintenance_window")
    yield from _cpu_pool_problems(args, f"{path}.cpu_pool")
    yield from _repository_problems(args, f"{path}.repositories")


def _version_problems(args: "InferenceClusterArgs", path: str) -> Iterator[ConfigError]:
    features, accelerators = args.get("features", []), args.get("accelerators", [])
    channel = args.get("release_channel", CHANNEL)
    yield from versions.problems(f"{path}.min_version", args["min_version"], features, accelerators)
    yield from versions.check_features(f"{path}.features", features)
    for index, name in enumerate(accelerators):
        yield from check_accelerator(f"{path}.accelerators[{index}]", name)
    if channel not in CHANNELS:
        yield ConfigError(f"{path}.release_channel", channel, "a release channel", did_you_mean(channel, CHANNELS))
    else:
        yield from versions.channel_problems(f"{path}.release_channel", channel, features)
    if "fqdn-policy" in features and not args.get("fqdn_network_policy", True):
        yield ConfigError(f"{path}.fqdn_network_policy", False, "true, for feature `fqdn-policy`", "Turn it on")


def _endpoint_problems(args: "InferenceClusterArgs", path: str) -> Iterator[ConfigError]:
    where, networks = f"{path}.authorized_networks", args.get("authorized_networks", [])
    if networks and not args.get("ip_endpoint"):
        fix = "Turn `ip_endpoint` on, or remove it: the DNS endpoint is guarded by IAM"
        yield ConfigError(where, len(networks), "an IP endpoint that it could guard", fix)
    if args.get("ip_endpoint") and not networks:
        fix = "List `authorized_networks`, or turn it off and use the DNS endpoint"
        yield ConfigError(f"{path}.ip_endpoint", True, "`authorized_networks`: without them all of the internet", fix)
    for index, network in enumerate(networks):
        yield from _network_problems(network, f"{where}[{index}].cidr")


def _network_problems(network: "AuthorizedNetwork", path: str) -> Iterator[ConfigError]:
    try:
        parsed = ipaddress.IPv4Network(network["cidr"])
    except ValueError:
        yield ConfigError(path, network["cidr"], "an IPv4 range without host bits", "Write it like `203.0.113.0/24`")
        return
    if parsed.prefixlen == 0:
        yield ConfigError(
            path, network["cidr"], "less than all of the internet", "Name the ranges of those who connect"
        )


def _component_problems(path: str, chosen: Iterable[str], known: tuple[str, ...]) -> Iterator[ConfigError]:
    names = list(chosen)
    for index, name in enumerate(names):
        yield from check_word(f"{path}[{index}]", name, known, "a component of GKE")
    if names and SYSTEM not in names:
        yield ConfigError(path, names, f"`{SYSTEM}` among them, which GKE asks for beside any other", "Add it")


def _window_problems(window: "MaintenanceWindow", path: str) -> Iterator[ConfigError]:
    for field, value in (("start", window["start"]), ("end", window["end"])):
        if not _TIME.fullmatch(value):
            yield ConfigError(f"{path}.{field}", value, "a time by RFC 3339", "Write it like `2026-01-03T01:00:00Z`")
    if not window["recurrence"].startswith("FREQ="):
        expected = "a recurrence by RFC 5545"
        yield ConfigError(f"{path}.recurrence", window["recurrence"], expected, "Write it like `FREQ=WEEKLY;BYDAY=SA`")


def _cpu_pool_problems(args: "InferenceClusterArgs", path: str) -> Iterator[ConfigError]:
    pool = args.get("cpu_pool", {})
    low, high = cpu_nodes(args)
    yield from check_range(f"{path}.min_nodes", low, 1, 1000, "nodes")
    yield from check_range(f"{path}.max_nodes", high, 1, 1000, "nodes")
    if low > high:
        yield ConfigError(f"{path}.min_nodes", low, f"at most `max_nodes`, {high}", "Lower it, or raise `max_nodes`")
    if "disk_gib" in pool:
        yield from check_range(f"{path}.disk_gib", pool["disk_gib"], 20, 65536, "GiB of boot disk")
    machine = pool.get("machine_type")
    if machine is None:
        return
    if not _MACHINE.fullmatch(machine):
        yield ConfigError(f"{path}.machine_type", machine, "a machine type", "Write it like `n2-standard-8`")
    elif any(item.machine(machine) for item in CATALOGUE.values()):
        fix = "Choose a machine without accelerators, and declare an AcceleratorPool for these"
        yield ConfigError(f"{path}.machine_type", machine, "a machine without accelerators", fix)


def _repository_problems(args: "InferenceClusterArgs", path: str) -> Iterator[ConfigError]:
    seen: set[str] = set()
    for index, (role, repository) in enumerate(readable_repositories(args)):
        if role in seen:
            expected = "every location and name once"
            yield ConfigError(f"{path}[{index}]", dict(repository), expected, "Remove it")
        seen.add(role)
