"""`python -m services.picker`: the endpoint picker of one pool."""

import argparse
import sys
from pathlib import Path

from services.extproc.serve import main
from services.extproc.service import Service
from services.picker.config import parse_duration
from services.picker.discovery import parse_source
from services.picker.service import PickerService


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the picker's own flags (docs/architecture.md)."""
    add = parser.add_argument
    add("--pool-name", required=True, metavar="NAME", help="InferencePool that this picker serves")
    add("--pool-namespace", default="default", metavar="NS", help="its namespace (default: %(default)s)")
    add("--replicas", required=True, metavar="SOURCE", help="kubernetes, dns:HOST:PORT or file:PATH")
    add("--kubeconfig", type=Path, metavar="PATH", help="API server of --replicas kubernetes (default: the pod's own)")
    add("--objectives-file", type=Path, metavar="PATH", help="priorities by objective (default: none, all are 0)")
    add(
        "--refresh-metrics-interval",
        type=_interval,
        default="50ms",
        metavar="D",
        help="time between two readings of a replica's metrics, at least 10ms (default: %(default)s)",
    )


def build(flags: argparse.Namespace) -> Service:
    """Make the service from the flags. Raises ConfigError."""
    source = parse_source(flags.replicas, flags.pool_name, flags.pool_namespace, flags.kubeconfig)
    return PickerService(flags.config_file, flags.objectives_file, source, flags.refresh_metrics_interval)


def _interval(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 0.01 <= seconds <= 60:
        raise argparse.ArgumentTypeError(f"{text}: expected 10ms to 1m")
    return seconds


if __name__ == "__main__":
    sys.exit(main("picker", build, add_arguments, {"grpc_port": 9002, "health_port": 9003}))
