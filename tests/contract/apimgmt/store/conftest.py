"""The same tests for every store: where it is, one opened, and more openings of the same data."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from services.apimgmt.store.api import Store
from tests.contract.apimgmt.store.support import Place
from tests.support.valkey import NoServer, valkey_place

Opener = Callable[[], Awaitable[Store]]


@pytest.fixture(params=["sqlite", "valkey"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty store: settings and environment with which any process opens it."""
    if request.param == "sqlite":
        yield Place({"kind": "sqlite", "path": str(tmp_path / "data" / "store.db")}, {})
        return
    try:
        with valkey_place(tmp_path) as (settings, environ):
            yield Place(settings, environ)
    except NoServer as missing:
        pytest.skip(str(missing))


@pytest.fixture
async def another(place: Place) -> AsyncIterator[Opener]:
    """Opens the store once more, as another process would."""
    stores: list[Store] = []

    async def open_() -> Store:
        store = place.store()
        await store.open()
        stores.append(store)
        return store

    yield open_
    for store in stores:
        await store.close()


@pytest.fixture
async def store(another: Opener) -> Store:
    """The store under test."""
    return await another()
