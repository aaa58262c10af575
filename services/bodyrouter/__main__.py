"""Serve the body router: `python -m services.bodyrouter --config-file PATH`."""

import argparse
import sys

from services.bodyrouter.filter import BodyRouter
from services.bodyrouter.settings import Settings
from services.extproc.config import load_config
from services.extproc.limits import Limits
from services.extproc.serve import Service, main

DEFAULT_PORTS = {"grpc_port": 9004, "health_port": 9005}
"""Ports of body based routing on GKE: ext_proc 9004, health 9005."""


def build(flags: argparse.Namespace) -> Service:
    """Make the service from its flags. Raises ConfigError."""
    settings = load_config(flags.config_file, Settings)
    return Service([BodyRouter(settings)], Limits(max_body_bytes=settings.max_body_bytes))


if __name__ == "__main__":
    sys.exit(main("body-router", build, defaults=DEFAULT_PORTS))
