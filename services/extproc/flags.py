"""The flags that every callout process has (docs/architecture.md, "Callout processes")."""

import argparse
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PORTS = ("grpc_port", "health_port", "metrics_port")
DEFAULTS: Mapping[str, object] = {"grpc_port": 9004, "health_port": 9005, "metrics_port": 9090}
MAX_PROCESSES = 256


def parse(
    name: str,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None,
    defaults: Mapping[str, object],
    argv: Sequence[str] | None,
) -> argparse.Namespace:
    """Parse and check the flags. Exits with code 2 and one message for flags that cannot be used."""
    parser = argparse.ArgumentParser(f"penstock {name}", description=f"Serve the {name} callout (ext_proc over gRPC).")
    _add(parser)
    if add_arguments is not None:
        add_arguments(parser)
    parser.set_defaults(**{**DEFAULTS, **defaults})
    flags = parser.parse_args(argv)
    problems = _problems(flags)
    if problems:
        parser.error("; ".join(problems))
    return flags


def for_worker(flags: argparse.Namespace, worker: int) -> argparse.Namespace:
    """Return the flags of worker `worker` (from 0): each fixed port moves up by its number."""
    copy = argparse.Namespace(**vars(flags))
    for port in PORTS:
        if getattr(flags, port):
            setattr(copy, port, getattr(flags, port) + worker)
    return copy


def _add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--config-file", type=Path, required=True, metavar="PATH", help="YAML config of the service")
    add("--address", default="127.0.0.1", metavar="IP", help="address to bind (default: %(default)s)")
    add("--grpc-port", type=int, metavar="N", help="ext_proc (default: %(default)s; 0 takes a free port)")
    add("--health-port", type=int, metavar="N", help="plaintext gRPC health (default: %(default)s)")
    add("--metrics-port", type=int, metavar="N", help="HTTP /metrics and /healthz (default: %(default)s)")
    add("--tls-mode", choices=("self-signed", "files", "off"), default="self-signed", help="(default: %(default)s)")
    add("--tls-dir", type=Path, metavar="PATH", help="folder with tls.crt and tls.key, for --tls-mode files")
    add("--processes", type=int, default=1, metavar="N", help="worker i listens on each port + i (default: 1)")
    add("--drain-timeout", type=float, default=30.0, metavar="S", help="seconds to finish open streams (default: 30)")
    add("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(default: %(default)s)")


def _problems(flags: argparse.Namespace) -> list[str]:
    found = [
        f"--{port.replace('_', '-')} {getattr(flags, port)}: expected 0 to 65535"
        for port in PORTS
        if not 0 <= getattr(flags, port) <= 65535
    ]
    if not 1 <= flags.processes <= MAX_PROCESSES:
        found.append(f"--processes {flags.processes}: expected 1 to {MAX_PROCESSES}")
    if not 0 <= flags.drain_timeout <= 86400:
        found.append(f"--drain-timeout {flags.drain_timeout}: expected 0 to 86400 seconds")
    if flags.tls_mode == "files" and flags.tls_dir is None:
        found.append("--tls-mode files: expected --tls-dir, the folder with tls.crt and tls.key")
    try:
        ipaddress.ip_address(flags.address)
    except ValueError:
        found.append(f"--address {flags.address!r}: expected an IP address, for example 127.0.0.1")
    return found or _overlaps(flags)


def _overlaps(flags: argparse.Namespace) -> list[str]:
    """Tell which ports two workers, or two services of one, would share."""
    owner: dict[int, str] = {}
    for worker in range(flags.processes):
        for port in PORTS:
            number = getattr(for_worker(flags, worker), port)
            what = f"--{port.replace('_', '-')} of worker {worker}"
            if number > 65535:
                return [f"{what} would be {number}: choose a lower port or fewer --processes"]
            if number and number in owner:
                gap = f"leave {flags.processes} between the ports" if flags.processes > 1 else "choose another"
                return [f"port {number} is both {owner[number]} and {what}: {gap}"]
            owner[number] = what
    return []
