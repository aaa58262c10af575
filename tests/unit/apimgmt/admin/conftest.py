from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.apimgmt import declared
from services.apimgmt.admin.app import create_app
from services.apimgmt.admin.context import AdminContext
from services.apimgmt.admin.server import start_admin_server
from services.apimgmt.store.sqlite import SqliteStore
from tests.unit.apimgmt.admin.support import NOW, PEPPER, TOKEN, Api, settings, sqlite


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """The admin API on a free port of 127.0.0.1, over a SQLite store with what `support.settings` declares."""
    store = SqliteStore(sqlite(tmp_path))
    await store.open()
    config = settings(tmp_path)
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
