"""The same tests for every store: where it is, one opened, and more openings of the same data."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from services.apimgmt.store.api import Store
from tests.contract.apimgmt.store.support import Place
from tests.support.places import place

__all__ = ["place"]

Opener = Callable[[], Awaitable[Store]]


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
