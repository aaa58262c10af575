"""A process that exports until it is killed: `python -m tests.unit.apimgmt.export.worker JSON`. It tells each step."""

import asyncio
import json
import os
import sys
import time
from typing import Any

from services.apimgmt.store.api import Store
from tests.contract.apimgmt.store.support import Place
from tests.unit.apimgmt.export.support import exporter


async def main(arguments: dict[str, Any]) -> None:
    store: Store = Place(arguments["settings"], arguments["environ"]).store()
    await store.open()
    export = exporter(store, arguments["url"], time.time, max_records=20, interval_seconds=1)
    export._lease_s = 0.2
    while True:
        wait = await export.step()
        os.write(1, b"step\n")
        await asyncio.sleep(min(wait, 0.01))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
