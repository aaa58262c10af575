"""What a callout process serves."""

from collections.abc import Sequence

from services.extproc.api import Filter
from services.extproc.limits import Limits


class Service:
    """What a callout does. Subclass it, or hand filters to it where there is nothing to start or stop.

    `start` and `stop` run on the event loop that serves; `filters` and `limits` are read after `start`.
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
