"""Serve the body router: `python -m services.bodyrouter --config-file PATH`."""

import argparse
import sys

from services.bodyrouter.service import BodyRouterService
from services.extproc.serve import Service, main

DEFAULT_PORTS = {"grpc_port": 9004, "health_port": 9005}
"""Ports of body based routing on GKE: ext_proc 9004, health 9005."""


def build(flags: argparse.Namespace) -> Service:
    """Make the service from its flags."""
    return BodyRouterService(flags.config_file)


if __name__ == "__main__":
    sys.exit(main("body-router", build, defaults=DEFAULT_PORTS))
