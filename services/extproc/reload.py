"""Hot reload of config files: a changed one is checked and put to work, a wrong one is named and has no effect."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from prometheus_client import Counter, Gauge

from services.extproc.config import ConfigError
from services.extproc.files import POLL_S, Stamp, file_stamp
from services.extproc.service import Service

RELOADS = Counter("penstock_extproc_config_reload", "Config files that changed, by what became of them", ["result"])
REFUSED = Gauge("penstock_extproc_config_refused", "1 while the files hold a config that is refused, else 0")
LOADED_AT = Gauge("penstock_extproc_config_loaded_timestamp_seconds", "When the config in use was loaded (Unix time)")
VERSION = Gauge("penstock_extproc_config_info", "The config in use, as a digest of its files", ["version"])
for _result in ("accepted", "refused"):
    RELOADS.labels(_result)

logger = logging.getLogger("penstock.extproc")


def digest(files: Mapping[str, str]) -> str:
    """Return the version of a config: a digest of its files by name. Equal to the one of the ConfigMap's data."""
    joined = "\0".join(f"{name}\0{text}" for name, text in sorted(files.items()))
    return hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest()[:16]


class Reloader:
    """Loads the config of one service, and watches its files."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stamp: Stamp = ()
        self.version = ""
        """Digest of the config in use; empty where there are no files."""
        self._seen = ""
        """Digest of what was looked at last, good or not."""

    def first(self) -> None:
        """Load and apply what is there at start. Raises ConfigError."""
        service = self._service
        self._stamp = file_stamp(service.files)  # before reading, so that no change between falls through
        self._seen = _version(service.files)
        service.apply(service.load())
        self._accept()

    async def run(self, on_applied: Callable[[], None]) -> None:
        """Look at the files until cancelled; `on_applied` is called when the service has a new config at work."""
        while self._service.files:
            await asyncio.sleep(POLL_S)
            if await self.look():
                on_applied()

    async def look(self) -> bool:
        """Look once: load what changed, and apply or refuse it. Return whether something new is in use."""
        stamp = file_stamp(self._service.files)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        version = await asyncio.to_thread(_version, self._service.files)
        if version in (self._seen, self.version):  # touched only, or back to what is in use
            self._seen = version
            REFUSED.set(version != self.version)
            return False
        self._seen = version
        try:
            self._service.apply(await asyncio.to_thread(self._service.load))
        except ConfigError as error:
            self._refuse(error.source, [asdict(problem) for problem in error.problems])
            return False
        except Exception as error:
            logger.exception("a config could not be loaded")
            self._refuse("config", [{"expected": "a config that can be loaded", "value": type(error).__name__}])
            return False
        self._accept()
        RELOADS.labels("accepted").inc()
        logger.info("config reloaded", extra={"config_version": self.version})
        return True

    def _accept(self) -> None:
        self.version = self._seen
        REFUSED.set(0)
        if self.version:
            VERSION.clear()
            VERSION.labels(self.version).set(1)
            LOADED_AT.set(time.time())

    def _refuse(self, source: str, problems: Sequence[Mapping[str, str]]) -> None:
        RELOADS.labels("refused").inc()
        REFUSED.set(1)
        extra = {"file": source, "config_version": self.version, "problems": problems}
        logger.error("config refused, the last good one stays in use", extra=extra)


def _version(files: Sequence[Path]) -> str:
    if not files:
        return ""
    texts: dict[str, str] = {}
    for path in files:
        try:
            texts[path.name] = path.read_bytes().decode("utf-8", "surrogateescape")
        except OSError as error:
            texts[path.name] = f"\0{error.errno}"  # not there: a version of its own
    return digest(texts)
