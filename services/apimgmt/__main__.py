"""Serve API management: `python -m services.apimgmt --config-file PATH`."""

import argparse
import sys
from pathlib import Path

from services.apimgmt.service import ApiManagementService
from services.extproc.serve import main
from services.extproc.service import Service

DEFAULT_PORTS = {"grpc_port": 9006, "health_port": 9007}

ADMIN_PORT = 9010


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of API management (docs/architecture.md)."""
    add = parser.add_argument
    add("--admin-port", type=int, default=ADMIN_PORT, metavar="N", help="admin API and portal (default: %(default)s)")
    add("--admin-address", default="127.0.0.1", metavar="IP", help="address of the admin API (default: %(default)s)")
    add("--guardrails-file", type=Path, metavar="PATH", help="config of guardrails in the same stream (default: none)")


def build(flags: argparse.Namespace) -> Service:
    """Make the service from its flags and the environment. Raises ConfigError."""
    return ApiManagementService(flags)


if __name__ == "__main__":
    sys.exit(main("api-management", build, add_arguments, DEFAULT_PORTS))
