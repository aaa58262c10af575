"""A store in a file."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.apimgmt.settings import SqliteStore as Settings
from services.apimgmt.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.db"


def store_at(path: Path) -> SqliteStore:
    return SqliteStore(Settings(kind="sqlite", path=str(path)))


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = store_at(path)
    await store.open()
    yield store
    await store.close()
