"""Keeps what the estimator has learned beyond the process: a note in the store."""

import asyncio
import logging

import orjson

from services.apimgmt.store.api import Conflict, Store, StoreError
from services.apimgmt.usage.estimator import Estimator

NOTE = "estimator"
WRITE_S = 60.0
"""Time between two writings, seconds."""

logger = logging.getLogger("penstock.apimgmt")


class Learning:
    """One per process. Of several processes each writes what it learned; the latest stays."""

    def __init__(self, store: Store, estimator: Estimator) -> None:
        self._store, self._estimator = store, estimator
        self._written = b""

    async def read(self) -> None:
        """Take over what is noted. Raises StoreError."""
        _, value = await self._store.note(NOTE)
        if value:
            try:
                state = orjson.loads(value)
            except ValueError:
                return
            if isinstance(state, dict):
                self._estimator.load(state)
            self._written = value

    async def run(self) -> None:
        """Note it every now and then, until cancelled."""
        while True:
            await asyncio.sleep(WRITE_S)
            await self.write()

    async def write(self) -> None:
        """Note it now. Failing is logged only: it will be learned again."""
        value = orjson.dumps(self._estimator.export())
        if value == self._written:
            return
        try:
            version, _ = await self._store.note(NOTE)
            await self._store.put_note(NOTE, value, version)
            self._written = value
        except Conflict:
            pass  # another process wrote meanwhile
        except StoreError as error:
            logger.warning("what was learned could not be noted", extra={"error": str(error)})
