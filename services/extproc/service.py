"""What a callout process serves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.extproc.api import Filter
from services.extproc.limits import Limits


class Service:
    """What a callout does. Subclass it, or hand filters to it where there is nothing to start, stop or reload.

    `start` and `stop` run on the event loop that serves; `filters` and `limits` are read after `start`, and after each
    `apply`: exchanges that are open keep those that they began with.
    """

    files: Sequence[Path] = ()
    """Config files that are watched (`reload.py`), which may be replaced while the process runs."""

    def __init__(self, filters: Sequence[Filter] = (), limits: Limits | None = None) -> None:
        self.filters: Sequence[Filter] = filters
        """In the order of the request; the response passes them in reverse."""
        self.limits = limits or Limits()

    async def start(self) -> None:
        """Begin background work. Called once, before the first exchange."""

    async def stop(self) -> None:
        """End background work. Called once, after the last exchange."""

    def load(self) -> Any:
        """Read and check `files`; return what `apply` takes. Changes nothing, since it runs beside the event loop.

        Raises:
            ConfigError: with every problem found; what is in use then stays.
        """

    def apply(self, config: Any) -> None:
        """Put what `load` returned to work: set new `filters` and `limits`. Must not fail."""

    def ready(self) -> bool:
        """Tell whether requests can be served; polled about four times a second, drives gRPC health."""
        return True
