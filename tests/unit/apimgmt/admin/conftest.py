from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.apimgmt import declared
from services.apimgmt.admin.app import create_app
from services.apimgmt.admin.context import AdminContext
from services.apimgmt.admin.server import start_admin_server
from services.apimgmt.settings import Settings
from services.apimgmt.store import open_store
from tests.unit.apimgmt.admin.support import NOW, PEPPER, TOKEN, Api, settings


@asynccontextmanager
async def serve(config: Settings) -> AsyncIterator[Api]:
    """Serve the admin API on a free port of 127.0.0.1, over a SQLite store with what `config` declares."""
    store = open_store(config.store, {})
    await store.open()
    await declared.apply(store, config, NOW)
    api = Api(AdminContext(store, config, PEPPER, lambda: float(api.now), TOKEN))
    server = await start_admin_server(create_app(api.context), "127.0.0.1", 0, None)
    await api.connect(server.port)
    try:
        yield api
    finally:
        await api.close()
        await server.close()
        await store.close()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """The admin API with what `support.DECLARED` declares."""
    async with serve(settings(tmp_path)) as api:
        yield api
