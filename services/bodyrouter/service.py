"""The body router as a service: its filter, made anew when its config file changes."""

import time
from pathlib import Path

from services.bodyrouter.filter import BodyRouter, Counts
from services.bodyrouter.settings import Settings
from services.extproc.config import load_config
from services.extproc.limits import Limits
from services.extproc.service import Service


class BodyRouterService(Service):
    """Serves by the settings in `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.files = (path,)
        self._counts, self._created = Counts(), int(time.time())

    def load(self) -> Settings:
        """Read the settings. Raises ConfigError."""
        return load_config(self.files[0], Settings)

    def apply(self, config: Settings) -> None:
        """Route by `config` from now on."""
        self.filters = [BodyRouter(config, self._counts, self._created)]
        self.limits = Limits(max_body_bytes=config.max_body_bytes)
