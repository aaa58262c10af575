"""The command line and the life of a callout process.

A service's `__main__.py` is `sys.exit(main("body-router", build, defaults={"grpc_port": 9004}))`.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence

from services.extproc.api import Filter
from services.extproc.limits import Limits


class Service:
    """What a callout does. Subclass it, or hand filters to it where there is nothing to start or stop.

    `start` and `stop` run on the event loop that serves; `filters` is read after `start`.
    """

    def __init__(self, filters: Sequence[Filter] = (), limits: Limits | None = None) -> None:
        self.filters: Sequence[Filter] = filters
        """In the order of the request; the response passes them in reverse."""
        self.limits = limits or Limits()

    async def start(self) -> None:
        """Begin background work. Called once, before the first exchange."""

    async def stop(self) -> None:
        """End background work. Called once, after the last exchange."""

    def ready(self) -> bool:
        """Tell whether requests can be served; polled about four times a second, drives gRPC health."""
        return True


def main(
    name: str,
    build: Callable[[argparse.Namespace], Service],
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
    defaults: Mapping[str, object] | None = None,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse the flags of docs/architecture.md, build the service, serve until told to stop; return the exit code.

    Args:
        name: what the process is, for logs and help, e.g. `body-router`.
        build: makes the service from the parsed flags; raises `ConfigError` for a config that cannot be used. Called
            before worker processes are forked: it must not start threads, event loops or gRPC.
        add_arguments: adds the service's own flags.
        defaults: defaults of flags by attribute name, e.g. `{"grpc_port": 9004, "health_port": 9005}`.
        argv: arguments without the program's name; None reads `sys.argv`.

    Returns:
        0 after a graceful stop, 1 when something broke, 2 for wrong flags or config.
    """
    raise NotImplementedError
